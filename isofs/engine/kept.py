"""What the kernel keeps of suspects' own nodes of files, and what puts it out of date.

The kernel knows of a change that is made on a node. Main's node of a file and a suspect's lead to one inode while there
is no version, and share names with one: a change on either is news for the other.
"""

from __future__ import annotations

from isofs.engine.state import Filesystem, Node, Obj


def forget(fs: Filesystem, node: Node) -> None:
    """A node is no longer what the kernel was told: neither its attributes nor, at the next `open`, its pages hold."""
    node.told, node.stale = False, True
    fs.kernel.forget_attributes(node.id)


def changed(fs: Filesystem, obj: Obj, on: Node | None = None) -> None:
    """An object changed, by a call on the node `on`, if any: what suspects were told of their other nodes of it."""
    for node in obj.nodes:
        if node.sid and node is not on and (node.told or not node.stale):
            forget(fs, node)
