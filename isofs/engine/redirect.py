"""Moving a suspect from a node that it shares with main to a node of its own (design, section 4).

The kernel has one entry per name and one inode per node for all users. A call of a suspect that is about to
change what hangs on them is answered with ESTALE: the kernel then looks the path up anew, is given the suspect's
own node, and makes the call there. A call that comes again on the same node without such a look-up has no path
(it was made on a descriptor): `redirect` lets the second attempt of a thread through, and the caller decides.
"""

from __future__ import annotations

import errno

from isofs.engine.state import Caller, Filesystem, Node, Obj, Retry, View, hold, node_for
from isofs.errors import CallError

#: Names remembered as answered with a suspect's own node; beyond it all are forgotten, which costs look-ups only.
_HANDED_LIMIT = 200_000

#: What begins the key of a call that removes or moves names.
NAMES = "names"


def redirect(fs: Filesystem, caller: Caller, view: View, *objects: Obj, key: tuple[object, ...]) -> None:
    """Make the caller's thread look up again; the next look-ups answer the suspect's own nodes for `objects`.

    Returns if the thread has just been told so for the same `key`; raises ESTALE otherwise. What concerns names
    comes again only after a look-up: without one it is another call.
    """
    told = fs.retries.pop(caller.pid, None)
    if told is not None and told.key == key and (told.looked_up or key[0] != NAMES):
        return
    fs.retries[caller.pid] = Retry(key)
    fs.claims[view.sid][caller.pid] = tuple(o for o in objects if o.is_dir)
    for obj in objects:
        if not obj.is_dir:
            hold(fs, node_for(fs, view.sid, obj))
    raise CallError(errno.ESTALE)


def claim_names(fs: Filesystem, caller: Caller, view: View, *names: tuple[Node, bytes, Obj | None]) -> None:
    """Before a suspect's removal or rename: the kernel's entries of these names must lead to its own nodes.

    Else the kernel would unlink, move or mark as dead what main's node hangs on.
    """
    missing = [
        (parent, name, obj) for parent, name, obj in names if obj is not None and not _is_own(fs, view, parent, name)
    ]
    if missing:
        key = (NAMES, *((parent.id, name) for parent, name, _ in missing))
        redirect(fs, caller, view, *(obj for _, _, obj in missing), key=key)
    arrived(fs, caller, view)


def arrived(fs: Filesystem, caller: Caller, view: View) -> None:
    """The caller's thread has come to a node of its own: it was told nothing that still counts."""
    fs.retries.pop(caller.pid, None)
    fs.claims[view.sid].pop(caller.pid, None)


def _is_own(fs: Filesystem, view: View, parent: Node, name: bytes) -> bool:
    handed = fs.handed.get((parent.id, name))
    return handed is not None and handed.sid == view.sid


def remember(fs: Filesystem, parent: Node, name: bytes, node: Node | None) -> None:
    """Note what a name was answered with, if that is a suspect's own node."""
    if node is not None and node.sid:
        if len(fs.handed) >= _HANDED_LIMIT:
            fs.handed.clear()
        fs.handed[parent.id, name] = node
    elif fs.handed:
        fs.handed.pop((parent.id, name), None)
