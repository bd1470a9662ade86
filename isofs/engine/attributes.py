"""Setting attributes: what `setattr` does to main, and to a suspect's version."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import NamedTuple

from isofs.engine import accounting, callers, calls, kept, tree, trusted, versions, views, writing
from isofs.engine.state import Caller, Filesystem, Node, node_for
from isofs.engine.views import Attributes
from isofs.errors import CallError
from isofs.model.records import MAIN


class NewAttributes(NamedTuple):
    """What `setattr` is to set; None leaves a field as it is. Times in nanoseconds."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


def setattr(
    fs: Filesystem, caller: Caller, node: Node, new: NewAttributes, handle_id: int | None = None
) -> tuple[Attributes, float]:
    """Change attributes; returns those that the node has then (main's, for a suspect on main's node)."""
    view = fs.views.get(calls.sid_of(fs, caller, node))
    handle = fs.handles.get(handle_id) if handle_id is not None else None
    if view is None and handle is not None and handle.sid in fs.views:
        view = fs.views[handle.sid]
    if new == NewAttributes():
        _check_naming_nobody(caller, node, views.attributes(fs, view.sid if view else MAIN, node))
    if view is None:
        _set_in_main(fs, node, new, caller)
        return views.attributes(fs, MAIN, node), calls.attr_timeout(fs, node)
    if node.obj is fs.root and (new.mode, new.uid, new.gid) != (None, None, None):
        raise CallError(errno.EPERM)  # one inode for all users: its mode decides for all of them
    if handle is not None and handle.before and handle.writes:
        writing.prepare_write(fs, handle)
        view.account.written.add(handle)
        _apply(b"/proc/self/fd/%d" % handle.descriptor, new, False, caller)
        fs.kernel.forget_attributes(node.id)
        kept.changed(fs, node.obj, node)
        return views.attributes(fs, view.sid, node), 0
    own = node if handle is not None else calls.own_node(fs, caller, view, node, "setattr")
    writing.leave_main(fs, view, own)
    if own.pinned < 0:
        only_attributes = new.size is None
        versions.copy_up(fs, view, node.obj, data=new.size != 0, attributes=only_attributes)
        own = node_for(fs, view.sid, node.obj)
    accounting.changed(fs, view, own)
    with tree.reached(fs, own) as path:
        _apply(path, new, stat.S_ISLNK(node.obj.kind), caller)
    if node.sid == MAIN:
        calls.changed_without_path(fs, node)
        return views.attributes(fs, view.sid, node), 0
    return views.attributes(fs, view.sid, own), 0


def needs_data(fs: Filesystem, new: NewAttributes, handle_id: int | None) -> bool:
    """Whether what is to be set is nothing that a version without data could have."""
    handle = fs.handles.get(handle_id) if handle_id is not None else None
    return bool(new.size) or (new.size is None and handle is not None and handle.before)


def _check_naming_nobody(caller: Caller, node: Node, at: Attributes) -> None:
    """chown to the owner -1 and the group -1 moves the change time, whoever asks; only the owner may take set-id bits.

    The kernel leaves this to us (FUSE_HANDLE_KILLPRIV_V2), and says the same before a write, which takes them as well.
    """
    if caller.uid == at.uid or stat.S_ISDIR(at.mode):
        return
    writes = any(handle.uid == caller.uid and handle.writes for handle in node.handles)
    if writes and not callers.changes_owner(caller):
        return
    kept = callers.without_set_ids(at.mode, at.gid, caller.uid, caller.pid)
    if kept != stat.S_IMODE(at.mode) and not callers.may(caller.uid, caller.pid, callers.FOWNER):
        raise CallError(errno.EPERM)


def _set_in_main(fs: Filesystem, node: Node, new: NewAttributes, caller: Caller) -> None:
    if node.pinned < 0:
        trusted.modified(fs, node.obj)
    with tree.reached(fs, node) as path:
        _apply(path, new, stat.S_ISLNK(node.obj.kind), caller)
    kept.changed(fs, node.obj, node)


def _apply(path: bytes, new: NewAttributes, is_link: bool, caller: Caller) -> None:
    gives = new == NewAttributes() or (new.uid, new.gid) != (None, None)
    before = os.stat(path) if gives or new.size is not None else None
    if new.size is not None:
        os.truncate(path, new.size)
        if new.size == 0 and before is not None:
            _note_emptied(path, before)
    if gives:
        os.chown(path, -1 if new.uid is None else new.uid, -1 if new.gid is None else new.gid)
    if before is not None and new.mode is None and not stat.S_ISDIR(before.st_mode) and not is_link:
        kept = callers.without_set_ids(before.st_mode, before.st_gid, caller.uid, caller.pid)
        if kept != stat.S_IMODE(before.st_mode):
            os.chmod(path, kept)
    if new.mode is not None and not is_link:
        os.chmod(path, stat.S_IMODE(new.mode))
    if new.atime_ns is not None or new.mtime_ns is not None:
        now = os.stat(path)
        atime = now.st_atime_ns if new.atime_ns is None else new.atime_ns
        mtime = now.st_mtime_ns if new.mtime_ns is None else new.mtime_ns
        os.utime(path, ns=(atime, mtime))


def _note_emptied(path: bytes, before: os.stat_result) -> None:
    """Who empties a file moves its modification time, also if what is emptied is a version without main's content.

    ext4 moves it by itself, XFS and btrfs only where there is something to cut off.
    """
    now = os.stat(path)
    if before.st_size == 0 and now.st_mtime_ns == before.st_mtime_ns:
        os.utime(path, ns=(now.st_atime_ns, time.time_ns()))
