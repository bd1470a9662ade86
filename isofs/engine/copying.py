"""What may take long, in threads: copies of big files and syncs. The only functions of the engine that wait.

While one of these waits, any other call may be answered; what they found before is looked at again after.
"""

from __future__ import annotations

import os
import stat

import trio

from isofs.engine import accounting, tree, usage, versions
from isofs.engine.state import Filesystem, Node, Obj
from isofs.errors import CallError
from isofs.model.records import SubjectId
from isofs.store import inodes

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
        staged = fs.store.staged()
        with accounting.promised(fs, view, usage.on_disk(before)):
            try:
                await trio.to_thread.run_sync(inodes.copy, source, staged, limiter=limiter)
            except OSError:
                inodes.remove(staged)
                raise
        view = fs.views.get(sid)
        if view is None or not versions.needs_copy(fs, view, obj) or not _same(fs, obj, before):
            inodes.remove(staged)
            continue
        versions.copy_up(fs, view, obj, attributes=True, staged=staged)
        usage.settle(fs, view)
        return


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


async def sync_directory(fs: Filesystem, directory: Obj) -> None:
    """fsync of a directory of main."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    opened = os.open(b".", flags, dir_fd=tree.descriptor(fs, directory))
    try:
        await trio.to_thread.run_sync(os.fsync, opened)
    finally:
        os.close(opened)
