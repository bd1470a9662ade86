"""A bare pyfuse3 file system that passes everything on: what the binding alone costs, to compare isofs with.

It has no views, no store and no checks; it keeps a descriptor of every node, which a real one could not afford.

    passthrough.py SOURCE MOUNTPOINT
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext, SetattrFields, StatvfsData

T = TypeVar("T")

LONG = 3600.0
_NODE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_STATVFS = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "namemax")


def answered(handler: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Coroutine[Any, Any, T]]:
    async def safe(*args: Any) -> T:
        try:
            return await handler(*args)
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None

    return safe


@dataclass(slots=True)
class Node:
    descriptor: int
    lookups: int = 0


class Passthrough(pyfuse3.Operations):
    supports_dot_lookup = False
    enable_acl = True

    def __init__(self, source: str) -> None:
        super().__init__()
        self._nodes = {int(pyfuse3.ROOT_INODE): Node(os.open(source, _NODE), 1)}
        self._listings: dict[int, tuple[int, list[str]]] = {}

    def _at(self, number: int) -> int:
        return self._nodes[number].descriptor

    def _path(self, number: int) -> str:
        return f"/proc/self/fd/{self._at(number)}"

    def _entry(self, parent: int, name: bytes) -> EntryAttributes:
        found = os.stat(name, dir_fd=self._at(parent), follow_symlinks=False)
        node = self._nodes.get(found.st_ino)
        if node is None:
            node = self._nodes[found.st_ino] = Node(os.open(name, _NODE, dir_fd=self._at(parent)))
        node.lookups += 1
        return _attributes(found)

    def _owned(self, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        os.chown(name, ctx.uid, ctx.gid, dir_fd=self._at(parent), follow_symlinks=False)
        return self._entry(parent, name)

    @answered
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        return self._entry(parent_inode, name)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for number, count in inode_list:
            node = self._nodes[number]
            node.lookups -= count
            if not node.lookups:
                os.close(self._nodes.pop(number).descriptor)

    @answered
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return _attributes(os.fstat(self._at(inode)))

    @answered
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        path = self._path(inode)
        if fields.update_size:
            os.truncate(path, attr.st_size)
        if fields.update_mode:
            os.chmod(path, attr.st_mode & 0o7777)
        if fields.update_uid or fields.update_gid:
            os.chown(path, attr.st_uid if fields.update_uid else -1, attr.st_gid if fields.update_gid else -1)
        if fields.update_atime or fields.update_mtime:
            now = os.stat(path)
            atime = attr.st_atime_ns if fields.update_atime else now.st_atime_ns
            os.utime(path, ns=(atime, attr.st_mtime_ns if fields.update_mtime else now.st_mtime_ns))
        return _attributes(os.fstat(self._at(inode)))

    @answered
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return os.readlink(b"", dir_fd=self._at(inode))

    @answered
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        os.mkdir(name, mode & ~ctx.umask, dir_fd=self._at(parent_inode))
        return self._owned(parent_inode, name, ctx)

    @answered
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        os.symlink(target, name, dir_fd=self._at(parent_inode))
        return self._owned(parent_inode, name, ctx)

    @answered
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        os.unlink(name, dir_fd=self._at(parent_inode))

    @answered
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        os.rmdir(name, dir_fd=self._at(parent_inode))

    @answered
    async def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int, ctx: object
    ) -> None:
        os.rename(name_old, name_new, src_dir_fd=self._at(parent_inode_old), dst_dir_fd=self._at(parent_inode_new))

    @answered
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        os.link(self._path(inode), new_name, dst_dir_fd=self._at(new_parent_inode), follow_symlinks=True)
        return self._entry(new_parent_inode, new_name)

    @answered
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        return FileInfo(fh=os.open(self._path(inode), flags & ~(os.O_NOFOLLOW | os.O_DIRECT)), keep_cache=True)

    @answered
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        opened = os.open(name, flags | os.O_CREAT, mode & ~ctx.umask, dir_fd=self._at(parent_inode))
        return FileInfo(fh=opened, keep_cache=True), self._owned(parent_inode, name, ctx)

    @answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return os.pread(fh, size, off)

    @answered
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return os.pwrite(fh, buf, off)

    async def flush(self, fh: int) -> None:
        raise FUSEError(errno.ENOSYS)

    @answered
    async def fsync(self, fh: int, datasync: bool) -> None:
        os.fsync(fh)

    @answered
    async def release(self, fh: int) -> None:
        os.close(fh)

    @answered
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        number = max(self._listings, default=0) + 1
        opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._at(inode))
        self._listings[number] = inode, os.listdir(opened)
        os.close(opened)
        return number

    @answered
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        inode, names = self._listings[fh]
        for position in range(start_id, len(names)):
            name = os.fsencode(names[position])
            entry = self._entry(inode, name)
            if not pyfuse3.readdir_reply(token, name, entry, position + 1):
                await self.forget([(entry.st_ino, 1)])
                return

    @answered
    async def releasedir(self, fh: int) -> None:
        del self._listings[fh]

    @answered
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        found, answer = os.fstatvfs(self._at(pyfuse3.ROOT_INODE)), StatvfsData()
        for field in _STATVFS:
            setattr(answer, f"f_{field}", getattr(found, f"f_{field}"))
        return answer

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        raise FUSEError(errno.ENOSYS)


def _attributes(found: os.stat_result) -> EntryAttributes:
    answer = EntryAttributes()
    for field in ("mode", "nlink", "uid", "gid", "rdev", "size", "blocks", "atime_ns", "mtime_ns", "ctime_ns"):
        setattr(answer, f"st_{field}", getattr(found, f"st_{field}"))
    answer.st_ino = pyfuse3.InodeT(found.st_ino)
    answer.entry_timeout = answer.attr_timeout = LONG
    return answer


def main() -> None:
    source, mount_point = sys.argv[1:]
    options = {*pyfuse3.default_options, "allow_other", "fsname=passthrough"}
    os.umask(0)
    pyfuse3.init(Passthrough(source), mount_point, options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)


if __name__ == "__main__":
    main()
