"""The process that writes the trail: it takes records from the ring, and ends when the daemon has and all is written.

    python -m isofs.audit.writer MOUNT RING FOLDER_FD WAKE_FD

What comes through WAKE_FD, one line each, wakes it, or is a JSON object with the limits from then on.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import pwd
import select
import signal
import struct
import sys
import time
from collections.abc import Iterator

from isofs.audit import chain, record
from isofs.audit.appending import Appender, Limits
from isofs.audit.counting import ReadSets
from isofs.audit.record import Record
from isofs.audit.ring import Ring, taking

#: Seconds in which records gather before they are written, and between two times that they are put on the disk.
GATHER, SYNC = 0.05, 1.0

#: Seconds after which what failed is tried again, and for which it is once the daemon has ended.
AGAIN, LAST = 1.0, 10.0

#: Seconds after which there is another look for what is too old.
_TIDY = 3600.0

#: Bytes of pieces that are written at once.
_TOGETHER = 1 << 20


class Drain:
    """From the ring into the files."""

    def __init__(self, ring: Ring, folder: int, mount: str, limits: Limits) -> None:
        self._ring, self._mount = ring, mount
        self.appender, self._reads = Appender(folder, limits), ReadSets(folder)

    def drain(self) -> bool:
        """Write what is in the ring; whether there was anything. OSError if it cannot be written: it stays there."""
        some = False
        for found, position in self._pieces():
            self.appender.append((one.sequence, record.line(one, self._mount, _user)) for one in found)
            self._reads.note(found)
            self._ring.done(position)
            some = True
        return some

    def _pieces(self) -> Iterator[tuple[list[Record], int]]:
        found: list[Record] = []
        size, last = 0, self.appender.sequence
        for piece, position in self._ring.waiting():
            one = _unpacked(piece) or _damaged(last + 1)
            last = one.sequence
            found.append(one)
            size += len(piece or b"")
            if size > _TOGETHER:
                yield found, position
                found, size = [], 0
        if found:
            yield found, position

    def sync(self) -> None:
        """Have on the disk what was written."""
        self._reads.sync()
        self.appender.sync()

    def close(self) -> None:
        self._reads.close()
        self.appender.close()


def _unpacked(piece: bytes | None) -> Record | None:
    """The record in a piece; None if it is no record, which must not keep those after it from being written."""
    try:
        return None if piece is None else record.unpacked(piece)
    except (ValueError, EOFError, TypeError, AttributeError, struct.error):
        return None


def _damaged(sequence: int) -> Record:
    return Record(sequence, time.time_ns(), record.GAP, 0, 0, None, None, 0, 0, 0, None, {"facts": {"damaged": 1}})


@functools.lru_cache(maxsize=4096)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


@contextlib.contextmanager
def locked(folder: int) -> Iterator[None]:
    """Wait until nobody else writes the trail: an earlier daemon's writer, which has little left to write."""
    lock = os.open(chain.LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def drain_once(ring: Ring, folder: int, mount: str, limits: Limits) -> None:
    """Write what is in the ring, in the process that put it there, which ends."""
    with locked(folder), contextlib.closing(Drain(ring, folder, mount, limits)) as drain:
        drain.drain()
        drain.sync()


class _Wakes:
    """What comes from the daemon while this process sleeps."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._rest = b""
        self.ended = False
        self.limits: Limits | None = None

    def wait(self, seconds: float) -> None:
        """Sleep until there is something, for so many seconds at most."""
        if not self._poll.poll(seconds * 1000):
            return
        data = os.read(self._descriptor, 1 << 16)
        if not data:
            self.ended = True
            self._poll.unregister(self._descriptor)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in filter(None, lines):
            self.limits = Limits(**json.loads(line))


def write(ring: Ring, folder: int, mount: str, wakes: _Wakes) -> None:
    """Write the trail until the daemon has ended and everything is written."""
    while wakes.limits is None and not wakes.ended:
        wakes.wait(_TIDY)
    with contextlib.closing(Drain(ring, folder, mount, wakes.limits or Limits())) as drain:
        appender, synced, tidied, deadline = drain.appender, 0.0, 0.0, 0.0
        while True:
            appender.limits = wakes.limits or appender.limits
            try:
                some = drain.drain()
                now = time.monotonic()
                if appender.dirty and (now - synced >= SYNC or wakes.ended):
                    drain.sync()
                    synced = now
                if appender.untidy or now - tidied >= _TIDY:
                    appender.tidy()
                    tidied = now
            except OSError as error:
                print(f"the audit trail cannot be written: {error.strerror}; trying on", file=sys.stderr, flush=True)
                deadline = deadline or time.monotonic() + LAST
                if wakes.ended and time.monotonic() > deadline:
                    return
                wakes.wait(AGAIN)
                time.sleep(GATHER)
                continue
            deadline = 0.0
            if wakes.ended:
                if not some and ring.sleeps():
                    return
            elif not some and ring.sleeps():
                wakes.wait(max(SYNC - (now - synced), 0) if appender.dirty else _TIDY)
            if not wakes.ended:
                time.sleep(GATHER)


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when the daemon has, and not before
    mount, path, folder, wake = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with locked(folder):
        ring = taking(path)
        if ring is not None:
            write(ring, folder, mount, _Wakes(wake))


if __name__ == "__main__":
    _main()
