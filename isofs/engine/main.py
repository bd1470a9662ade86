"""Calls on main: what a trusted user's call does to the directory that was mounted over.

The kernel has checked permissions (`default_permissions`); these functions do what was allowed, as root, and give
what they make to the caller. What it means for suspects is `trusted`'s business, called first.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from typing import NamedTuple

from isofs.engine import attic, failure, handover, kept, saving, tree, trusted, versions
from isofs.engine.batch import Batch
from isofs.engine.state import Caller, Filesystem, Obj
from isofs.errors import CallError
from isofs.model.records import MAIN, RESERVED, Stowed, SubjectId
from isofs.store import inodes
from isofs.store.inodes import Place

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

_libc = ctypes.CDLL(None, use_errno=True)


class Removed(NamedTuple):
    """The object that lost a name, and what the attic has of it now."""

    obj: Obj
    stowed: Stowed | None = None


def renameat2(source: Place, to: Place, flags: int) -> None:
    """rename(2) with flags, which Python does not offer. Raises OSError."""
    if not flags:
        os.rename(source.name, to.name, src_dir_fd=source.directory, dst_dir_fd=to.directory)
        return
    if _libc.renameat2(source.directory, source.name, to.directory, to.name, flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def at(fs: Filesystem, directory: Obj, name: bytes) -> Place:
    """The place of a name in a directory of main. The store's own name may be neither made nor removed."""
    if name == RESERVED and directory is fs.root:
        raise CallError(errno.EPERM)
    return Place(tree.descriptor(fs, directory), name)


def _existing(fs: Filesystem, directory: Obj, name: bytes) -> tuple[Obj, os.stat_result]:
    found = tree.child(fs, directory, name)
    if found is None:
        raise CallError(errno.ENOENT)
    return found


def make(
    fs: Filesystem,
    directory: Obj,
    name: bytes,
    mode: int,
    caller: Caller,
    rdev: int = 0,
    target: bytes | None = None,
) -> Obj:
    """Make an object of the type in `mode` and give it to the caller."""
    to = at(fs, directory, name)
    os.umask(caller.umask)
    try:
        inodes.make(to, mode, rdev, target)
    finally:
        os.umask(0)
    return _given(fs, directory, name, to, caller)


def create(
    fs: Filesystem, directory: Obj, name: bytes, mode: int, flags: int, caller: Caller
) -> tuple[Obj, int, os.stat_result]:
    """Make a regular file and open it: the object, a descriptor and the attributes. EEXIST if there is one."""
    to = at(fs, directory, name)
    os.umask(caller.umask)
    try:
        opened = os.open(
            name,
            versions.backing_flags(flags) | os.O_CREAT | os.O_EXCL,
            stat.S_IMODE(mode),
            dir_fd=to.directory,
        )
    finally:
        os.umask(0)
    try:
        made = os.fstat(opened)
        gid = _group(to.directory, caller)
        if (made.st_uid, made.st_gid) != (caller.uid, gid):
            os.fchown(opened, caller.uid, gid)
            if made.st_mode & (stat.S_ISUID | stat.S_ISGID):
                os.fchmod(opened, stat.S_IMODE(made.st_mode))
            made = os.fstat(opened)
        return tree.known(fs, directory, name, made), opened, made
    except BaseException:
        os.close(opened)
        raise


def _group(directory: int, caller: Caller) -> int:
    """The group of what a caller makes: the directory's if that is set-group-id."""
    above = os.fstat(directory)
    return above.st_gid if above.st_mode & stat.S_ISGID else caller.gid


def _given(fs: Filesystem, directory: Obj, name: bytes, to: Place, caller: Caller) -> Obj:
    """Give a new inode to its maker."""
    inodes.own(to, caller.uid, _group(to.directory, caller))
    found = tree.child(fs, directory, name)
    if found is None:
        raise CallError(errno.ESTALE)
    return found[0]


def unlink(fs: Filesystem, directory: Obj, name: bytes, *, by: SubjectId = MAIN, operator: str = "") -> Removed:
    """Remove a name of anything but a directory from main.

    What a merge or an operator removes goes into the attic, if that is its last name.
    """
    obj, found = _existing(fs, directory, name)
    if obj.is_dir:
        raise CallError(errno.EISDIR)
    if by == MAIN and not operator and found.st_nlink == 1:
        saved = saving.saved_in_main(fs, obj)
        if saved is not None:
            _remove_backup(fs, directory, name, obj, *saved)
            return Removed(obj)
    return _remove(fs, directory, name, obj, last=found.st_nlink == 1, by=by, operator=operator)


def _remove_backup(fs: Filesystem, directory: Obj, name: bytes, obj: Obj, to: Obj, to_name: bytes, new: Obj) -> None:
    """`obj` loses its last name, a backup's, and takes the inode of `new`, which was saved in its place."""
    where, ino, batch = at(fs, directory, name), new.ino, Batch(fs)
    with trusted.announced(fs, obj, new):
        trusted.will_save(fs, directory, name, to, to_name, obj, new, batch)
        batch.commit()
        handover.pin_nodes(fs, obj)
        os.unlink(where.name, dir_fd=where.directory)
    obj.links, new.links = ((to, to_name),), ()
    handover.content_replaced(fs, obj, new, ino)
    node = obj.node(MAIN)
    if node is not None:
        fs.kernel.forget_attributes(node.id)


def rmdir(fs: Filesystem, directory: Obj, name: bytes, *, by: SubjectId = MAIN, operator: str = "") -> Removed:
    """Remove an empty directory from main, as `unlink`. What suspects have in it stays theirs."""
    obj, _ = _existing(fs, directory, name)
    if not obj.is_dir:
        raise CallError(errno.ENOTDIR)
    if not trusted.empty_in_main(fs, obj):
        raise CallError(errno.ENOTEMPTY)
    return _remove(fs, directory, name, obj, last=True, by=by, operator=operator)


def _remove(
    fs: Filesystem, directory: Obj, name: bytes, obj: Obj, *, last: bool, by: SubjectId, operator: str
) -> Removed:
    where = at(fs, directory, name)
    merging = by != MAIN or bool(operator)
    if not (obj.op or merging):
        _remove_unknown(fs, where, directory, obj, last=last)
        return Removed(obj)
    batch = Batch(fs)
    stowing = attic.stowing(fs, obj, batch, "deleted", by=by, operator=operator)
    with trusted.announced(fs, obj), stowing if last and merging else contextlib.nullcontext() as stowed:
        trusted.will_unlink(fs, directory, name, obj, batch, last=last, by=by)
        batch.commit(lasting=merging)
        if last:
            handover.pin_nodes(fs, obj)
        _remove_at(where, obj)
    lost_name(fs, directory, name, obj, last=last, stowed=stowed, merging=merging)
    return Removed(obj, stowed)


def _remove_unknown(fs: Filesystem, where: Place, directory: Obj, obj: Obj, *, last: bool) -> None:
    """Remove what has no origin point: nobody isolated has to do with it, and there is nothing to write down."""
    pinned = handover.pin_nodes(fs, obj, where) if last else []
    try:
        _remove_at(where, obj)
    except OSError:
        for node in pinned:
            tree.unpin(fs, node)
        raise
    lost_name(fs, directory, where.name, obj, last=last)


def _remove_at(where: Place, obj: Obj) -> None:
    remove = os.rmdir if obj.is_dir else os.unlink
    remove(where.name, dir_fd=where.directory)


def lost_name(
    fs: Filesystem,
    directory: Obj,
    name: bytes,
    obj: Obj,
    *,
    last: bool,
    stowed: Stowed | None = None,
    merging: bool = False,
) -> None:
    """Follow in memory that main has an object under this name no more. `stowed` is what the attic has of it.

    `merging` is whether an error of the store stops what is being done.
    """
    kept.changed(fs, obj)
    obj.drop_link((directory, name))
    if last:
        if obj.op or stowed is not None:
            batch = Batch(fs)
            if stowed is not None:
                batch.put(attic.settled(stowed))
            trusted.is_gone(fs, obj, batch)
            failure.follow(fs, batch, merging=merging)
        handover.orphan_nodes(fs, obj)
        tree.close_descriptor(fs, obj)
        fs.objects.pop(obj.ino, None)
        obj.links = ()
        obj.ino = 0


def link(fs: Filesystem, obj: Obj, directory: Obj, name: bytes, *, by: SubjectId = MAIN) -> None:
    """Give an object of main one more name."""
    source, to = tree.place(fs, obj), at(fs, directory, name)
    batch = Batch(fs)
    if by == MAIN:
        trusted.count_modification(fs, obj, batch)
    batch.commit(lasting=by != MAIN)
    os.link(
        source.name,
        to.name,
        src_dir_fd=source.directory,
        dst_dir_fd=to.directory,
        follow_symlinks=False,
    )
    obj.add_link((directory, name))
    kept.changed(fs, obj)


def rename(
    fs: Filesystem,
    directory: Obj,
    name: bytes,
    to: Obj,
    to_name: bytes,
    flags: int = 0,
    *,
    by: SubjectId = MAIN,
    lives_on: bool = True,
) -> Obj:
    """Rename in main: what has the other name now.

    An object replaced by another of its type, both with one name, lives on (save-by-rename). Without `lives_on` a
    replaced object is deleted, whatever its type.
    """
    obj, found = _existing(fs, directory, name)
    there = tree.child(fs, to, to_name)
    source, target = at(fs, directory, name), at(fs, to, to_name)
    if flags & RENAME_EXCHANGE:
        _exchange(fs, directory, name, to, to_name, obj, there and there[0], by)
        return obj
    if there is None:
        _move(fs, directory, name, to, to_name, obj, flags, by)
        return obj
    replaced, at_target = there
    if flags & RENAME_NOREPLACE:
        raise CallError(errno.EEXIST)
    if replaced is obj:
        return obj
    if replaced.is_dir and obj.is_dir and not trusted.empty_in_main(fs, replaced):
        raise CallError(errno.ENOTEMPTY)
    if replaced.is_dir != obj.is_dir:
        raise CallError(errno.EISDIR if replaced.is_dir else errno.ENOTDIR)
    last = replaced.is_dir or at_target.st_nlink == 1
    if lives_on and _same_single(obj, found, replaced, at_target):
        _replace_content(fs, directory, name, obj, replaced, source, target)
        return obj
    batch = Batch(fs)
    with trusted.announced(fs, obj, replaced):
        trusted.will_unlink(fs, to, to_name, replaced, batch, last=last, by=by)
        trusted.will_move(fs, directory, name, to, to_name, obj, batch, by=by)
        batch.commit(lasting=by != MAIN)
        if last:
            handover.pin_nodes(fs, replaced)
        renameat2(source, target, 0)
    lost_name(fs, to, to_name, replaced, last=last, merging=by != MAIN)
    _moved(fs, obj, directory, name, to, to_name)
    return obj


def _same_single(obj: Obj, found: os.stat_result, replaced: Obj, at_target: os.stat_result) -> bool:
    """Whether `replaced`, if renamed over, keeps its origin point; matters only if either has any."""
    same = not obj.is_dir and obj.kind == replaced.kind and found.st_nlink == at_target.st_nlink == 1
    return same and bool(replaced.op or obj.op)


def _move(
    fs: Filesystem,
    directory: Obj,
    name: bytes,
    to: Obj,
    to_name: bytes,
    obj: Obj,
    flags: int,
    by: SubjectId,
) -> None:
    source, target = at(fs, directory, name), at(fs, to, to_name)
    if trusted.concerns_nobody(fs, obj):
        renameat2(source, target, flags)
    else:
        batch = Batch(fs)
        with trusted.announced(fs, obj):
            trusted.will_move(fs, directory, name, to, to_name, obj, batch, by=by)
            batch.commit(lasting=by != MAIN)
            renameat2(source, target, flags)
    _moved(fs, obj, directory, name, to, to_name)


def _moved(fs: Filesystem, obj: Obj, directory: Obj, name: bytes, to: Obj, to_name: bytes) -> None:
    kept.changed(fs, obj)
    obj.drop_link((directory, name))
    obj.add_link((to, to_name))


def _replace_content(
    fs: Filesystem,
    directory: Obj,
    name: bytes,
    obj: Obj,
    replaced: Obj,
    source: Place,
    target: Place,
) -> None:
    """`obj` replaces `replaced`, and some suspect has to do with one: replaced's origin point takes obj's inode."""
    batch = Batch(fs)
    batch.op_of(replaced)
    batch.commit()
    ino = obj.ino
    with trusted.announced(fs, obj, replaced):
        trusted.will_unlink(fs, directory, name, obj, batch, last=True)
        trusted.will_replace_content(fs, replaced, ino, batch)
        batch.commit()
        handover.pin_nodes(fs, replaced)
        renameat2(source, target, 0)
    obj.links = ()
    gone = Batch(fs)
    trusted.is_gone(fs, obj, gone)
    failure.follow(fs, gone)
    handover.content_replaced(fs, replaced, obj, ino)
    node = replaced.node(MAIN)
    if node is not None:
        fs.kernel.forget_attributes(node.id)


def _exchange(
    fs: Filesystem,
    directory: Obj,
    name: bytes,
    to: Obj,
    to_name: bytes,
    obj: Obj,
    other: Obj | None,
    by: SubjectId,
) -> None:
    if other is None:
        raise CallError(errno.ENOENT)
    if other is obj:
        return
    batch = Batch(fs)
    with trusted.announced(fs, obj, other):
        trusted.will_exchange(fs, directory, name, to, to_name, obj, other, batch, by=by)
        batch.commit(lasting=by != MAIN)
        renameat2(at(fs, directory, name), at(fs, to, to_name), RENAME_EXCHANGE)
    _moved(fs, obj, directory, name, to, to_name)
    _moved(fs, other, to, to_name, directory, name)
