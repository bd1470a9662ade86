"""A plain directory on the host, used like a user of the engine uses the mount: the twin of main."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Hashable
from dataclasses import dataclass

from isofs.engine.state import Caller
from support.engine import known_time
from support.vfs import Stat, fail

_libc = ctypes.CDLL(None, use_errno=True)
_HERE = -100  # AT_FDCWD


#: Who a tree is read as.
ROOT = Caller(0, 0, 0)


@dataclass(eq=False)
class HostFile:
    """An open file of the host."""

    descriptor: int
    append: bool

    def read(self) -> bytes:
        return os.pread(self.descriptor, 1 << 20, 0)

    def write(self, offset: int, data: bytes) -> int:
        return os.pwrite(self.descriptor, data, offset)

    def truncate(self, size: int) -> None:
        os.ftruncate(self.descriptor, size)

    def close(self) -> None:
        os.close(self.descriptor)


@dataclass(eq=False)
class Host:
    """The calls of `Vfs` made by os functions below a directory, on behalf of a caller."""

    root: bytes
    caller: Caller = ROOT

    def _at(self, path: bytes) -> bytes:
        return os.path.join(self.root, path) if path else self.root

    def identity(self, path: bytes) -> Hashable:
        return os.lstat(self._at(path)).st_ino

    def stat(self, path: bytes) -> Stat:
        at = os.lstat(self._at(path))
        kind = stat.S_IFMT(at.st_mode)
        size = 0 if kind == stat.S_IFDIR else at.st_size
        mtime = known_time(at.st_mtime_ns)
        return Stat(kind, stat.S_IMODE(at.st_mode), at.st_uid, at.st_gid, at.st_nlink, size, mtime)

    def listdir(self, path: bytes) -> dict[bytes, int]:
        with os.scandir(self._at(path)) as entries:
            return {
                entry.name: stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
                for entry in entries
                if path or entry.name != b".isofs"
            }

    def open(self, path: bytes, flags: int, mode: int = 0o666) -> HostFile:
        at = self._at(path)
        try:
            kind = stat.S_IFMT(os.lstat(at).st_mode)
        except OSError:
            kind = 0
        writes = flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC)
        if not flags & os.O_EXCL and (kind == stat.S_IFIFO or (kind == stat.S_IFDIR and not writes)):
            fail(errno.ENXIO)  # as in `Vfs`: nothing but regular files is opened by these tests
        descriptor = os.open(at, flags | os.O_CLOEXEC, mode & ~self.caller.umask)
        if not kind:
            self._give(at)
        return HostFile(descriptor, bool(flags & os.O_APPEND))

    def _give(self, at: bytes) -> None:
        above = os.stat(os.path.dirname(at))
        gid = above.st_gid if above.st_mode & stat.S_ISGID else self.caller.gid
        os.chown(at, self.caller.uid, gid, follow_symlinks=False)

    def read(self, path: bytes) -> bytes:
        opened = self.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            return opened.read()
        finally:
            opened.close()

    def write(self, path: bytes, data: bytes, flags: int, offset: int = 0) -> None:
        opened = self.open(path, flags | os.O_NOFOLLOW)
        try:
            opened.write(offset, data)
        finally:
            opened.close()

    def mkdir(self, path: bytes, mode: int = 0o777) -> None:
        os.mkdir(self._at(path), mode & ~self.caller.umask)
        self._give(self._at(path))

    def mkfifo(self, path: bytes, mode: int = 0o666) -> None:
        os.mkfifo(self._at(path), mode & ~self.caller.umask)
        self._give(self._at(path))

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, self._at(path))
        self._give(self._at(path))

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(self._at(path))

    def unlink(self, path: bytes) -> None:
        os.unlink(self._at(path))

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self._at(path))

    def link(self, path: bytes, new: bytes) -> None:
        os.link(self._at(path), self._at(new), follow_symlinks=False)

    def rename(self, path: bytes, new: bytes, flags: int = 0) -> None:
        if _libc.renameat2(_HERE, self._at(path), _HERE, self._at(new), flags):
            fail(ctypes.get_errno())

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        os.chown(self._at(path), uid, gid, follow_symlinks=False)

    def utime(self, path: bytes, mtime: int) -> None:
        atime = os.lstat(self._at(path)).st_atime_ns
        os.utime(self._at(path), ns=(atime, mtime), follow_symlinks=False)

    def truncate(self, path: bytes, size: int) -> None:
        os.truncate(self._at(path), size)

    def xattrs(self, path: bytes) -> dict[str, bytes]:
        at = self._at(path)
        names = os.listxattr(at, follow_symlinks=False)
        return {name: os.getxattr(at, name, follow_symlinks=False) for name in names if name.startswith("user.")}

    def set_xattr(self, path: bytes, name: str, value: bytes) -> None:
        os.setxattr(self._at(path), name, value, follow_symlinks=False)

    def remove_xattr(self, path: bytes, name: str) -> None:
        os.removexattr(self._at(path), name, follow_symlinks=False)


def copy_of(source: bytes, to: bytes) -> None:
    """Make `to` the same tree as `source` in everything that is compared, hard links included."""
    shutil.rmtree(to, ignore_errors=True)
    seen: dict[int, bytes] = {}
    _copy(source, to, seen, top=True)


def _copy(source: bytes, to: bytes, seen: dict[int, bytes], *, top: bool = False) -> None:
    at = os.lstat(source)
    if stat.S_ISDIR(at.st_mode):
        os.mkdir(to)
        for name in os.listdir(source):
            if not (top and name == b".isofs"):
                _copy(os.path.join(source, name), os.path.join(to, name), seen)
    elif at.st_ino in seen:
        os.link(seen[at.st_ino], to, follow_symlinks=False)
        return
    elif stat.S_ISLNK(at.st_mode):
        os.symlink(os.readlink(source), to)
    elif stat.S_ISFIFO(at.st_mode):
        os.mkfifo(to)
    else:
        shutil.copyfile(source, to)
    seen[at.st_ino] = to
    os.chown(to, at.st_uid, at.st_gid, follow_symlinks=False)
    shutil.copystat(source, to, follow_symlinks=False)
