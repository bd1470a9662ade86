"""What a suspect changed: one line per object and name, and the content on both sides."""

from __future__ import annotations

import contextlib
import enum
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from isofs.engine import slices, tree, versions, views
from isofs.engine.slices import Slices
from isofs.engine.state import Filesystem, Obj, View
from isofs.errors import CallError
from isofs.model.records import MAIN, Op, Version
from isofs.model.vectors import G, dominates
from isofs.store import inodes
from isofs.store.inodes import Place

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def kind_word(kind: int) -> str:
    """What a user calls a type of object."""
    return _KINDS.get(kind, "device")


@dataclass(frozen=True, slots=True)
class ChangeLine:
    """One change: what (added, modified, deleted, renamed, attributes) of which object under which name.

    `before` is the name before a renaming. `size` is the new size of a file, None for what is deleted.
    """

    change: str
    kind: str
    path: bytes
    op: Op
    before: bytes | None = None
    size: int | None = None


def changes(fs: Filesystem, view: View) -> list[ChangeLine]:
    """Everything that a suspect changed, by path."""
    return slices.at_once(gather(fs, view))


def gather(fs: Filesystem, view: View) -> Slices[list[ChangeLine]]:
    """`changes`, in slices."""
    ops = set(view.versions)
    for names in list(view.bindings.values()):
        for b in list(names.values()):
            if not b.kept:
                ops.update(op for op in (b.op, b.replaced) if op is not None)
        yield
    lines: list[ChangeLine] = []
    for op in ops:
        if op in fs.by_op:
            lines += _of_object(fs, view, op)
        yield
    return (yield from slices.in_order(lines, lambda line: (line.path, line.change)))


def _of_object(fs: Filesystem, view: View, op: Op) -> Iterator[ChangeLine]:
    obj, version = fs.by_op[op], view.version(op)
    kind = kind_word(obj.kind)
    removed = _removed_names(fs, view, op)
    if version is not None and version.state == "d":
        for name in removed or [views.path(fs, MAIN, obj) or fs.origins[op].name]:
            yield ChangeLine("deleted", kind, name, op)
        return
    size = _size(fs, view, obj)
    given = _given_names(fs, view, op)
    if version is not None and fs.origins[op].born == view.sid:
        for name in given:
            yield ChangeLine("added", kind, name, op, None, size)
        return
    if version is not None:
        path = views.path(fs, view.sid, obj)
        if view.sid in fs.waiting:  # the subject is on main again, which may have it no more
            path = views.path(fs, MAIN, obj) or path or fs.origins[op].name
        if path is not None:
            yield ChangeLine("attributes" if version.attributes else "modified", kind, path, op, None, size)
    for name in given:
        before = removed.pop(0) if removed else None
        yield ChangeLine("added" if before is None else "renamed", kind, name, op, before, size)
    for name in removed:
        yield ChangeLine("deleted", kind, name, op)


def _removed_names(fs: Filesystem, view: View, op: Op) -> list[bytes]:
    """The names of main's that the suspect took from an object."""
    found: list[bytes] = []
    for directory_op, name in sorted(view.hiding.get(op, ())):
        binding = view.binding(directory_op, name)
        if binding is None or binding.kept or binding.op == op:
            continue
        directory = fs.by_op[directory_op]
        above = views.path(fs, view.sid, directory)
        if above is None:
            above = views.path(fs, MAIN, directory) or b"?"
        found.append(above + b"/" + name if above else name)
    return found


def _given_names(fs: Filesystem, view: View, op: Op) -> list[bytes]:
    found = []
    for directory_op, name in sorted(view.placed.get(op, ())):
        binding = view.binding(directory_op, name)
        above = views.path(fs, view.sid, fs.by_op[directory_op])
        if binding is not None and not binding.kept and above is not None:
            found.append(above + b"/" + name if above else name)
    return found


def _size(fs: Filesystem, view: View, obj: Obj) -> int | None:
    if obj.kind != stat.S_IFREG:
        return None
    try:
        return inodes.lstat(_content(fs, view, obj.op) or tree.place(fs, obj)).st_size
    except (OSError, CallError):
        return None


def _content(fs: Filesystem, view: View, op: Op | None) -> Place | None:
    """Where the data of a version lie if they are its own, also of one that waits for a decision."""
    version = view.versions.get(op) if op is not None else None
    if version is None or version.content is None or version.bare:
        return None
    return fs.store.content(view.sid, version.content)


def bytes_kept(fs: Filesystem, view: View) -> Slices[int]:
    """How much disk space a suspect's versions take."""
    total = 0
    for op in list(view.versions):
        version = view.versions.get(op)
        if version is not None and version.content is not None:
            with contextlib.suppress(FileNotFoundError):
                total += inodes.lstat(fs.store.content(view.sid, version.content)).st_blocks * 512
        yield
    return total


@dataclass(frozen=True, slots=True)
class Sides:
    """The files on both sides of a change, None where there is none; and whether the old one is what was asked for.

    `attributes` is where the new one's lie: it may have nothing else of its own.
    """

    old: Place | None
    new: Place | None
    known: bool = True
    attributes: Place | None = None


class Against(enum.StrEnum):
    """What a suspect's version is compared with."""

    BASE = "base"  # what the suspect started from: what did the suspect change?
    MAIN = "main"  # what main has now: what would change there?


def sides(fs: Filesystem, view: View, line: ChangeLine, against: Against | None = None) -> Sides:
    """What the suspect's version is compared with, and what the suspect has.

    Unless `against` says which: the base copy if one was kept, else what main has now.
    """
    obj, version = fs.by_op[line.op], view.version(line.op)
    old, known = None, True
    if version is not None and version.bare and version.content is not None:
        there = _in_main(fs, obj)
        return Sides(there, there, attributes=fs.store.content(view.sid, version.content))
    if fs.origins[line.op].born != view.sid:
        base = None if version is None or against is Against.MAIN else _base(fs, version)
        old = base or _in_main(fs, obj)
        if against is Against.BASE and base is None and version is not None and not _is_base(fs, version, obj):
            old, known = None, False
    new = None
    if line.change != "deleted":
        new = _content(fs, view, line.op) or _in_main(fs, obj)
    return Sides(old, new, known)


def _base(fs: Filesystem, version: Version) -> Place | None:
    """The copy of what main had when the version was made, if main has changed since and one was kept."""
    kept = fs.base_of(version)
    return None if kept is None else fs.store.base(kept.content)


def _in_main(fs: Filesystem, obj: Obj) -> Place | None:
    try:
        return tree.place(fs, obj) if obj.ino else None
    except CallError:
        return None


def _is_base(fs: Filesystem, version: Version, obj: Obj) -> bool:
    """Whether main has what the version started from: nobody changed it since, and nothing was merged into it."""
    vector = fs.origins[version.op].vector
    if vector is None or not obj.ino or not dominates(version.vector.padded(vector), vector):
        return False
    try:
        at = tree.located(fs, obj)[1]
    except (OSError, CallError):
        return False
    return not versions.changed_unseen(version, at, vector.get(G), obj)


def digest(place: Place) -> tuple[int, str]:
    """Size and SHA-256 of a regular file, or of what a symlink says."""
    at = inodes.lstat(place)
    if stat.S_ISLNK(at.st_mode):
        target = os.readlink(place.name, dir_fd=place.directory)
        return len(target), hashlib.sha256(target).hexdigest()
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC
    with open(os.open(place.name, flags, dir_fd=place.directory), "rb") as file:
        return at.st_size, hashlib.file_digest(file, "sha256").hexdigest()


def text_of(place: Place | None, limit: int) -> list[str] | None:
    """The lines of a text file of at most `limit` bytes; no lines for no file; None if it is no text."""
    if place is None:
        return []
    at = inodes.lstat(place)
    if not stat.S_ISREG(at.st_mode) or at.st_size > limit:
        return None
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC
    with open(os.open(place.name, flags, dir_fd=place.directory), "rb") as file:
        data = file.read()
    if b"\0" in data:
        return None
    try:
        # Not splitlines: what diff and patch call a line ends with a newline and nothing else.
        return list(io.StringIO(data.decode(), newline="\n"))
    except UnicodeDecodeError:
        return None
