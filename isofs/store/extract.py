"""Unpacking an evidence archive into a new directory, whatever it says.

Nothing outside the directory is made, changed or followed: every name is one component below a descriptor of a
directory that this made. What cannot be under its own name lies in `nameless`, by origin point.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from isofs.errors import ArchiveUnusable, UsageError
from isofs.store import inodes, inspection
from isofs.store.archive import MANIFEST, READS, Moved, nothing_moved
from isofs.store.inodes import Place
from isofs.store.inspection import damaged

TREE, NAMELESS = b"tree", b"nameless"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Extracted:
    """What was made, and what was not: the paths of special files, which are in the manifest alone."""

    files: int = 0
    directories: int = 0
    links: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Row:
    """A version as the manifest has it, checked."""

    op: int
    way: tuple[bytes, ...]
    kind: str
    target: bytes
    content: dict[str, Any] | None
    attributes: dict[str, Any]


def extract(file: BinaryIO, directory: str, *, attributes: bool = False, moved: Moved = nothing_moved) -> Extracted:
    """Unpack a whole archive, which is checked first, into a directory that must not be there yet.

    Files are root's, mode 0600, with the time of their last modification. With `attributes` they get owner, mode,
    user attributes and access control lists as the suspect had them, but never the set-id bits or capabilities.
    ArchiveUnusable for a bad archive: nothing is made then. UsageError if the directory cannot be made.
    """
    checked = inspection.check(file, moved)
    rows = [_row(version) for version in checked.manifest["versions"]]
    file.seek(0)
    try:
        os.mkdir(directory, 0o700)
        root = os.open(directory, _FOLDER)
    except OSError as error:
        raise UsageError(f"{directory} cannot be made: {error.strerror}") from None
    try:
        return _Extraction(root, attributes, checked).run(file, rows, moved)
    except OSError as error:
        raise ArchiveUnusable(f"{directory} is incomplete: {error.strerror}") from None
    finally:
        os.close(root)


def _row(version: dict[str, Any]) -> _Row:
    """ArchiveUnusable for a row that leads out of the tree or makes no sense."""
    match version:
        case {"object": int(op), "path": None | str() as path, "attributes": None | dict() as attributes}:
            pass
        case _:
            raise damaged("its manifest does not describe every version")
    attributes = attributes or {}
    kind, target, content = attributes.get("kind", "nothing"), version.get("target"), version.get("content")
    for name in ("mode", "uid", "gid", "atime_ns", "mtime_ns"):
        if attributes and (type(attributes.get(name)) is not int or not 0 <= abs(attributes[name]) < 1 << 63):
            raise damaged(f"its manifest gives {op} no {name}")
    if not isinstance(kind, str) or (kind == "file") != (content is not None):
        raise damaged(f"its manifest does not say what {op} is")
    if kind == "symlink" and (not isinstance(target, str) or not target):
        raise damaged(f"its manifest does not say where {op} leads")
    way = tuple(_bytes(path).split(b"/")) if path else ()
    if any(part in (b"", b".", b"..") for part in way):
        raise damaged(f"it names {path!a}, which leads out of the tree")
    return _Row(op, way, kind, _bytes(target) if isinstance(target, str) else b"", content, attributes)


def _bytes(text: str) -> bytes:
    try:
        found = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise damaged(f"{text!a} is no name") from None
    if b"\0" in found:
        raise damaged(f"{text!a} is no name")
    return found


class _Extraction:
    def __init__(self, root: int, attributes: bool, checked: inspection.Checked) -> None:
        self._root, self._attributes, self._checked = root, attributes, checked
        self._done = Extracted()
        self._later: list[tuple[tuple[bytes, ...], _Row]] = []

    def run(self, file: BinaryIO, rows: list[_Row], moved: Moved) -> Extracted:
        for folder in (TREE, NAMELESS):
            os.mkdir(folder, 0o700, dir_fd=self._root)
        # Directories first: a name that something else claims as well is theirs.
        for row in sorted(rows, key=lambda row: (row.kind != "directory", len(row.way))):
            if row.kind != "file":
                self._make(row)
        by_member = {row.content["member"]: row for row in rows if row.content is not None}
        for name, _, parts in inspection.members(file):
            if name in by_member:
                self._write(by_member[name], parts, moved)
            elif name == READS:
                with open(os.open(READS, _FILE, 0o600, dir_fd=self._root), "wb") as reads:
                    reads.writelines(parts)
        opened = os.open(MANIFEST, _FILE, 0o600, dir_fd=self._root)
        with open(opened, "w", encoding="ascii") as manifest:
            json.dump(self._checked.manifest, manifest, indent=1)
        for way, row in reversed(self._later):
            made = self._folder(way)
            try:
                self._give(made, row)
            finally:
                os.close(made)
        return self._done

    def _make(self, row: _Row) -> None:
        match row.kind:
            case "directory":
                way = (TREE, *row.way)
                os.close(self._folder(way, make=True))
                self._later.append((way, row))
                self._done.directories += 1
            case "symlink":
                self._link(row)
                self._done.links += 1
            case "nothing":
                pass
            case _:
                shown = b"/".join(row.way) or b"%d" % row.op
                self._done.left_out.append(shown.decode("utf-8", "surrogateescape"))

    def _link(self, row: _Row) -> None:
        told = row.attributes
        with self._place(row) as (folder, name):
            os.symlink(row.target, name, dir_fd=folder)
            if self._attributes:
                os.chown(name, told["uid"], told["gid"], dir_fd=folder, follow_symlinks=False)
            os.utime(name, ns=(told["atime_ns"], told["mtime_ns"]), dir_fd=folder, follow_symlinks=False)

    def _write(self, row: _Row, parts: Iterator[memoryview], moved: Moved) -> None:
        assert row.content is not None
        pieces = row.content.get("data", [[0, row.content["size"]]])
        with self._place(row) as (folder, name):
            opened = os.open(name, _FILE, 0o600, dir_fd=folder)
            try:
                data = memoryview(b"")
                for start, length in pieces:
                    end = start + length
                    while start < end:
                        data = data or next(parts)
                        done = os.pwrite(opened, data[: end - start], start)
                        data, start = data[done:], start + done
                        moved(done)
                os.ftruncate(opened, row.content["size"])
                self._give(opened, row)
            finally:
                os.close(opened)
        self._done.files += 1

    @contextlib.contextmanager
    def _place(self, row: _Row) -> Iterator[tuple[int, bytes]]:
        """Where to make something: under its own path if that is free, else in the folder for such."""
        folder = -1
        name = row.way[-1] if row.way else b""
        if row.way:
            with contextlib.suppress(NotADirectoryError):
                folder = self._folder((TREE, *row.way[:-1]), make=True)
        if folder >= 0 and inodes.exists(Place(folder, name)):
            os.close(folder)
            folder = -1
        if folder < 0:
            folder, name = self._folder((NAMELESS,)), b"%d" % row.op
        try:
            yield folder, name
        finally:
            os.close(folder)

    def _folder(self, way: tuple[bytes, ...], *, make: bool = False) -> int:
        """A descriptor of a directory below the root, reached one component after another.

        NotADirectoryError where one of them is something else, be it a link.
        """
        at = os.dup(self._root)
        for name in way:
            try:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=at)
                below = os.open(name, _FOLDER, dir_fd=at)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
                raise
            finally:
                os.close(at)
            at = below
        return at

    def _give(self, opened: int, row: _Row) -> None:
        """The attributes of a file or directory, as far as they are wanted and harmless."""
        told = row.attributes
        if self._attributes:
            os.fchown(opened, told["uid"], told["gid"])
            xattrs = told.get("xattrs")
            for name, value in (xattrs if isinstance(xattrs, dict) else {}).items():
                if name.startswith(("user.", "system.posix_acl_")):
                    with contextlib.suppress(OSError, binascii.Error, TypeError, ValueError):
                        os.setxattr(opened, name, base64.b64decode(value))
            os.fchmod(opened, told["mode"] & 0o777)
        os.utime(opened, ns=(told["atime_ns"], told["mtime_ns"]))
