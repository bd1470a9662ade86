"""Extended attributes, ACLs among them: what the FUSE protocol asks of a node's."""

from __future__ import annotations

import errno
import os
from contextlib import AbstractContextManager

from isofs.engine import accounting, calls, tree, trusted, versions, writing
from isofs.engine.state import Caller, Filesystem, Node, node_for
from isofs.errors import CallError
from isofs.model.records import MAIN

_ACL = b"system.posix_acl_"


def getxattr(fs: Filesystem, caller: Caller, node: Node, name: bytes) -> bytes:
    with tree.reached(fs, _read_from(fs, caller, node, name)) as path:
        return os.getxattr(path, name)


def listxattr(fs: Filesystem, caller: Caller, node: Node) -> list[bytes]:
    with tree.reached(fs, _read_from(fs, caller, node, b"")) as path:
        return [os.fsencode(name) for name in os.listxattr(path)]


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
    with _changing(fs, caller, node, name, len(value)) as path:
        os.setxattr(path, name, value)


def removexattr(fs: Filesystem, caller: Caller, node: Node, name: bytes) -> None:
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
        return tree.reached(fs, node)
    if node.obj is fs.root and name.startswith(_ACL):
        raise CallError(errno.EPERM)
    own = calls.own_node(fs, caller, view, node, "xattr")
    writing.leave_main(fs, view, own)
    if own.pinned < 0:
        versions.copy_up(fs, view, node.obj, attributes=True)
    accounting.changed(fs, view, own, size)
    if node.sid == MAIN:
        calls.changed_without_path(fs, node)
    return tree.reached(fs, own)
