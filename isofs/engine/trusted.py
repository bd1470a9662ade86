"""What changing main means for suspects: Protocol 2 for trusted users; and views stay whole (`remaining`).

Each function is called *before* main changes and leaves the store as it must be when the change has been made: a
crash in between may count a change that was not made, never miss one. While nobody is isolated none of them does
anything. `by` is the suspect whose merge makes the change, if it is one: its own view is left alone.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import replace

from isofs.engine import accounting, attic, failure, kept, remaining, tree, usage
from isofs.engine.batch import Batch
from isofs.engine.quota import FULL
from isofs.engine.state import Filesystem, Handle, Obj, View
from isofs.errors import CallError
from isofs.model.records import MAIN, MOVING, Base, Binding, SubjectId, SubjectState
from isofs.model.vectors import G, Vector, merges, trusted_deletion, trusted_modification
from isofs.store import inodes
from isofs.store.inodes import Place

#: Files larger than this get no base copy.
BASE_LIMIT = 64 << 20

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
        if error.errno in FULL:
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
        remaining.keep_name(fs, view, at, known, obj, batch, last=last)
    if not obj.op:
        return
    if last:
        for view in fs.waiting.values():
            remaining.note_place(view, directory, name, obj, batch)
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
    doomed = fs.views.get(by) if to_name.startswith(MOVING) and remaining.deletes(fs.views.get(by), obj) else None
    for view in _others(fs, by):
        remaining.follow_or_keep(fs, view, directory, name, to, to_name, obj, batch, doomed)
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
            remaining.follow_or_keep(fs, view, directory, name, to, to_name, obj, batch)
            remaining.follow_or_keep(fs, view, to, to_name, directory, name, other, batch)
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
        remaining.follow_or_keep(fs, view, directory, name, to, to_name, obj, batch)
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
