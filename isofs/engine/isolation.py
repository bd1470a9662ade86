"""What a suspect does with names: make, remove, link, rename (Protocol 2, by bindings; `versions` has the objects).

Every function writes the store before it returns. Content is put in place before the row that refers to it and
removed after the row is gone: what is killed in between leaves a file that no row knows, and recovery removes it.
"""

from __future__ import annotations

import contextlib
import errno
import stat
import time
from collections.abc import Iterator
from dataclasses import replace

from isofs.engine import accounting, kept, making, reach, saving, tree, versions, views
from isofs.engine.batch import Batch
from isofs.engine.state import Caller, Filesystem, Obj, View, node_for
from isofs.engine.views import Seen
from isofs.errors import CallError
from isofs.model.records import Binding, Drop, Fingerprint, Op, Origin, Touch, Version
from isofs.model.vectors import G, Vector, delete_isolated, isolate
from isofs.store import inodes
from isofs.store.inodes import Place


def _unname(view: View, at: Seen, batch: Batch) -> None:
    """Make a name lead to nothing in the view; whatever main has there now is hidden.

    That is no change of the suspect's (`kept`) if the suspect had something else there all the time.
    """
    op = batch.op_of(at.directory)
    old = view.binding(op, at.name)
    if at.main is not None:
        replaced = batch.op_of(at.main)
        kept = old is not None and old.op is not None and old.replaced != replaced
        batch.put(Binding(view.sid, op, at.name, None, replaced, kept))
    elif old is not None:
        batch.drop(old)


def _bind(view: View, at: Seen, op: Op, batch: Batch) -> None:
    """Make a name lead to an object in the view."""
    directory = batch.op_of(at.directory)
    replaced = None if at.main is None else batch.op_of(at.main)
    old = view.binding(directory, at.name)
    if old is not None and (old.replaced != replaced if old.op is not None else old.kept and old.replaced == replaced):
        replaced = None  # the suspect does not see what main has there, and so replaces nothing
    batch.put(Binding(view.sid, directory, at.name, op, replaced))


def touch(fs: Filesystem, view: View, directory: Obj, batch: Batch) -> None:
    """The names in a directory changed in the view: its modification time there is now."""
    now, content = time.time_ns(), tree.content(fs, view.sid, directory)
    if content is None:
        batch.put(Touch(view.sid, batch.op_of(directory), now))
    else:
        versions.set_mtime(content, now)


def relinked(fs: Filesystem, view: View, obj: Obj, batch: Batch) -> None:
    """An object has other names in the view: its change time there is now.

    A directory of main's keeps its own: what is noted of it moves the modification time as well, which stays.
    """
    with contextlib.suppress(FileNotFoundError):
        versions.follow_main(fs, view, obj)
        content = tree.inode(fs, view.sid, obj)
        if content is not None:
            versions.set_mtime(content)
        elif not obj.is_dir:
            batch.put(Touch(view.sid, batch.op_of(obj), time.time_ns()))


def create(
    fs: Filesystem,
    view: View,
    at: Seen,
    mode: int,
    caller: Caller,
    rdev: int = 0,
    target: bytes | None = None,
) -> Obj:
    """Make an object of the type in `mode` in the suspect's view. Only the suspect will ever see it."""
    if at.obj is not None or _hidden(fs, at):
        raise CallError(errno.EEXIST)
    if stat.S_ISDIR(mode):
        reach.check(fs, view, at)
    accounting.admit(fs, view, accounting.of_new(stat.S_IFMT(mode), target), versions=1, names=1)
    batch = Batch(fs)
    obj = Obj(stat.S_IFMT(mode), 0)
    op = fs.store.new_op()
    batch.put(Origin(op, obj.kind, None, None, at.name, None, born=view.sid))
    batch.adopt(obj, op)
    to = fs.store.content(view.sid, str(op))
    with versions.removed_on_error(to):
        making.make(fs, view, at.directory, to, mode, caller, rdev, target)
        batch.put(Version(view.sid, op, "m", Vector.of({G: 0, view.sid: "m"}), str(op), None))
        _bind(view, at, op, batch)
        touch(fs, view, at.directory, batch)
        batch.commit()
    return obj


def unlink(fs: Filesystem, view: View, at: Seen) -> Obj:
    """Remove a name of anything but a directory from the view: the object that had it."""
    obj = _existing(at)
    if obj.is_dir:
        raise CallError(errno.EISDIR)
    saved = saving.saved_in_view(fs, view, at, obj)
    if saved is None:
        _remove(fs, view, at, obj)
        return obj
    accounting.admit(fs, view, versions=obj.op not in view.versions, names=_names_more(view, at), frees=True)
    _replace_content(fs, view, saved, at.directory, _existing(saved), obj, backup=at)
    return obj


def rmdir(fs: Filesystem, view: View, at: Seen) -> Obj:
    """Remove an empty directory from the view: the object that was it."""
    obj = _existing(at)
    if not obj.is_dir:
        raise CallError(errno.ENOTDIR)
    if not views.is_empty(fs, view.sid, obj):
        raise CallError(errno.ENOTEMPTY)
    _remove(fs, view, at, obj)
    return obj


def _hidden(fs: Filesystem, at: Seen) -> bool:
    """Whether the name is taken by what nobody sees."""
    return at.main is None and at.obj is None and tree.hidden(fs, at.directory, at.name)


def _names_more(view: View, at: Seen) -> int:
    """How many more bindings there are once a name leads to nothing in the view: 1, 0 or -1."""
    if view.binding(at.directory.op, at.name) is None:
        return 1
    return 0 if at.main is not None else -1


def _existing(at: Seen) -> Obj:
    if at.obj is None:
        raise CallError(errno.ENOENT)
    return at.obj


def _remove(fs: Filesystem, view: View, at: Seen, obj: Obj) -> None:
    accounting.admit(fs, view, versions=obj.op not in view.versions, names=_names_more(view, at), frees=True)
    batch = Batch(fs)
    with _let_go_again(fs, view, obj):
        content = _remove_in(fs, view, at, obj, batch)
        touch(fs, view, at.directory, batch)
        _forget_removed(fs, view, obj, batch)
        batch.commit()
    finish_removal(fs, obj, content)


@contextlib.contextmanager
def _let_go_again(fs: Filesystem, view: View, obj: Obj | None) -> Iterator[None]:
    """Around a change that may fail: the object's node is not held open for losing a name that it keeps."""
    node = None if obj is None else obj.node(view.sid)
    free = node is not None and node.pinned < 0
    try:
        yield
    except BaseException:
        if node is not None and free and node.pinned >= 0:
            tree.unpin(fs, node)
        raise


def _remove_in(fs: Filesystem, view: View, at: Seen, obj: Obj, batch: Batch) -> Place | None:
    """Write the removal of a name into a batch; returns the content that goes with it, if any."""
    last = obj.is_dir or views.names_left(fs, view, obj) <= 1
    content = None
    if last:
        own = obj.node(view.sid)
        if own is not None:
            tree.pin(fs, own)
        content = versions.delete_version(fs, view, obj, batch)
    else:
        relinked(fs, view, obj, batch)
    _unname(view, at, batch)
    return content


def finish_removal(fs: Filesystem, obj: Obj, content: Place | None) -> None:
    """After the rows are gone: remove the content, let caches expire, forget what was only the suspect's."""
    if content is not None:
        inodes.remove(content)
    origin = fs.origins.get(obj.op)
    if origin is not None and origin.ino is None and origin.vector is None:
        _forget_unused(fs, obj)
    versions.diverged(fs, obj)


def _forget_removed(fs: Filesystem, view: View, obj: Obj, batch: Batch) -> None:
    """Drop with its last name the origin of an object that nobody but the suspect has ever had to do with."""
    op, origin = obj.op, fs.origins.get(obj.op)
    if origin is None or origin.ino is not None or origin.vector is not None:
        return
    names = len(view.placed.get(op, ())) if op in view.versions else 0
    if names != 1 or op in view.hiding or op in view.bindings or op in view.touches:
        return
    if not any(c.record == view.versions[op] for c in batch.changes if isinstance(c, Drop)):
        return
    for other in fs.all_views:
        if other is not view and (other.concerns(op) or op in other.bindings or op in other.touches):
            return
    batch.drop(origin)


def _forget_unused(fs: Filesystem, obj: Obj) -> None:
    """Drop the origin of an object that a suspect made and removed again, unless rows still name it."""
    op = obj.op
    for view in fs.all_views:
        if view.concerns(op) or op in view.bindings:
            return
    batch = Batch(fs)
    for view in fs.views.values():
        if op in view.touches:
            batch.drop(Touch(view.sid, op, 0))
    batch.drop(fs.origins[op])
    batch.commit()


def link(fs: Filesystem, view: View, obj: Obj, at: Seen) -> None:
    """Give an object one more name in the view."""
    if obj.is_dir:
        raise CallError(errno.EPERM)
    if at.obj is not None or _hidden(fs, at):
        raise CallError(errno.EEXIST)
    version = view.version(obj.op)
    if version is not None and version.state == "d":
        raise CallError(errno.ENOENT)
    if views.link_count(fs, view, obj) >= tree.most_links(fs):
        raise CallError(errno.EMLINK)  # as on the host, where a merge could not give the name
    accounting.admit(fs, view, names=1)
    batch = Batch(fs)
    _bind(view, at, batch.op_of(obj), batch)
    touch(fs, view, at.directory, batch)
    relinked(fs, view, obj, batch)
    batch.commit()
    versions.diverged(fs, obj)


def rename(fs: Filesystem, view: View, source: Seen, to: Seen, *, noreplace: bool = False) -> None:
    """Rename in the view. Nothing is copied, unless one object of main replaces another (save-by-rename)."""
    obj, target = _existing(source), to.obj
    if target is not None and noreplace:
        raise CallError(errno.EEXIST)
    if _hidden(fs, to):
        raise CallError(errno.EBUSY)
    if target is obj:
        return
    if obj.is_dir and views.is_below(fs, view.sid, to.directory, obj):
        raise CallError(errno.EINVAL)
    if obj.is_dir:
        reach.check(fs, view, to, obj)
    if target is not None:
        _check_replaceable(fs, view, obj, target)
    names = _names_more(view, source) + (view.binding(to.directory.op, to.name) is None)
    versions_more = target is not None and target.op not in view.versions
    accounting.admit(fs, view, versions=versions_more, names=names, frees=True)
    if target is not None and _lives_on(fs, view, obj, target):
        _replace_content(fs, view, source, to.directory, obj, target)
        return
    batch = Batch(fs)
    op = batch.op_of(obj)
    content = None
    with _let_go_again(fs, view, target):
        if target is not None:
            content = _remove_in(fs, view, to, target, batch)
        _unname(view, source, batch)
        _bind(view, to, op, batch)
        touch(fs, view, source.directory, batch)
        if to.directory is not source.directory:
            touch(fs, view, to.directory, batch)
        relinked(fs, view, obj, batch)
        if target is not None:
            _forget_removed(fs, view, target, batch)
        batch.commit()
    _claim_moved(fs, view, obj)
    if target is not None:
        finish_removal(fs, target, content)
    versions.diverged(fs, obj)


def _check_replaceable(fs: Filesystem, view: View, obj: Obj, target: Obj) -> None:
    if target.is_dir and not obj.is_dir:
        raise CallError(errno.EISDIR)
    if obj.is_dir and not target.is_dir:
        raise CallError(errno.ENOTDIR)
    if target.is_dir and not views.is_empty(fs, view.sid, target):
        raise CallError(errno.ENOTEMPTY)


def _lives_on(fs: Filesystem, view: View, obj: Obj, target: Obj) -> bool:
    """Whether the replaced object's origin point takes the new content (design: save-by-rename)."""
    return (
        not obj.is_dir
        and obj.kind == target.kind
        and target.ino != 0
        and views.names_left(fs, view, obj) == 1
        and views.names_left(fs, view, target) == 1
    )


def _replace_content(
    fs: Filesystem, view: View, source: Seen, to: Obj, obj: Obj, target: Obj, backup: Seen | None = None
) -> None:
    """`obj` is renamed over `target`, both with one name: target stays the object, modified to obj's content.

    With `backup`, that name of `target`'s is removed instead, and `obj` is where main has `target`.
    """
    versions.copy_up(fs, view, obj)
    version = view.versions[obj.op]
    with _let_go_again(fs, view, target):
        relinked(fs, view, obj, Batch(fs))
        old = target.node(view.sid)
        if old is not None:
            tree.pin(fs, old)
        batch = Batch(fs)
        target_op = batch.op_of(target)
        replaced = view.version(target_op)
        obsolete = fs.store.content(view.sid, replaced.content) if replaced and replaced.content else None
        if replaced is None:
            at = tree.located(fs, target)[1]
            main, own = isolate(batch.vector(target_op), view.sid, "m")
            batch.set_vector(target_op, main)
            mark = Fingerprint(at.st_ino, at.st_ctime_ns, at.st_size)
            replaced = Version(view.sid, target_op, "m", own, None, mark)
        if batch.vector(obj.op) is None:
            batch.drop(version)
        else:
            gone = delete_isolated(version.vector, view.sid)
            batch.put(replace(version, state="d", vector=gone, content=None))
        batch.put(replace(replaced, content=version.content, attributes=False))  # no moment in which two have it
        if backup is None:
            _unname(view, source, batch)
            touch(fs, view, source.directory, batch)
        else:
            batch.drop(view.bindings[source.directory.op][source.name])
            _unname(view, backup, batch)
        touch(fs, view, to, batch)
        batch.commit()
    _exchange_nodes(fs, view, obj, target)
    finish_removal(fs, obj, obsolete)
    versions.diverged(fs, target)


def _exchange_nodes(fs: Filesystem, view: View, obj: Obj, target: Obj) -> None:
    """The inode behind the suspect's node of `obj` is `target`'s now; target's old node has no name any more."""
    new, old = obj.node(view.sid), target.node(view.sid)
    if old is not None:
        target.drop_node(old)
        Obj(target.kind, 0).add_node(old)
    if new is not None:
        obj.drop_node(new)
        target.add_node(new)
        kept.forget(fs, new)  # from now on they depend on what main has


def _claim_moved(fs: Filesystem, view: View, obj: Obj) -> None:
    """What has a name of the suspect's own is reached by a node of its own."""
    if not obj.is_dir:
        node_for(fs, view.sid, obj)


def exchange(fs: Filesystem, view: View, source: Seen, to: Seen) -> None:
    """Swap what two names lead to in the view (RENAME_EXCHANGE)."""
    one, other = _existing(source), _existing(to)
    if one is other:
        return
    for obj, into in ((one, to), (other, source)):
        if obj.is_dir and views.is_below(fs, view.sid, into.directory, obj):
            raise CallError(errno.EINVAL)
        if obj.is_dir:
            reach.check(fs, view, into, obj)
    accounting.admit(fs, view, names=2, frees=True)
    batch = Batch(fs)
    one_op, other_op = batch.op_of(one), batch.op_of(other)
    _bind(view, source, other_op, batch)
    _bind(view, to, one_op, batch)
    touch(fs, view, source.directory, batch)
    touch(fs, view, to.directory, batch)
    for obj in (one, other):
        relinked(fs, view, obj, batch)
    batch.commit()
    for obj in (one, other):
        _claim_moved(fs, view, obj)
        versions.diverged(fs, obj)
