"""What a partial verdict would merge, or discard. Changes nothing; what takes time goes in slices.

What becomes main's exactly as the suspect has it is merged, and what resolvers make of both sides. A conflict that
nobody settles, a name that main has given to something else, a directory that both made stay with the suspect, whose
view is the same before and after but for what resolvers merged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass

from isofs.engine import changes, slices, tree, views
from isofs.engine.slices import Slices
from isofs.engine.state import Filesystem, Obj, View
from isofs.merge import folders, naming, resolving
from isofs.merge.apply import state
from isofs.merge.parting import Needs, Piece, Wish, apart, in_groups, part
from isofs.merge.plan import plan
from isofs.merge.preview import Planned, kept_beside, would
from isofs.merge.resolving import UNRESOLVED, Resolution
from isofs.model.records import MAIN, Binding, Op

#: What a plan says of what does not become main's as the suspect has it.
_OTHERWISE = ("conflict", "kept", "united")

TAKEN = "main has something else under this name"
MOVED = "main has renamed it meanwhile"
NOT_REMOVED = "the suspect removed this name, which is the only one that main has left"


@dataclass(frozen=True, slots=True)
class Aside:
    """An object that comes along, or that stays with the suspect, and why. `asked` is whether globs say so."""

    path: bytes
    reason: str
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Partial:
    """The objects that would be merged, what that would do, what comes along, and what is wanted and stays.

    They are in `groups`, each of which needs itself and those before it. `settled`, `beside` (as in `Wish`) and
    `resolutions` are what that stands on; `conflicts` are those of what is wanted that nobody settled, whatever
    resolvers made of them.
    """

    chosen: frozenset[Op]
    planned: list[Planned]
    along: list[Aside]
    left: list[Aside]
    needs: Needs
    groups: list[list[Op]]
    settled: frozenset[Op]
    beside: frozenset[Op]
    resolutions: Mapping[Op, Resolution]
    conflicts: list[Op]

    @property
    def refused(self) -> list[Aside]:
        """What stays though nothing that was asked for says so."""
        return [one for one in self.left if not one.asked]


@dataclass(frozen=True, slots=True)
class Discarded:
    """The objects that would be discarded, in groups that need none that comes before; what is unwanted and stays."""

    chosen: frozenset[Op]
    groups: list[list[Op]]
    left: list[Aside]


def pieces(fs: Filesystem, view: View) -> Slices[list[Piece]]:
    """A suspect's changes, by object, and what each of them needs."""
    paths: dict[Op, dict[bytes, None]] = defaultdict(dict)
    needs: dict[Op, set[Op]] = {op: set() for op in view.versions}
    for line in (yield from changes.gather(fs, view)):
        paths[line.op] |= dict.fromkeys(path for path in (line.path, line.before) if path is not None)
        yield
    for b in list(view.all_bindings()):
        for op, needed in _needs(fs, view, b):
            needs.setdefault(op, set()).update(needed)
        yield
    found = []
    for op in sorted(needs):
        obj = fs.by_op.get(op)
        if obj is not None:
            paths[op] |= dict.fromkeys(path for sid in (view.sid, MAIN) if (path := views.path(fs, sid, obj)))
            found.append(Piece(op, tuple(paths[op]), obj.is_dir, frozenset(needs[op] - {op})))
        yield
    return found


def _needs(fs: Filesystem, view: View, b: Binding) -> Iterator[tuple[Op, set[Op]]]:
    """What one binding makes objects need: those that it leads to and that it hides each other, and its directory."""
    directory = fs.by_op[b.directory]
    if b.op is not None and not directory.ino:
        yield b.op, {b.directory}
    if b.kept:
        return
    both = {op for op in (b.op, b.replaced) if op is not None}
    for op in both:
        yield op, both
    if b.replaced is not None and b.op is None and _deleted(view, b.directory):
        yield b.directory, {b.replaced}
    if b.op is not None and fs.by_op[b.op].ino and fs.by_op[b.op].is_dir:
        yield b.op, {above.op for above in _above(fs, view, directory) if above.op in view.placed}


def _above(fs: Filesystem, view: View, directory: Obj) -> Iterator[Obj]:
    """A directory and those above it in the view, the root excepted: where they are decides what may move below."""
    seen = set()
    while directory is not fs.root and directory not in seen:
        seen.add(directory)
        yield directory
        found = next(views.parents(fs, view.sid, directory), None)
        if found is None:
            return
        directory = found[0]


def _deleted(view: View, op: Op) -> bool:
    version = view.version(op)
    return version is not None and version.state == "d"


def partial(
    fs: Filesystem,
    view: View,
    found: list[Piece],
    wish: Wish,
    resolutions: Mapping[Op, Resolution] = UNRESOLVED,
) -> Slices[Partial]:
    """What of a wish would be merged: all that becomes main's as the suspect has it, and that needs nothing else.

    What resolvers merge becomes main's as well (`resolutions`).
    """
    barred = dict.fromkeys(wish.barred, "")
    for op in list(view.placed):
        if fs.by_op[op].ino and any(b.kept for b in _names(view, op)):
            barred.setdefault(op, MOVED)
        yield
    conflicts = set[Op]()
    while True:
        parting = yield from part(found, wish.wanted, barred)
        looked = Looked(view, wish.settled, wish.beside, resolutions)
        planned, otherwise = yield from looked.at(fs, parting.chosen)
        conflicts.update(op for op in otherwise if naming.contested(looked.view, op))
        if not otherwise:
            break
        barred |= otherwise
    along = [Aside(path_of(fs, view, op), f"{_shown(fs, view, by)} needs it") for op, by in parting.along.items()]
    left = [_left(fs, view, op, by, barred[by]) for op, by in parting.left.items()]
    planned = yield from slices.in_order(planned, lambda one: one.item.path)
    along, left = sorted(along, key=_by_path), sorted(left, key=_by_path)
    needs = {piece.op: piece.needs for piece in found if piece.op in parting.chosen}
    groups = yield from in_groups(needs)
    decided = wish.settled, wish.beside, resolutions
    return Partial(parting.chosen, planned, along, left, needs, groups, *decided, sorted(conflicts))


def unwanted(fs: Filesystem, view: View, found: list[Piece], ops: Collection[Op]) -> Slices[Discarded]:
    """What of these objects can be discarded alone, so that what is left can be merged, or discarded, after it."""
    parting = yield from apart(found, ops)
    left = [
        Aside(path_of(fs, view, op), f"{_shown(fs, view, by)} needs it, which stays") for op, by in parting.left.items()
    ]
    groups = yield from in_groups(
        {piece.op: piece.needs & parting.chosen for piece in found if piece.op in parting.chosen}
    )
    return Discarded(parting.chosen, groups[::-1], sorted(left, key=_by_path))


class Looked:
    """Objects of a suspect's as they would be merged now: their versions and bindings as a view, with decisions.

    It grows, and each of its objects is looked at once all that it needs is in it.
    """

    def __init__(
        self, view: View, settled: Collection[Op], beside: Set[Op], resolutions: Mapping[Op, Resolution]
    ) -> None:
        self.view = View(view.sid)
        self._of, self._settled, self._resolutions = view, settled, resolutions
        self._both, self._beside = kept_beside(resolutions), beside

    def at(self, fs: Filesystem, ops: Collection[Op]) -> Slices[tuple[list[Planned], dict[Op, str]]]:
        """Take in objects. What merging them would do, and which would not become main's as the suspect has them."""
        for op in ops:
            version = self._of.versions.get(op)
            if version is not None:
                self.view.versions[op] = version
                for decided in plan(self.view.sid, [state(fs, version)]):
                    self.view.decisions[op] = resolving.decided(fs, self._of, decided, self._resolutions.get(op))
            for b in bindings_of(self._of, op, ops):
                self.view.put_binding(b, to_directory=False, over_directory=False)
            yield
        planned = yield from would(fs, self.view, self._both, ops)
        otherwise = dict(self._contrary(planned))
        for op in ops:
            if op not in otherwise and self._keeps_a_name(fs, op):
                otherwise[op] = NOT_REMOVED
            yield
        return planned, otherwise

    def without(self, ops: Collection[Op]) -> None:
        """Take objects out again."""
        for op in ops:
            for b in list(bindings_of(self.view, op, ops)):
                self.view.drop_binding(b)
            self.view.versions.pop(op, None)
            self.view.decisions.pop(op, None)

    def _contrary(self, planned: list[Planned]) -> Iterator[tuple[Op, str]]:
        for one in planned:
            if one.item.action == "conflict" and one.op in self._settled:
                continue
            if one.item.aside is not None:
                decided = self._both if one.item.reason == naming.BOTH else self._beside
                if one.op not in decided:
                    yield one.op, TAKEN
            elif one.item.action in _OTHERWISE or one.item.reason == folders.FLAGS:
                yield one.op, one.item.reason

    def _keeps_a_name(self, fs: Filesystem, op: Op) -> bool:
        """Whether main would keep a name that the suspect removed."""
        for key in self.view.hiding.get(op, ()):
            b = self.view.binding(*key)
            if b is not None and b.op is None and not b.kept and (directory := fs.by_op[b.directory]).ino:
                there = tree.child(fs, directory, b.name)
                if there is not None and there[0].op == op and naming.stays(fs, self.view, b, there[0]):
                    return True
        return False


def bindings_of(view: View, op: Op, ops: Collection[Op]) -> Iterator[Binding]:
    """The bindings that go along with an object, one of `ops`. What only hides what main moved is left."""
    for key in {*view.placed.get(op, ()), *view.hiding.get(op, ())}:
        b = view.binding(*key)
        if b is not None and (b.op in ops if b.kept else (b.op in ops or b.replaced in ops)):
            yield b


def _names(view: View, op: Op) -> Iterator[Binding]:
    """The bindings that lead to an object."""
    for name in view.placed.get(op, ()):
        binding = view.binding(*name)
        if binding is not None:
            yield binding


def aside(fs: Filesystem, view: View, op: Op, reason: str) -> Aside:
    """An object that stays, and why."""
    return Aside(path_of(fs, view, op), reason)


def _left(fs: Filesystem, view: View, op: Op, by: Op, reason: str) -> Aside:
    if op == by:
        return Aside(path_of(fs, view, op), reason, not reason)
    why = f"it needs {_shown(fs, view, by)}, which stays" + (f": {reason}" if reason else "")
    return Aside(path_of(fs, view, op), why, not reason)


def path_of(fs: Filesystem, view: View, op: Op) -> bytes:
    """Where the suspect has an object; else where main has it, or had it."""
    obj = fs.by_op[op]
    return views.path(fs, view.sid, obj) or views.path(fs, MAIN, obj) or fs.origins[op].name


def _shown(fs: Filesystem, view: View, op: Op) -> str:
    return path_of(fs, view, op).decode("utf-8", "surrogateescape")


def _by_path(one: Aside) -> bytes:
    return one.path
