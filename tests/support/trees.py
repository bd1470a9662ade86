"""Whole trees as plain values, to compare: names, types, contents, attributes, and which names are one file."""

from __future__ import annotations

import stat
from collections.abc import Hashable, Iterator
from typing import NamedTuple, Protocol

from support.vfs import Stat


class Item(NamedTuple):
    """One name of a tree. `first` is the first path of the same object."""

    stat: Stat
    content: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    first: bytes


Tree = dict[bytes, Item]


class Readable(Protocol):
    """What a tree is read from: a user of the engine, of the model, or of the host."""

    def stat(self, path: bytes) -> Stat: ...
    def identity(self, path: bytes) -> Hashable: ...
    def listdir(self, path: bytes) -> dict[bytes, int]: ...
    def read(self, path: bytes) -> bytes: ...
    def readlink(self, path: bytes) -> bytes: ...
    def xattrs(self, path: bytes) -> dict[str, bytes]: ...


def tree(user: Readable) -> Tree:
    """Everything below the root that a user sees."""
    firsts: dict[Hashable, bytes] = {}
    return dict(_below(user, b"", firsts))


def _below(user: Readable, directory: bytes, firsts: dict[Hashable, bytes]) -> Iterator[tuple[bytes, Item]]:
    for name, kind in sorted(user.listdir(directory).items()):
        path = directory + b"/" + name if directory else name
        at = user.stat(path)
        assert at.kind == kind, f"{path!r} is listed with another type than stat has"
        content = b""
        if kind == stat.S_IFREG:
            content = user.read(path)
            assert len(content) == at.size, f"{path!r}: stat has another size than the content"
        elif kind == stat.S_IFLNK:
            content = user.readlink(path)
        first = firsts.setdefault(user.identity(path), path)
        yield path, Item(at, content, tuple(sorted(user.xattrs(path).items())), first)
        if kind == stat.S_IFDIR:
            yield from _below(user, path, firsts)


def differences(found: Tree, expected: Tree) -> list[str]:
    """What differs between two trees, a line each. Times that are not expected to be known are not compared."""
    lines = []
    for path in sorted(found.keys() | expected.keys()):
        here, there = found.get(path), expected.get(path)
        if here is not None and there is not None and there.stat.mtime is None:
            here = here._replace(stat=here.stat._replace(mtime=None))
        if here != there:
            lines.append(f"{path!r}:\n    found    {here}\n    expected {there}")
    return lines


def without_times(one: Tree) -> Tree:
    """The same tree with no modification time known."""
    return {path: item._replace(stat=item.stat._replace(mtime=None)) for path, item in one.items()}
