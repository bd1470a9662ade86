"""Recording calls: handlers that take the place of an adapter's own, and tell the audit trail what was answered.

They are put into the adapter that is to be recorded, and taken out again: without a trail, nothing is asked. What was
answered with ESTALE, so that the kernel looks a path up again, was not answered to the program, and is not recorded.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from pyfuse3 import FUSEError, RequestContext

from isofs.audit.tasks import Task, Tasks
from isofs.audit.trail import Trail
from isofs.engine import calls, views
from isofs.engine.state import Caller, Filesystem, Handle, Node, Obj
from isofs.errors import IsofsError
from isofs.fuse.adapter import Adapter, refusal
from isofs.model.records import MAIN, SubjectId

Handler = Callable[..., Coroutine[Any, Any, Any]]

#: Directories above an object, at most.
_DEEPEST = 4096

#: Calls whose answer tells of which object they were.
_ANSWERED = frozenset(("mknod", "mkdir", "symlink", "link", "create", "open"))

_READING = os.O_ACCMODE | os.O_TRUNC
_ACCESS = {os.O_RDONLY: {"access": "read"}, os.O_WRONLY: {"access": "write"}, os.O_RDWR: {"access": "read-write"}}


class _Note:
    """What is to be recorded of a call: what, in whose view, where and of which object, as far as it is known."""

    __slots__ = ("action", "more", "obj", "path", "sid")

    def __init__(
        self,
        action: str,
        sid: SubjectId,
        path: bytes | None,
        obj: Obj | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        self.action, self.sid, self.path, self.obj, self.more = action, sid, path, obj, more


class _Open:
    """A file that is open and was recorded: as what, by whom, and the bytes that went through it."""

    __slots__ = ("path", "read", "task", "written")

    def __init__(self, path: bytes | None, task: Task) -> None:
        self.path, self.task = path, task
        self.read = self.written = 0


#: What is known of a call before it is made: by its name, the view, the node that it is made on, and its arguments.
_Describe = Callable[[str, SubjectId, Node | None, tuple[Any, ...]], _Note]


class Recorder:
    """Records the calls on one adapter: of suspects all that open, list or change something; changes of `everyone`.

    `room` is awaited before a suspect's call while the trail is crowded.
    """

    def __init__(
        self, adapter: Adapter, fs: Filesystem, trail: Trail, room: Callable[[], Awaitable[None]], *, everyone: bool
    ) -> None:
        self._adapter, self._fs, self._trail, self._room = adapter, fs, trail, room
        self._everyone = everyone
        self._tasks = Tasks()
        self._opened: dict[int, _Open] = {}
        changing: dict[str, _Describe] = {
            **dict.fromkeys(("mknod", "mkdir", "symlink"), self._making),
            **dict.fromkeys(("unlink", "rmdir"), self._removing),
            "create": self._making,
            "rename": self._renaming,
            "link": self._linking,
            "setattr": self._setting,
            "setxattr": self._on_object,
            "removexattr": self._on_object,
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
        """Record what a new suspect had open before."""
        obj, path = handle.node.obj, self._path(sid, handle.node.obj)
        more = {**_ACCESS.get(handle.flags & os.O_ACCMODE, {}), **self._reads(sid, handle), "before": True}
        task = self._tasks.of(handle.pid)
        self._opened[handle.id] = _Open(path, task)
        self._trail.put("open", sid, handle.uid, task, path, obj.ino, obj.op, 0, None, more)

    def _own(self, name: str) -> Handler:
        """The adapter's handler of this name, with its exceptions."""
        handler: Handler = getattr(Adapter, name).__wrapped__.__get__(self._adapter)
        return handler

    def _recorded(self, name: str, describe: _Describe) -> Handler:
        """The handler of this name, as it is, with a record of each call."""
        own, plain = self._own(name), getattr(Adapter, name).__get__(self._adapter)
        where = 1 if name == "link" else 0  # the directory decides in whose view a name is made
        fs, put, everyone = self._fs, self._put, MAIN if self._everyone else None

        async def call(*args: Any) -> Any:
            ctx, node, sid = args[-1], fs.nodes.get(args[where]), everyone
            if fs.suspects or (node is not None and node.sid):
                sid = await self._view(ctx, node)
            if sid is None:
                return await plain(*args)
            note = describe(name, sid, node, args)
            try:
                answer = await own(*args)
            except Exception as error:
                refused = refusal(name, error)
                if refused.errno != errno.ESTALE or ctx.pid not in fs.retries:
                    put(note, ctx, None, refused.errno)
                raise refused from None
            put(note, ctx, answer, 0)
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
        """In whose view a call is made; None if it is not to be recorded. A suspect waits until there is room."""
        sid = self._view_now(ctx, node)
        if not sid:
            return MAIN if self._everyone else None
        if self._trail.crowded:
            await self._room()
        with contextlib.suppress(FUSEError):
            await self._adapter.caller(ctx)  # a verdict that is being carried out changes what follows
        return self._view_now(ctx, node)

    def _view_now(self, ctx: RequestContext, node: Node | None) -> SubjectId:
        if node is None:
            return self._fs.suspects.get(ctx.uid, MAIN)
        return calls.sid_of(self._fs, Caller(ctx.uid, ctx.gid, ctx.pid), node)

    def _put(self, note: _Note, ctx: RequestContext, answer: Any, number: int) -> None:
        """Record a call that was answered, with `answer` or an errno."""
        task, obj = self._tasks.of(ctx.pid), note.obj
        if answer is not None and note.action in _ANSWERED:
            obj = self._answered(note, answer, task)
        ino, op = (obj.ino, obj.op) if obj is not None else (0, 0)
        self._trail.put(note.action, note.sid, ctx.uid, task, note.path, ino, op, number, None, note.more)

    def _answered(self, note: _Note, answer: Any, task: Task) -> Obj | None:
        """What only the answer tells: the object, and what is open from now on."""
        if note.action in ("create", "open"):
            handle = self._fs.handles[answer.fh if note.action == "open" else answer[0].fh]
            self._opened[handle.id] = _Open(note.path, task)
            if note.sid:
                note.more = {**(note.more or {}), **self._reads(note.sid, handle)}
            return handle.node.obj
        node = self._fs.nodes.get(answer.st_ino)
        return None if node is None else node.obj

    # What is recorded of each call

    def _making(self, name: str, sid: SubjectId, parent: Node | None, args: tuple[Any, ...]) -> _Note:
        more = {"target": bytes(args[2])} if name == "symlink" else None
        return _Note(name, sid, self._path_at(sid, parent, args[1]), None, more)

    def _removing(self, name: str, sid: SubjectId, parent: Node | None, args: tuple[Any, ...]) -> _Note:
        return _Note(name, sid, self._path_at(sid, parent, args[1]), self._object(sid, parent, args[1]))

    def _renaming(self, name: str, sid: SubjectId, parent: Node | None, args: tuple[Any, ...]) -> _Note:
        source, to = self._path_at(sid, parent, args[1]), self._path_at(sid, self._fs.nodes.get(args[2]), args[3])
        return _Note(name, sid, to, self._object(sid, parent, args[1]), None if source is None else {"from": source})

    def _linking(self, name: str, sid: SubjectId, parent: Node | None, args: tuple[Any, ...]) -> _Note:
        node = self._fs.nodes.get(args[0])
        source = None if node is None else self._path(sid, node.obj)
        return _Note(name, sid, self._path_at(sid, parent, args[2]), None, None if source is None else {"from": source})

    def _setting(self, name: str, sid: SubjectId, node: Node | None, args: tuple[Any, ...]) -> _Note:
        return self._of(node, sid, *_attributes(args[1], args[2]))

    def _on_object(self, name: str, sid: SubjectId, node: Node | None, args: tuple[Any, ...]) -> _Note:
        return self._of(node, sid, name, {"attribute": args[1].decode("utf-8", "replace")})

    def _opening(self, name: str, sid: SubjectId, node: Node | None, args: tuple[Any, ...]) -> _Note:
        return self._of(node, sid, name, _ACCESS.get(args[1] & os.O_ACCMODE))

    def _listing(self, name: str, sid: SubjectId, node: Node | None, args: tuple[Any, ...]) -> _Note:
        main = node is not None and _others(self._fs, sid, node.obj)
        return self._of(node, sid, "list", {"main": True} if main else None)

    def _of(self, node: Node | None, sid: SubjectId, action: str, more: Mapping[str, object] | None) -> _Note:
        if node is None:
            return _Note(action, sid, None, None, more)
        return _Note(action, sid, self._path(sid, node.obj), node.obj, more)

    def _reads(self, sid: SubjectId, handle: Handle) -> dict[str, object]:
        """What is told of a suspect's open file that can be read: whether others made it, and how large it is."""
        if handle.flags & os.O_ACCMODE == os.O_WRONLY or not _others(self._fs, sid, handle.node.obj):
            return {}
        size = os.fstat(handle.descriptor).st_size if handle.descriptor >= 0 else 0
        return {"main": True, "size": size}

    def _path(self, sid: SubjectId, obj: Obj) -> bytes | None:
        """The path of an object in a view; None if it has no name there."""
        if sid in self._fs.views:
            return views.path(self._fs, sid, obj)
        # The same for main's view, in a fraction of the time.
        parts: list[bytes] = []
        root = self._fs.root
        while obj is not root:
            link = next(iter(obj.links), None)
            if link is None or len(parts) > _DEEPEST:
                return None
            obj = link[0]
            parts.append(link[1])
        parts.reverse()
        return b"/".join(parts)

    def _path_at(self, sid: SubjectId, parent: Node | None, name: bytes) -> bytes | None:
        above = None if parent is None else self._path(sid, parent.obj)
        return above + b"/" + name if above else None if above is None else name

    def _object(self, sid: SubjectId, parent: Node | None, name: bytes) -> Obj | None:
        """What a name leads to, while anybody is isolated: else it has no origin point, and a look costs time."""
        if parent is not None and self._fs.isolating:
            with contextlib.suppress(OSError, IsofsError):
                return views.child(self._fs, sid, parent.obj, name)
        return None

    # Bytes

    def _read(self) -> Handler:
        own, opened = self._own("read"), self._opened

        async def read(fh: int, off: int, size: int) -> bytes:
            try:
                data: bytes = await own(fh, off, size)
            except Exception as error:
                raise refusal("read", error) from None
            if opened and fh in opened:
                opened[fh].read += len(data)
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
                opened[fh].written += done
            return done

        return write

    def _release(self) -> Handler:
        opened, fs = self._opened, self._fs
        plain: Handler = vars(Adapter)["release"].__get__(self._adapter)

        def release(fh: int) -> Coroutine[Any, Any, None]:
            one = opened.pop(fh, None)
            if one is not None and (one.read or one.written):
                handle = fs.handles[fh]
                obj, more = handle.node.obj, {"read": one.read, "written": one.written}
                size = one.read + one.written
                self._trail.put("close", handle.sid, handle.uid, one.task, one.path, obj.ino, obj.op, 0, size, more)
            return plain(fh)

        return release


def _others(fs: Filesystem, sid: SubjectId, obj: Obj) -> bool:
    """Whether an object was not made by the suspect."""
    return not obj.op or fs.origins[obj.op].born != sid


def _attributes(attr: Any, fields: Any) -> tuple[str, dict[str, object]]:
    """What a change of attributes is called, and to what they are changed."""
    more: dict[str, object] = {}
    action = "utime"
    if fields.update_mode:
        action, more["mode"] = "chmod", f"{attr.st_mode & 0o7777:04o}"
    if fields.update_uid or fields.update_gid or not (action == "chmod" or fields.update_atime or fields.update_mtime):
        action = "chown"
    if fields.update_uid:
        more["owner"] = attr.st_uid
    if fields.update_gid:
        more["group"] = attr.st_gid
    if fields.update_size:
        action, more["size"] = "truncate", attr.st_size
    return action, more
