"""The file system's calls on nodes: what the FUSE protocol asks for, for trusted users and suspects alike.

Each function takes the caller and nodes, decides whose view it is, and hands over to `main` or `isolation`. They
raise CallError or OSError; either's errno is the answer. None of them waits for anything but the disk.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from isofs.engine import callers, failure, isolation, kept, main, tree, versions, views
from isofs.engine.redirect import arrived, claim_names, note_lookup, redirect, remember
from isofs.engine.state import CHANNELS, Caller, Filesystem, Node, Obj, View, drop_if_unused, hold, node_for
from isofs.engine.views import Attributes
from isofs.errors import CallError
from isofs.model.records import MAIN, RESERVED, SubjectId

#: Seconds that the kernel may keep answers about what nobody has diverged from.
LONG = 3600.0

#: The same for the attributes of a suspect's own node of a file, which are taken back when main's change (`kept`).
#: What is changed in the directory that was mounted over, not through the mount, is seen after so long.
BRIEF = 1.0


class Entry(NamedTuple):
    """An answer about a name: the node, its attributes, and how long (seconds) both may be kept."""

    node: Node
    attributes: Attributes
    entry_timeout: float
    attr_timeout: float


def sid_of(fs: Filesystem, caller: Caller, node: Node) -> SubjectId:
    """Whose view a call on a node is made in: a suspect's own nodes are the suspect's, whoever calls."""
    if fs.failure is not None:
        failure.admit(fs, caller, node)
    if node.sid:
        return node.sid if node.sid in fs.views else MAIN
    return fs.suspects.get(caller.uid, MAIN)


def entry(
    fs: Filesystem,
    sid: SubjectId,
    parent: Node,
    name: bytes,
    obj: Obj,
    at: os.stat_result | None = None,
) -> Entry:
    """The answer for a name that leads to an object in a view. Does not count as a look-up yet."""
    node = views.handed_node(fs, sid, parent, obj)
    if node.sid and at is not None and tree.inode(fs, node.sid, obj) is not None:
        at = None
    attributes = views.attributes(fs, sid, node, at)
    remember(fs, parent, name, node)
    if _asked_always(fs):
        return Entry(node, attributes, 0, 0)
    if node.sid:
        # With an entry the binding tells the node's number as the inode's: only where it is may it be kept.
        return Entry(node, attributes, 0, _own_timeout(fs, node) if attributes.ino == node.id else 0)
    if not fs.views:
        return Entry(node, attributes, LONG, LONG)
    if fs.diverged(obj):
        return Entry(node, attributes, 0, 0)
    shared = obj.kind not in CHANNELS and not fs.name_diverged(parent.obj, name) and not _open_before(node)
    return Entry(node, attributes, LONG if shared else 0, attr_timeout(fs, node))


def _open_before(node: Node) -> bool:
    """Whether a suspect has it open from before the suspicion, and may change it without looking a name up."""
    return bool(node.handles) and any(handle.before for handle in node.handles)


def _asked_always(fs: Filesystem) -> bool:
    """Whether the kernel may keep nothing: it would answer from that whoever is shut out."""
    return fs.failure is not None and fs.failure.anybody


def _own_timeout(fs: Filesystem, node: Node) -> float:
    """How long the attributes of a suspect's own node may be kept.

    What the suspect made is reached by no other node, and changed by calls on this one only: the kernel knows of each
    change, as of main's. All else depends on what main has as well; of a directory, on what is in it.
    """
    view, obj = fs.views.get(node.sid), node.obj
    if view is None or node.pinned >= 0 or obj.kind in CHANNELS:
        return 0
    if not obj.ino and view.version(obj.op) is not None and fs.origins[obj.op].born == node.sid:
        return LONG
    if obj.is_dir:
        return 0
    node.told = True
    return BRIEF


def attr_timeout(fs: Filesystem, node: Node) -> float:
    """How long the attributes of a node may be kept that were asked for without an entry."""
    if _asked_always(fs):
        return 0
    if node.sid:
        return _own_timeout(fs, node)
    if not fs.views or not node.obj.op:
        return LONG
    if any(node.obj.op in view.touches for view in fs.views.values()) or fs.diverged(node.obj):
        return 0
    return LONG


def absent_timeout(fs: Filesystem, parent: Node, name: bytes) -> float:
    """How long the absence of a name may be kept."""
    remember(fs, parent, name, None)
    return 0 if parent.sid or _asked_always(fs) or fs.name_diverged(parent.obj, name) else LONG


def lookup(fs: Filesystem, caller: Caller, parent: Node, name: bytes) -> Entry | None:
    """What a name leads to, counted as a look-up; None if nothing."""
    sid = sid_of(fs, caller, parent)
    if sid:
        obj = views.child(fs, sid, parent.obj, name)
        if obj is not None and not obj.is_dir and (caller.pid in fs.retries or _will_open(fs, sid, parent, obj)):
            hold(fs, node_for(fs, sid, obj))
        if obj is None:
            return None
        found = entry(fs, sid, parent, name, obj)
        note_lookup(fs, caller, parent, name, found.node)
    else:
        there = tree.child(fs, parent.obj, name)
        if there is None:
            return None
        found = entry(fs, sid, parent, name, there[0], there[1])
    found.node.lookups += 1
    return found


def listed(fs: Filesystem, caller: Caller, parent: Node, name: bytes, obj: Obj, at: os.stat_result | None) -> Entry:
    """The answer for a name that was found in a directory, as `entry`. Whoever gives it away counts the look-up."""
    sid = sid_of(fs, caller, parent)
    view = fs.views.get(sid)
    if view is not None and obj.kind == stat.S_IFREG and view.habits.opens_listed(caller.pid):
        node_for(fs, sid, obj)
    return entry(fs, sid, parent, name, obj, at)


def _will_open(fs: Filesystem, sid: SubjectId, parent: Node, obj: Obj) -> bool:
    view = fs.views.get(sid)
    return view is not None and obj.kind == stat.S_IFREG and view.habits.opens_in(parent.obj.ino)


def forget(fs: Filesystem, node: Node, count: int) -> None:
    """The kernel gives back `count` look-ups of a node; at none, and with nothing open, the node is forgotten."""
    node.lookups -= count
    drop_if_unused(fs, node)


def getattr(fs: Filesystem, caller: Caller, node: Node) -> tuple[Attributes, float]:
    """A node's attributes and how long they may be kept."""
    sid = sid_of(fs, caller, node)
    view = fs.views.get(sid)
    if sid and not node.obj.is_dir:  # of a directory the kernel may ask between a call's look-ups and the call
        fs.looked_up.pop(caller.pid, None)
    if view is not None and not node.sid and _has_own(view, node) and not has_before(node, sid):
        raise CallError(errno.ESTALE)
    return views.attributes(fs, sid, node), attr_timeout(fs, node)


def _has_own(view: View, node: Node) -> bool:
    """Whether a suspect that comes to main's node of a file should be at its own."""
    return not node.obj.is_dir and view.version(node.obj.op) is not None


def has_before(node: Node, sid: SubjectId) -> bool:
    """Whether a suspect has a node of main's open since before the suspicion."""
    return any(h.before and h.sid == sid for h in node.handles)


def own_node(fs: Filesystem, caller: Caller, view: View, node: Node, what: str) -> Node:
    """The node on which a suspect's change of an object is made; ESTALE first if it came by path to main's."""
    shared = not node.sid and node.obj is not fs.root and not has_before(node, view.sid)
    if shared and not (node.obj.is_dir and callers.by_descriptor(caller)):
        redirect(fs, caller, view, node.obj, key=(what, node.id))
    arrived(fs, caller, view)
    return node if node.sid else node_for(fs, view.sid, node.obj)


def changed_without_path(fs: Filesystem, node: Node) -> None:
    """A suspect changed what it has open or works in: no name was looked up that would lead to its own node now."""
    fs.kernel.forget_attributes(node.id)
    kept.changed(fs, node.obj, node)
    if node.obj.is_dir:
        versions.expire_names(fs, node.obj)


def readlink(fs: Filesystem, caller: Caller, node: Node) -> bytes:
    view = fs.views.get(sid_of(fs, caller, node))
    if view is not None and not node.sid and _has_own(view, node):
        raise CallError(errno.ESTALE)
    if node.pinned >= 0:
        return os.readlink(b"", dir_fd=node.pinned)
    at = tree.backing(fs, node)
    return os.readlink(at.name, dir_fd=at.directory)


def make(
    fs: Filesystem,
    caller: Caller,
    parent: Node,
    name: bytes,
    mode: int,
    rdev: int = 0,
    target: bytes | None = None,
) -> Entry:
    """mknod, mkdir and symlink, by the type in `mode`."""
    _check_new_name(fs, parent, name)
    sid = sid_of(fs, caller, parent)
    view = fs.views.get(sid)
    if view is None:
        obj = main.make(fs, parent.obj, name, mode, caller, rdev, target)
    else:
        at = views.seen(fs, sid, parent.obj, name)
        obj = isolation.create(fs, view, at, mode, caller, rdev, target)
    return _counted(fs, sid, parent, name, obj)


def _check_new_name(fs: Filesystem, parent: Node, name: bytes) -> None:
    """A new name may not be the store's, nor be in a directory that was removed."""
    if parent.pinned >= 0:
        raise CallError(errno.ENOENT)
    if name == RESERVED and parent.obj is fs.root:
        raise CallError(errno.EPERM)


def _counted(
    fs: Filesystem, sid: SubjectId, parent: Node, name: bytes, obj: Obj, at: os.stat_result | None = None
) -> Entry:
    made = entry(fs, sid, parent, name, obj, at)
    made.node.lookups += 1
    return made


def unlink(fs: Filesystem, caller: Caller, parent: Node, name: bytes) -> Obj:
    """Take a name away from what is no directory: the object that had it."""
    return _remove(fs, caller, parent, name, directory=False)


def rmdir(fs: Filesystem, caller: Caller, parent: Node, name: bytes) -> Obj:
    """Remove an empty directory: the object that was it."""
    return _remove(fs, caller, parent, name, directory=True)


def _remove(fs: Filesystem, caller: Caller, parent: Node, name: bytes, *, directory: bool) -> Obj:
    sid = sid_of(fs, caller, parent)
    view = fs.views.get(sid)
    if view is None:
        remove = main.rmdir if directory else main.unlink
        obj = failure.anyway(fs, lambda: remove(fs, parent.obj, name)).obj
    else:
        at = views.seen(fs, sid, parent.obj, name)
        claim_names(fs, caller, view, (parent, name, at.obj))
        obj = (isolation.rmdir if directory else isolation.unlink)(fs, view, at)
    remember(fs, parent, name, None)
    return obj


def link(fs: Filesystem, caller: Caller, node: Node, parent: Node, name: bytes) -> Entry:
    """Give a node's object one more name."""
    _check_new_name(fs, parent, name)
    sid = sid_of(fs, caller, parent)
    view = fs.views.get(sid)
    if node.pinned >= 0 or (node.sid and node.sid != sid and node.sid in fs.views):
        raise CallError(errno.ENOENT)
    if view is None:
        failure.anyway(fs, lambda: main.link(fs, node.obj, parent.obj, name))
    else:
        # At the suspect's node: whoever watches main's file would be told of a link.
        own_node(fs, caller, view, node, "link")
        isolation.link(fs, view, node.obj, views.seen(fs, sid, parent.obj, name))
    return _counted(fs, sid, parent, name, node.obj)


def rename(
    fs: Filesystem,
    caller: Caller,
    parent: Node,
    name: bytes,
    to: Node,
    to_name: bytes,
    flags: int = 0,
) -> Obj:
    """Give an object another name: the object."""
    _check_new_name(fs, to, to_name)
    if flags & ~(main.RENAME_NOREPLACE | main.RENAME_EXCHANGE):
        raise CallError(errno.EINVAL)  # RENAME_WHITEOUT, as on other file systems that overlayfs cannot write to
    sid = sid_of(fs, caller, parent)
    if sid != sid_of(fs, caller, to):
        raise CallError(errno.EXDEV)  # only a trusted user with a descriptor into a suspect's view comes here
    view = fs.views.get(sid)
    if view is None:
        obj = failure.anyway(fs, lambda: main.rename(fs, parent.obj, name, to.obj, to_name, flags))
        remember(fs, parent, name, None)
        remember(fs, to, to_name, None)
        return obj
    source, target = views.seen(fs, sid, parent.obj, name), views.seen(fs, sid, to.obj, to_name)
    if source.obj is None:
        raise CallError(errno.ENOENT)
    claim_names(fs, caller, view, (parent, name, source.obj), (to, to_name, target.obj))
    if flags & main.RENAME_EXCHANGE:
        isolation.exchange(fs, view, source, target)
    else:
        isolation.rename(fs, view, source, target, noreplace=bool(flags & main.RENAME_NOREPLACE))
    moved = fs.handed.pop((parent.id, name), None)
    displaced = fs.handed.pop((to.id, to_name), None)
    if moved is not None:
        fs.handed[to.id, to_name] = moved
    if displaced is not None and flags & main.RENAME_EXCHANGE:
        fs.handed[parent.id, name] = displaced
    return source.obj


def readdir(fs: Filesystem, caller: Caller, node: Node) -> Iterator[tuple[bytes, Obj, os.stat_result | None]]:
    """The entries of a directory in the caller's view, without `.` and `..`, read as they are asked for.

    With the attributes that main has of an object, if they were looked at just now.
    """
    if node.pinned >= 0:
        return iter(())
    sid = sid_of(fs, caller, node)
    if (view := fs.views.get(sid)) is not None:
        view.habits.lists(caller.pid, node.obj.ino)
    return views.entries(fs, sid, node.obj)
