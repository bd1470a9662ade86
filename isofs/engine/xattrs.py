"""Extended attributes, ACLs among them: what the FUSE protocol asks of a node's."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import AbstractContextManager

from isofs.engine import accounting, callers, calls, kept, tree, trusted, versions, writing
from isofs.engine.state import Caller, Filesystem, Node, node_for
from isofs.errors import CallError
from isofs.model.records import MAIN
from isofs.store import inodes

_ACL = b"system.posix_acl_"
_ACL_ACCESS = _ACL + b"access"

#: Names that file systems list for root alone.
_TRUSTED = b"trusted."


def getxattr(fs: Filesystem, caller: Caller, node: Node, name: bytes) -> bytes:
    _not_a_second_name_of_an_acl(name, errno.ENODATA)
    with tree.reached(fs, _read_from(fs, caller, node, name)) as path:
        return os.getxattr(path, name)


def _not_a_second_name_of_an_acl(name: bytes, number: int) -> None:
    """The kernel keeps ACLs by the name that all file systems have for them, and would not notice a change."""
    if name in inodes.RAW_ACLS:
        raise CallError(number)


def listxattr(fs: Filesystem, caller: Caller, node: Node) -> list[bytes]:
    """The names that the host would list for the caller: those of root's it tells nobody else."""
    with tree.reached(fs, _read_from(fs, caller, node, b"")) as path:
        names = [os.fsencode(name) for name in os.listxattr(path)]
    return [n for n in names if n not in inodes.RAW_ACLS and (caller.uid == 0 or not n.startswith(_TRUSTED))]


def _read_from(fs: Filesystem, caller: Caller, node: Node, name: bytes) -> Node:
    """The node whose extended attributes a caller is to be told.

    ACLs are cached by node: on main's node a suspect is told main's, or sent to its own by ESTALE.
    """
    view = fs.views.get(calls.sid_of(fs, caller, node))
    if view is None or node.sid or view.version(node.obj.op) is None or node.obj is fs.root:
        return node
    if name.startswith(_ACL):
        if not node.obj.is_dir and not calls.has_before(node, view.sid):
            raise CallError(errno.ESTALE)
        return node
    return node_for(fs, view.sid, node.obj)


def setxattr(fs: Filesystem, caller: Caller, node: Node, name: bytes, value: bytes) -> None:
    _not_a_second_name_of_an_acl(name, errno.EOPNOTSUPP)
    with _changing(fs, caller, node, name, len(value)) as path:
        os.setxattr(path, name, value)
        if name == _ACL_ACCESS:
            _take_set_group(path, caller)


def _take_set_group(path: bytes, caller: Caller) -> None:
    """An access list that is set by anybody outside the group takes the set-group-id bit, as a mode does."""
    at = os.stat(path)
    if not at.st_mode & stat.S_ISGID or callers.in_group(caller.uid, caller.pid, at.st_gid):
        return
    if not callers.may(caller.uid, caller.pid, callers.FSETID):
        os.chmod(path, stat.S_IMODE(at.st_mode) & ~stat.S_ISGID)


def removexattr(fs: Filesystem, caller: Caller, node: Node, name: bytes) -> None:
    _not_a_second_name_of_an_acl(name, errno.ENODATA)
    with tree.reached(fs, _read_from(fs, caller, node, name)) as path:
        try:
            os.getxattr(path, name)  # without one there is no change to make: no version, no count
        except OSError as error:
            if error.errno == errno.ENODATA and name.startswith(_ACL):
                return  # no file system complains of that
            raise
    with _changing(fs, caller, node, name) as path:
        os.removexattr(path, name)


def _changing(fs: Filesystem, caller: Caller, node: Node, name: bytes, size: int = 0) -> AbstractContextManager[bytes]:
    view = fs.views.get(calls.sid_of(fs, caller, node))
    if view is None:
        if node.pinned < 0:
            trusted.modified(fs, node.obj)
        kept.changed(fs, node.obj, node)
        return tree.reached(fs, node)
    if node.obj is fs.root and name.startswith(_ACL):
        raise CallError(errno.EPERM)
    own = calls.own_node(fs, caller, view, node, "xattr")
    writing.leave_main(fs, view, own)
    if own.pinned < 0:
        if versions.needs_copy(fs, view, node.obj):
            _check_kind(fs, own, name)
        versions.copy_up(fs, view, node.obj, attributes=True)
    accounting.changed(fs, view, own, size)
    if node.sid == MAIN:
        calls.changed_without_path(fs, node)
    return tree.reached(fs, own)


def _check_kind(fs: Filesystem, node: Node, name: bytes) -> None:
    """Raise OSError if the file system has no attributes of this kind: no version is made for what cannot be set."""
    with tree.reached(fs, node) as path:
        try:
            os.getxattr(path, name)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
