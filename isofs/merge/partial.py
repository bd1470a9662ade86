"""What a partial verdict would merge. Changes nothing.

Only what becomes main's exactly as the suspect has it is merged: a conflict, a name that main has given to something
else, a directory that both made stay with the suspect, whose view is the same before and after.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from isofs.engine import changes, tree, views
from isofs.engine.state import Filesystem, Obj, View
from isofs.merge import naming
from isofs.merge.apply import states
from isofs.merge.parting import Piece, Wish, part
from isofs.merge.plan import plan
from isofs.merge.preview import Planned, preview
from isofs.model.records import MAIN, Binding, Op

#: What a plan says of what does not become main's as the suspect has it.
_OTHERWISE = ("conflict", "kept", "merged", "united")

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
    """The objects that would be merged, what that would do, what comes along, and what is wanted and stays."""

    chosen: frozenset[Op]
    planned: list[Planned]
    along: list[Aside]
    left: list[Aside]

    @property
    def refused(self) -> list[Aside]:
        """What stays though nothing that was asked for says so."""
        return [one for one in self.left if not one.asked]


def pieces(fs: Filesystem, view: View) -> list[Piece]:
    """A suspect's changes, by object, and what each of them needs."""
    paths: dict[Op, dict[bytes, None]] = defaultdict(dict)
    needs: dict[Op, set[Op]] = {op: set() for op in view.versions}
    for line in changes.changes(fs, view):
        paths[line.op] |= dict.fromkeys(path for path in (line.path, line.before) if path is not None)
    for b in view.all_bindings():
        for op, needed in _needs(fs, view, b):
            needs.setdefault(op, set()).update(needed)
    for op in needs:
        paths[op] |= dict.fromkeys(path for sid in (view.sid, MAIN) if (path := views.path(fs, sid, fs.by_op[op])))
    return [Piece(op, tuple(paths[op]), fs.by_op[op].is_dir, frozenset(needs[op] - {op})) for op in sorted(needs)]


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


def partial(fs: Filesystem, view: View, found: list[Piece], wish: Wish) -> Partial:
    """What of a wish would be merged: all that becomes main's as the suspect has it, and that needs nothing else."""
    barred = dict.fromkeys(wish.barred, "")
    for op in view.placed:
        if fs.by_op[op].ino and any(b.kept for b in _names(view, op)):
            barred.setdefault(op, MOVED)
    while True:
        parting = part(found, wish.wanted, barred)
        chosen = split_view(view, parting.chosen)
        chosen.decisions = {one.op: one for one in plan(view.sid, states(fs, chosen))}
        planned = preview(fs, chosen, states(fs, chosen))
        otherwise = dict(_otherwise(fs, chosen, planned))
        if not otherwise:
            break
        barred |= otherwise
    along = [Aside(_path(fs, view, op), f"{_shown(fs, view, by)} needs it") for op, by in parting.along.items()]
    left = [_left(fs, view, op, by, barred[by]) for op, by in parting.left.items()]
    return Partial(parting.chosen, planned, sorted(along, key=_by_path), sorted(left, key=_by_path))


def _names(view: View, op: Op) -> Iterator[Binding]:
    """The bindings that lead to an object."""
    for name in view.placed.get(op, ()):
        binding = view.binding(*name)
        if binding is not None:
            yield binding


def split_view(view: View, chosen: Collection[Op]) -> View:
    """The view's versions and bindings of these objects, as a view. What only hides what main moved is left."""
    found = View(view.sid)
    found.versions = {op: version for op, version in view.versions.items() if op in chosen}
    for b in view.all_bindings():
        if b.op in chosen if b.kept else (b.op in chosen or b.replaced in chosen):
            found.put_binding(b, to_directory=False, over_directory=False)
    return found


def _otherwise(fs: Filesystem, chosen: View, planned: list[Planned]) -> Iterator[tuple[Op, str]]:
    """What would not become main's as the suspect has it, and why."""
    for one in planned:
        if one.item.aside is not None:
            yield one.op, TAKEN
        elif one.item.action in _OTHERWISE:
            yield one.op, one.item.reason
    for b in chosen.all_bindings():
        directory = fs.by_op[b.directory]
        if b.op is None and not b.kept and directory.ino:
            there = tree.child(fs, directory, b.name)
            if there is not None and there[0].op == b.replaced and naming.stays(fs, chosen, b, there[0]):
                yield there[0].op, NOT_REMOVED


def _left(fs: Filesystem, view: View, op: Op, by: Op, reason: str) -> Aside:
    if op == by:
        return Aside(_path(fs, view, op), reason, not reason)
    why = f"it needs {_shown(fs, view, by)}, which stays" + (f": {reason}" if reason else "")
    return Aside(_path(fs, view, op), why, not reason)


def _path(fs: Filesystem, view: View, op: Op) -> bytes:
    obj = fs.by_op[op]
    return views.path(fs, view.sid, obj) or views.path(fs, MAIN, obj) or fs.origins[op].name


def _shown(fs: Filesystem, view: View, op: Op) -> str:
    return _path(fs, view, op).decode("utf-8", "surrogateescape")


def _by_path(one: Aside) -> bytes:
    return one.path
