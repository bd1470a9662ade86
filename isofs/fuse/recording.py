"""Recording calls: handlers that take the place of an adapter's own, and tell the audit trail what was answered.

They are put into the adapter that is to be recorded, and taken out again: without a trail, nothing is asked. What was
answered with ESTALE, so that the kernel looks a path up again, was not answered to the program, and is not recorded.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from time import time_ns
from typing import Any

from pyfuse3 import FUSEError, RequestContext

from isofs.audit.tasks import Seen, Tasks
from isofs.audit.trail import Trail
from isofs.engine import calls
from isofs.engine.state import Caller, Filesystem, Handle, Node, Obj
from isofs.fuse.adapter import Adapter, refusal
from isofs.fuse.describing import ACCESS, READING, Descriptions, Told, change, others
from isofs.model.records import MAIN, SubjectId

log = logging.getLogger(__name__)

Handler = Callable[..., Coroutine[Any, Any, Any]]


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
        self._told = Descriptions(fs)
        #: What is open and was recorded, by handle: as what, by whom, and the bytes read and written through it.
        self._opened: dict[int, tuple[bytes | None, bytes, list[int]]] = {} if before is None else before._opened
        self._handlers: dict[str, Handler] = {
            **{name: self._recorded(name) for name in self._told.of},
            "open": self._only_if("open", lambda args: bool(args[1] & READING)),
            "opendir": self._only_if("opendir", lambda args: False),
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
        obj, path = handle.node.obj, self._told.path(sid, handle.node.obj)
        more = {**ACCESS.get(handle.flags & os.O_ACCMODE, {}), **self._reads(sid, handle), "before": True}
        now = time_ns()
        task = self._tasks.seen(handle.pid, now).named(now)
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

    def _recorded(self, name: str) -> Handler:
        """The handler of this name, as it is, with a record of each call.

        A suspect's is put down before the answer. Nobody waits for that of another: it is put down after it.
        """
        own, plain = self._own(name), getattr(Adapter, name).__get__(self._adapter)
        where = 1 if name == "link" else 0  # the directory decides in whose view a name is made
        describe, record = self._told.of[name], self._record(name)
        fs, nodes, suspects, everyone = self._fs, self._fs.nodes, self._fs.suspects, MAIN if self._everyone else None
        seen, afterwards = self._tasks.seen, self._adapter.afterwards

        async def call(*args: Any) -> Any:
            ctx, node, sid = args[-1], nodes.get(args[where]), everyone
            if suspects or (node is not None and node.sid):
                sid = await self._view(ctx, node)
            if sid is None:
                return await plain(*args)
            told = describe(sid, node, args) if sid else None
            task, refused = seen(ctx.pid, time_ns()), None
            try:
                answer = await own(*args)
            except Exception as error:
                answer = refused = refusal(name, error)
                if refused.errno == errno.ESTALE and ctx.pid in fs.retries:
                    raise refused from None
            afterwards.add(record, sid, node, args, told, task, answer)
            if sid:
                afterwards.do()
            if refused is not None:
                raise refused from None
            return answer

        return call

    def _record(self, name: str) -> Callable[..., None]:
        """Puts down a call of this name that has been made: what was told of it before, if it was, and its answer."""
        describe, answered = self._told.of[name], _ANSWERED.get(name)
        put, missed = self._trail.put, self._trail.missed
        action, changing = b"list" if name == "opendir" else name.encode(), name == "setattr"

        def record(
            sid: SubjectId, node: Node | None, args: tuple[Any, ...], told: Told | None, task: Seen, answer: Any
        ) -> None:
            now = time_ns()
            try:
                path, obj, more = told or describe(sid, node, args)
                who = task.named(now)
                number = answer.errno if isinstance(answer, FUSEError) else 0
                if answered is not None and not number:
                    obj, more = answered(self, sid, answer, path, who, more)
                ino, op = (obj.ino, obj.op) if obj is not None else (0, 0)
                what = change(args[2]) if changing else action
                put((now, what, sid, args[-1].uid, who, path, ino, op, number, None, more))
            except Exception:
                log.exception("%s could not be recorded", name)
                missed(now)

        return record

    def _only_if(self, name: str, of_everyone: Callable[[tuple[Any, ...]], bool]) -> Handler:
        """The same for calls of which those of trusted users are recorded only if the arguments say so."""
        recorded, fs = self._recorded(name), self._fs
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

    # What only the answer tells

    def removed(
        self, sid: SubjectId, answer: Any, path: bytes | None, task: bytes, more: Any
    ) -> tuple[Obj | None, Any]:
        """The object that had the name."""
        return answer, more

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
        if handle.flags & os.O_ACCMODE == os.O_WRONLY or not others(self._fs, sid, handle.node.obj):
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


_ANSWERED = {
    **dict.fromkeys(("unlink", "rmdir", "rename"), Recorder.removed),
    **dict.fromkeys(("mknod", "mkdir", "symlink", "link"), Recorder.made),
    **dict.fromkeys(("create", "open"), Recorder.opened),
}
