"""What is told of a call: which path in the caller's view, which object, and what else its arguments say."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from isofs.engine import views
from isofs.engine.state import Filesystem, Node, Obj
from isofs.errors import IsofsError
from isofs.model.records import SubjectId

#: Directories above an object, at most.
_DEEPEST = 4096

#: Directories whose paths are kept, at most.
_PREFIXES = 1024

READING = os.O_ACCMODE | os.O_TRUNC
ACCESS: dict[int, dict[str, object]] = {
    os.O_RDONLY: {"access": "read"},
    os.O_WRONLY: {"access": "write"},
    os.O_RDWR: {"access": "read-write"},
}
ACCESS |= {flags | os.O_TRUNC: {**access, "truncated": True} for flags, access in ACCESS.items()}

#: Path, object, and what else there is to tell.
Told = tuple[bytes | None, Obj | None, Mapping[str, object] | None]

#: Finds that out, by the view, the node that the call is made on, and its arguments.
Describe = Callable[[SubjectId, Node | None, tuple[Any, ...]], Told]


class Descriptions:
    """Of calls on one file system, by the names of their handlers. A trusted user's is the same before it and after."""

    def __init__(self, fs: Filesystem) -> None:
        self._fs = fs
        self._prefixes: dict[Obj, tuple[bytes, list[tuple[Obj, object]]]] = {}
        self.of: dict[str, Describe] = {
            **dict.fromkeys(("create", "mknod", "mkdir"), self._making),
            **dict.fromkeys(("unlink", "rmdir"), self._removing),
            **dict.fromkeys(("setxattr", "removexattr"), self._on_attribute),
            "symlink": self._symlinking,
            "rename": self._renaming,
            "link": self._linking,
            "setattr": self._setting,
            "open": self._opening,
            "opendir": self._listing,
        }

    def _making(self, sid: SubjectId, parent: Node | None, args: tuple[Any, ...]) -> Told:
        return self._path_at(sid, parent, args[1]), None, None

    def _symlinking(self, sid: SubjectId, parent: Node | None, args: tuple[Any, ...]) -> Told:
        return self._path_at(sid, parent, args[1]), None, {"target": bytes(args[2])}

    def _removing(self, sid: SubjectId, parent: Node | None, args: tuple[Any, ...]) -> Told:
        return self._path_at(sid, parent, args[1]), self._object(sid, parent, args[1]), None

    def _renaming(self, sid: SubjectId, parent: Node | None, args: tuple[Any, ...]) -> Told:
        source, to = self._path_at(sid, parent, args[1]), self._path_at(sid, self._fs.nodes.get(args[2]), args[3])
        return to, self._object(sid, parent, args[1]), None if source is None else {"from": source}

    def _linking(self, sid: SubjectId, parent: Node | None, args: tuple[Any, ...]) -> Told:
        source, obj, _ = self._on_object(sid, self._fs.nodes.get(args[0]), args)
        return self._path_at(sid, parent, args[2]), obj, None if source is None else {"from": source}

    def _on_object(self, sid: SubjectId, node: Node | None, args: tuple[Any, ...]) -> Told:
        return (None, None, None) if node is None else (self.path(sid, node.obj), node.obj, None)

    def _setting(self, sid: SubjectId, node: Node | None, args: tuple[Any, ...]) -> Told:
        path, obj, _ = self._on_object(sid, node, args)
        return path, obj, _attributes(args[1], args[2])

    def _on_attribute(self, sid: SubjectId, node: Node | None, args: tuple[Any, ...]) -> Told:
        path, obj, _ = self._on_object(sid, node, args)
        return path, obj, {"attribute": args[1].decode("utf-8", "replace")}

    def _opening(self, sid: SubjectId, node: Node | None, args: tuple[Any, ...]) -> Told:
        path, obj, _ = self._on_object(sid, node, args)
        return path, obj, ACCESS.get(args[1] & READING)

    def _listing(self, sid: SubjectId, node: Node | None, args: tuple[Any, ...]) -> Told:
        path, obj, _ = self._on_object(sid, node, args)
        return path, obj, {"main": True} if obj is not None and others(self._fs, sid, obj) else None

    def path(self, sid: SubjectId, obj: Obj) -> bytes | None:
        """The path of an object in a view; None if it has no name there."""
        if sid in self._fs.views:
            return views.path(self._fs, sid, obj)
        if obj is self._fs.root:
            return b""
        link = next(iter(obj.links), None)
        above = None if link is None else self._prefix(link[0])
        return None if link is None or above is None else above + link[1]

    def _path_at(self, sid: SubjectId, parent: Node | None, name: bytes) -> bytes | None:
        if parent is None:
            return None
        if not sid or sid not in self._fs.views:
            above = self._prefix(parent.obj)
            return None if above is None else above + name
        path = views.path(self._fs, sid, parent.obj)
        return path + b"/" + name if path else None if path is None else name

    def _prefix(self, directory: Obj) -> bytes | None:
        """What paths of main's below a directory begin with. It is kept as long as no name on the way changes."""
        known = self._prefixes.get(directory)
        if known is not None:
            for obj, links in known[1]:
                if obj.links is not links:
                    break
            else:
                return known[0]
        way: list[tuple[Obj, object]] = []
        parts: list[bytes] = []
        at = directory
        while at is not self._fs.root:
            link = next(iter(at.links), None)
            if link is None or len(way) > _DEEPEST:
                return None
            way.append((at, at.links))
            at = link[0]
            parts.append(link[1])
        found = b"".join(part + b"/" for part in reversed(parts))
        if len(self._prefixes) >= _PREFIXES:
            self._prefixes.clear()
        self._prefixes[directory] = (found, way)
        return found

    def _object(self, sid: SubjectId, parent: Node | None, name: bytes) -> Obj | None:
        """What a name leads to in a suspect's view. What others call is told by the call that found it."""
        if sid and parent is not None:
            with contextlib.suppress(OSError, IsofsError):
                return views.child(self._fs, sid, parent.obj, name)
        return None


def others(fs: Filesystem, sid: SubjectId, obj: Obj) -> bool:
    """Whether an object was not made by the suspect."""
    return not obj.op or fs.origins[obj.op].born != sid


def change(fields: Any) -> bytes:
    """What a change of attributes is called."""
    if fields.update_size:
        return b"truncate"
    if fields.update_uid or fields.update_gid:
        return b"chown"
    if fields.update_mode:
        return b"chmod"
    return b"utime" if fields.update_atime or fields.update_mtime else b"chown"  # to nobody: only the change time moves


def _attributes(attr: Any, fields: Any) -> dict[str, object]:
    """To what attributes are changed, but for times."""
    more: dict[str, object] = {}
    if fields.update_mode:
        more["mode"] = f"{attr.st_mode & 0o7777:04o}"
    if fields.update_uid:
        more["owner"] = attr.st_uid
    if fields.update_gid:
        more["group"] = attr.st_gid
    if fields.update_size:
        more["size"] = attr.st_size
    return more
