"""Looking whether main has its objects where the store says: a hundred thousand of them, before anybody is answered."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import defaultdict
from collections.abc import Mapping
from itertools import islice

from isofs.engine import tree
from isofs.engine.state import Filesystem, Obj
from isofs.errors import CallError
from isofs.model.records import Op, Origin

#: Names of a directory that are read for each object that is looked for in it, at most: a look takes as long as these.
_NAMES = 3

_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC


def inode_at(fs: Filesystem, origin: Origin) -> int | None:
    """The inode of the right type that main has where the store says the object is."""
    assert origin.parent is not None
    try:
        directory = tree.descriptor(fs, fs.by_op[origin.parent])
        found = os.stat(origin.name, dir_fd=directory, follow_symlinks=False)
    except (OSError, CallError):
        return None
    return found.st_ino if stat.S_IFMT(found.st_mode) == origin.kind else None


def missing(fs: Filesystem) -> list[Origin]:
    """What main has not where the store says."""
    below: defaultdict[Op, list[Origin]] = defaultdict(list)
    for origin in fs.origins.values():
        if origin.ino is not None and origin.parent is not None:
            below[origin.parent].append(origin)
    covered = _covered(fs)
    found = []
    for parent, origins in below.items():
        files = {} if covered else _files(fs, fs.by_op[parent], _NAMES * len(origins))
        for origin in origins:
            listed = files.get(origin.name.decode(errors="surrogateescape")) if origin.kind == stat.S_IFREG else None
            if listed != origin.ino and inode_at(fs, origin) != origin.ino:
                found.append(origin)
    return found


def _files(fs: Filesystem, directory: Obj, most: int) -> Mapping[str, int]:
    """The inodes of files, as a directory lists them, of so many names at most: a third of the time that looks take."""
    with contextlib.suppress(OSError, CallError):
        opened = os.open(b".", _LISTED, dir_fd=tree.descriptor(fs, directory))
        try:
            with os.scandir(opened) as names:
                return {one.name: one.inode() for one in islice(names, most) if one.is_file(follow_symlinks=False)}
        finally:
            os.close(opened)
    return {}


def _covered(fs: Filesystem) -> bool:
    """Whether anything is mounted below the directory: a list of names would tell what is under it."""
    root = os.readlink(b"/proc/self/fd/%d" % fs.descriptors[fs.root]).rstrip(b"/") + b"/"
    with open("/proc/thread-self/mountinfo", "rb") as table:
        points = [line.split(b" ")[4] for line in table.read().splitlines()]
    plain = (re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), point) for point in points)
    return any(point.startswith(root) for point in plain)
