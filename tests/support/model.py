"""A model of main and the suspects' views: plain values, one rule of the design after the other.

A `Thing` is an object (one origin point), an `Inode` a state of one: main's, or a version's. Main has names; a view
has bindings over main's names and versions over main's inodes. Nothing here knows how isofs does it.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from support.vfs import fail

#: The dimension of main in a version vector; suspects' are their numbers.
G = 0

Vector = dict[int, int | str]

#: When something was done, in order.
_MOMENTS = itertools.count()


@dataclass(eq=False)
class Inode:
    """A state of a thing. `sid` is whose version it is, 0 for main's. `mtime` is None if it is the clock's."""

    mode: int
    uid: int
    gid: int
    data: bytes = b""
    xattrs: dict[str, bytes] = field(default_factory=dict)
    mtime: int | None = None
    sid: int = 0
    written: int = field(default_factory=lambda: next(_MOMENTS))

    @property
    def attributes(self) -> tuple[object, ...]:
        """What a change of data alone leaves."""
        return self.mode, self.uid, self.gid, self.xattrs

    def wrote(self) -> None:
        """The data are others from now on."""
        self.mtime, self.written = None, next(_MOMENTS)

    def copy(self, sid: int) -> Inode:
        return replace(self, sid=sid, xattrs=dict(self.xattrs))


@dataclass(eq=False)
class Thing:
    """An object, whatever its names and versions. `inode` and `vector` are main's, None if main has none."""

    kind: int
    inode: Inode | None = None
    vector: Vector | None = None

    @property
    def is_dir(self) -> bool:
        return self.kind == stat.S_IFDIR


@dataclass(eq=False)
class Version:
    """A suspect's state of a thing: `inode` is None for a deleted one.

    While only attributes were changed, the data are main's: `bare` is what main had when the version was made, and
    `changed` and `on` say when the suspect's latest change
    was, and of what.
    """

    inode: Inode | None
    vector: Vector
    bare: Inode | None = None
    changed: int = 0
    on: Inode | None = None


@dataclass(frozen=True)
class Binding:
    """A suspect's entry of a directory: it leads to `thing`, or hides `replaced` if that is None.

    `kept` marks what the suspect did not do: it keeps the view whole.
    """

    thing: Thing | None
    replaced: Thing | None
    kept: bool = False


Name = tuple[Thing, bytes]


@dataclass(eq=False)
class View:
    """A suspect's changes of a world."""

    world: World
    sid: int
    uid: int
    user: str
    versions: dict[Thing, Version] = field(default_factory=dict)
    bindings: dict[Name, Binding] = field(default_factory=dict)
    touched: set[Thing] = field(default_factory=set)
    stirred: set[Thing] = field(default_factory=set)  # directories of its own in which main changed names

    def deleted(self, thing: Thing) -> bool:
        version = self.versions.get(thing)
        return version is not None and version.inode is None

    def bare(self, thing: Thing) -> bool:
        """Whether the suspect changed nothing of a thing but attributes."""
        return thing in self.versions and self.versions[thing].bare is not None

    def placed(self, thing: Thing) -> list[Name]:
        """The names that the suspect's bindings give a thing."""
        return [name for name, b in self.bindings.items() if b.thing is thing]

    def child(self, directory: Thing, name: bytes) -> Thing | None:
        binding = self.bindings.get((directory, name))
        if binding is not None and binding.thing is not None:
            return binding.thing
        there = self.world.child(directory, name)
        if there is None or (binding is not None and binding.replaced is there):
            return None
        if self.deleted(there) or (there.is_dir and self.placed(there)):
            return None
        return there

    def entries(self, directory: Thing) -> dict[bytes, Thing]:
        names = set(self.world.names.get(directory, {}))
        names |= {name for at, name in self.bindings if at is directory}
        found = {name: self.child(directory, name) for name in names}
        return {name: thing for name, thing in found.items() if thing is not None}

    def names(self) -> dict[Name, Thing]:
        """Every name that can be reached in the view."""
        found: dict[Name, Thing] = {}
        ahead = [self.world.root]
        while ahead:
            directory = ahead.pop()
            for name, thing in self.entries(directory).items():
                found[directory, name] = thing
                if thing.is_dir:
                    ahead.append(thing)
        return found

    def links(self, thing: Thing) -> int:
        return sum(there is thing for there in self.names().values())

    def inode(self, thing: Thing) -> Inode:
        version = self.versions.get(thing)
        inode = thing.inode if version is None else version.inode
        assert inode is not None, "the view shows a thing that has no state"
        if version is not None and version.bare is not None:
            return self._dressed(thing, version)
        return inode

    def _dressed(self, thing: Thing, version: Version) -> Inode:
        """Main's data under a version's own attributes."""
        main, own = thing.inode, version.inode
        assert main is not None
        assert own is not None
        mtime = own.mtime
        if main is not version.on or (main.mtime is None and main.written > version.changed):
            mtime = main.mtime
        return replace(own, data=main.data, mtime=mtime)

    def version(self, thing: Thing) -> Version:
        """The suspect's version of a thing with data, made from main's if there is none (Protocol 2)."""
        if thing not in self.versions:
            vector = self._isolated(thing, "m")
            assert thing.inode is not None
            self.versions[thing] = version = Version(thing.inode.copy(self.sid), vector)
            self._reopen(thing, version)
        elif self.versions[thing].bare is not None:
            self.give_data(thing)
        return self.versions[thing]

    def _reopen(self, thing: Thing, version: Version) -> None:
        for file in self.world.files:
            if file.sid == self.sid and not file.before and file.inode is thing.inode:
                assert version.inode is not None
                file.inode = version.inode

    def give_data(self, thing: Thing) -> None:
        """A version of attributes alone gets main's data, and starts from them if main's attributes are as before."""
        version, main = self.versions[thing], thing.inode
        assert version.bare is not None
        assert version.inode is not None
        assert main is not None
        dressed = self._dressed(thing, version)
        version.inode.data, version.inode.mtime = dressed.data, dressed.mtime
        if version.bare.attributes == main.attributes:
            version.vector = self._isolated(thing, "m")
        self.world.diverged(thing)
        version.bare = None
        self._reopen(thing, version)

    def dressed(self, thing: Thing) -> Inode:
        """The suspect changes attributes of a thing, and nothing else: those of its version."""
        if thing.kind != stat.S_IFREG:
            return self.modified(thing)
        if thing not in self.versions:
            vector = self._isolated(thing, "m")
            assert thing.inode is not None
            own, was = thing.inode.copy(self.sid), thing.inode.copy(0)
            self.versions[thing] = Version(own, vector, was, next(_MOMENTS), thing.inode)
        version = self.versions[thing]
        assert version.inode is not None, "a deleted version cannot be modified"
        if version.bare is not None:
            version.inode.mtime = self._dressed(thing, version).mtime
            version.changed, version.on = next(_MOMENTS), thing.inode
        return version.inode

    def modified(self, thing: Thing) -> Inode:
        """The suspect modifies a thing: its own inode of it."""
        inode = self.version(thing).inode
        assert inode is not None, "a deleted version cannot be modified"
        return inode

    def _isolated(self, thing: Thing, state: str) -> Vector:
        main = {G: 0} if thing.vector is None else thing.vector
        thing.vector = {**main, self.sid: 0}
        self.world.diverged(thing)
        return {**thing.vector, self.sid: state}

    def bind(self, directory: Thing, name: bytes, thing: Thing) -> None:
        """The name leads to the thing, which replaces what main has there if the suspect saw or replaced that."""
        there = self.world.child(directory, name)
        self.bindings[directory, name] = Binding(thing, None if self._unseen(directory, name) else there)
        self.touched.add(directory)

    def _unseen(self, directory: Thing, name: bytes) -> bool:
        """Whether main has something under a name that the suspect neither sees nor took away."""
        there, old = self.world.child(directory, name), self.bindings.get((directory, name))
        if there is None or old is None:
            return False
        return old.replaced is not there if old.thing is not None else old.kept and old.replaced is there

    def unbind(self, directory: Thing, name: bytes) -> None:
        """The name leads to nothing: what main has there now is hidden, which is the suspect's doing if it was seen."""
        there, kept = self.world.child(directory, name), self._unseen(directory, name)
        self.bindings.pop((directory, name), None)
        if there is not None:
            self.bindings[directory, name] = Binding(None, there, kept)
        self.touched.add(directory)

    def remove(self, directory: Thing, name: bytes, thing: Thing) -> None:
        """The suspect removes a name; with the last one the thing is deleted (Protocol 2)."""
        if thing.is_dir or self.links(thing) == 1:
            self.delete(thing)
        self.unbind(directory, name)
        self.world.diverged(thing)

    def unlink(self, directory: Thing, name: bytes, thing: Thing) -> None:
        """The suspect removes a name of a file. If it is that of the backup of one that it saved, that was modified."""
        saved = self._saved((directory, name), thing)
        if saved is None:
            self.remove(directory, name, thing)
        else:
            new = self.bindings.pop(saved).thing
            assert new is not None
            self._replace_content(new, thing)
            self.unbind(directory, name)

    def _saved(self, backup: Name, thing: Thing) -> Name | None:
        """Where the suspect made another file, in place of one of main's with one name, whose last one this is."""
        if thing.inode is None or self.links(thing) != 1 or self.world.links(thing) != 1:
            return None
        name = next(name for name, there in self.world.main_names() if there is thing)
        binding, new = self.bindings.get(name), self.child(*name)
        if binding is None or binding.thing is not new or binding.replaced is not thing or new in (None, thing):
            return None
        assert new is not None
        made = new.inode is None and new.vector is None and new.kind == thing.kind
        return name if made and name != backup and self.links(new) == 1 and name[0] in self._reached() else None

    def delete(self, thing: Thing) -> None:
        version = self.versions.get(thing)
        if version is None:
            self.versions[thing] = Version(None, self._isolated(thing, "d"))
        elif thing.vector is None:
            del self.versions[thing]  # nobody else has ever seen it
        else:
            self.versions[thing] = Version(None, {**version.vector, self.sid: "d"})

    def rename(self, old: Name, new: Name, thing: Thing, target: Thing | None) -> None:
        if target is not None:
            if self._lives_on(thing, target):
                self._replace_content(thing, target)
                self.unbind(*old)
                self.touched.add(new[0])
                return
            self.remove(*new, target)
        self.unbind(*old)
        self.bind(*new, thing)
        self.world.diverged(thing)

    def _lives_on(self, thing: Thing, target: Thing) -> bool:
        same = thing.kind == target.kind and not thing.is_dir
        return same and target.inode is not None and self.links(thing) == self.links(target) == 1

    def _replace_content(self, thing: Thing, target: Thing) -> None:
        """Save-by-rename: the target keeps its origin point and takes the other's content."""
        inode = self.modified(thing)
        replaced = self.versions.get(target)
        vector = self._isolated(target, "m") if replaced is None else replaced.vector
        self.versions[target] = Version(inode, vector)
        self.delete(thing)
        self.world.diverged(thing)
        self.world.diverged(target)
        for file in self.world.files:
            if file.inode is inode:
                file.thing = target

    # What main's changes mean for the view.

    def changed(self, thing: Thing) -> bool:
        """Whether the suspect changed a thing: its state, or as a directory the names in it."""
        own_entries = any(at is thing and b.thing is not None for (at, _), b in self.bindings.items())
        return thing in self.versions or (thing.is_dir and own_entries)

    def _shows_mains(self, directory: Thing, name: bytes, thing: Thing) -> bool:
        """Whether the view shows the thing under this name because main has it there."""
        binding = self.bindings.get((directory, name))
        own = binding is not None and binding.thing is not None
        return not own and self.child(directory, name) is thing

    def main_loses(self, directory: Thing, name: bytes, thing: Thing, *, last: bool) -> None:
        """Main is about to lose a name. What the suspect changed stays, under the name it had."""
        if self.deleted(thing):
            return
        if last and self.bare(thing):
            self.give_data(thing)
        if self._shows_mains(directory, name, thing) and self.changed(thing):
            if not self.bare(thing):
                self.version(thing)
            if directory in self._reached():
                self.bindings[directory, name] = Binding(thing, thing, kept=True)
        elif last and self.placed(thing):
            self.version(thing)

    def _follows(
        self, old: Name, new: Name, thing: Thing, kept: dict[Name, Binding], coming: dict[Name, Thing]
    ) -> bool:
        """Whether the view can show what main moves under its new name. Files may vanish, directories must not."""
        if thing in self.versions:
            return False
        if not thing.is_dir:
            return True
        binding = self.bindings.get(new)
        reached = self._reached()
        if old[0] not in reached:
            return True
        if new in kept or (binding is not None and binding.thing is not None):
            return False
        for name, there in coming.items():  # from the top
            known = self.bindings.get(name, Binding(None, None))
            if name[0] in reached and known.thing is None and known.replaced is not there and not self.deleted(there):
                reached.add(there)
        return new[0] in reached and new[0] not in self._below(thing)

    def _reached(self) -> set[Thing]:
        """The directories of the view. What is in others, it does not have."""
        return {self.world.root, *(there for there in self.names().values() if there.is_dir)}

    def _below(self, directory: Thing) -> set[Thing]:
        found, ahead = {directory}, [directory]
        while ahead:
            inner = {thing for thing in self.entries(ahead.pop()).values() if thing.is_dir} - found
            found |= inner
            ahead += inner
        return found

    def main_moves(self, moves: list[tuple[Name, Name, Thing]], coming: dict[Name, Thing] | None = None) -> None:
        """Main is about to rename; all at once for an exchange. Directories may be `coming` into it before."""
        kept: dict[Name, Binding] = {}
        hidden: dict[Name, Thing] = {}
        for _ in moves:
            self._main_moves(moves, kept, hidden, coming or {})
        for name, thing in hidden.items():
            self.hide(name, thing)
        self.bindings |= kept

    def hide(self, name: Name, thing: Thing) -> None:
        """The view does not show what main has under a new name: the suspect has it under another."""
        if name not in self.bindings or self.bindings[name].thing is None:
            self.bindings[name] = Binding(None, thing, kept=True)

    def _main_moves(
        self,
        moves: list[tuple[Name, Name, Thing]],
        kept: dict[Name, Binding],
        hidden: dict[Name, Thing],
        coming: dict[Name, Thing],
    ) -> None:
        for old, new, thing in moves:
            binding = self.bindings.get(old)
            if self.deleted(thing):
                continue
            if self._shows_mains(*old, thing):
                if self._follows(old, new, thing, kept, coming):
                    continue
                if old[0] in self._reached():
                    kept[old] = Binding(thing, thing, kept=True)
            elif binding is None or not (thing in (binding.thing, binding.replaced) or self._kept_elsewhere(thing)):
                continue
            hidden[new] = thing

    def _kept_elsewhere(self, thing: Thing) -> bool:
        """Whether the suspect has a file under a name that main took from it before."""
        return not thing.is_dir and any(b.kept and b.thing is thing for b in self.bindings.values())


@dataclass(eq=False)
class ModelFile:
    """An open file. `sid` is whose view its writes go to; `before` what main had, if that was before the suspicion."""

    world: World
    thing: Thing
    inode: Inode
    flags: int
    uid: int
    sid: int = 0
    before: Inode | None = None
    counted: bool = False

    def read(self) -> bytes:
        if self.flags & os.O_ACCMODE == os.O_WRONLY:
            fail(errno.EBADF)
        return self.inode.data

    def write(self, offset: int, data: bytes) -> int:
        if self.flags & os.O_ACCMODE == os.O_RDONLY:
            fail(errno.EBADF)
        if self.sid:
            self._isolate()
        elif self.inode is self.thing.inode and not self.counted:
            self.world.count(self.thing)
            self.counted = True
        old = self.inode.data
        if self.flags & os.O_APPEND:
            offset = len(old)
        self.inode.data = old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :]
        self.inode.wrote()
        return len(data)

    def truncate(self, size: int) -> None:
        if self.flags & os.O_ACCMODE == os.O_RDONLY:
            fail(errno.EINVAL)
        if self.sid:
            self._isolate()
        elif self.inode is self.thing.inode:
            self.world.count(self.thing)
        self.inode.data = self.inode.data[:size].ljust(size, b"\0")
        self.inode.wrote()

    def _isolate(self) -> None:
        """A suspect's write goes to the version, or to a copy without a name if the file was deleted.

        That is one copy for all of the suspect's open files, but for each that was opened before the suspicion.
        """
        view = self.world.views[self.sid]
        version = view.versions.get(self.thing)
        own = version.inode if version is not None else None
        if self.inode is own:
            return
        if (version is None or version.bare is not None) and self.inode is self.thing.inode:
            self.inode = view.modified(self.thing)
        elif self.inode.sid == self.sid:
            return  # the suspect replaced it
        elif self.before and own is not None:
            self.inode = own
        else:
            copy, old = self.inode.copy(self.sid), self.inode
            for file in self.world.files:
                if file is self or (file.inode is old and file.sid == self.sid and not (file.before or self.before)):
                    file.inode = copy

    def close(self) -> None:
        self.world.files.remove(self)


class World:
    """Main, every view, and the files that are open."""

    def __init__(self) -> None:
        self.root = Thing(stat.S_IFDIR, Inode(0o755, 0, 0))
        self.names: dict[Thing, dict[bytes, Thing]] = {self.root: {}}
        self.views: dict[int, View] = {}
        self.waiting: dict[int, View] = {}
        self.files: list[ModelFile] = []
        self._sids = itertools.count(1)

    def suspect(self, uid: int, user: str) -> View:
        """Isolate a user. Files open for reading and writing are closed (the holder is killed)."""
        view = View(self, self.next_sid(), uid, user)
        self.views[view.sid] = view
        for file in self.files:
            if file.uid == uid:
                assert file.flags & os.O_ACCMODE != os.O_RDWR, "cannot be isolated"
                file.sid, file.before = view.sid, file.inode
                if file.inode is not file.thing.inode:
                    file.thing = Thing(file.thing.kind)  # what main has replaced since is of no object any more
        return view

    def next_sid(self) -> int:
        return next(self._sids)

    def view_of(self, uid: int) -> View | None:
        return next((view for view in self.views.values() if view.uid == uid), None)

    def child(self, directory: Thing, name: bytes) -> Thing | None:
        return self.names.get(directory, {}).get(name)

    def main_names(self) -> Iterator[tuple[Name, Thing]]:
        for directory, names in self.names.items():
            for name, thing in names.items():
                yield (directory, name), thing

    def links(self, thing: Thing) -> int:
        return sum(there is thing for _, there in self.main_names())

    def diverged(self, thing: Thing) -> None:
        """A suspect changed the thing: whoever has main's open counts as modifying anew."""
        for file in self.files:
            if file.inode is thing.inode:
                file.counted = False

    def count(self, thing: Thing) -> None:
        """A trusted modification."""
        if thing.vector is not None:
            count = thing.vector[G]
            assert isinstance(count, int), "main has it, so it is not deleted"
            thing.vector = {**thing.vector, G: count + 1}

    def add(self, directory: Thing, name: bytes, thing: Thing) -> None:
        self.names[directory][name] = thing
        if thing.is_dir:
            self.names.setdefault(thing, {})
        self.touch(directory)

    def touch(self, directory: Thing) -> None:
        assert directory.inode is not None
        directory.inode.mtime = None
        for view in self.views.values():
            if directory in view.versions:
                view.stirred.add(directory)

    def unlink(self, directory: Thing, name: bytes) -> None:
        """A trusted user removes a name. If it is a backup's of a file that a suspect has, that was modified."""
        thing = self.names[directory][name]
        saved = self._saved(thing)
        if saved is None:
            self.remove(directory, name)
            return
        for view in self.views.values():
            view.main_moves([((directory, name), saved, thing)])
        self.count(thing)
        new = self.names[saved[0]][saved[1]]
        thing.inode, new.inode = new.inode, None
        self._follow_inode(new, thing)
        self.names[saved[0]][saved[1]] = thing
        del self.names[directory][name]
        self.touch(directory)

    def remove(self, directory: Thing, name: bytes) -> None:
        """A name goes that a trusted user removed, or gave to something else."""
        thing = self.names[directory][name]
        last = thing.is_dir or self.links(thing) == 1
        for view in self.views.values():
            view.main_loses(directory, name, thing, last=last)
        if not last:
            self.count(thing)
        elif thing.vector is not None:
            thing.vector = {**thing.vector, G: "d"}
        self.lose(directory, name)

    def lose(self, directory: Thing, name: bytes) -> None:
        """Main has the name no more, and with the last one the thing."""
        thing = self.names[directory].pop(name)
        if not self.links(thing):
            thing.inode = None
            self.names.pop(thing, None)
        self.touch(directory)

    def rename(self, old: Name, new: Name) -> None:
        """A trusted user renames; a file replaced by another of its type lives on."""
        thing, target = self.names[old[0]][old[1]], self.child(*new)
        if target is not None:
            same = thing.kind == target.kind and not thing.is_dir
            if same and self.links(thing) == self.links(target) == 1:
                self._replace_content(old, thing, target)
                self.touch(new[0])
                return
            self.remove(*new)
        for view in self.views.values():
            view.main_moves([(old, new, thing)])
        self.count(thing)
        del self.names[old[0]][old[1]]
        self.touch(old[0])
        self.add(*new, thing)

    def _replace_content(self, old: Name, thing: Thing, target: Thing) -> None:
        inode = thing.inode
        self.remove(*old)
        self.count(target)
        target.inode = inode
        self._follow_inode(thing, target)

    def _saved(self, thing: Thing) -> Name | None:
        """Where main has another file in place of one with one name, of which views keep that name."""
        if thing.is_dir or self.links(thing) != 1:
            return None
        found = {
            name
            for view in self.views.values()
            for name in view.placed(thing)
            if view.bindings[name].kept and thing in view.versions and self._is_single(self.child(*name), thing.kind)
        }
        if len(found) != 1:
            return None
        new = self.child(*next(iter(found)))
        views = (*self.views.values(), *self.waiting.values())
        known = (new in (b.thing, b.replaced) for view in views for b in view.bindings.values())
        known_too = (new in view.versions for view in views)
        return None if new is thing or any(known) or any(known_too) else found.pop()

    def _is_single(self, thing: Thing | None, kind: int) -> bool:
        return thing is not None and thing.kind == kind and self.links(thing) == 1

    def _follow_inode(self, thing: Thing, target: Thing) -> None:
        """Open files go along with an inode that was one thing's and is another's."""
        for file in [file for file in self.files if file.inode is target.inode]:
            rerouted = file.before and file.flags & os.O_ACCMODE == os.O_WRONLY
            own = self.views[file.sid].versions.get(thing) if rerouted else None
            if own is not None and own.inode is not None:
                file.inode = own.inode
            else:
                file.thing = target

    def exchange(self, one: Name, other: Name) -> None:
        thing, there = self.names[one[0]][one[1]], self.names[other[0]][other[1]]
        for view in self.views.values():
            view.main_moves([(one, other, thing), (other, one, there)])
        self.count(thing)
        self.count(there)
        self.add(*one, there)
        self.add(*other, thing)

    def reset_vectors(self) -> None:
        """A vector that no version needs any more is removed (paper, section 6.2)."""
        views = (*self.views.values(), *self.waiting.values())
        needed = {thing for view in views for thing in view.versions}
        for _, thing in self.main_names():
            if thing not in needed:
                thing.vector = None
