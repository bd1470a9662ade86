"""Nodes and handles when main's inode of an object goes, or another's comes in its place.

The kernel knows inodes by their nodes. Whoever has one keeps what it led to: a suspect its version, where there is one,
everybody else main's old inode, which is held open.
"""

from __future__ import annotations

from dataclasses import replace

from isofs.engine import failure, kept, tree, versions
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Node, Obj
from isofs.model.records import MAIN
from isofs.store.inodes import Place


def content_replaced(fs: Filesystem, obj: Obj, by: Obj | None, ino: int) -> None:
    """The rename that `trusted.will_replace_content` announced has been made; `by` is the object that had the inode.

    That is one of main's, replaced by a trusted user, or None in a merge.
    """
    if obj.op:
        batch = Batch(fs)
        batch.put(replace(batch.origin(obj.op), ino=ino, next_ino=None))
        failure.follow(fs, batch, merging=by is None)
    orphan_nodes(fs, obj)
    if fs.objects.get(obj.ino) is obj:
        del fs.objects[obj.ino]
    obj.ino = ino
    fs.objects[ino] = obj
    if by is not None:
        by.ino = 0
        _hand_over_nodes(fs, by, obj)


def orphan_nodes(fs: Filesystem, obj: Obj) -> None:
    """Main's inode is the object's no more: the nodes that lead to it (pinned before) are of no object of the tree.

    Suspects' nodes that lead to a version stay, and what a suspect opened before the suspicion goes on to its version.
    """
    _route_before(fs, obj)
    kept.changed(fs, obj)
    orphan = Obj(obj.kind, obj.ino)
    for node in obj.nodes:
        if node.sid == MAIN or tree.content(fs, node.sid, obj) is None:
            obj.drop_node(node)
            orphan.add_node(node)


def _route_before(fs: Filesystem, obj: Obj) -> None:
    """What suspects opened before the suspicion goes to their versions, those who have one."""
    for handle in [handle for node in obj.nodes for handle in node.handles]:
        if handle.before and not handle.ready:
            versions.reopen(fs, handle, tree.content(fs, handle.sid, obj))


def _hand_over_nodes(fs: Filesystem, by: Obj, obj: Obj) -> None:
    """The inode that was `by`'s is `obj`'s now, and so are the nodes that lead to it.

    Those of a suspect that deleted `by` or has a version of `obj` lead to what is no object in that view any more.
    """
    _route_before(fs, by)
    kept.changed(fs, by)
    for node in by.nodes:
        sid = node.sid
        if sid != MAIN and tree.content(fs, sid, by) is not None:
            continue
        by.drop_node(node)
        version = fs.views[sid].version(obj.op) if sid in fs.views else None
        if node.pinned >= 0 or obj.node(sid) is not None or version is not None:
            if node.pinned < 0:
                node.pinned, node.borrowed = tree.open_place(tree.place(fs, obj)), bool(sid)
            Obj(obj.kind, obj.ino).add_node(node)
        else:
            obj.add_node(node)


def pin_nodes(fs: Filesystem, obj: Obj, at: Place | None = None) -> list[Node]:
    """Hold main's inode open for whoever has it, because it is about to lose its last name: the nodes that do now.

    `at` is where it is, if whoever calls has just looked.
    """
    led = [node for node in obj.nodes if node.pinned < 0]
    for node in led:
        if node.sid == MAIN or tree.content(fs, node.sid, obj) is None:
            tree.pin(fs, node, at)
    return [node for node in led if node.pinned >= 0]
