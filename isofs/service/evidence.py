"""Writing the evidence of a malicious verdict: in a thread, verified and durable before anything is discarded."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import trio

from isofs.control import wire
from isofs.engine.state import Filesystem
from isofs.errors import ArchiveUnusable, EvidenceFailed
from isofs.merge.evidence import Collected, collect
from isofs.model.records import Op, Subject
from isofs.service import newfile
from isofs.service.newfile import Where
from isofs.store import archive, inspection
from isofs.store.archive import ReadSet
from isofs.store.folder import Store

SUFFIX = ".tar.zst"

#: Seconds of collecting at a stretch, before others are served.
_SLICE = 0.005

#: Seconds between two words about progress.
_TELL = 0.1

#: Seconds that a thread may keep Python to itself while the evidence is written; 5 ms otherwise.
_SWITCH = 0.0005


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
    only: Collection[Op] | None = None,
    read: ReadSet | None = None,
) -> Evidence:
    """Write the evidence of a subject, whose calls wait. What of it may not be where `args` say: UsageError.

    `accepted` are objects that will not be discarded: the archive has them and says so. With `only`, it is the evidence
    of these objects; `read` is what the subject read.
    """
    file = wire.optional(args, "evidence", str)
    found = Collected()
    last = trio.current_time()
    for _ in collect(fs, subject.sid, found, accepted, only):
        if trio.current_time() - last > _SLICE:
            await trio.lowlevel.checkpoint()
            last = trio.current_time()
    if file is None:
        at = in_store(fs.store, f"{subject.sid}-{subject.name}-{subject.since.replace(':', '')}")
    else:
        pid = wire.optional(args, "pid", int) or os.getpid()
        at = newfile.in_file(wire.path_bytes(file), pid, mount, "another --evidence")
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
        moved = _telling(progress, 2 * weight, 2)
        size = await _written(where, {**described, "bytes": weight}, found, moved, read)
        return Evidence(where.path, size, file is None, weight)


async def _written(
    where: Where, about: Mapping[str, object], found: Collected, moved: archive.Moved, read: ReadSet | None
) -> int:
    """Write, sync, read back; returns the size. EvidenceFailed if that is not possible: nothing is left then."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        return await trio.to_thread.run_sync(_write, where, about, found, moved, read)
    except OSError as error:
        problem = error.strerror or str(error)
        raise EvidenceFailed(f"{where.path} cannot be written: {problem}; nothing was discarded") from None
    except ArchiveUnusable as error:
        raise EvidenceFailed(f"{where.path} did not read back ({error}); nothing was discarded") from None
    finally:
        sys.setswitchinterval(before)


def _write(
    where: Where, about: Mapping[str, object], found: Collected, moved: archive.Moved, read: ReadSet | None
) -> int:
    def fill(file: BinaryIO) -> int:
        written = archive.write(file, about, found.kept, found.bindings, moved, read)
        newfile.to_disk(file)
        inspection.read_back(file, written, moved)
        return os.fstat(file.fileno()).st_size

    return newfile.write(where, fill, EvidenceFailed(f"{where.path} exists by now; nothing was discarded"))
