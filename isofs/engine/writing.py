"""The moment before a suspect changes what it has open: whatever that is, it must be no inode of main's any more.

A file that has a name in the view gets a version. One that has none any more (deleted by the suspect, or by main while
the suspect had only read it) gets a copy without a name, which lives as long as it is open.
"""

from __future__ import annotations

import errno
import os
import stat

from isofs.engine import accounting, tree, usage, versions
from isofs.engine.state import Filesystem, Handle, Node, Obj, View
from isofs.errors import CallError
from isofs.store import inodes
from isofs.store.inodes import Place

_READ = os.O_RDONLY | os.O_NOATIME | os.O_CLOEXEC


def prepare_write(fs: Filesystem, handle: Handle) -> None:
    """Before a suspect's write: its version is made and the handle leads to it, or to a copy without a name."""
    if handle.before and handle.ready:
        return
    view, node = fs.views[handle.sid], handle.node
    version = view.version(node.obj.op)
    if node.pinned >= 0 or (version is not None and version.state == "d"):
        leave_main(fs, view, node)
        if not handle.ready:
            _detach(fs, handle)
        return
    if version is None or version.attributes:
        versions.copy_up(fs, view, node.obj)
    if not handle.ready:
        versions.reopen(fs, handle, tree.content(fs, handle.sid, node.obj))


def leave_main(fs: Filesystem, view: View, node: Node) -> None:
    """Before a suspect changes what is behind a node of its own that has no name: a copy for all who have it open.

    The node may be one of an earlier suspicion of the same user. EPERM for what is no regular file: nobody changes the
    attributes of a directory that is gone.
    """
    if node.pinned < 0 or not node.borrowed:
        return
    if node.obj.kind != stat.S_IFREG:
        raise CallError(errno.EPERM)
    scratch = _copy(fs, view, node)
    try:
        copy = tree.open_place(scratch)
        for handle in node.handles:
            versions.reopen(fs, handle, scratch)
    finally:
        inodes.remove(scratch)
    os.close(node.pinned)
    node.pinned, node.borrowed = copy, False
    if node.sid != view.sid:
        node.obj.drop_node(node)
        node.sid = view.sid
        Obj(node.obj.kind, 0).add_node(node)
    view.account.hold(node)


def _detach(fs: Filesystem, handle: Handle) -> None:
    """A copy for one handle, opened before the suspicion on a node that others have as well."""
    view = fs.views[handle.sid]
    scratch = _copy(fs, view, handle.node)
    try:
        versions.reopen(fs, handle, scratch)
    finally:
        inodes.remove(scratch)
    view.account.hold(handle)


def _copy(fs: Filesystem, view: View, node: Node) -> Place:
    """A copy, in the scratch folder, of the regular file behind a node: content, owner, mode and times."""
    scratch = fs.store.staged()
    with tree.reached(fs, node) as path:
        reader = os.open(path, _READ)
    try:
        at = os.fstat(reader)
        accounting.admit(fs, view, usage.on_disk(at))
        inodes.copy_content(reader, scratch, 0o600)
        inodes.own(scratch, at.st_uid, at.st_gid)
        inodes.chmod(scratch, stat.S_IMODE(at.st_mode))
        os.utime(scratch.name, ns=(at.st_atime_ns, at.st_mtime_ns), dir_fd=scratch.directory)
    except OSError:
        inodes.remove(scratch)
        raise
    finally:
        os.close(reader)
    return scratch
