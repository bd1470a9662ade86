"""The attic in tests: all that an inode is, what main lost, and whether that is what the attic has."""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from isofs.engine.state import Filesystem
from isofs.merge import restore
from isofs.model.records import Stowed
from isofs.store import attic as rows
from isofs.store import inodes


class Thing(NamedTuple):
    """Everything about an object but its names, its change time and the size of a directory."""

    mode: int
    uid: int
    gid: int
    rdev: int
    mtime_ns: int | None
    content: bytes
    xattrs: tuple[tuple[str, bytes], ...]


def thing(path: bytes | Path) -> Thing:
    """What an inode of the host is. The time of a directory says when names in it came and went: that is no part."""
    path = os.fsencode(path)
    at = os.lstat(path)
    content = b""
    if stat.S_ISREG(at.st_mode):
        content = Path(os.fsdecode(path)).read_bytes()
    elif stat.S_ISLNK(at.st_mode):
        content = os.readlink(path)
    xattrs = {n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)}
    mtime = None if stat.S_ISDIR(at.st_mode) else at.st_mtime_ns
    return Thing(at.st_mode, at.st_uid, at.st_gid, at.st_rdev, mtime, content, tuple(sorted(xattrs.items())))


class Named(NamedTuple):
    """An inode that main has: what it is, and its paths."""

    thing: Thing
    paths: set[bytes]


def main_of(directory: bytes | Path) -> dict[int, Named]:
    """All of main by inode, read behind the mount."""
    found: dict[int, Named] = {}
    root = os.fsencode(directory)
    for above, directories, files in os.walk(root):
        if above == root:
            directories.remove(b".isofs")
        for name in (*directories, *files):
            path = os.path.join(above, name)
            at = os.lstat(path)
            found.setdefault(at.st_ino, Named(thing(path), set())).paths.add(os.path.relpath(path, root))
    return found


def entries(fs: Filesystem) -> list[Stowed]:
    """What the attic has, oldest first."""
    return rows.page(fs.store.database, None, 1 << 20)[::-1]


def kept(fs: Filesystem, entry: Stowed) -> Thing:
    return thing(fs.store.stowed(entry.number).path)


def lost(before: dict[int, Named], after: dict[int, Named]) -> Counter[Thing]:
    """What main had and has no more, or not as it was: the oracle, which knows inodes only."""
    return Counter(
        was.thing
        for ino, was in before.items()
        if ino not in after or (after[ino].thing != was.thing and not _only_times(was.thing, after[ino].thing))
    )


def _only_times(one: Thing, other: Thing) -> bool:
    return one._replace(mtime_ns=None) == other._replace(mtime_ns=None)


def check_complete(fs: Filesystem, before: dict[int, Named], after: dict[int, Named], known: int = 0) -> None:
    """The entries since the number `known` are what main lost, no more and no less, each from where main had it."""
    found = [entry for entry in entries(fs) if entry.number > known]
    gone, there = lost(before, after), Counter(kept(fs, entry) for entry in found)
    assert gone <= there
    same = Counter(was.thing for ino, was in before.items() if ino in after)
    assert there - gone <= same, "never main's"  # attributes were set to what they are, or only a time
    assert Counter(kept(fs, entry) for entry in found if entry.action == "deleted") <= gone
    for entry in found:
        assert any(entry.path in was.paths and was.thing == kept(fs, entry) for was in before.values()), entry
        assert (entry.op, entry.ino, entry.live) == (None, None, False)


def bring_back(fs: Filesystem, number: int, path: bytes | None = None, *, replace: bool = False) -> Stowed | None:
    """Restore with all that a restoring needs, as the service does."""
    entry = rows.entry(fs.store.database, number)
    assert entry is not None
    copy = None
    if restore.must_copy(fs, entry):
        copy = restore.place_for_copy(fs)
        inodes.copy(fs.store.stowed(number), copy)
    return restore.restore(fs, entry, path or entry.path, replace=replace, operator="root", copy=copy)
