"""What the kernel keeps of suspects' own nodes of files, and what puts it out of date.

The kernel knows of a change that is made on a node. Main's node of a file and a suspect's lead to one inode while there
is no version, and share names with one: a change on either is news for the other.
"""

from __future__ import annotations

from isofs.engine.state import Filesystem, Node, Obj


def forget(fs: Filesystem, node: Node) -> None:
    """A node is no longer what the kernel was told: neither its attributes nor, at the next `open`, its pages hold."""
    node.told = node.cached = False
    fs.kernel.forget_attributes(node.id)


def changed(fs: Filesystem, obj: Obj, on: Node | None = None) -> None:
    """An object changed, by a call on the node `on` if that is known to the kernel: its other nodes are out of date."""
    for node in obj.nodes:
        if (node.told or node.cached) and node is not on:
            forget(fs, node)
