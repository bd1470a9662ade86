"""What programs do in many calls: remove a tree, save a file, let names change places.

Each act chooses by what its user sees at its beginning, and makes its calls one after the other, whatever they answer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from support.trees import Tree
from support.vfs import EXCHANGE

T = TypeVar("T")

#: A name that only a program in the middle of something uses.
_MEANWHILE = b"t"

#: Names for what finds none of those that everybody uses.
_SPARE = (b"u", b"v")

_NEW = os.O_WRONLY | os.O_CREAT


@dataclass(frozen=True)
class Actor:
    """A user: what the user sees, how calls are made, and the names that everybody uses."""

    seen: Tree
    call: Callable[[Callable[[Any], object]], object]
    data: Callable[[], bytes]
    names: tuple[bytes, ...]

    def any_one(self, index: int) -> bytes:
        """A path that the user sees."""
        return _choice(list(self.seen) or [self.names[0]], index)

    def directory(self, index: int) -> bytes:
        """The path of a directory, or the root's, which is empty."""
        return _choice([b"", *self._of_kind(stat.S_IFDIR)], index)

    def file(self, index: int) -> bytes:
        return _choice(self._of_kind(stat.S_IFREG) or [self.names[0]], index)

    def _of_kind(self, kind: int) -> list[bytes]:
        return [path for path, item in self.seen.items() if item.stat.kind == kind]

    def below(self, directory: bytes) -> list[bytes]:
        """Everything below a directory, each before the directory that it is in."""
        above = directory + b"/" if directory else b""
        return [path for path in reversed(list(self.seen)) if path.startswith(above)]

    def name_in(self, directory: bytes, index: int) -> bytes:
        return join(directory, _choice(self.names, index))

    def free(self, number: int) -> bytes:
        """A name in the root that nothing has, while there is one."""
        return [*(name for name in self.names if name not in self.seen), *_SPARE][number]

    def write(self, path: bytes, flags: int = _NEW) -> None:
        data = self.data()
        self.call(lambda user: user.write(path, data, flags))

    def mkdir(self, path: bytes) -> None:
        self.call(lambda user: user.mkdir(path))

    def remove(self, path: bytes) -> None:
        item = self.seen.get(path)
        if item is not None and item.stat.kind == stat.S_IFDIR:
            self.call(lambda user: user.rmdir(path))
        else:
            self.call(lambda user: user.unlink(path))

    def rename(self, path: bytes, to: bytes, flags: int = 0) -> None:
        self.call(lambda user: user.rename(path, to, flags))

    def link(self, path: bytes, to: bytes) -> None:
        self.call(lambda user: user.link(path, to))


def _choice(some: Sequence[T], index: int) -> T:
    return some[index % len(some)]


def join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def build(actor: Actor, one: int, other: int) -> None:
    """A directory with a file, and another directory with a file in it."""
    top = actor.name_in(actor.directory(one), other)
    inner = actor.name_in(top, other + 1)
    actor.mkdir(top)
    actor.write(actor.name_in(top, other))
    actor.mkdir(inner)
    actor.write(actor.name_in(inner, one))


def remove_tree(actor: Actor, one: int, other: int) -> None:
    """Remove a directory with all that is in it; now and then also the names that its files have elsewhere."""
    directory = actor.directory(one)
    below = actor.below(directory)
    if other % 2:
        files = {actor.seen[path].first for path in below}
        below = [path for path, item in actor.seen.items() if item.first in files and path not in below] + below
    for path in below:
        actor.remove(path)
    if directory:
        actor.remove(directory)


def link_tree(actor: Actor, one: int, other: int) -> None:
    """Files below one directory get names in another as well (`cp -l`)."""
    to = actor.directory(other)
    for number, path in enumerate(actor.below(actor.directory(one))):
        if actor.seen[path].stat.kind == stat.S_IFREG:
            actor.link(path, actor.name_in(to, one + number))


def link_down(actor: Actor, one: int, other: int) -> None:
    """A file gets another name two directories further down."""
    file, top = actor.free(0), actor.free(1)
    inner = actor.name_in(top, one)
    actor.write(file)
    actor.mkdir(top)
    actor.mkdir(inner)
    actor.link(file, actor.name_in(inner, other))


def uproot(actor: Actor, one: int, other: int) -> None:
    """Remove a directory with all that is in it, and all names of a file of it that has some elsewhere."""
    linked = [(directory, names) for directory, names in _linked(actor) if names]
    if linked:
        directory, names = _choice(linked, one)
        paths = [*names, *actor.below(directory)] if other % 2 else [*actor.below(directory), *names]
        for path in (*paths, directory):
            actor.remove(path)


def _linked(actor: Actor) -> list[tuple[bytes, list[bytes]]]:
    """The directories that the user sees, each with the names elsewhere of the files in it."""
    found = []
    for directory, item in actor.seen.items():
        if item.stat.kind == stat.S_IFDIR:
            below = set(actor.below(directory))
            files = {actor.seen[path].first for path in below}
            elsewhere = [path for path, one in actor.seen.items() if one.first in files and path not in below]
            found.append((directory, elsewhere))
    return found


def move_tree(actor: Actor, one: int, other: int) -> None:
    directory = actor.directory(one)
    if directory:
        actor.rename(directory, actor.name_in(actor.directory(other), one))


def pour(actor: Actor, one: int, other: int) -> None:
    """Move all that is in one directory into another, and remove it."""
    source, to = actor.directory(one), actor.directory(other)
    for path in actor.below(source):
        if os.path.dirname(path) == source:
            actor.rename(path, join(to, os.path.basename(path)))
    if source:
        actor.remove(source)


def unwrap(actor: Actor, one: int, other: int) -> None:
    """Something takes the place of the directory in which it is."""
    path = actor.any_one(one)
    above = os.path.dirname(path)
    if above:
        aside = join(os.path.dirname(above), _MEANWHILE)
        actor.rename(path, aside)
        for inner in actor.below(above):
            if inner != path and not inner.startswith(path + b"/"):
                actor.remove(inner)
        actor.remove(above)
        actor.rename(aside, above)


def save(actor: Actor, one: int, other: int) -> None:
    """As editors do: write another file, and rename it over the one that is saved."""
    path = actor.file(one)
    aside = join(os.path.dirname(path) if other % 2 else actor.directory(other), _MEANWHILE)
    actor.write(aside)
    actor.rename(aside, path)


def save_with_backup(actor: Actor, one: int, other: int) -> None:
    """As other editors do: what is saved keeps its inode under another name."""
    path = actor.file(one)
    actor.rename(path, actor.name_in(os.path.dirname(path), other))
    actor.write(path)


def save_and_remove_backup(actor: Actor, one: int, other: int) -> None:
    """As vim does: what is saved gets another name, which is removed when the new file is written."""
    path = actor.file(one)
    backup = path + b"~" if other % 2 else join(actor.directory(other), _MEANWHILE)
    actor.rename(path, backup)
    actor.write(path)
    actor.call(lambda user: user.unlink(backup))


def swap(actor: Actor, one: int, other: int) -> None:
    actor.rename(actor.any_one(one), actor.any_one(other), EXCHANGE)


def circle(actor: Actor, one: int, other: int) -> None:
    """Three names change places, wherever they are."""
    paths = [actor.any_one(index) for index in (one, other, one + other + 1)]
    aside = actor.name_in(b"", 0) + _MEANWHILE
    actor.rename(paths[0], aside)
    actor.rename(paths[1], paths[0])
    actor.rename(paths[2], paths[1])
    actor.rename(aside, paths[2])


def chain(actor: Actor, one: int, other: int) -> None:
    """Names move on by one, and the last is gone (as logs are rotated)."""
    paths = [actor.any_one(index) for index in (one, one + 1, other)]
    for path, to in zip(paths[1:], paths, strict=False):
        actor.rename(path, to)
    actor.write(paths[-1])


def retype(actor: Actor, one: int, other: int) -> None:
    """Something is removed, and its name is given to something of another type."""
    path = actor.any_one(one)
    for inner in actor.below(path):
        actor.remove(inner)
    actor.remove(path)
    there = actor.seen.get(path)
    if there is None or there.stat.kind != stat.S_IFDIR:
        actor.mkdir(path)
        actor.write(actor.name_in(path, other))
    elif other % 2:
        actor.write(path)
    else:
        actor.call(lambda user: user.symlink(b"a", path))


ACTS: dict[str, Callable[[Actor, int, int], None]] = {
    act.__name__: act
    for act in (
        build,
        remove_tree,
        link_tree,
        link_down,
        uproot,
        move_tree,
        pour,
        unwrap,
        save,
        save_with_backup,
        save_and_remove_backup,
        swap,
        circle,
        chain,
        retype,
    )
}
