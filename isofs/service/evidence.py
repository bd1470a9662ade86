"""Writing the evidence of a malicious verdict: in a thread, verified and durable before anything is discarded."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import trio

from isofs.control import mounts, wire
from isofs.engine.state import Filesystem
from isofs.errors import ArchiveUnusable, EvidenceFailed, UsageError
from isofs.merge.evidence import Collected, collect
from isofs.model.records import Op, Subject
from isofs.store import archive
from isofs.store.folder import Store

SUFFIX = ".tar.zst"

#: Seconds of collecting at a stretch, before others are served.
_SLICE = 0.005

#: Seconds between two words about progress.
_TELL = 0.1

#: Seconds that a thread may keep Python to itself while the evidence is written; 5 ms otherwise.
_SWITCH = 0.0005

_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Where:
    """Where the archive comes to lie, and where it is written: names below open directories; and how to show it."""

    directory: int
    name: bytes
    scratch_directory: int
    scratch: bytes
    path: str


@contextlib.contextmanager
def in_store(store: Store, stem: str) -> Iterator[Where]:
    """A new name in the store's own folder. What a kill leaves is removed at the next start."""
    folder = store.folders[b"evidence"]
    # By what a name may be everywhere: it is typed, and it may have been chosen by whoever is accused.
    plain = re.sub(r"[^A-Za-z0-9_.+-]", "_", stem)[:200]
    name, number = plain + SUFFIX, 1
    while os.path.lexists(f"/proc/self/fd/{folder}/{name}"):
        number += 1
        name = f"{plain}-{number}{SUFFIX}"
    scratch = store.staged()
    yield Where(folder, name.encode(), scratch.directory, scratch.name, os.path.join(store.path, "evidence", name))


@contextlib.contextmanager
def in_file(path: bytes, pid: int, mount: str) -> Iterator[Where]:
    """A new file where the process `pid` has this path: what it has mounted, the daemon need not have.

    UsageError if there is something already, or no directory to put it in, or it would lie in the mount itself.
    """
    shown = path.decode("utf-8", "backslashreplace")
    folder, name = os.path.split(path)
    if not path.startswith(b"/") or not name:
        raise UsageError(f"{shown} is no absolute path of a file")
    if mounts.within(mount, os.fsdecode(path)):
        raise UsageError(f"{shown} lies in {mount}, where the evidence would be visible: give another --evidence")
    try:
        opened = _open_folder(pid, folder)
    except OSError as error:
        raise UsageError(f"{shown} cannot be made: {error.strerror}") from None
    try:
        if os.path.lexists(b"/proc/self/fd/%d/%b" % (opened, name)):
            raise UsageError(f"{shown} exists already: give another --evidence")
        yield Where(opened, name, opened, b".%b.partial" % name[:200], os.fsdecode(path))
    finally:
        os.close(opened)


def _open_folder(pid: int, folder: bytes) -> int:
    """The directory at an absolute path without links, as a process sees it."""
    at = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in filter(None, folder.split(b"/")):
        try:
            below = os.open(name, _PATH, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at


def _telling(progress: Callable[[int, int], None], total: int, more: int) -> archive.Moved:
    """What tells from a thread how far it is of `total`, with `more` steps to come after it; ends it if cancelled."""
    done, told = 0, -_TELL

    def moved(count: int) -> None:
        nonlocal done, told
        done += count
        now = time.monotonic()
        if now - told >= _TELL:
            told = now
            trio.from_thread.check_cancelled()
            trio.from_thread.run_sync(progress, min(done, total), total + more)

    return moved


@dataclass(frozen=True, slots=True)
class Evidence:
    """An archive that is verified and durable: where, its size, whether in the store, and what it weighed to write."""

    path: str
    size: int
    in_store: bool
    weight: int


async def keep(
    fs: Filesystem,
    subject: Subject,
    args: Mapping[str, object],
    about: Mapping[str, object],
    mount: str,
    progress: Callable[[int, int], None],
    accepted: Collection[Op] = frozenset(),
) -> Evidence:
    """Write the evidence of a subject, whose calls wait. What of it may not be where `args` say: UsageError.

    `accepted` are objects that will not be discarded: the archive has them and says so.
    """
    file = wire.optional(args, "evidence", str)
    found = Collected()
    last = trio.current_time()
    for _ in collect(fs, subject.sid, found, accepted):
        if trio.current_time() - last > _SLICE:
            await trio.lowlevel.checkpoint()
            last = trio.current_time()
    if file is None:
        at = in_store(fs.store, f"{subject.sid}-{subject.name}-{subject.since.replace(':', '')}")
    else:
        at = in_file(wire.path_bytes(file), wire.optional(args, "pid", int) or os.getpid(), mount)
    described = {
        "user": subject.name,
        "uid": subject.uid,
        "since": subject.since,
        "reason": subject.reason,
        "verdict": {
            "at": wire.moment(time.time()),
            "by": wire.optional(args, "by", str) or "root",
            "reason": wire.optional(args, "reason", str) or "",
        },
        "mount": mount,
        **about,
        "versions": len(found.kept),
        "bindings": len(found.bindings),
    }
    with at as where:
        weight = await trio.to_thread.run_sync(archive.weigh, found.kept)
        size = await _written(where, {**described, "bytes": weight}, found, _telling(progress, 2 * weight, 2))
        return Evidence(where.path, size, file is None, weight)


async def _written(where: Where, about: Mapping[str, object], found: Collected, moved: archive.Moved) -> int:
    """Write, sync, read back; returns the size. EvidenceFailed if that is not possible: nothing is left then."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        return await trio.to_thread.run_sync(_write, where, about, found, moved)
    except OSError as error:
        problem = error.strerror or str(error)
        raise EvidenceFailed(f"{where.path} cannot be written: {problem}; nothing was discarded") from None
    except ArchiveUnusable as error:
        raise EvidenceFailed(f"{where.path} did not read back ({error}); nothing was discarded") from None
    finally:
        sys.setswitchinterval(before)


def _write(where: Where, about: Mapping[str, object], found: Collected, moved: archive.Moved) -> int:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(where.scratch, dir_fd=where.scratch_directory)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(where.scratch, flags, 0o600, dir_fd=where.scratch_directory)
    try:
        with open(opened, "r+b", buffering=1 << 20) as file:
            written = archive.write(file, about, found.kept, found.bindings, moved)
            file.flush()
            os.fsync(file.fileno())
            # From the disk, as far as it can be had, and not from memory.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            archive.read_back(file, written, moved)
            size = os.fstat(file.fileno()).st_size
        if os.path.lexists(b"/proc/self/fd/%d/%b" % (where.directory, where.name)):
            raise EvidenceFailed(f"{where.path} exists by now; nothing was discarded")
        os.rename(where.scratch, where.name, src_dir_fd=where.scratch_directory, dst_dir_fd=where.directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(where.scratch, dir_fd=where.scratch_directory)
        raise
    folder = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=where.directory)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return size
