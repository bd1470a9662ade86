"""A store in which many suspects have changed many objects, made at once instead of call by call."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

from isofs.engine import recovery, suspicion, tree
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Obj
from isofs.model.records import Fingerprint, Version
from isofs.model.vectors import isolate
from isofs.store.folder import open_store

#: The crowd's first uid.
FIRST_UID = 63001

#: Versions in one transaction, and files in one directory.
_TOGETHER = 500


def make(root: Path, suspects: int, objects: int) -> None:
    """Put `objects` files into the directory `crowd`, each changed by one of the suspects. Nothing is mounted."""
    per_folder = _TOGETHER
    for first in range(0, objects, per_folder):
        folder = root / "crowd" / str(first // per_folder)
        folder.mkdir(parents=True)
        for number in range(first, min(first + per_folder, objects)):
            os.mknod(folder / str(number), stat.S_IFREG | 0o644)
    fs = recovery.open_filesystem(open_store(str(root / ".isofs")), str(root))
    try:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        sids = [suspicion.suspect(fs, FIRST_UID + n, f"crowd{n}", "", now).sid for n in range(suspects)]
        above = _child(fs, fs.root, b"crowd")
        for first in range(0, objects, per_folder):
            number = first // per_folder
            names = [b"%d" % n for n in range(first, min(first + per_folder, objects))]
            _diverge(fs, sids[number % len(sids)], _child(fs, above, b"%d" % number), names)
    finally:
        recovery.close_filesystem(fs)


def _child(fs: Filesystem, directory: Obj, name: bytes) -> Obj:
    found = tree.child(fs, directory, name)
    assert found is not None
    return found[0]


def _diverge(fs: Filesystem, sid: int, directory: Obj, names: list[bytes]) -> None:
    batch = Batch(fs)
    for name in names:
        found = tree.child(fs, directory, name)
        assert found is not None
        obj, at = found
        op = batch.op_of(obj)
        to = fs.store.content(sid, str(op))
        os.mknod(to.name, stat.S_IFREG | 0o644, dir_fd=to.directory)
        main, own = isolate(batch.vector(op), sid, "m")
        batch.set_vector(op, main)
        mark = Fingerprint(at.st_ino, at.st_ctime_ns, at.st_size)
        batch.put(Version(sid, op, "m", own, str(op), mark, False))
    batch.commit()
