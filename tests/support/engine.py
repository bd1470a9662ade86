"""A kernel for one unmounted engine: what asks the engine, counts look-ups, and keeps files open."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from isofs.engine import attributes, calls, files, xattrs
from isofs.engine.attributes import NewAttributes
from isofs.engine.state import Caller, Filesystem, Handle, Node, node_for
from isofs.engine.views import Attributes
from isofs.errors import IsofsError
from isofs.model.records import MAIN
from support.vfs import Change, Stat, Vfs, fail

#: A modification time from this on is the clock's; whoever sets one explicitly sets an earlier one.
CLOCK = 1_500_000_000_000_000_000


def known_time(mtime_ns: int) -> int | None:
    """A modification time if it was set explicitly, None if it is the clock's."""
    return mtime_ns if mtime_ns < CLOCK else None


@contextlib.contextmanager
def _errnos() -> Iterator[None]:
    """The engine's refusals become what a program sees."""
    try:
        yield
    except IsofsError as error:
        raise OSError(error.errno, os.strerror(error.errno)) from error


@dataclass(eq=False)
class Kernel:
    """What all users of one engine share: the look-ups that are owed, and which nodes files keep."""

    fs: Filesystem
    lookups: Counter[Node] = field(default_factory=Counter)
    opened: list[OpenFile] = field(default_factory=list)

    def forget(self) -> None:
        """Give back all look-ups but those of nodes that open files need."""
        kept = {opened.handle.node for opened in self.opened}
        for node, count in list(self.lookups.items()):
            if node not in kept:
                del self.lookups[node]
                calls.forget(self.fs, node, count)

    def close(self) -> None:
        """Close everything and forget everything."""
        for opened in list(self.opened):
            opened.close()
        self.forget()


@dataclass(eq=False)
class OpenFile:
    """A file that a program has open."""

    kernel: Kernel
    handle: Handle

    def read(self) -> bytes:
        if self.handle.flags & os.O_ACCMODE == os.O_WRONLY:
            fail(errno.EBADF)
        with _errnos():
            return files.read(self.kernel.fs, self.handle, 0, 1 << 20)

    def write(self, offset: int, data: bytes) -> int:
        if not self.handle.writes:
            fail(errno.EBADF)
        with _errnos():
            return files.write(self.kernel.fs, self.handle, offset, data)

    def truncate(self, size: int) -> None:
        if not self.handle.writes:
            fail(errno.EINVAL)
        caller = Caller(self.handle.uid, self.handle.uid, self.handle.pid)
        with _errnos():
            attributes.setattr(self.kernel.fs, caller, self.handle.node, NewAttributes(size=size), self.handle.id)

    def close(self) -> None:
        self.kernel.opened.remove(self)
        files.release(self.kernel.fs, self.handle)


@dataclass(eq=False)
class EngineCalls:
    """The engine as the backend of a `Vfs`, for one caller."""

    kernel: Kernel
    caller: Caller

    @property
    def fs(self) -> Filesystem:
        return self.kernel.fs

    def root(self) -> Node:
        return node_for(self.fs, MAIN, self.fs.root)

    def lookup(self, parent: Node, name: bytes) -> Node | None:
        with _errnos():
            entry = calls.lookup(self.fs, self.caller, parent, name)
        return None if entry is None else self._owed(entry)

    def _owed(self, entry: calls.Entry) -> Node:
        self.kernel.lookups[entry.node] += 1
        return entry.node

    def kind(self, at: Node) -> int:
        return at.obj.kind

    def readlink(self, at: Node) -> bytes:
        with _errnos():
            return calls.readlink(self.fs, self.caller, at)

    def stat(self, at: Node) -> Stat:
        with _errnos():
            return plain(calls.getattr(self.fs, self.caller, at)[0])

    def identity(self, at: Node) -> int:
        with _errnos():
            return calls.getattr(self.fs, self.caller, at)[0].ino

    def entries(self, at: Node) -> dict[bytes, int]:
        with _errnos():
            found = list(calls.readdir(self.fs, self.caller, at))
        assert len({name for name, *_ in found}) == len(found), "a name was listed twice"
        return {name: obj.kind for name, obj, _ in found}

    def make(self, parent: Node, name: bytes, mode: int, target: bytes | None) -> None:
        with _errnos():
            self._owed(calls.make(self.fs, self.caller, parent, name, mode, 0, target))

    def create(self, parent: Node, name: bytes, mode: int, flags: int) -> OpenFile:
        with _errnos():
            entry, handle = files.create(self.fs, self.caller, parent, name, mode, flags)
        self._owed(entry)
        return self._opened(handle)

    def open(self, at: Node, flags: int) -> OpenFile:
        with _errnos():
            return self._opened(files.open(self.fs, self.caller, at, flags))

    def _opened(self, handle: Handle) -> OpenFile:
        opened = OpenFile(self.kernel, handle)
        self.kernel.opened.append(opened)
        return opened

    def unlink(self, parent: Node, name: bytes) -> None:
        with _errnos():
            calls.unlink(self.fs, self.caller, parent, name)

    def rmdir(self, parent: Node, name: bytes) -> None:
        with _errnos():
            calls.rmdir(self.fs, self.caller, parent, name)

    def rename(self, parent: Node, name: bytes, to: Node, to_name: bytes, flags: int) -> None:
        with _errnos():
            calls.rename(self.fs, self.caller, parent, name, to, to_name, flags)

    def link(self, at: Node, parent: Node, name: bytes) -> None:
        with _errnos():
            self._owed(calls.link(self.fs, self.caller, at, parent, name))

    def change(self, at: Node, change: Change) -> None:
        new = NewAttributes(change.mode, change.uid, change.gid, change.size, None, change.mtime)
        with _errnos():
            attributes.setattr(self.fs, self.caller, at, new)

    def xattrs(self, at: Node) -> dict[str, bytes]:
        with _errnos():
            names = xattrs.listxattr(self.fs, self.caller, at)
            return {
                os.fsdecode(name): xattrs.getxattr(self.fs, self.caller, at, name)
                for name in names
                if name.startswith(b"user.")
            }

    def set_xattr(self, at: Node, name: str, value: bytes) -> None:
        with _errnos():
            xattrs.setxattr(self.fs, self.caller, at, os.fsencode(name), value)

    def remove_xattr(self, at: Node, name: str) -> None:
        with _errnos():
            xattrs.removexattr(self.fs, self.caller, at, os.fsencode(name))


def plain(at: Attributes) -> Stat:
    """What is compared of the engine's attributes."""
    kind = stat.S_IFMT(at.mode)
    size = 0 if kind == stat.S_IFDIR else at.size
    mtime = known_time(at.mtime_ns)
    return Stat(kind, stat.S_IMODE(at.mode), at.uid, at.gid, at.nlink, size, mtime)


class Walker(Vfs[Node]):
    """A user of the engine who knows paths only."""

    def __init__(self, kernel: Kernel, caller: Caller) -> None:
        super().__init__(EngineCalls(kernel, caller))
        self.caller = caller

    def open(self, path: bytes, flags: int, mode: int = 0o666) -> OpenFile:
        opened = super().open(path, flags, mode)
        assert isinstance(opened, OpenFile)
        return opened


def killed(fs: Filesystem) -> None:
    """What is left of a daemon that was killed: nothing but the store. No clean-up is run."""
    descriptors = [h.descriptor for h in fs.handles.values() if h.descriptor >= 0]
    descriptors += [node.pinned for node in fs.nodes.values() if node.pinned >= 0]
    descriptors += fs.descriptors.values()
    store = fs.store
    store.database.close()
    descriptors += [*store.subjects.values(), *store.folders.values(), store.root, store.lock]
    for descriptor in descriptors:
        os.close(descriptor)
