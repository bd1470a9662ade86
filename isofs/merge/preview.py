"""What an innocent verdict would do now, in the words of the report that it would give. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, replace

from isofs.engine import attic, slices, tree, views
from isofs.engine.slices import Slices
from isofs.engine.state import Filesystem, Obj, View
from isofs.merge import folders, naming, places, resolving
from isofs.merge.plan import ObjectState, plan
from isofs.merge.report import Item
from isofs.merge.resolvers.base import Both
from isofs.merge.resolving import UNRESOLVED, Resolution
from isofs.model.reconcile import Outcome
from isofs.model.records import MAIN, Binding, Decided, Op
from isofs.model.vectors import Vector


@dataclass(frozen=True, slots=True)
class Planned:
    """One thing that the merge would do to an object, and where there is a version of it the vectors that say so."""

    item: Item
    op: Op
    main: Vector | None = None
    suspect: Vector | None = None


def preview(
    fs: Filesystem, view: View, states: Iterator[ObjectState], resolutions: Mapping[Op, Resolution] = UNRESOLVED
) -> list[Planned]:
    """Everything that merging a view would do, by path. `states` are those of its versions.

    `resolutions` are what resolvers propose of what both sides changed.
    """
    return slices.at_once(gather(fs, view, states, resolutions))


def gather(
    fs: Filesystem, view: View, states: Iterator[ObjectState], resolutions: Mapping[Op, Resolution] = UNRESOLVED
) -> Slices[list[Planned]]:
    """`preview`, in slices."""
    decided = replace(view, decisions={})
    for state in states:
        for one in plan(view.sid, [state]):
            decided.decisions[one.op] = resolving.decided(fs, view, one, resolutions.get(one.op))
        yield
    found = yield from would(fs, decided, kept_beside(resolutions))
    return (yield from slices.in_order(found, lambda planned: planned.item.path))


def kept_beside(resolutions: Mapping[Op, Resolution]) -> Set[Op]:
    """The objects of which the configuration says that both sides' are kept."""
    return {op for op, one in resolutions.items() if isinstance(one.proposal, Both)}


def would(fs: Filesystem, view: View, both: Set[Op], ops: Collection[Op] | None = None) -> Slices[list[Planned]]:
    """What merging a view would do as it is decided, in no order; with `ops`, what it would do to these objects.

    Of those in conflict of which `both` sides' are kept, the suspect's is put beside main's.
    """
    found: list[Planned] = []
    for op in [op for op in (view.versions if ops is None else ops) if op in view.decisions]:
        found += _contents(fs, view, op, both)
        yield
    for binding in list(view.all_bindings() if ops is None else _names(view, ops)):
        if binding.op is not None and view.binding(binding.directory, binding.name) == binding:
            found += _placed(fs, view, binding)
            yield
    for op in [op for op in (view.hiding if ops is None else ops) if op in view.hiding]:
        found += _removed(fs, view, op)
        yield
    return found


def _names(view: View, ops: Collection[Op]) -> Iterator[Binding]:
    """The names that the suspect gave these objects."""
    for key in [key for op in ops for key in view.placed.get(op, ())]:
        binding = view.binding(*key)
        if binding is not None:
            yield binding


def _contents(fs: Filesystem, view: View, op: Op, both: Set[Op]) -> Iterator[Planned]:
    """What becomes of an object that main knows."""
    version = view.version(op)
    if version is None:
        return  # taken back meanwhile
    obj, decided = fs.by_op[op], view.decisions[op]
    item = _content(fs, view, obj, decided)
    if op in both and item is not None and item.action == "conflict":
        item = _beside(fs, view, obj, item)
    if item is not None:
        yield Planned(item, op, fs.vector(obj), version.vector)


def _content(fs: Filesystem, view: View, obj: Obj, decided: Decided) -> Item | None:
    where = attic.where(fs, view, obj) if obj.links else views.path(fs, view.sid, obj) or b"?"
    outcome = Outcome(decided.outcome)
    if outcome is Outcome.CONFLICT:
        return Item(where, "conflict", decided.reason)
    if outcome is Outcome.KEEP:
        return Item(where, "kept", decided.reason, decided.review)
    if not obj.ino:
        return None  # if it comes back, it does with its name
    if outcome is Outcome.TAKE:
        if decided.seen is not None:
            return Item(where, "merged", decided.reason, decided.review)
        return Item(path_then(fs, view, obj) or where, "took", decided.reason, decided.review)
    if outcome is Outcome.DELETE and _has_other_names(fs, view, obj):
        removed = naming.removed_names(fs, view, obj)
        left = next((link for link in obj.links if link not in removed), None)
        where = where if left is None else attic.below(attic.where(fs, view, left[0]), left[1])
        return Item(where, "kept", naming.RENAMED_SINCE, True)
    if outcome is Outcome.DELETE and obj.is_dir and not all(naming.left_in(fs, view, obj)):
        return Item(where, "kept", naming.FILLED, True)
    if outcome is Outcome.DELETE:
        return Item(places.deleted(fs, view, obj), "deleted", decided.reason, decided.review)
    return None


def _has_other_names(fs: Filesystem, view: View, obj: Obj) -> bool:
    """Whether main has names of a deleted object that the suspect did not remove."""
    removed = [tree.child(fs, *at) for at in naming.removed_names(fs, view, obj)]
    count = sum(found is not None and found[0] is obj for found in removed)
    return not count if obj.is_dir else count < tree.located(fs, obj)[1].st_nlink


def _beside(fs: Filesystem, view: View, obj: Obj, conflict: Item) -> Item:
    directory, name = next(views.parents(fs, MAIN, obj))
    above, aside = views.path(fs, MAIN, directory), naming.beside(fs, view, directory, name)
    return Item(conflict.path, "renamed", naming.BOTH, False, above + b"/" + aside if above else aside)


def path_then(fs: Filesystem, view: View, obj: Obj) -> bytes | None:
    """The name that an object of main's keeps of those that it has, or that it will have."""
    taken = _taken_names(fs, view, obj)
    for directory, name in obj.links:
        if view.binding(directory.op, name) not in taken:
            return attic.below(attic.where(fs, view, directory), name)
    given = _renamings(fs, view, obj)
    return given[0].aside or given[0].path if given else None


def _placed(fs: Filesystem, view: View, binding: Binding) -> Iterator[Planned]:
    """A name that the suspect gave."""
    assert binding.op is not None
    obj = fs.by_op[binding.op]
    returns = not obj.ino and naming.takes(view, obj.op)
    if not naming.contested(view, obj.op) and (returns or not binding.kept):
        item = _known_name(fs, view, binding, obj) if obj.ino else _new_name(fs, view, binding, obj)
        if item is not None:
            version = view.version(obj.op)
            yield Planned(item, obj.op, fs.vector(obj), None if version is None else version.vector)


def _known_name(fs: Filesystem, view: View, binding: Binding, obj: Obj) -> Item | None:
    """A name for what main has already."""
    there = places.there(fs, view, binding)
    if there is obj:
        return None
    before, source = attic.where(fs, view, obj), naming.free_source(fs, view, obj)
    if source is not None:
        if naming.into_itself(fs, view, binding, obj):
            return Item(before, "kept", naming.INTO_ITSELF, True)
        return _given(fs, view, binding, Item(b"", "renamed", naming.renamed_from(before)))
    if obj.is_dir or naming.hidden_names(view, obj):
        return _renamed_twice(fs, view, binding, obj, before)
    return _given(fs, view, binding, Item(b"", "took", naming.LINKED))


def _renamed_twice(fs: Filesystem, view: View, binding: Binding, obj: Obj, before: bytes) -> Item:
    flagged = folders.flagged(fs, view, binding, obj)
    if flagged is None or (flagged not in obj.links and tree.child(fs, *flagged) is not None):
        return Item(before, "kept", naming.RENAMED_TWICE, True)
    return Item(places.name_in(fs, view, *flagged), "merged", folders.FLAGS)


def _new_name(fs: Filesystem, view: View, binding: Binding, obj: Obj) -> Item | None:
    """A name for what main has not, or not any more."""
    if not naming.takes(view, obj.op) or not views.content_exists(fs, view.sid, obj):
        return None
    there, decided = places.there(fs, view, binding), view.decisions.get(obj.op)
    if there is not None and there.is_dir and obj.is_dir and places.stays(fs, view, binding, there):
        return Item(places.path(fs, view, there) or b"", "united", naming.UNITED)
    item = Item(b"", "took", naming.MADE) if decided is None else Item(b"", "restored", decided.reason, True)
    if binding != places.first_name(fs, view, obj.op):
        item = Item(b"", "took", naming.LINKED)
    return _given(fs, view, binding, item)


def _given(fs: Filesystem, view: View, binding: Binding, item: Item) -> Item:
    """`item` under the name that the object would get: its own, or one beside what main has there."""
    directory, name = places.given(fs, view, binding)
    wanted = places.name_in(fs, view, directory, binding.name)
    if name == binding.name:
        return replace(item, path=wanted)
    return Item(wanted, "renamed", naming.BESIDE, True, places.name_in(fs, view, directory, name))


def _removed(fs: Filesystem, view: View, op: Op) -> Iterator[Planned]:
    """Single names that the suspect took from what lives on under others."""
    obj = fs.by_op[op]
    if obj.is_dir or not obj.ino or naming.stays_as_it_is(view, op):
        return
    for binding in _taken_names(fs, view, obj)[len(_renamings(fs, view, obj)) :]:
        if binding.op is None and naming.will_leave(fs, view, binding, obj):
            path = attic.below(attic.where(fs, view, fs.by_op[binding.directory]), binding.name)
            yield Planned(Item(path, "deleted", naming.ONE_NAME), op)


def _taken_names(fs: Filesystem, view: View, obj: Obj) -> list[Binding]:
    """The names of main's that the suspect took from an object, in the order in which it is renamed from them."""
    found = (view.binding(*name) for name in sorted(view.hiding.get(obj.op, ())))
    return [b for b in found if b is not None and not b.kept and b.op != obj.op and places.there(fs, view, b) is obj]


def _renamings(fs: Filesystem, view: View, obj: Obj) -> list[Item]:
    """The names that an object of main's, of which the suspect took some, gets instead, in the merge's order."""
    names = view.placed.get(obj.op, set())
    given = [view.binding(*name) for name in names] if len(names) < 2 else view.all_bindings()
    items = [_known_name(fs, view, b, obj) for b in given if b is not None and b.op == obj.op and not b.kept]
    return [item for item in items if item is not None and item.action == "renamed"]
