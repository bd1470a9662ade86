"""Calls on the model's world: what a kernel asks for, on main's side for trusted users, on the view's for suspects."""

from __future__ import annotations

import errno
import functools
import os
import stat
import tempfile
from collections.abc import Hashable
from dataclasses import dataclass

from support.model import G, Inode, ModelFile, Thing, Version, View, World
from support.vfs import EXCHANGE, Change, Stat, Vfs, fail


@functools.cache
def _counts_directories() -> bool:
    """Whether the file system tells in a directory's link count how many directories are in it. btrfs doesn't."""
    with tempfile.TemporaryDirectory() as made:
        return os.stat(made).st_nlink == 2


@dataclass(eq=False)
class ModelCalls:
    """The world as the backend of a `Vfs`, for one user: main's or the view's side of every call."""

    world: World
    uid: int
    gid: int
    umask: int

    @property
    def view(self) -> View | None:
        return self.world.view_of(self.uid)

    def root(self) -> Thing:
        return self.world.root

    def lookup(self, parent: Thing, name: bytes) -> Thing | None:
        return (self.view or self.world).child(parent, name)

    def kind(self, at: Thing) -> int:
        return at.kind

    def _inode(self, at: Thing) -> Inode:
        if self.view is not None:
            return self.view.inode(at)
        assert at.inode is not None
        return at.inode

    def readlink(self, at: Thing) -> bytes:
        return self._inode(at).data

    def stat(self, at: Thing) -> Stat:
        inode, mtime = self._inode(at), self._inode(at).mtime
        if at.is_dir:
            nlink = 2 + sum(kind == stat.S_IFDIR for kind in self.entries(at).values()) if _counts_directories() else 1
        else:
            nlink = (self.view or self.world).links(at)
        if self.view is not None and at in self.view.touched | self.view.stirred:
            mtime = None
        return Stat(at.kind, inode.mode, inode.uid, inode.gid, nlink, len(inode.data), mtime)

    def identity(self, at: Thing) -> Hashable:
        return at

    def entries(self, at: Thing) -> dict[bytes, int]:
        view = self.view
        entries = self.world.names[at] if view is None else view.entries(at)
        return {name: thing.kind for name, thing in entries.items()}

    def make(self, parent: Thing, name: bytes, mode: int, target: bytes | None) -> Thing:
        above, thing = self._inode(parent), Thing(stat.S_IFMT(mode))
        permissions = 0o777 if target is not None else stat.S_IMODE(mode) & ~self.umask
        gid = self.gid
        if above.mode & stat.S_ISGID:
            gid = above.gid
            permissions |= stat.S_ISGID if thing.is_dir else 0
        inode = Inode(permissions, self.uid, gid, target or b"")
        view = self.view
        if view is None:
            thing.inode = inode
            self.world.add(parent, name, thing)
        else:
            inode.sid = view.sid
            view.versions[thing] = Version(inode, {G: 0, view.sid: "m"})
            view.bind(parent, name, thing)
        return thing

    def create(self, parent: Thing, name: bytes, mode: int, flags: int) -> ModelFile:
        return self.open(self.make(parent, name, stat.S_IFREG | mode, None), flags & ~os.O_TRUNC)

    def open(self, at: Thing, flags: int) -> ModelFile:
        view = self.view
        if flags & os.O_TRUNC:
            self.change(at, Change(size=0))
        sid = 0 if view is None else view.sid
        inode = at.inode if view is not None and view.bare(at) else self._inode(at)
        assert inode is not None
        file = ModelFile(self.world, at, inode, flags, self.uid, sid)
        file.counted = bool(flags & os.O_TRUNC)
        self.world.files.append(file)
        return file

    def unlink(self, parent: Thing, name: bytes) -> None:
        view = self.view
        if view is None:
            self.world.unlink(parent, name)
        else:
            thing = view.child(parent, name)
            assert thing is not None
            view.unlink(parent, name, thing)

    def rmdir(self, parent: Thing, name: bytes) -> None:
        thing, view = self.lookup(parent, name), self.view
        assert thing is not None
        if self.entries(thing):
            fail(errno.ENOTEMPTY)
        if view is None:
            self.world.unlink(parent, name)
        else:
            view.remove(parent, name, thing)

    def rename(self, parent: Thing, name: bytes, to: Thing, to_name: bytes, flags: int) -> None:
        old, new, view = (parent, name), (to, to_name), self.view
        thing, target = self.lookup(*old), self.lookup(*new)
        assert thing is not None
        if flags & EXCHANGE:
            assert target is not None
            if view is None:
                self.world.exchange(old, new)
                return
            view.bind(*old, target)
            view.bind(*new, thing)
            self.world.diverged(thing)
            self.world.diverged(target)
            return
        if target is not None and target.is_dir and self.entries(target):
            fail(errno.ENOTEMPTY)
        if view is None:
            self.world.rename(old, new)
        else:
            view.rename(old, new, thing, target)

    def link(self, at: Thing, parent: Thing, name: bytes) -> None:
        view = self.view
        if view is None:
            self.world.count(at)
            self.world.add(parent, name, at)
        else:
            view.bind(parent, name, at)
            self.world.diverged(at)

    def _changing(self, at: Thing, *, data: bool = False) -> Inode:
        if self.view is not None:
            return self.view.modified(at) if data else self.view.dressed(at)
        self.world.count(at)
        assert at.inode is not None
        return at.inode

    def change(self, at: Thing, change: Change) -> None:
        inode = self._changing(at, data=change.size is not None)
        if change.size is not None:
            inode.data = inode.data[: change.size].ljust(change.size, b"\0")
            inode.wrote()
        if change.mode is not None:
            inode.mode = change.mode
        if change.uid is not None and change.gid is not None:
            inode.uid, inode.gid = change.uid, change.gid
        if change.mtime is not None:
            inode.mtime = change.mtime
            if self.view is not None:
                self.view.touched.discard(at)

    def xattrs(self, at: Thing) -> dict[str, bytes]:
        return dict(self._inode(at).xattrs)

    def set_xattr(self, at: Thing, name: str, value: bytes) -> None:
        self._changing(at).xattrs[name] = value

    def remove_xattr(self, at: Thing, name: str) -> None:
        if name not in self._inode(at).xattrs:
            fail(errno.ENODATA)
        del self._changing(at).xattrs[name]


class ModelUser(Vfs[Thing]):
    """A user of the model."""

    def __init__(self, world: World, uid: int, gid: int, umask: int) -> None:
        super().__init__(ModelCalls(world, uid, gid, umask))
