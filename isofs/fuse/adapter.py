"""The FUSE protocol in terms of the engine. No rule is decided here; one place turns exceptions into errnos."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext, SetattrFields, StatvfsData

from isofs.engine import accounting, attributes, calls, copying, files, xattrs
from isofs.engine.attributes import NewAttributes
from isofs.engine.calls import Entry
from isofs.engine.state import ROOT_NODE, Caller, Filesystem, Handle, Node, node_for
from isofs.engine.views import Attributes
from isofs.errors import IsofsError
from isofs.fuse.afterwards import Afterwards
from isofs.fuse.listing import Directory
from isofs.fuse.turns import Turns
from isofs.model.records import MAIN

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds that a suspect's call waits for a running verdict before it fails with EBUSY.
VERDICT_PATIENCE = 3.0

#: Calls that wait for verdicts at the same time, at most; more fail at once. Each takes one of the loop's tasks.
MOST_WAITING = 1000

#: Copies and syncs of suspects' at the same time, at most: they take threads that others need as well.
THREADS = 4


def answered(handler: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Turn every exception of a handler into an errno: one that got through would end the mount."""

    @functools.wraps(handler)
    async def safe(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except Exception as error:
            raise refusal(handler.__name__, error) from None

    return safe


def refusal(call: str, error: Exception) -> FUSEError:
    """What a call is answered with that an exception ended."""
    if isinstance(error, FUSEError):
        return error
    if isinstance(error, IsofsError):
        if error.errno == errno.EIO:
            log.error("%s failed: %s", call, error)
        return FUSEError(error.errno)
    if isinstance(error, OSError):
        number = error.errno or errno.EIO
        return FUSEError(errno.ENFILE if number == errno.EMFILE else number)  # the limit is not the caller's
    log.error("%s failed unexpectedly", call, exc_info=error)
    return FUSEError(errno.EIO)


class Adapter(pyfuse3.Operations):
    """Answers the kernel's requests for one file system, which must be given before the first of them.

    `unlink`, `rmdir` and `rename` answer with the object that they were about, which goes no further than here.
    """

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = True

    _fs: Filesystem

    def __init__(self) -> None:
        super().__init__()
        self._directories: dict[int, Directory] = {}
        self._next_directory = 1
        self.settled = trio.Event()  # replaced whenever a verdict ends
        self.turns = Turns()
        self.afterwards = Afterwards()
        self._waiting = 0
        self._apart = trio.CapacityLimiter(THREADS)
        self._held: set[int] = set()  # subjects that wait though their verdict is not written down yet

    def answer_for(self, fs: Filesystem) -> None:
        self._fs = fs

    @contextlib.contextmanager
    def held(self, sid: int) -> Iterator[None]:
        """Let a subject's calls wait as in a verdict: nothing of it changes meanwhile."""
        self._held.add(sid)
        try:
            yield
        finally:
            self._held.discard(sid)
            self.verdict_ended()

    def verdict_ended(self) -> None:
        """Let go on whoever waited for the end of a verdict."""
        self.settled.set()
        self.settled = trio.Event()

    def _node(self, number: int) -> Node:
        if number == ROOT_NODE:
            return node_for(self._fs, MAIN, self._fs.root)
        node = self._fs.nodes.get(number)
        if node is None:
            raise FUSEError(errno.ESTALE)
        return node

    async def caller(self, ctx: RequestContext) -> Caller:
        """Who calls; a suspect waits for its turn, and for the end of a verdict that is being carried out."""
        suspects = self._fs.suspects
        if suspects:
            if ctx.uid in suspects:
                await self.turns.wait()
                await self._wait_for_verdict(suspects.get(ctx.uid, MAIN))
            else:
                self.turns.trusted()
        return Caller(ctx.uid, ctx.gid, ctx.pid, ctx.umask)

    async def _turn(self, handle: Handle) -> None:
        if handle.sid:
            await self.turns.wait()
        else:
            self.turns.trusted()

    async def _wait_for_verdict(self, sid: int) -> None:
        if not self._in_verdict(sid):
            return
        if self._waiting >= MOST_WAITING:
            raise FUSEError(errno.EBUSY)
        self._waiting += 1
        try:
            with trio.move_on_after(VERDICT_PATIENCE) as scope:
                while self._in_verdict(sid):
                    await self.settled.wait()
        finally:
            self._waiting -= 1
        if scope.cancelled_caught:
            raise FUSEError(errno.EBUSY)

    def _in_verdict(self, sid: int) -> bool:
        """Whether a verdict is being carried out on a subject or a part of its work, or stopped half way."""
        return sid in self._held or sid in self._fs.in_verdict

    def holds(self, sid: int) -> bool:
        """Whether a verdict is being carried out on a subject now."""
        return sid in self._held

    def _handle(self, number: int) -> Handle:
        handle = self._fs.handles.get(number)
        if handle is None:
            raise FUSEError(errno.EBADF)
        return handle

    @answered
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        parent = self._node(parent_inode)
        found = calls.lookup(self._fs, await self.caller(ctx), parent, name)
        if found is None:
            absent = EntryAttributes()
            absent.st_ino = pyfuse3.InodeT(0)
            absent.entry_timeout = calls.absent_timeout(self._fs, parent, name)
            if not absent.entry_timeout:
                raise FUSEError(errno.ENOENT)
            return absent
        return _entry(found)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for number, count in inode_list:
            node = self._fs.nodes.get(number)
            if node is not None:
                calls.forget(self._fs, node, count)

    @answered
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return _attributes(*calls.getattr(self._fs, await self.caller(ctx), self._node(inode)))

    @answered
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        new = NewAttributes(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        caller, node = await self.caller(ctx), self._node(inode)
        if attributes.needs_data(self._fs, new, fh):
            await copying.copy_big(self._fs, self._fs.suspects.get(ctx.uid, node.sid), node, self._apart)
            caller = await self.caller(ctx)  # a verdict may have fallen while a big file was copied
        return _attributes(*attributes.setattr(self._fs, caller, node, new, fh))

    @answered
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return calls.readlink(self._fs, await self.caller(ctx), self._node(inode))

    @answered
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        caller = await self.caller(ctx)
        return _entry(calls.make(self._fs, caller, self._node(parent_inode), name, mode, rdev))

    @answered
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        caller = await self.caller(ctx)
        return _entry(calls.make(self._fs, caller, self._node(parent_inode), name, mode))

    @answered
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        caller, parent = await self.caller(ctx), self._node(parent_inode)
        return _entry(calls.make(self._fs, caller, parent, name, 0o120777, target=target))

    @answered
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> Any:
        return calls.unlink(self._fs, await self.caller(ctx), self._node(parent_inode), name)

    @answered
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> Any:
        return calls.rmdir(self._fs, await self.caller(ctx), self._node(parent_inode), name)

    @answered
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> Any:
        caller = await self.caller(ctx)
        old, new = self._node(parent_inode_old), self._node(parent_inode_new)
        return calls.rename(self._fs, caller, old, name_old, new, name_new, flags)

    @answered
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        caller = await self.caller(ctx)
        parent = self._node(new_parent_inode)
        return _entry(calls.link(self._fs, caller, self._node(inode), parent, new_name))

    @answered
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        caller = await self.caller(ctx)
        return _opened(files.open(self._fs, caller, self._node(inode), flags))

    @answered
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        caller, parent = await self.caller(ctx), self._node(parent_inode)
        found, handle = files.create(self._fs, caller, parent, name, mode, flags)
        return _opened(handle), _entry(found)

    @answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        handle = self._handle(fh)
        if self._fs.suspects:
            await self._turn(handle)
        return files.read(self._fs, handle, off, size)

    @answered
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        handle = self._handle(fh)
        if self._fs.suspects:
            await self._turn(handle)
        if handle.sid:
            await self._wait_for_verdict(handle.sid)
            await copying.copy_big(self._fs, handle.sid, handle.node, self._apart)
            await self._wait_for_verdict(handle.sid)  # it may have fallen while a big file was copied
        return files.write(self._fs, handle, off, buf)

    async def flush(self, fh: int) -> None:
        # Every write has reached the backing file: there is nothing to flush. ENOSYS saves the next request.
        raise FUSEError(errno.ENOSYS)

    @answered
    async def fsync(self, fh: int, datasync: bool) -> None:
        handle = self._handle(fh)
        if handle.descriptor >= 0:
            limiter = self._apart if handle.sid else None
            await copying.sync(handle.descriptor, data_only=datasync, limiter=limiter)
        if handle.sid:
            await copying.sync_attributes(self._fs, handle, self._apart)
            self._fs.store.sync()

    @answered
    async def release(self, fh: int) -> None:
        files.release(self._fs, self._handle(fh))

    @answered
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        caller = await self.caller(ctx)
        number, self._next_directory = self._next_directory, self._next_directory + 1
        self._directories[number] = Directory(self._node(inode), caller, self._fs)
        return number

    @answered
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        directory = self._directories[fh]
        if start_id == 0:
            directory.rewind()
        position = start_id
        while position < 2:
            attributes, timeout = calls.getattr(self._fs, directory.caller, directory.node)
            name = b"." if position == 0 else b".."
            if not pyfuse3.readdir_reply(token, name, _attributes(attributes, timeout), position + 1):
                return
            position += 1
        while (found := directory.at(position - 2)) is not None:
            position += 1
            name, obj, at = found
            try:
                answer = calls.listed(self._fs, directory.caller, directory.node, name, obj, at)
            except (IsofsError, OSError):
                continue  # gone since it was read
            if not pyfuse3.readdir_reply(token, name, _entry(answer), position):
                calls.forget(self._fs, answer.node, 0)
                return
            answer.node.lookups += 1

    @answered
    async def releasedir(self, fh: int) -> None:
        self._directories.pop(fh).release()

    @answered
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        directory = self._directories[fh]
        if directory.node.obj.ino and directory.node.pinned < 0:
            await copying.sync_directory(self._fs, directory.node.obj)
        if calls.sid_of(self._fs, directory.caller, directory.node):
            self._fs.store.sync()

    @answered
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        answer = StatvfsData()
        for field, value in accounting.statfs(self._fs, self._fs.suspects.get(ctx.uid, MAIN)).items():
            setattr(answer, field, value)
        return answer

    @answered
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        return xattrs.getxattr(self._fs, await self.caller(ctx), self._node(inode), name)

    @answered
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        return xattrs.listxattr(self._fs, await self.caller(ctx), self._node(inode))

    @answered
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        xattrs.setxattr(self._fs, await self.caller(ctx), self._node(inode), name, value)

    @answered
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        xattrs.removexattr(self._fs, await self.caller(ctx), self._node(inode), name)


def _entry(found: Entry) -> EntryAttributes:
    answer = _attributes(found.attributes, found.attr_timeout)
    answer.st_ino = pyfuse3.InodeT(found.node.id)
    answer.entry_timeout = found.entry_timeout
    return answer


def _attributes(found: Attributes, timeout: float) -> EntryAttributes:
    answer = EntryAttributes()
    answer.st_ino = pyfuse3.InodeT(found.ino)
    answer.st_mode = pyfuse3.ModeT(found.mode)
    answer.st_nlink = found.nlink
    answer.st_uid = found.uid
    answer.st_gid = found.gid
    answer.st_rdev = found.rdev
    answer.st_size = found.size
    answer.st_blocks = found.blocks
    answer.st_blksize = found.blksize
    answer.st_atime_ns = found.atime_ns
    answer.st_mtime_ns = found.mtime_ns
    answer.st_ctime_ns = found.ctime_ns
    answer.attr_timeout = timeout
    return answer


def _opened(handle: Handle) -> FileInfo:
    """What is open for writing only bypasses the page cache, so that it can be re-routed later (design, 4.4)."""
    direct = handle.flags & os.O_ACCMODE == os.O_WRONLY
    return FileInfo(fh=pyfuse3.FileHandleT(handle.id), direct_io=direct, keep_cache=handle.cached)
