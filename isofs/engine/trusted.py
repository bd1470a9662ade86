"""What changing main means for suspects: Protocol 2 for trusted users, and whole views (design, section 3).

Each function is called *before* main changes and leaves the store as it must be when the change has been made: a
crash in between may count a change that was not made, never miss one. While nobody is isolated none of them does
anything. `by` is the suspect whose merge makes the change, if it is one: its own view is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import replace

from isofs.engine import accounting, attic, failure, kept, tree, usage, versions, views
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Handle, Obj, View
from isofs.errors import CallError, StoreUnusable
from isofs.model.records import MAIN, MOVING, Base, Binding, SubjectId, SubjectState
from isofs.model.vectors import G, Vector, merges, trusted_deletion, trusted_modification
from isofs.store import inodes
from isofs.store.inodes import Place

#: Files larger than this get no base copy unless the file system can share their blocks.
BASE_LIMIT = 64 << 20

#: What a full disk answers.
_FULL = (errno.ENOSPC, errno.EDQUOT)

#: In `Origin.next_ino`: the object is about to be removed from main (no inode has this number).
REMOVED = 0


def _others(fs: Filesystem, by: SubjectId) -> Iterator[View]:
    """The views that a change concerns. What a part brings to main, the suspect whose it was had all the time."""
    subject, own = fs.subjects.get(by), {by}
    if subject is not None and subject.part_of is not None and subject.state is SubjectState.MERGING:
        own.add(subject.part_of)
    return (view for sid, view in fs.views.items() if sid not in own)


def keep_base(fs: Filesystem, obj: Obj, batch: Batch) -> None:
    """Keep what main has of a file if some version started from it and main has not changed since."""
    vector = batch.vector(obj.op)
    if vector is None or obj.kind != stat.S_IFREG or not isinstance(vector[G], int):
        return
    count = vector[G]
    assert isinstance(count, int)
    state = obj.op, count, merges(vector)
    if state in fs.bases or not any(
        (v := view.version(obj.op)) is not None and (v.vector.get(G), merges(v.vector, v.sid)) == state[1:]
        for view in fs.all_views
    ):
        return
    with contextlib.suppress(OSError, CallError):  # a base is a help for merging, not a condition for writing
        at, found = tree.located(fs, obj)
        if found.st_size > BASE_LIMIT:
            return
        if not accounting.spare(fs, usage.on_disk(found)):
            accounting.left_out(fs)
            return
        name = "-".join(map(str, state))
        _copy_base(fs, at, fs.store.base(name))
        batch.put(Base(*state, name))


def _copy_base(fs: Filesystem, at: Place, to: Place) -> None:
    try:
        inodes.copy(at, to)
    except OSError as error:
        inodes.remove(to)
        if error.errno in _FULL:
            accounting.left_out(fs)
        raise


def modified(fs: Filesystem, obj: Obj) -> None:
    """A trusted user is about to modify an object: it counts in G, durably."""
    if not obj.op or not fs.isolating:
        return

    def count() -> None:
        batch = Batch(fs)
        count_modification(fs, obj, batch)
        batch.commit()

    failure.anyway(fs, count)


def count_modification(fs: Filesystem, obj: Obj, batch: Batch) -> None:
    """Add a trusted modification of an object to a batch, with the base copy that it may call for."""
    vector = batch.vector(obj.op) if obj.op else None
    if vector is not None and not vector.deleted:
        keep_base(fs, obj, batch)
        batch.set_vector(obj.op, trusted_modification(vector))


def wrote(fs: Filesystem, handle: Handle) -> None:
    """A trusted user's handle is about to write: its first writing since the last divergence counts."""
    if handle.counted or not handle.node.obj.op:
        return
    modified(fs, handle.node.obj)
    handle.counted = True


def concerns_nobody(fs: Filesystem, obj: Obj) -> bool:
    """Whether a change of an object's name can be news for nobody isolated.

    The store does not know it: nobody has a version of it, nor a name for it. A directory may hold somebody's work.
    """
    return not obj.op and not (obj.is_dir and fs.isolating)


def will_unlink(
    fs: Filesystem,
    directory: Obj,
    name: bytes,
    obj: Obj,
    batch: Batch,
    *,
    last: bool,
    by: SubjectId = MAIN,
) -> None:
    """Main is about to lose a name of an object, its last one or not. Views keep what suspects changed."""
    if not fs.isolating:
        return
    aside = by in fs.views and name.startswith(MOVING)  # by a merge, for a moment
    at, known = attic.before(fs, fs.views[by], obj) if aside else (directory, name)
    for view in list(_others(fs, by)):
        _keep_name(fs, view, at, known, obj, batch, last=last)
    if not obj.op:
        return
    if last:
        for view in fs.waiting.values():
            _note_place(view, directory, name, obj, batch)
        _origin_gone(fs, obj, batch, count=by == MAIN)
    elif by == MAIN:
        count_modification(fs, obj, batch)
    if not last:
        _rehint(fs, obj, batch, without=(directory, name))


def _origin_gone(fs: Filesystem, obj: Obj, batch: Batch, *, count: bool) -> None:
    """Main is about to lose the object; its origin point stays while a version is left."""
    vector = batch.vector(obj.op)
    if count and vector is not None:
        keep_base(fs, obj, batch)
        vector = trusted_deletion(vector)
    batch.put(replace(batch.origin(obj.op), vector=vector, next_ino=REMOVED))


def is_gone(fs: Filesystem, obj: Obj, batch: Batch) -> None:
    """Main has lost the object that `will_unlink` announced."""
    if obj.op:
        batch.put(replace(batch.origin(obj.op), ino=None, parent=None, next_ino=None))


def _rehint(fs: Filesystem, obj: Obj, batch: Batch, *, without: tuple[Obj, bytes]) -> None:
    """If the store knew the object by a name that goes, let it know another."""
    origin, left = batch.origin(obj.op), [link for link in obj.links if link != without]
    if left and not any((parent.op, name) == (origin.parent, origin.name) for parent, name in left):
        parent, name = left[0]
        batch.put(replace(origin, parent=batch.op_of(parent), name=name))


def _keep_name(fs: Filesystem, view: View, directory: Obj, name: bytes, obj: Obj, batch: Batch, *, last: bool) -> None:
    """Keep a suspect's view whole when main takes a name away."""
    binding, version = _entry(view, directory, name, obj), view.version(obj.op)
    if version is not None and version.state == "d":
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
        if error.errno not in _FULL:
            raise
    for name in list(view.placed.get(obj.op, ())):
        if (placed := view.binding(*name)) is not None:
            batch.drop(placed)


def _copy_up(fs: Filesystem, view: View, obj: Obj) -> None:
    """Make a version because main is about to change. StoreUnusable if it cannot be made."""
    try:
        versions.copy_up(fs, view, obj, limited=False)
    except OSError as error:
        raise StoreUnusable(f"a version cannot be kept in {fs.store.path}: {error.strerror}", error.errno) from error


def _note_place(view: View, directory: Obj, name: bytes, obj: Obj, batch: Batch) -> None:
    """A version waits for a decision, and main is about to lose its object: this is where it can come back."""
    version = view.version(obj.op)
    if version is None or version.state == "d":
        return
    for key in list(view.placed.get(obj.op, ())):
        if (noted := view.binding(*key)) is not None:
            batch.drop(noted)
    batch.put(Binding(view.sid, batch.op_of(directory), name, obj.op, obj.op, kept=True))


def will_move(
    fs: Filesystem,
    directory: Obj,
    name: bytes,
    to: Obj,
    to_name: bytes,
    obj: Obj,
    batch: Batch,
    *,
    by: SubjectId = MAIN,
) -> None:
    """Main is about to rename an object. What a suspect changed of it stays where the suspect has it."""
    if not fs.isolating:
        return
    doomed = fs.views.get(by) if to_name.startswith(MOVING) and _deletes(fs.views.get(by), obj) else None
    for view in _others(fs, by):
        _follow_or_keep(fs, view, directory, name, to, to_name, obj, batch, doomed)
    _count_move(directory, name, to, to_name, obj, batch, by)


def will_exchange(
    fs: Filesystem,
    directory: Obj,
    name: bytes,
    to: Obj,
    to_name: bytes,
    obj: Obj,
    other: Obj,
    batch: Batch,
    *,
    by: SubjectId = MAIN,
) -> None:
    """Main is about to rename two objects to each other's names."""
    if not fs.isolating:
        return
    for view in _others(fs, by):
        for _ in range(2):  # whether one can follow depends on whether the other does
            _follow_or_keep(fs, view, directory, name, to, to_name, obj, batch)
            _follow_or_keep(fs, view, to, to_name, directory, name, other, batch)
    _count_move(directory, name, to, to_name, obj, batch, by)
    _count_move(to, to_name, directory, name, other, batch, by)


def _count_move(directory: Obj, name: bytes, to: Obj, to_name: bytes, obj: Obj, batch: Batch, by: SubjectId) -> None:
    if not obj.op:
        return
    if by == MAIN:
        count_modification(batch.fs, obj, batch)
    origin = batch.origin(obj.op)
    aside = origin.name.startswith(MOVING) and (origin.parent, origin.name) != (directory.op, name)
    if not aside:  # else a merge has to find it again by that name, which nothing else knows
        batch.put(replace(origin, parent=batch.op_of(to), name=to_name))


def _entry(view: View, directory: Obj, name: bytes, obj: Obj) -> Binding | None:
    """A suspect's binding of a name, if it decides whether the view shows `obj`, which main has there."""
    binding = view.binding(directory.op, name) if directory.op else None
    return None if binding is not None and binding.op is None and binding.replaced != obj.op else binding


def _follow_or_keep(
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


def _deletes(view: View | None, obj: Obj) -> bool:
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
            stays = not way.ino or way.op in view.versions or _deletes(by, way)  # else the merge moves it elsewhere
            way = next((found for found, _ in views.parents(fs, view.sid, way)), None) if stays else None
        if way is directory:
            return True
    return False


def _out_of_reach(fs: Filesystem, view: View, to: Obj, to_name: bytes, obj: Obj, batch: Batch) -> bool:
    """Whether a directory under its new name would be nowhere in a view: behind another, in nothing, or in itself."""
    there = batch.binding(view, to.op, to_name) if to.op else None
    if there is not None and there.op is not None:
        return True
    return views.path(fs, view.sid, to) is None or views.is_below(fs, view.sid, to, obj)


def comes_back(fs: Filesystem, directory: Obj, name: bytes, obj: Obj, batch: Batch, *, by: SubjectId) -> None:
    """A merge brings an object back to main that other suspects have versions of: they have it under their names."""
    kept.changed(fs, obj)
    for view in _others(fs, by):
        version, there = view.version(obj.op), view.binding(directory.op, name)
        if version is not None and version.state == "m" and (there is None or there.op is None):
            batch.put(Binding(view.sid, directory.op, name, None, obj.op, kept=True))


def will_replace_content(fs: Filesystem, obj: Obj, ino: int, batch: Batch, merged: Vector | None = None) -> None:
    """Another inode is about to take an object's place by a rename: the object lives on, modified.

    `merged` is the vector that a merge gives it instead of a counted modification.
    """
    if merged is None:
        count_modification(fs, obj, batch)
    else:
        keep_base(fs, obj, batch)
        batch.set_vector(obj.op, merged)
    batch.put(replace(batch.origin(obj.op), next_ino=ino))


def will_save(
    fs: Filesystem, directory: Obj, name: bytes, to: Obj, to_name: bytes, obj: Obj, new: Obj, batch: Batch
) -> None:
    """Main is about to lose the last name of an object, which lives on as `new`, where main has that."""
    for view in _others(fs, MAIN):
        _follow_or_keep(fs, view, directory, name, to, to_name, obj, batch)
    if new.op:
        batch.put(replace(batch.origin(new.op), ino=None, parent=None))
    count_modification(fs, obj, batch)
    batch.put(replace(batch.origin(obj.op), parent=batch.op_of(to), name=to_name, next_ino=new.ino))


@contextlib.contextmanager
def announced(fs: Filesystem, *objects: Obj | None, merging: bool = False) -> Iterator[None]:
    """Around a change of main that was announced: if it cannot be made, main has the objects as before.

    Modifications that were counted stay counted, but what a merge decided (`merging`) does not; what was kept for views
    does no harm.
    """
    there = [o for o in objects if o is not None]
    before = {o.op: fs.origins[o.op] for o in there if o.op}
    pinned = {node for o in there for node in o.nodes if node.pinned >= 0}
    try:
        yield
    except (OSError, CallError):
        for node in {node for o in there for node in o.nodes if node.pinned >= 0} - pinned:
            tree.unpin(fs, node)
        batch = Batch(fs)
        for op, origin in before.items():
            now = fs.origins[op]
            if merging:
                batch.put(origin)
            elif now.next_ino is not None or now.parent != origin.parent or now.name != origin.name:
                vector = now.vector
                if vector is not None and vector.deleted and origin.vector is not None:
                    vector = trusted_modification(origin.vector)
                batch.put(replace(origin, vector=vector))
        batch.commit()
        raise


def empty_in_main(fs: Filesystem, directory: Obj) -> bool:
    """Whether main has nothing in a directory."""
    opened = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree.descriptor(fs, directory))
    try:
        with os.scandir(opened) as entries:
            return next(entries, None) is None
    finally:
        os.close(opened)
