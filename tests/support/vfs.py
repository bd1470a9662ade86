"""What a kernel does with paths before it asks a file system: the same for the engine and the model.

`Vfs` resolves paths component by component, makes the checks that Linux makes itself (in Linux's order), and
asks a `Backend` for the rest. Every failure is an OSError whose errno is what a program would see.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, NoReturn, Protocol, TypeVar

NOREPLACE = 1
EXCHANGE = 2

#: Ways to open a file for writing.
WRITING = [
    os.O_WRONLY,
    os.O_RDWR,
    os.O_WRONLY | os.O_TRUNC,
    os.O_WRONLY | os.O_APPEND,
    os.O_WRONLY | os.O_CREAT,
    os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    os.O_WRONLY | os.O_CREAT | os.O_EXCL,
]

H = TypeVar("H")
T = TypeVar("T")


class Stat(NamedTuple):
    """What is compared of a file's attributes. `mtime` is None if it is not known beforehand."""

    kind: int
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    mtime: int | None


class Change(NamedTuple):
    """Attributes to set; None leaves one as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    mtime: int | None = None


class Opened(Protocol):
    """An open file."""

    def read(self) -> bytes: ...
    def write(self, offset: int, data: bytes) -> int: ...
    def truncate(self, size: int) -> None: ...
    def close(self) -> None: ...


class Backend(Protocol[H]):
    """A file system as a kernel sees it; `H` stands for an inode."""

    def root(self) -> H: ...
    def lookup(self, parent: H, name: bytes) -> H | None: ...
    def kind(self, at: H) -> int: ...
    def readlink(self, at: H) -> bytes: ...
    def stat(self, at: H) -> Stat: ...
    def identity(self, at: H) -> Hashable: ...
    def entries(self, at: H) -> dict[bytes, int]: ...
    def make(self, parent: H, name: bytes, mode: int, target: bytes | None) -> object: ...
    def create(self, parent: H, name: bytes, mode: int, flags: int) -> Opened: ...
    def open(self, at: H, flags: int) -> Opened: ...
    def unlink(self, parent: H, name: bytes) -> None: ...
    def rmdir(self, parent: H, name: bytes) -> None: ...
    def rename(self, parent: H, name: bytes, to: H, to_name: bytes, flags: int) -> None: ...
    def link(self, at: H, parent: H, name: bytes) -> None: ...
    def change(self, at: H, change: Change) -> None: ...
    def xattrs(self, at: H) -> dict[str, bytes]: ...
    def set_xattr(self, at: H, name: str, value: bytes) -> None: ...
    def remove_xattr(self, at: H, name: str) -> None: ...


def fail(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


class Way(NamedTuple, Generic[H]):
    """A resolved path: the directories passed (the last is the parent), the last name, what it leads to."""

    passed: list[H]
    name: bytes
    found: H | None

    @property
    def parent(self) -> H:
        return self.passed[-1]


class Vfs(Generic[H]):
    """The calls of programs on paths (relative to the root, without dots)."""

    def __init__(self, backend: Backend[H]) -> None:
        self.backend = backend

    def stat(self, path: bytes) -> Stat:
        return self._call(lambda: self.backend.stat(self._existing(path)))

    def identity(self, path: bytes) -> Hashable:
        """Equal for names of one object (the inode number, for a program)."""
        return self._call(lambda: self.backend.identity(self._existing(path)))

    def listdir(self, path: bytes) -> dict[bytes, int]:
        """The names in a directory with their types."""

        def attempt() -> dict[bytes, int]:
            at = self._existing(path, follow=True)
            if not self._is_dir(at):
                fail(errno.ENOTDIR)
            return self.backend.entries(at)

        return self._call(attempt)

    def open(self, path: bytes, flags: int, mode: int = 0o666) -> Opened:
        def attempt() -> Opened:
            way = self._way(path, follow=not flags & os.O_NOFOLLOW)
            if way.found is None:
                if not flags & os.O_CREAT:
                    fail(errno.ENOENT)
                return self.backend.create(way.parent, way.name, mode, flags)
            if flags & os.O_CREAT and flags & os.O_EXCL:
                fail(errno.EEXIST)
            kind = self.backend.kind(way.found)
            if kind == stat.S_IFLNK:
                fail(errno.ELOOP)
            writes = flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC)
            if kind == stat.S_IFDIR and writes:
                fail(errno.EISDIR)
            if kind != stat.S_IFREG:
                fail(errno.ENXIO)  # nothing else is opened by these tests
            return self.backend.open(way.found, flags)

        return self._call(attempt)

    def read(self, path: bytes) -> bytes:
        opened = self.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            return opened.read()
        finally:
            opened.close()

    def write(self, path: bytes, data: bytes, flags: int, offset: int = 0) -> None:
        """Open with these flags, write once, close."""
        opened = self.open(path, flags | os.O_NOFOLLOW)
        try:
            opened.write(offset, data)
        finally:
            opened.close()

    def mkdir(self, path: bytes, mode: int = 0o777) -> None:
        self._make(path, stat.S_IFDIR | mode)

    def mkfifo(self, path: bytes, mode: int = 0o666) -> None:
        self._make(path, stat.S_IFIFO | mode)

    def symlink(self, target: bytes, path: bytes) -> None:
        self._make(path, stat.S_IFLNK | 0o777, target)

    def _make(self, path: bytes, mode: int, target: bytes | None = None) -> None:
        def attempt() -> None:
            way = self._way(path)
            if way.found is not None:
                fail(errno.EEXIST)
            self.backend.make(way.parent, way.name, mode, target)

        self._call(attempt)

    def readlink(self, path: bytes) -> bytes:
        def attempt() -> bytes:
            at = self._existing(path)
            if self.backend.kind(at) != stat.S_IFLNK:
                fail(errno.EINVAL)
            return self.backend.readlink(at)

        return self._call(attempt)

    def unlink(self, path: bytes) -> None:
        def attempt() -> None:
            way = self._way(path)
            if way.found is None:
                fail(errno.ENOENT)
            if self._is_dir(way.found):
                fail(errno.EISDIR)
            self.backend.unlink(way.parent, way.name)

        self._call(attempt)

    def rmdir(self, path: bytes) -> None:
        def attempt() -> None:
            way = self._way(path)
            if way.found is None:
                fail(errno.ENOENT)
            if not self._is_dir(way.found):
                fail(errno.ENOTDIR)
            self.backend.rmdir(way.parent, way.name)

        self._call(attempt)

    def link(self, path: bytes, new: bytes) -> None:
        def attempt() -> None:
            at = self._existing(path)
            way = self._way(new)
            if way.found is not None:
                fail(errno.EEXIST)
            if self._is_dir(at):
                fail(errno.EPERM)
            self.backend.link(at, way.parent, way.name)

        self._call(attempt)

    def rename(self, path: bytes, new: bytes, flags: int = 0) -> None:
        self._call(lambda: self._rename(path, new, flags))

    def _rename(self, path: bytes, new: bytes, flags: int) -> None:
        old, to = self._way(path), self._way(new)
        if old.found is None:
            fail(errno.ENOENT)
        if flags & NOREPLACE and to.found is not None:
            fail(errno.EEXIST)
        if flags & EXCHANGE and to.found is None:
            fail(errno.ENOENT)
        if any(at is old.found for at in to.passed):
            fail(errno.EINVAL)
        if any(at is to.found for at in old.passed):
            fail(errno.EINVAL if flags & EXCHANGE else errno.ENOTEMPTY)
        if old.found is to.found:
            return
        if to.found is not None and not flags & EXCHANGE:
            if self._is_dir(old.found) and not self._is_dir(to.found):
                fail(errno.ENOTDIR)
            if self._is_dir(to.found) and not self._is_dir(old.found):
                fail(errno.EISDIR)
        self.backend.rename(old.parent, old.name, to.parent, to.name, flags)

    def chmod(self, path: bytes, mode: int) -> None:
        self._change(path, Change(mode=mode))

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        self._change(path, Change(uid=uid, gid=gid), follow=False)

    def utime(self, path: bytes, mtime: int) -> None:
        self._change(path, Change(mtime=mtime), follow=False)

    def truncate(self, path: bytes, size: int) -> None:
        def check(kind: int) -> None:
            if kind == stat.S_IFDIR:
                fail(errno.EISDIR)
            if kind != stat.S_IFREG:
                fail(errno.EINVAL)

        self._change(path, Change(size=size), check)

    def _change(
        self,
        path: bytes,
        change: Change,
        check: Callable[[int], None] | None = None,
        *,
        follow: bool = True,
    ) -> None:
        def attempt() -> None:
            at = self._existing(path, follow=follow)
            if check is not None:
                check(self.backend.kind(at))
            self.backend.change(at, change)

        self._call(attempt)

    def xattrs(self, path: bytes) -> dict[str, bytes]:
        """The extended attributes that users can have."""
        return self._call(lambda: self._user_xattrs(path))

    def _user_xattrs(self, path: bytes) -> dict[str, bytes]:
        at = self._existing(path)
        return self.backend.xattrs(at) if self._takes_xattrs(at) else {}

    def set_xattr(self, path: bytes, name: str, value: bytes) -> None:
        def attempt() -> None:
            at = self._existing(path)
            if not self._takes_xattrs(at):
                fail(errno.EPERM)
            self.backend.set_xattr(at, name, value)

        self._call(attempt)

    def remove_xattr(self, path: bytes, name: str) -> None:
        def attempt() -> None:
            at = self._existing(path)
            if not self._takes_xattrs(at):
                fail(errno.EPERM)
            self.backend.remove_xattr(at, name)

        self._call(attempt)

    def _takes_xattrs(self, at: H) -> bool:
        return self.backend.kind(at) in (stat.S_IFREG, stat.S_IFDIR)

    def _is_dir(self, at: H) -> bool:
        return self.backend.kind(at) == stat.S_IFDIR

    def _call(self, attempt: Callable[[], T]) -> T:
        """As the kernel does: on ESTALE the path is looked up again, once."""
        try:
            return attempt()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        return attempt()

    def _existing(self, path: bytes, *, follow: bool = False) -> H:
        if not path:
            return self.backend.root()
        found = self._way(path, follow=follow).found
        if found is None:
            fail(errno.ENOENT)
        return found

    def _way(self, path: bytes, *, follow: bool = False) -> Way[H]:
        """Resolve a path up to what its last component leads to. Symbolic links are relative."""
        passed = [self.backend.root()]
        parts = path.split(b"/")
        for _ in range(200):
            name = parts.pop(0)
            found = self.backend.lookup(passed[-1], name)
            if found is None and parts:
                fail(errno.ENOENT)
            kind = None if found is None else self.backend.kind(found)
            if kind == stat.S_IFLNK and (parts or follow):
                assert found is not None
                parts = self.backend.readlink(found).split(b"/") + parts
                continue
            if not parts:
                return Way(passed, name, found)
            if kind != stat.S_IFDIR:
                fail(errno.ENOTDIR)
            assert found is not None
            passed.append(found)
        fail(errno.ELOOP)
