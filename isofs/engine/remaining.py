"""What remains in a suspect's view when main takes a name away, or moves one: what the suspect changed, and its names.

Each function is about one view, and is called *before* main changes. The bindings that it adds are no changes of the
suspect's (`Binding.kept`).
"""

from __future__ import annotations

from collections.abc import Callable

from isofs.engine import accounting, tree, usage, versions, views
from isofs.engine.batch import Batch
from isofs.engine.quota import FULL
from isofs.engine.state import Filesystem, Obj, View
from isofs.errors import StoreUnusable
from isofs.model.records import Binding, Version
from isofs.store import inodes


def keep_name(fs: Filesystem, view: View, directory: Obj, name: bytes, obj: Obj, batch: Batch, *, last: bool) -> None:
    """Keep a suspect's view whole when main takes a name away."""
    binding, version = _entry(view, directory, name, obj), view.version(obj.op)
    if version is not None and version.state == "d":
        return
    if last and version is not None and version.bare and not _keep_data(fs, view, obj, version):
        return
    if binding is None:
        if version is None and not (obj.is_dir and views.has_own_below(fs, view, obj)):
            if last and obj.op in view.placed:
                _keep_renamed(fs, view, obj, batch)
            return
        if version is None:
            _copy_up(fs, view, obj)
        if _is_kept_at(fs, view, directory, obj):
            at = batch.op_of(directory)
            batch.put(Binding(view.sid, at, name, batch.op_of(obj), batch.op_of(obj), kept=True))
    elif last and version is None and obj.op in view.placed:
        if obj.is_dir and views.has_own_below(fs, view, obj):
            _copy_up(fs, view, obj)
        else:
            _keep_renamed(fs, view, obj, batch)


def _is_kept_at(fs: Filesystem, view: View, directory: Obj, obj: Obj) -> bool:
    """Whether a view has an object under a name of main's: a directory has one name, and what is in none has none."""
    return not (obj.is_dir and obj.op in view.placed) and views.path(fs, view.sid, directory) is not None


def _keep_renamed(fs: Filesystem, view: View, obj: Obj, batch: Batch) -> None:
    """Main is about to lose what a suspect only renamed: the suspect gets a version of it.

    Where there is no space for one, the suspect loses it as well: whoever deletes it is not to be kept from that.
    """
    try:
        if accounting.spare(fs, usage.on_disk(tree.located(fs, obj)[1])):
            _copy_up(fs, view, obj)
            return
    except StoreUnusable as error:
        if error.errno not in FULL:
            raise
    _drop_names(view, obj, batch)


def _drop_names(view: View, obj: Obj, batch: Batch) -> None:
    for name in list(view.placed.get(obj.op, ())):
        if (placed := view.binding(*name)) is not None:
            batch.drop(placed)


def _keep_data(fs: Filesystem, view: View, obj: Obj, version: Version) -> bool:
    """Main is about to lose what a suspect changed the attributes of: the version gets the data.

    Where there is no space for them, the suspect loses it as well, as what was only renamed.
    """
    try:
        if accounting.spare(fs, usage.on_disk(tree.located(fs, obj)[1])):
            _unrefused(fs, lambda: versions.give_data(fs, view, obj, version))
            return True
    except StoreUnusable as error:
        if error.errno not in FULL:
            raise
    lose(fs, view, obj, version)
    return False


def lose(fs: Filesystem, view: View, obj: Obj, version: Version) -> None:
    """A suspect loses what it changed only attributes of, since main's data are lost."""
    batch = Batch(fs)
    batch.drop(version)
    if all(other is view or other.version(version.op) is None for other in fs.all_views):
        batch.set_vector(version.op, None)
    _drop_names(view, obj, batch)
    batch.commit()
    assert version.content is not None
    inodes.remove(fs.store.content(view.sid, version.content))


def _copy_up(fs: Filesystem, view: View, obj: Obj) -> None:
    """Make a version because main is about to change. StoreUnusable if it cannot be made."""
    _unrefused(fs, lambda: versions.copy_up(fs, view, obj, limited=False))


def _unrefused(fs: Filesystem, make: Callable[[], None]) -> None:
    try:
        make()
    except OSError as error:
        raise StoreUnusable(f"a version cannot be kept in {fs.store.path}: {error.strerror}", error.errno) from error


def note_place(view: View, directory: Obj, name: bytes, obj: Obj, batch: Batch) -> None:
    """A version waits for a decision, and main is about to lose its object: this is where it can come back."""
    version = view.version(obj.op)
    if version is None or version.state == "d":
        return
    for key in list(view.placed.get(obj.op, ())):
        if (noted := view.binding(*key)) is not None:
            batch.drop(noted)
    batch.put(Binding(view.sid, batch.op_of(directory), name, obj.op, obj.op, kept=True))


def _entry(view: View, directory: Obj, name: bytes, obj: Obj) -> Binding | None:
    """A suspect's binding of a name, if it decides whether the view shows `obj`, which main has there."""
    binding = view.binding(directory.op, name) if directory.op else None
    return None if binding is not None and binding.op is None and binding.replaced != obj.op else binding


def follow_or_keep(
    fs: Filesystem,
    view: View,
    directory: Obj,
    name: bytes,
    to: Obj,
    to_name: bytes,
    obj: Obj,
    batch: Batch,
    doomed: View | None = None,
) -> None:
    """The rules of one view for a rename in main: follow it unless the suspect changed the object.

    A directory stays in the view as well if the suspect could not reach it, and what is in it, under its new name; or
    if the merge of the view `doomed` will delete it, and the suspect keeps something in it.
    """
    version, binding = view.version(obj.op), _entry(view, directory, name, obj)
    if version is not None and version.state == "d":
        return
    follows = binding is None and version is None
    seen = obj.is_dir and obj.op not in view.placed and views.path(fs, view.sid, directory) is not None
    stays = doomed is not None and seen and _keeps_within(fs, view, obj, doomed)
    if follows and not stays and not (seen and _out_of_reach(fs, view, to, to_name, obj, batch)):
        return
    op, at = batch.op_of(obj), batch.op_of(directory)
    if binding is None:
        if _is_kept_at(fs, view, directory, obj):
            batch.put(Binding(view.sid, at, name, op, op, kept=True))
    elif binding.op != op and binding.replaced != op and not _kept_elsewhere(view, obj):
        return
    there = batch.binding(view, batch.op_of(to), to_name)
    if there is None or there.op is None:
        batch.put(Binding(view.sid, batch.op_of(to), to_name, None, op, kept=True))


def _kept_elsewhere(view: View, obj: Obj) -> bool:
    """Whether a view has a file under a name that main took from it before, so that no other name is news of it."""
    placed = (view.binding(*key) for key in view.placed.get(obj.op, ()))
    return not obj.is_dir and any(b is not None and b.kept for b in placed)


def deletes(view: View | None, obj: Obj) -> bool:
    """Whether an object is deleted in a view, if there is one."""
    version = None if view is None else view.version(obj.op)
    return version is not None and version.state == "d"


def _keeps_within(fs: Filesystem, view: View, directory: Obj, by: View) -> bool:
    """Whether a suspect will have something in a directory, at any depth, when the merge of `by` deletes it."""
    own = {fs.by_op[op] for op, names in view.bindings.items() if any(b.op is not None for b in names.values())}
    changed = (fs.by_op[op] for op, version in view.versions.items() if version.state == "m")
    own |= {above for obj in changed for above, _ in views.parents(fs, view.sid, obj)}
    for above in own:
        way: Obj | None = above
        while way is not None and way is not directory:
            stays = not way.ino or way.op in view.versions or deletes(by, way)  # else the merge moves it elsewhere
            way = next((found for found, _ in views.parents(fs, view.sid, way)), None) if stays else None
        if way is directory:
            return True
    return False


def _out_of_reach(fs: Filesystem, view: View, to: Obj, to_name: bytes, obj: Obj, batch: Batch) -> bool:
    """Whether a directory under its new name would be nowhere in a view: behind another, in nothing, or in itself."""
    there = batch.binding(view, batch.known_op(to), to_name)
    if there is not None and there.op is not None:
        return True
    return views.path(fs, view.sid, to) is None or views.is_below(fs, view.sid, to, obj)
