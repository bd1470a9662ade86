"""Gathering what the rules of `isofs.model.risks` look at, at a cost per change that does not grow with its size."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence

from isofs.engine import changes as changed
from isofs.engine.changes import ChangeLine, Sides
from isofs.engine.state import Filesystem, View
from isofs.errors import CallError
from isofs.model import risks
from isofs.model.risks import Facts, Side
from isofs.store import inodes
from isofs.store.inodes import Place

#: Bytes of one sample. A file gives three: its beginning, its middle and its end.
SAMPLE = 4096

_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_CAPABILITIES = "security.capability"


def marked(fs: Filesystem, view: View, lines: Sequence[ChangeLine]) -> Iterator[tuple[ChangeLine, tuple[str, ...]]]:
    """Each line with the names of its risks (`isofs.model.risks`), in order.

    `lines` are all of a suspect's changes: what took a name is told by what lost it. Between two of them others may be
    served; what they changed meanwhile is marked as it is then, and what is gone has the marks of its name alone.
    """
    lost = {line.path: line for line in lines if line.change == "deleted"}
    for line in lines:
        yield line, risks.marks(_facts(fs, view, line, lost))


def _facts(fs: Filesystem, view: View, line: ChangeLine, lost: dict[bytes, ChangeLine]) -> Facts:
    before = lost.get(line.path) if line.change in ("added", "renamed") else None
    replaced = None
    if before is not None and before.kind != line.kind:
        replaced = fs.by_op[before.op].kind if before.op in fs.by_op else 0
    found = _sides(fs, view, line)
    old, new = found.old, found.new
    if line.change == "added" and line.kind == "file" and old is None:
        stands_for = before or lost.get(line.path.rpartition(b".")[0])
        if stands_for is not None and stands_for.kind == "file":
            old = _sides(fs, view, stands_for).old
    # Only where both contents are there, and are not one and the same, is there something to compare.
    compared = line.kind == "file" and None not in (old, new) and old != new and line.change != "attributes"
    return Facts(line.change, line.path, _side(old, compared), _side(found.attributes or new, compared), replaced)


def _sides(fs: Filesystem, view: View, line: ChangeLine) -> Sides:
    try:
        return changed.sides(fs, view, line)
    except (KeyError, OSError, CallError):
        return Sides(None, None)


def _side(place: Place | None, sampled: bool) -> Side | None:
    if place is None:
        return None
    try:
        at = inodes.lstat(place)
        target = os.readlink(place.name, dir_fd=place.directory) if stat.S_ISLNK(at.st_mode) else b""
        sample = _sample(place) if sampled and stat.S_ISREG(at.st_mode) else None
    except OSError:
        return None
    marking = _xattrs(place)
    acl = b"".join(b"%d:%b" % (number, marking.get(name, b"")) for number, name in enumerate(_ACLS))
    return Side(at.st_mode, at.st_uid, at.st_gid, acl, marking.get(_CAPABILITIES, b""), target, sample)


def _xattrs(place: Place) -> dict[str, bytes]:
    """The extended attributes that may be a risk, of those that are there: hardly ever any."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listxattr(place.path, follow_symlinks=False):
            if name in (*_ACLS, _CAPABILITIES):
                found[name] = os.getxattr(place.path, name, follow_symlinks=False)
    return found


def _sample(place: Place) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_NONBLOCK | os.O_CLOEXEC
    opened = os.open(place.name, flags, dir_fd=place.directory)
    try:
        size = os.fstat(opened).st_size
        if size <= 3 * SAMPLE:
            return os.pread(opened, 3 * SAMPLE, 0)
        return b"".join(os.pread(opened, SAMPLE, at) for at in (0, (size - SAMPLE) // 2, size - SAMPLE))
    finally:
        os.close(opened)
