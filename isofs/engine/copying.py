"""What may take long, in threads: copies of big files and syncs. The only functions of the engine that wait.

While one of these waits, any other call may be answered; what they found before is looked at again after.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

import trio

from isofs.engine import accounting, tree, usage, versions
from isofs.engine.state import Filesystem, Handle, Node, Obj, View
from isofs.errors import CallError
from isofs.model.records import Op, SubjectId
from isofs.store import inodes
from isofs.store.inodes import Place

#: Files from this size on are copied in a thread.
BIG = 4 << 20

#: How often a copy is begun again because main changed meanwhile, before it is made without letting anyone in.
ATTEMPTS = 3


async def copy_big(fs: Filesystem, sid: SubjectId, node: Node, limiter: trio.CapacityLimiter | None = None) -> None:
    """Give a suspect its version of a big file, if it has none yet, without keeping others waiting.

    `limiter` says how many are made at a time. For small files, and for whoever is no suspect, nothing is done: the
    call that follows copies by itself.
    """
    obj = node.obj
    for _ in range(ATTEMPTS):
        view = fs.views.get(sid)
        if view is None or node.pinned >= 0 or obj.kind != stat.S_IFREG:
            return
        if not versions.needs_copy(fs, view, obj):
            return
        try:
            source, before = tree.located(fs, obj)
        except CallError:
            return
        if before.st_size < BIG:
            return
        with accounting.promised(fs, view, usage.on_disk(before), versions=view.version(obj.op) is None):
            staged = await _staged(fs, source, limiter)
        view = fs.views.get(sid)
        if view is None or not versions.needs_copy(fs, view, obj) or not _same(fs, obj, before):
            inodes.remove(staged)
            continue
        versions.copy_up(fs, view, obj, attributes=True, staged=staged)
        usage.settle(fs, view)
        return


async def _staged(fs: Filesystem, source: Place, limiter: trio.CapacityLimiter | None) -> Place:
    staged = fs.store.staged()
    try:
        await trio.to_thread.run_sync(inodes.copy, source, staged, limiter=limiter)
    except OSError:
        inodes.remove(staged)
        raise
    return staged


async def give_data(fs: Filesystem, view: View, ops: Collection[Op] | None = None) -> None:
    """Before a verdict: give data to big versions that have attributes alone, without keeping others waiting.

    With `ops`, to those of these objects. The verdict does it to the others by itself, and to those of which main
    changes more than data meanwhile.
    """
    for version in [version for version in view.versions.values() if version.bare]:
        if ops is not None and version.op not in ops:
            continue
        obj = fs.by_op[version.op]
        try:
            source, before = tree.located(fs, obj)
        except (OSError, CallError):
            continue
        if before.st_size < BIG or not versions.can_start_anew(fs, version, obj):
            continue
        staged = await _staged(fs, source, None)
        now = view.version(version.op)
        if now is not None and now.bare and _same(fs, obj, before) and versions.can_start_anew(fs, now, obj):
            versions.give_data(fs, view, obj, now, staged=staged)
        else:
            inodes.remove(staged)


def _same(fs: Filesystem, obj: Obj, before: os.stat_result) -> bool:
    """Whether main's file is what it was before the copy began."""
    try:
        now = tree.located(fs, obj)[1]
    except (OSError, CallError):
        return False
    marks = [(at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns) for at in (before, now)]
    return marks[0] == marks[1]


async def sync(descriptor: int, *, data_only: bool, limiter: trio.CapacityLimiter | None = None) -> None:
    """fsync or fdatasync of an open file."""
    held = os.dup(descriptor)
    try:
        await trio.to_thread.run_sync(os.fdatasync if data_only else os.fsync, held, limiter=limiter)
    finally:
        os.close(held)


async def sync_attributes(fs: Filesystem, handle: Handle, limiter: trio.CapacityLimiter | None = None) -> None:
    """fsync of what a suspect's version has for attributes, where it has no data to be opened."""
    obj = handle.node.obj
    own = tree.inode(fs, handle.sid, obj)
    if own is None or tree.content(fs, handle.sid, obj) is not None:
        return
    opened = os.open(own.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=own.directory)
    try:
        await sync(opened, data_only=False, limiter=limiter)
    finally:
        os.close(opened)


async def sync_directory(fs: Filesystem, directory: Obj) -> None:
    """fsync of a directory of main."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    opened = os.open(b".", flags, dir_fd=tree.descriptor(fs, directory))
    try:
        await trio.to_thread.run_sync(os.fsync, opened)
    finally:
        os.close(opened)
