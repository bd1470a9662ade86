"""Open files: whose version a handle reads and writes, and the moment at which a write makes one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from isofs.engine import (
    accounting,
    callers,
    calls,
    failure,
    isolation,
    kept,
    main,
    tree,
    trusted,
    versions,
    views,
    writing,
)
from isofs.engine.calls import Entry
from isofs.engine.redirect import arrived, redirect
from isofs.engine.state import Caller, Filesystem, Handle, Node, View, drop_if_unused, node_for
from isofs.errors import CallError
from isofs.model.records import MAIN, SubjectId


def _handle(
    fs: Filesystem,
    caller: Caller,
    node: Node,
    sid: SubjectId,
    flags: int,
    descriptor: int,
    *,
    ready: bool = True,
    before: bool = False,
) -> Handle:
    number = fs.next_handle
    fs.next_handle += 1
    handle = Handle(number, node, sid, caller.uid, caller.pid, flags, descriptor, ready=ready, before=before)
    if not node.sid or (node.sid == sid and node.pinned < 0):  # else it led to something else before
        handle.cached, node.stale = not node.stale, False
    fs.handles[number] = handle
    node.add_handle(handle)
    if sid:
        fs.views[sid].account.handles += 1
    return handle


def open(fs: Filesystem, caller: Caller, node: Node, flags: int) -> Handle:
    """Open a regular file. A suspect on main's node is sent to its own (ESTALE)."""
    if node.obj.is_dir:
        raise CallError(errno.EISDIR)
    view = fs.views.get(calls.sid_of(fs, caller, node))
    if view is None:
        return _open_main(fs, caller, node, flags)
    accounting.opens(fs, view)
    if node.sid:
        arrived(fs, caller, view)
        return _open_own(fs, caller, view, node, flags)
    view.habits.opens(caller.pid, [directory.ino for directory, _ in node.obj.links])
    redirect(fs, caller, view, node.obj, key=("open", node.id))
    return _open_without_path(fs, caller, view, node, flags)


def _open_main(fs: Filesystem, caller: Caller, node: Node, flags: int) -> Handle:
    truncates = bool(flags & os.O_TRUNC)
    if truncates and node.pinned < 0:
        trusted.modified(fs, node.obj)
    backing = versions.backing_flags(flags) | (flags & os.O_TRUNC)
    descriptor = _open_checked(fs, node, backing)
    handle = _handle(fs, caller, node, MAIN, flags, descriptor)
    handle.counted = truncates
    if truncates:
        _drop_set_ids(fs, handle)
        kept.changed(fs, node.obj, node)
    return handle


def _open_checked(fs: Filesystem, node: Node, flags: int) -> int:
    """Open the inode behind a node, or fail with ESTALE if its name leads to another by now."""
    if node.pinned >= 0:
        return os.open(b"/proc/self/fd/%d" % node.pinned, flags & ~os.O_NOFOLLOW)
    at = tree.backing(fs, node)
    return os.open(at.name, flags | os.O_NOFOLLOW, dir_fd=at.directory)


def _open_own(fs: Filesystem, caller: Caller, view: View, node: Node, flags: int) -> Handle:
    """Open a file in a suspect's view. Without a version, main's is read and not touched."""
    writes = flags & os.O_ACCMODE != os.O_RDONLY
    if flags & os.O_TRUNC:
        if node.pinned < 0:
            versions.copy_up(fs, view, node.obj, data=False)
        accounting.changed(fs, view, node)
    if node.borrowed and node.pinned >= 0:
        if not writes and not flags & os.O_TRUNC:
            return _handle(fs, caller, node, view.sid, flags, _open_checked(fs, node, versions.untouching_flags(flags)))
        writing.leave_main(fs, view, node)
    if node.pinned >= 0 or tree.content(fs, view.sid, node.obj) is not None:
        backing = versions.backing_flags(flags) | (flags & os.O_TRUNC)
        handle = _handle(fs, caller, node, view.sid, flags, _open_checked(fs, node, backing))
        if flags & os.O_TRUNC:
            _drop_set_ids(fs, handle)
        return handle
    descriptor = -1
    if flags & os.O_ACCMODE != os.O_WRONLY:
        descriptor = _open_checked(fs, node, versions.untouching_flags(flags))
    return _handle(fs, caller, node, view.sid, flags, descriptor, ready=not writes)


def _open_without_path(fs: Filesystem, caller: Caller, view: View, node: Node, flags: int) -> Handle:
    """A suspect opens main's node by a descriptor it has (`/proc/self/fd/N`): no path leads it elsewhere.

    Writing can be re-routed, reading is harmless while there is no version; the rest is refused.
    """
    version = view.version(node.obj.op)
    mode = flags & os.O_ACCMODE
    if mode == os.O_WRONLY and node.pinned < 0:
        if flags & os.O_TRUNC:
            versions.copy_up(fs, view, node.obj, data=False)
        return _handle(fs, caller, node, view.sid, flags, -1, ready=False, before=True)
    if mode == os.O_RDONLY and version is None:
        return _handle(
            fs,
            caller,
            node,
            view.sid,
            flags,
            _open_checked(fs, node, versions.untouching_flags(flags)),
            before=True,
        )
    raise CallError(errno.ESTALE)


def create(fs: Filesystem, caller: Caller, parent: Node, name: bytes, mode: int, flags: int) -> tuple[Entry, Handle]:
    """Make a regular file and open it; one that is there already is opened, unless O_EXCL is asked for."""
    calls._check_new_name(fs, parent, name)
    sid = calls.sid_of(fs, caller, parent)
    view = fs.views.get(sid)
    if view is None:
        with contextlib.suppress(FileExistsError):
            return _create_in_main(fs, caller, parent, name, mode, flags)
    at = views.seen(fs, sid, parent.obj, name)
    if at.obj is not None:
        if flags & os.O_EXCL:
            raise CallError(errno.EEXIST)
        if view is not None:
            node_for(fs, sid, at.obj)
        made = calls._counted(fs, sid, parent, name, at.obj)
        return made, open(fs, caller, made.node, flags)
    if view is None:
        raise CallError(errno.EEXIST)  # what is there is not shown (another file system), or is gone by now
    accounting.opens(fs, view)
    obj = isolation.create(fs, view, at, stat.S_IFREG | stat.S_IMODE(mode), caller)
    content = fs.store.content(sid, str(obj.op))
    descriptor = os.open(content.name, versions.backing_flags(flags), dir_fd=content.directory)
    made = calls._counted(fs, sid, parent, name, obj)
    return made, _handle(fs, caller, made.node, sid, flags, descriptor)


def _create_in_main(
    fs: Filesystem, caller: Caller, parent: Node, name: bytes, mode: int, flags: int
) -> tuple[Entry, Handle]:
    """Make a file that is not there yet, without looking first: nearly always it is not. FileExistsError if it is."""
    obj, descriptor, at = main.create(fs, parent.obj, name, mode, flags, caller)
    made = calls._counted(fs, MAIN, parent, name, obj, at)
    return made, _handle(fs, caller, made.node, MAIN, flags, descriptor)


def read(fs: Filesystem, handle: Handle, offset: int, size: int) -> bytes:
    if fs.failure is not None:
        failure.admit_handle(fs, handle)
    if handle.descriptor < 0:
        raise CallError(errno.EBADF)
    return os.pread(handle.descriptor, size, offset)


def write(fs: Filesystem, handle: Handle, offset: int, data: bytes) -> int:
    """Write `data`, all of it unless the disk is full or a suspect's limit is reached: as much as there is room for.

    What it changes is durable against a crash of this process when it returns.

    A handle that a suspect opened for reading and writing before the suspicion, and that the operator left, goes on
    writing main.
    """
    if fs.failure is not None:
        failure.admit_handle(fs, handle)
    if handle.revoked and handle.sid in fs.views:
        raise CallError(errno.EIO)
    left = handle.before and handle.flags & os.O_ACCMODE == os.O_RDWR
    if handle.sid in fs.views and not left:
        writing.prepare_write(fs, handle)
        data = data[: accounting.writable(fs, fs.views[handle.sid], handle, offset, len(data))]
    elif handle.node.pinned < 0:
        trusted.wrote(fs, handle)
    _drop_set_ids(fs, handle)
    done = os.pwrite(handle.descriptor, data, offset)
    with contextlib.suppress(OSError):  # whoever writes on is told
        while done < len(data):
            done += os.pwrite(handle.descriptor, data[done:], offset + done)
    if handle.before:
        fs.kernel.forget_attributes(handle.node.id)
    if len(handle.node.obj.nodes) > 1:
        kept.changed(fs, handle.node.obj, handle.node)
    return done


def _drop_set_ids(fs: Filesystem, handle: Handle) -> None:
    """A change of content by whoever may not keep them takes the set-id bits from a program; as root we have to."""
    at = os.fstat(handle.descriptor)
    mode, kept = stat.S_IMODE(at.st_mode), callers.without_set_ids(at.st_mode, at.st_gid, handle.uid, handle.pid)
    if kept != mode:
        os.fchmod(handle.descriptor, kept)
        fs.kernel.forget_attributes(handle.node.id)


def release(fs: Filesystem, handle: Handle) -> None:
    """The last descriptor of an open file was closed."""
    if handle.sid:
        accounting.closed(fs, handle)
    if handle.descriptor >= 0:
        os.close(handle.descriptor)
    del fs.handles[handle.id]
    handle.node.drop_handle(handle)
    drop_if_unused(fs, handle.node)
