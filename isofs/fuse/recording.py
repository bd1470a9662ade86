"""Recording calls: handlers that take the place of an adapter's own, and tell the audit trail what was answered.

They are put into the adapter that is to be recorded, and taken out again: without a trail, nothing is asked. What was
answered with ESTALE, so that the kernel looks a path up again, was not answered to the program, and is not recorded.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from time import time_ns
from typing import Any

from pyfuse3 import FUSEError, RequestContext

from isofs.audit.tasks import Tasks
from isofs.audit.trail import Trail
from isofs.engine import calls, views
from isofs.engine.state import Caller, Filesystem, Handle, Node, Obj
from isofs.errors import IsofsError
from isofs.fuse.adapter import Adapter, refusal
from isofs.model.records import MAIN, SubjectId

Handler = Callable[..., Coroutine[Any, Any, Any]]

#: Directories above an object, at most.
_DEEPEST = 4096

#: Directories whose paths are kept, at most.
_PREFIXES = 1024

_READING = os.O_ACCMODE | os.O_TRUNC
_ACCESS: dict[int, dict[str, object]] = {
    os.O_RDONLY: {"access": "read"},
    os.O_WRONLY: {"access": "write"},
    os.O_RDWR: {"access": "read-write"},
}
_ACCESS |= {flags | os.O_TRUNC: {**access, "truncated": True} for flags, access in _ACCESS.items()}


#: What is known of a call before it is made: its path, its object, and what else there is to tell of it.
_Known = tuple[bytes | None, Obj | None, Mapping[str, object] | None]

#: Finds that out, by the view, the node that the call is made on, and its arguments.
_Describe = Callable[[SubjectId, Node | None, tuple[Any, ...]], _Known]


class Recorder:
    """Records the calls on one adapter: of suspects all that open, list or change something; changes of `everyone`.

    `room` is awaited before a suspect's call while the trail is crowded. What the one `before` knew to be open is
    known on.
    """

    def __init__(
        self,
        adapter: Adapter,
        fs: Filesystem,
        trail: Trail,
        room: Callable[[], Awaitable[None]],
        *,
        everyone: bool,
        before: Recorder | None = None,
    ) -> None:
        self._adapter, self._fs, self._trail, self._room = adapter, fs, trail, room
        self._everyone = everyone
        self._tasks = Tasks()
        #: What is open and was recorded, by handle: as what, by whom, and the bytes read and written through it.
        self._opened: dict[int, tuple[bytes | None, bytes, list[int]]] = {} if before is None else before._opened
        self._prefixes: dict[Obj, tuple[bytes, list[tuple[Obj, object]]]] = {}
        changing: dict[str, _Describe] = {
            **dict.fromkeys(("create", "mknod", "mkdir"), self._making),
            **dict.fromkeys(("unlink", "rmdir"), self._removing),
            **dict.fromkeys(("setxattr", "removexattr"), self._on_attribute),
            "symlink": self._symlinking,
            "rename": self._renaming,
            "link": self._linking,
            "setattr": self._setting,
        }
        self._handlers: dict[str, Handler] = {name: self._recorded(name, how) for name, how in changing.items()}
        self._handlers |= {
            "open": self._only_if("open", self._opening, lambda args: bool(args[1] & _READING)),
            "opendir": self._only_if("opendir", self._listing, lambda args: False),
            "read": self._read(),
            "write": self._write(),
            "release": self._release(),
        }

    def install(self) -> None:
        """Record from the next call on."""
        vars(self._adapter).update(self._handlers)

    def remove(self) -> None:
        """Record no more."""
        for name in self._handlers:
            vars(self._adapter).pop(name, None)
        self._tasks.close()

    def held(self, sid: SubjectId, handle: Handle) -> None:
        """Record what a suspect had open before, when it became one or when recording began."""
        self._so_far(MAIN, handle)
        obj, path = handle.node.obj, self._path(sid, handle.node.obj)
        more = {**_ACCESS.get(handle.flags & os.O_ACCMODE, {}), **self._reads(sid, handle), "before": True}
        now = time_ns()
        task = self._tasks.of(handle.pid, now)
        self._opened[handle.id] = path, task, [0, 0]
        self._trail.put((now, b"open", sid, handle.uid, task, path, obj.ino, obj.op, 0, None, more))

    def so_far(self, sid: SubjectId) -> None:
        """Record the bytes through all that a suspect has open: what `close` tells of it then is the rest."""
        for handle in [handle for handle in self._fs.handles.values() if handle.sid == sid]:
            self._so_far(sid, handle)

    def _so_far(self, sid: SubjectId, handle: Handle) -> None:
        path, task, counts = self._opened.get(handle.id, (None, b"", [0, 0]))
        read, written = counts
        if read or written:
            counts[:] = 0, 0
            obj, more = handle.node.obj, {"read": read, "written": written}
            self._trail.put(
                (time_ns(), b"bytes", sid, handle.uid, task, path, obj.ino, obj.op, 0, read + written, more)
            )

    def _own(self, name: str) -> Handler:
        """The adapter's handler of this name, with its exceptions."""
        handler: Handler = getattr(Adapter, name).__wrapped__.__get__(self._adapter)
        return handler

    def _recorded(self, name: str, describe: _Describe) -> Handler:
        """The handler of this name, as it is, with a record of each call."""
        own, plain = self._own(name), getattr(Adapter, name).__get__(self._adapter)
        where = 1 if name == "link" else 0  # the directory decides in whose view a name is made
        fs, nodes, suspects, everyone = self._fs, self._fs.nodes, self._fs.suspects, MAIN if self._everyone else None
        task_of, put, answered = self._tasks.of, self._trail.put, _ANSWERED.get(name)
        action, changing = b"list" if name == "opendir" else name.encode(), name == "setattr"

        async def call(*args: Any) -> Any:
            ctx, node, sid = args[-1], nodes.get(args[where]), everyone
            if suspects or (node is not None and node.sid):
                sid = await self._view(ctx, node)
            if sid is None:
                return await plain(*args)
            path, obj, more = describe(sid, node, args)
            number, task = 0, task_of(ctx.pid, time_ns())
            try:
                answer = await own(*args)
                if answered is not None:
                    obj, more = answered(self, sid, answer, path, task, more)
            except Exception as error:
                refused = refusal(name, error)
                number = refused.errno
                if number == errno.ESTALE and ctx.pid in fs.retries:
                    raise refused from None
                answer = refused
            ino, op = (obj.ino, obj.op) if obj is not None else (0, 0)
            what = _change(args[2]) if changing else action
            put((time_ns(), what, sid, ctx.uid, task, path, ino, op, number, None, more))
            if number:
                raise answer from None
            return answer

        return call

    def _only_if(self, name: str, describe: _Describe, of_everyone: Callable[[tuple[Any, ...]], bool]) -> Handler:
        """The same for calls of which those of trusted users are recorded only if the arguments say so."""
        recorded, fs = self._recorded(name, describe), self._fs
        plain: Handler = getattr(Adapter, name).__get__(self._adapter)

        def call(*args: Any) -> Coroutine[Any, Any, Any]:
            if of_everyone(args):
                return recorded(*args)
            if fs.suspects and (args[-1].uid in fs.suspects or ((node := fs.nodes.get(args[0])) and node.sid)):
                return recorded(*args)
            return plain(*args)

        return call

    async def _view(self, ctx: RequestContext, node: Node | None) -> SubjectId | None:
        """In whose view a call is made; None if it is not to be recorded. A suspect waits until there is room.

        Once: not when the kernel makes a call again that looked up its path.
        """
        sid = self._view_now(ctx, node)
        if not sid:
            return MAIN if self._everyone else None
        if self._trail.crowded and ctx.pid not in self._fs.retries:
            await self._room()
        with contextlib.suppress(FUSEError):
            await self._adapter.caller(ctx)  # a verdict that is being carried out changes what follows
        return self._view_now(ctx, node)

    def _view_now(self, ctx: RequestContext, node: Node | None) -> SubjectId:
        if node is None:
            return self._fs.suspects.get(ctx.uid, MAIN)
        return calls.sid_of(self._fs, Caller(ctx.uid, ctx.gid, ctx.pid), node)

    # What is known of each call before

    def _making(self, sid: SubjectId, parent: Node | None, args: tuple[Any, ...]) -> _Known:
        return self._path_at(sid, parent, args[1]), None, None

    def _symlinking(self, sid: SubjectId, parent: Node | None, args: tuple[Any, ...]) -> _Known:
        return self._path_at(sid, parent, args[1]), None, {"target": bytes(args[2])}

    def _removing(self, sid: SubjectId, parent: Node | None, args: tuple[Any, ...]) -> _Known:
        return self._path_at(sid, parent, args[1]), self._object(sid, parent, args[1]), None

    def _renaming(self, sid: SubjectId, parent: Node | None, args: tuple[Any, ...]) -> _Known:
        source, to = self._path_at(sid, parent, args[1]), self._path_at(sid, self._fs.nodes.get(args[2]), args[3])
        return to, self._object(sid, parent, args[1]), None if source is None else {"from": source}

    def _linking(self, sid: SubjectId, parent: Node | None, args: tuple[Any, ...]) -> _Known:
        source, obj, _ = self._on_object(sid, self._fs.nodes.get(args[0]), args)
        return self._path_at(sid, parent, args[2]), obj, None if source is None else {"from": source}

    def _on_object(self, sid: SubjectId, node: Node | None, args: tuple[Any, ...]) -> _Known:
        return (None, None, None) if node is None else (self._path(sid, node.obj), node.obj, None)

    def _setting(self, sid: SubjectId, node: Node | None, args: tuple[Any, ...]) -> _Known:
        path, obj, _ = self._on_object(sid, node, args)
        return path, obj, _attributes(args[1], args[2])

    def _on_attribute(self, sid: SubjectId, node: Node | None, args: tuple[Any, ...]) -> _Known:
        path, obj, _ = self._on_object(sid, node, args)
        return path, obj, {"attribute": args[1].decode("utf-8", "replace")}

    def _opening(self, sid: SubjectId, node: Node | None, args: tuple[Any, ...]) -> _Known:
        path, obj, _ = self._on_object(sid, node, args)
        return path, obj, _ACCESS.get(args[1] & _READING)

    def _listing(self, sid: SubjectId, node: Node | None, args: tuple[Any, ...]) -> _Known:
        path, obj, _ = self._on_object(sid, node, args)
        return path, obj, {"main": True} if obj is not None and _others(self._fs, sid, obj) else None

    def _path(self, sid: SubjectId, obj: Obj) -> bytes | None:
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
        """What a name leads to, while anybody is isolated: else it has no origin point, and a look costs time."""
        if parent is not None and self._fs.isolating:
            with contextlib.suppress(OSError, IsofsError):
                return views.child(self._fs, sid, parent.obj, name)
        return None

    # What only the answer tells

    def made(self, sid: SubjectId, answer: Any, path: bytes | None, task: bytes, more: Any) -> tuple[Obj | None, Any]:
        """The object that has a name now."""
        node = self._fs.nodes.get(answer.st_ino)
        return None if node is None else node.obj, more

    def opened(self, sid: SubjectId, answer: Any, path: bytes | None, task: bytes, more: Any) -> tuple[Obj | None, Any]:
        """The object that is open now, whose bytes are counted; and whether a suspect may read others' work in it."""
        number = (answer[0] if isinstance(answer, tuple) else answer).fh
        self._opened[number] = path, task, [0, 0]
        handle = self._fs.handles[number]
        return handle.node.obj, {**(more or {}), **self._reads(sid, handle)} if sid else more

    def _reads(self, sid: SubjectId, handle: Handle) -> dict[str, object]:
        """What is told of a suspect's open file that can be read: whether others made it, and how large it is."""
        if handle.flags & os.O_ACCMODE == os.O_WRONLY or not _others(self._fs, sid, handle.node.obj):
            return {}
        size = os.fstat(handle.descriptor).st_size if handle.descriptor >= 0 else 0
        return {"main": True, "size": size}

    # Bytes

    def _read(self) -> Handler:
        own, opened = self._own("read"), self._opened

        async def read(fh: int, off: int, size: int) -> bytes:
            try:
                data: bytes = await own(fh, off, size)
            except Exception as error:
                raise refusal("read", error) from None
            if opened and fh in opened:
                opened[fh][2][0] += len(data)
            return data

        return read

    def _write(self) -> Handler:
        own, opened = self._own("write"), self._opened

        async def write(fh: int, off: int, buf: bytes) -> int:
            try:
                done: int = await own(fh, off, buf)
            except Exception as error:
                raise refusal("write", error) from None
            if fh in opened:
                opened[fh][2][1] += done
            return done

        return write

    def _release(self) -> Handler:
        opened, fs, put = self._opened, self._fs, self._trail.put
        plain: Handler = vars(Adapter)["release"].__get__(self._adapter)

        def release(fh: int) -> Coroutine[Any, Any, None]:
            if fh in opened:
                path, task, (read, written) = opened.pop(fh)
                if read or written:
                    handle = fs.handles[fh]
                    obj, size, more = handle.node.obj, read + written, {"read": read, "written": written}
                    put((time_ns(), b"close", handle.sid, handle.uid, task, path, obj.ino, obj.op, 0, size, more))
            return plain(fh)

        return release


def _others(fs: Filesystem, sid: SubjectId, obj: Obj) -> bool:
    """Whether an object was not made by the suspect."""
    return not obj.op or fs.origins[obj.op].born != sid


def _change(fields: Any) -> bytes:
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


_ANSWERED = {
    **dict.fromkeys(("mknod", "mkdir", "symlink", "link"), Recorder.made),
    **dict.fromkeys(("create", "open"), Recorder.opened),
}
