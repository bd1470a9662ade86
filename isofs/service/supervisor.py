"""A small parent that has a daemon back at once when it dies or hangs.

The daemon tells it how it is by the protocol of systemd (`isofs.service.notify`), and what it says is passed on, if
there is a systemd. While the daemon is away its mount stays, and answers nobody; the next daemon takes its place, so
that no moment passes in which the directory lies open. That one waits already, with all that it needs in memory.

Imports nothing that it does not need: it is there for as long as the mount is.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence

log = logging.getLogger(__name__)

#: Seconds to look back, and how many ends of a daemon in them are too many.
WINDOW, MOST = 60.0, 5

#: Seconds that a daemon is silent before it is taken to hang.
WATCHDOG = 60.0

#: Seconds to wait before the next daemon after so many that ended in the window; then the last of them.
_PAUSES = (0.0, 0.0, 0.5, 1.0, 2.0)

_CREDENTIALS = struct.Struct("iII")


class _Daemon:
    """One daemon process, which waits for `begin`, and what it said of itself."""

    def __init__(self, words: Sequence[str], listener: socket.socket, watchdog: float, ready: int = -1) -> None:
        self._listener, self._watchdog = listener, watchdog
        environment = {**os.environ, "NOTIFY_SOCKET": "@" + listener.getsockname()[1:].decode()}
        environment["WATCHDOG_USEC"] = str(round(watchdog * 1e6))
        environment.pop("WATCHDOG_PID", None)
        waits, self._begin = os.pipe()
        told = [] if ready < 0 else ["--ready", str(ready)]
        self._process = subprocess.Popen(
            [*words, "--wait", str(waits), *told],
            env=environment,
            pass_fds=(waits, *([] if ready < 0 else [ready])),
            stdin=subprocess.DEVNULL,
        )
        os.close(waits)
        self.pid, self.ready, self._heard = self._process.pid, False, 0.0

    def begin(self) -> None:
        """Let it serve."""
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            os.write(self._begin, b".")

    def dismiss(self) -> None:
        """It is not needed any more, or has ended."""
        os.close(self._begin)
        self._process.kill()
        self._process.wait()

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def attend(self) -> int | None:
        """Listen to it for a while, and end it if it hangs. Returns how it ended (negative: by this signal)."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(self.pid)
            poll.register(process, select.POLLIN)
            poll.poll(1000 * min(self._watchdog / 4, 1.0))
            os.close(process)
        self._listen()
        code = self._process.poll()
        if code is None and self._heard and time.monotonic() - self._heard > self._watchdog:
            log.error("daemon %d answers no more, and is killed", self.pid)
            self._process.kill()
            code = self._process.wait()
        return code

    def _listen(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                room = socket.CMSG_SPACE(_CREDENTIALS.size)
                data, more, _, _ = self._listener.recvmsg(4096, room, socket.MSG_DONTWAIT)
                pid = next((_CREDENTIALS.unpack(c[2])[0] for c in more if c[1] == socket.SCM_CREDENTIALS), 0)
                if pid != self.pid:
                    continue  # anybody may write to a socket that is no file
                self._heard = time.monotonic()
                self.ready = self.ready or b"READY=1" in data.split(b"\n")
                _pass_on(data)


def _pass_on(data: bytes) -> None:
    """Say what the daemon says to whoever supervises this process."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(data, "\0" + address[1:] if address.startswith("@") else address)


def _log_beside(pid: int, store: str) -> None:
    """Write the log where the daemon does: in the store, which its mount may hide from everybody else."""
    with contextlib.suppress(OSError):
        opened = os.open(f"/proc/{pid}/root{store}/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for number in (1, 2):
            os.dup2(opened, number)
        os.close(opened)


def supervise(words: Sequence[str], *, watchdog: float = WATCHDOG, ready: int = -1, store: str | None = None) -> int:
    """Run a daemon's command until it ends by itself (exit code 0), and return its exit code.

    The first that does not even begin to serve is not repeated. `ready` is a descriptor for the first alone; `store`
    is where the log is, if that is not standard error.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        listener.bind("")  # the kernel chooses a name
        daemon, spare = _Daemon(words, listener, watchdog, ready), None
        if ready >= 0:
            os.close(ready)
        ends: list[float] = []
        stopping: list[int] = []

        def stop(number: int, _frame: object) -> None:
            stopping.append(number)
            daemon.send(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        signal.signal(signal.SIGHUP, lambda number, _: daemon.send(number))
        served = False
        while True:
            daemon.begin()
            while (code := daemon.attend()) is None:
                if daemon.ready and spare is None:
                    if store is not None:
                        _log_beside(daemon.pid, store)
                    spare = _Daemon(words, listener, watchdog)
            served = served or daemon.ready
            daemon.dismiss()
            now = time.monotonic()
            ends = [*(end for end in ends if now - end < WINDOW), now]
            if code == 0 or stopping or not served or len(ends) > MOST:
                break
            log.error("daemon %d ended with %d: another one takes its place", daemon.pid, code)
            time.sleep(_PAUSES[min(len(ends), len(_PAUSES)) - 1])
            if stopping:
                break
            daemon, spare = spare or _Daemon(words, listener, watchdog), None
        if spare is not None:
            spare.dismiss()
        if len(ends) > MOST:
            log.critical("gave up: the daemon ended %d times in %d s; its mount answers nobody", len(ends), WINDOW)
        return code if code >= 0 else 128 - code


def _main() -> None:
    """The background supervisor's process. DIRECTORY STORE, and what else the daemon is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("store")
    parser.add_argument("--ready", type=int, default=-1)
    parser.add_argument("--watchdog", type=float, default=WATCHDOG)
    args, more = parser.parse_known_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    words = [sys.executable, "-m", "isofs.service.daemon", args.directory, args.store, *more]
    store = None if "--foreground" in more else args.store
    sys.exit(supervise(words, watchdog=args.watchdog, ready=args.ready, store=store))


if __name__ == "__main__":
    _main()
