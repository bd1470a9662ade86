"""What a verdict makes of a model's world: Protocol 3 object by object, then names, as the design says."""

from __future__ import annotations

import itertools
import os
from collections.abc import Container
from dataclasses import dataclass, field

from support.model import G, Inode, Name, Thing, Vector, View, World


def dominates(one: Vector, other: Vector) -> bool:
    """Of padded vectors: in every dimension the same, the larger number, 'm' over 0, or anything over 'd'."""
    for dimension in one.keys() | other.keys():
        a, b = one.get(dimension, 0), other.get(dimension, 0)
        larger = isinstance(a, int) and isinstance(b, int) and a > b
        if not (a == b or b == "d" or larger or (a, b) == ("m", 0)):
            return False
    return True


def protocol3(main: Vector, own: Vector, sid: int) -> tuple[str, Vector]:
    """What becomes of an object, and main's merged vector. The paper's Protocol 3, in its order."""
    if main[G] == "d" and own[sid] == "d":
        return "nothing", {**main, sid: "d"}
    if main[G] == "d":
        if own[sid] == "m":
            return "take", {**main, G: own[G], sid: "m"}
        return "keep", main
    if own[sid] == "d":
        modified = main[G] > own[G]  # type: ignore[operator]  # both are numbers here
        merged = any(main[d] == "m" and own.get(d, 0) == 0 for d in main if d != G)
        if modified or merged:
            return "keep", {**main, sid: "d"}
        return "delete", {**main, G: "d", sid: "d"}
    if dominates(main, own):
        return "keep", main
    if dominates(own, main):
        return "take", {**dict.fromkeys(main, 0), **own}
    return "conflict", main


@dataclass(eq=False)
class Merge:
    """An innocent verdict. `clean` is whether nothing had to be decided between main and the suspect.

    `rest` is the view of the suspect's that a part was taken from: what the part brings is no news there.
    """

    world: World
    view: View
    rest: View | None = None
    outcomes: dict[Thing, tuple[str, Vector]] = field(default_factory=dict)
    united: dict[Thing, Thing] = field(default_factory=dict)
    clean: bool = True
    _counts: dict[Thing, int | str] = field(default_factory=dict)
    _returned: set[Thing] = field(default_factory=set)

    def outcome(self, thing: Thing) -> str:
        return self.outcomes[thing][0] if thing in self.outcomes else ""

    @property
    def contested(self) -> set[Thing]:
        return {thing for thing in self.outcomes if self.outcome(thing) == "conflict"}

    def run(self) -> None:
        world, view = self.world, self.view
        for thing in [thing for thing in view.versions if view.bare(thing)]:
            view.give_data(thing)
        for thing, version in view.versions.items():
            if thing.vector is not None:
                self._counts[thing] = thing.vector[G]
                self.outcomes[thing] = protocol3(thing.vector, version.vector, view.sid)
                missing = version.inode is None
                lost = self.outcome(thing) == "keep" and missing
                self.clean &= not lost and self.outcome(thing) != "conflict"
        for thing in view.touched & view.versions.keys():
            if not view.deleted(thing):
                view.modified(thing).mtime = None
        self.clean &= not any(b.kept for b in view.bindings.values())
        self._merge_names()
        for thing in view.touched - view.versions.keys():
            if thing.inode is not None:
                thing.inode.mtime = None  # as old as the suspect's last change there, at most
        for thing in list(view.versions):
            self._merge_state(thing)
        contested = {thing: view.versions[thing] for thing in self.contested}
        del world.views[view.sid]
        _to_main(view)
        if contested:
            view.versions, view.bindings, view.touched = contested, {}, set()
            world.waiting[view.sid] = view
        world.reset_vectors()

    # Names.

    def _merge_names(self) -> None:
        removed = self._removals()
        added = self._additions()
        for thing in {t for t in added.values() if t.inode is not None}:
            self._settle_renames(thing, removed, added)
        self._cancel_circles(removed, added)
        self._cancel_last_names(removed, added)
        self._cancel_full_directories(removed)
        destinations = self._destinations(removed, added)
        self._tell_others(removed, destinations)
        for name in removed:
            self.world.names[name[0]].pop(name[1])
            self.world.touch(name[0])
        for name, thing in destinations.items():
            self._place(name, thing)
        for thing in set(removed.values()):
            if not self.world.links(thing):
                thing.inode = None
                self.world.names.pop(thing, None)

    def _removals(self) -> dict[Name, Thing]:
        """Main's names that the suspect took away, if that stands."""
        found: dict[Name, Thing] = {}
        for name, binding in self.view.bindings.items():
            thing = binding.replaced
            if thing is None or binding.kept or binding.thing is thing:
                continue
            if self.world.child(*name) is not thing or self.outcome(thing) == "conflict":
                continue
            if not self.view.deleted(thing) or self.outcome(thing) == "delete":
                found[name] = thing
        return found

    def _additions(self) -> dict[Name, Thing]:
        """The suspect's names of things that main has or that come into it."""
        found: dict[Name, Thing] = {}
        for name, binding in self.view.bindings.items():
            thing = binding.thing
            if thing is None or thing in self.contested or self.world.child(*name) is thing:
                continue
            returns = thing.inode is None and self.outcome(thing) == "take"
            born = thing.inode is None and thing not in self.outcomes
            if returns or (not binding.kept and (born or thing.inode is not None)):
                found[name] = thing
                self.clean &= not returns
        return found

    def _settle_renames(self, thing: Thing, removed: dict[Name, Thing], added: dict[Name, Thing]) -> None:
        """What both sides renamed keeps main's name."""
        taken = [name for name, there in removed.items() if there is thing]
        took_any = any(b.replaced is thing and b.thing is not thing for b in self.view.bindings.values())
        if not taken and (thing.is_dir or took_any):
            for name in [name for name, there in added.items() if there is thing]:
                del added[name]
            self.clean = False

    def _cancel_circles(self, removed: dict[Name, Thing], added: dict[Name, Thing]) -> None:
        """Directories that both sides moved into each other keep main's names."""
        above = {thing: name[0] for name, thing in self.world.main_names()}
        above |= {thing: name[0] for name, thing in added.items()}
        circular = set()
        for name, thing in added.items():
            if thing.is_dir and thing.inode is not None:
                way = [name[0]]
                while way[-1] in above and above[way[-1]] not in way:
                    way.append(above[way[-1]])
                if way[-1] in above or thing in way:
                    circular.add(thing)
        for names in (added, removed):
            for name in [name for name, thing in names.items() if thing in circular]:
                del names[name]
        self.clean &= not circular

    def _cancel_last_names(self, removed: dict[Name, Thing], added: dict[Name, Thing]) -> None:
        """A file that the suspect did not delete keeps a name, if main has taken those that the suspect left to it."""
        for thing in set(removed.values()) - set(added.values()):
            taken = [name for name, there in removed.items() if there is thing]
            if not thing.is_dir and not self.view.deleted(thing) and len(taken) == self.world.links(thing):
                del removed[taken[-1]]
                self.clean = False

    def _cancel_full_directories(self, removed: dict[Name, Thing]) -> None:
        """A directory that the suspect deleted stays if something stays in it."""
        doomed = [(name, thing) for name, thing in removed.items() if thing.is_dir and self.view.deleted(thing)]
        for name, thing in sorted(doomed, key=lambda entry: -self._depth(entry[1])):
            if any((thing, inner) not in removed for inner in self.world.names[thing]):
                del removed[name]
                self.clean = False

    def _depth(self, thing: Thing) -> int:
        depth = 0
        while thing is not self.world.root:
            thing = next(name[0] for name, there in self.world.main_names() if there is thing)
            depth += 1
        return depth

    def _tell_others(self, removed: dict[Name, Thing], added: dict[Name, Thing]) -> None:
        """Other suspects' views stay whole, as if a trusted user had made the changes."""
        others = [view for view in self.world.views.values() if view not in (self.view, self.rest)]
        moves: list[tuple[Name, Name, Thing]] = []
        losses: list[tuple[Name, Thing, bool]] = []
        for thing in dict.fromkeys(removed.values()):
            olds = [name for name, there in removed.items() if there is thing]
            news = [name for name, there in added.items() if there is thing]
            final = olds[-1] if len(olds) == self.world.links(thing) and not news else None
            moves += [(old, new, thing) for old, new in zip(olds, news, strict=False)]
            losses += [(old, thing, old == final) for old in olds[len(news) :]]
        losses.sort(key=lambda loss: (loss[1].is_dir, loss[2], -self._depth(loss[0][0])))
        coming = {name: thing for name, thing in added.items() if thing.is_dir and thing.inode is None}
        for view in others:
            for old, thing, last in losses:
                view.main_loses(*old, thing, last=last)
            view.main_moves(moves, coming)
            for old, thing, last in losses:
                if thing.is_dir:  # what stays in it, because of where main moves it, keeps it as well
                    view.main_loses(*old, thing, last=last)

    def _destinations(self, removed: dict[Name, Thing], added: dict[Name, Thing]) -> dict[Name, Thing]:
        """The names that will be given in main: what has something else under its name goes beside it."""
        taken = {name: there for name, there in self.world.main_names() if name not in removed}
        found: dict[Name, Thing] = {}
        for (directory, name), thing in self._from_the_top(added):
            directory = self.united.get(directory, directory)
            there = taken.get((directory, name))
            if there is not None and there.is_dir and thing.is_dir and thing.inode is None:
                self.united[thing] = there
                self.clean = False
                continue
            given = name if there is None else self._beside(taken, directory, name)
            taken[directory, given] = found[directory, given] = thing
        return found

    def _from_the_top(self, added: dict[Name, Thing]) -> list[tuple[Name, Thing]]:
        """Directories before what comes into them."""
        ahead, ordered = dict(added), []
        while ahead:
            ready = [name for name in ahead if name[0] not in ahead.values()]
            if not ready:  # a circle of directories moved into each other on both sides
                self.clean = False
                break
            ordered += [(name, ahead.pop(name)) for name in ready]
        return ordered

    def _beside(self, taken: dict[Name, Thing], directory: Thing, name: bytes) -> bytes:
        self.clean = False
        return beside({given for at, given in taken if at is directory}, name, self.view.user)

    def _place(self, name: Name, thing: Thing) -> None:
        world = self.world
        if thing.inode is None:
            thing.inode = self.view.versions[thing].inode
            assert thing.inode is not None
            thing.inode.sid = 0
            if thing in self.outcomes:
                assert thing.vector is not None
                thing.vector = {**dict.fromkeys(thing.vector, 0), **self.outcomes[thing][1]}
            self._returned.add(thing)
        if thing in self._returned:
            for view in world.views.values():
                if view is not self.view and thing in view.versions and not view.deleted(thing):
                    view.hide(name, thing)
        world.add(*name, thing)

    # States.

    def _merge_state(self, thing: Thing) -> None:
        inode = self.view.versions[thing].inode
        if thing not in self.outcomes or self.outcome(thing) == "conflict":
            return
        if thing in self.united:  # main lacks it as before
            return
        outcome, merged = self.outcomes[thing]
        if outcome == "delete" and thing.inode is not None:  # something of it stays
            merged = {**merged, G: self._counts[thing]}
            self.clean = False
        assert thing.vector is not None
        thing.vector = {**dict.fromkeys(thing.vector, 0), **merged}
        if outcome == "take" and thing.inode is not None and inode is not None:
            take(self.world, thing, inode)


def beside(taken: Container[bytes], name: bytes, user: str) -> bytes:
    """The name under which a suspect's is put beside main's."""
    names = (name + b".isofs-%b%b" % (user.encode(), b"-%d" % n if n > 1 else b"") for n in itertools.count(1))
    return next(aside for aside in names if aside not in taken)


def take(world: World, thing: Thing, inode: Inode) -> None:
    """What a suspect has of a thing becomes main's."""
    if thing.inode is inode:
        return
    if thing.inode is not None and (thing.is_dir or world.links(thing) > 1):
        _overwrite(thing.inode, inode)
    else:
        thing.inode = inode
        inode.sid = 0


def _overwrite(inode: Inode, by: Inode) -> None:
    inode.mode, inode.uid, inode.gid = by.mode, by.uid, by.gid
    inode.data, inode.xattrs, inode.mtime = by.data, dict(by.xattrs), by.mtime
    inode.written = by.written


def _to_main(view: View) -> None:
    """Files of a former suspect go on working on main, or on what they had if main has that no more."""
    for file in view.world.files:
        if file.sid != view.sid:
            continue
        version = view.versions.get(file.thing)
        own = None if version is None or version.bare is not None else version.inode
        rerouted = file.before if file.flags & os.O_ACCMODE == os.O_WRONLY else None
        if own is not None and rerouted is not None and own is not file.thing.inode:
            file.inode = rerouted  # like everybody who had it open, whatever main has there by now
        elif own is not None and (rerouted is not None or own is file.inode) and file.thing.inode is not None:
            file.inode = file.thing.inode
        if file.inode is not file.thing.inode and file.inode.sid == view.sid:
            file.inode.sid = 0
        file.sid, file.before, file.counted = 0, None, False


def innocent(world: World, sid: int) -> Merge:
    """Merge a suspect's view into main."""
    merge = Merge(world, world.views[sid])
    merge.run()
    return merge


def partly(world: World, sid: int, things: set[Thing]) -> Merge:
    """Merge what a suspect changed of these things, with its own new number; the rest stays with the suspect."""
    view, number = world.views[sid], world.next_sid()
    for thing in filter(view.bare, things):
        view.give_data(thing)
    part = View(world, number, view.uid, view.user, touched=view.touched & things)
    for name, b in list(view.bindings.items()):
        if b.thing in things or (b.replaced in things and not b.kept):
            part.bindings[name] = view.bindings.pop(name)
    for thing in things & view.versions.keys():
        part.versions[thing] = version = view.versions.pop(thing)
        version.vector = _renamed(version.vector, sid, number)
        if thing.vector is not None:
            thing.vector = _renamed(thing.vector, sid, number)
    inodes = {version.inode: thing for thing, version in part.versions.items() if version.inode is not None}
    working = [(file, inodes[file.inode]) for file in world.files if file.sid == sid and file.inode in inodes]
    world.views[number] = part
    merge = Merge(world, part, view)
    merge.run()
    for file, thing in working:
        if thing.inode is not None:
            file.inode = thing.inode
    return merge


def _renamed(vector: Vector, sid: int, number: int) -> Vector:
    return {number if dimension == sid else dimension: value for dimension, value in vector.items()}


def settle(world: World, view: View, thing: Thing, choice: str) -> None:
    """Main's of what waits is kept, or becomes the suspect's, or the suspect's is put beside it."""
    version = view.versions.pop(thing)
    assert thing.vector is not None
    assert thing.inode is not None
    merged = {**thing.vector, view.sid: "m"}
    if choice == "suspect" and version.inode is not None:
        take(world, thing, version.inode)
    elif choice == "both" and version.inode is not None:
        directory, name = next(name for name, there in world.main_names() if there is thing)
        version.inode.sid = 0
        world.add(directory, beside(world.names[directory], name, view.user), Thing(thing.kind, version.inode))
    thing.vector = merged
    if not view.versions:
        del world.waiting[view.sid]
    world.reset_vectors()


def malicious(world: World, sid: int) -> None:
    """Discard a suspect's view, or what waits of one."""
    view = world.views.pop(sid, None)
    if view is None:
        world.waiting.pop(sid)
    else:
        _to_main(view)
    world.reset_vectors()
