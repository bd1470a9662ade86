"""Moving a suspect from a node that it shares with main to a node of its own (design, section 4).

The kernel has one entry per name and one inode per node for all users. A call of a suspect that is about to
change what hangs on them is answered with ESTALE: the kernel then looks the path up anew, is given the suspect's
own node, and makes the call there. A call that comes again on the same node without such a look-up has no path
(it was made on a descriptor): `redirect` lets the second attempt of a thread through, and the caller decides.
"""

from __future__ import annotations

import errno
from typing import NoReturn

from isofs.engine.state import Caller, Filesystem, Node, Obj, View, hold, node_for
from isofs.errors import CallError

#: Names remembered as answered with a suspect's own node; beyond it all are forgotten, which costs look-ups only.
_HANDED_LIMIT = 200_000

#: Threads whose look-ups are remembered, and how many of each; what is forgotten costs a look-up more.
_THREADS, _LOOKED_UP = 10_000, 256


def redirect(fs: Filesystem, caller: Caller, view: View, obj: Obj, *, key: tuple[object, ...]) -> None:
    """Make the caller's thread look up again; the next look-ups answer the suspect's own nodes.

    Returns if the thread has just been told so for the same `key`, and has no path to look up; raises ESTALE
    otherwise. While a thread is told so, the files that it looks up are its own (`calls.lookup`): so a file that it
    comes to on main's node after a look-up is come to by another call.
    """
    seen = fs.looked_up.pop(caller.pid, None)
    if fs.retries.pop(caller.pid, None) == key and (obj.is_dir or not seen):
        return
    _look_up_again(fs, caller, view, (obj,), key)


def claim_names(fs: Filesystem, caller: Caller, view: View, *names: tuple[Node, bytes, Obj | None]) -> None:
    """Before a suspect's removal or rename: the kernel's entries of these names must lead to its own nodes.

    Else the kernel would unlink, move or mark as dead what main's node hangs on. Only the look-ups of the thread
    itself tell what its call works on, as they are made in the same call: if there was none, the kernel had an entry
    that it need not ask for. One that may be of an earlier call counts if nobody was answered otherwise since.
    """
    there = [(parent, name, obj) for parent, name, obj in names if obj is not None]
    key = ("names", *((parent.id, name) for parent, name, _ in there))
    seen, again = fs.looked_up.pop(caller.pid, {}), fs.retries.pop(caller.pid, None) == key
    for parent, name, _ in there:
        if seen.get((parent.id, name)) != view.sid or not (again or _is_own(fs, view, parent, name)):
            _look_up_again(fs, caller, view, tuple(obj for _, _, obj in there), key)
    arrived(fs, caller, view)


def _look_up_again(
    fs: Filesystem, caller: Caller, view: View, objects: tuple[Obj, ...], key: tuple[object, ...]
) -> NoReturn:
    fs.retries[caller.pid] = key
    fs.claims[view.sid][caller.pid] = tuple(o for o in objects if o.is_dir)
    for obj in objects:
        if not obj.is_dir:
            hold(fs, node_for(fs, view.sid, obj))
    raise CallError(errno.ESTALE)


def arrived(fs: Filesystem, caller: Caller, view: View) -> None:
    """The caller's thread has come to a node of its own: what it was told or has looked up counts no longer."""
    fs.looked_up.pop(caller.pid, None)
    fs.retries.pop(caller.pid, None)
    fs.claims[view.sid].pop(caller.pid, None)


def note_lookup(fs: Filesystem, caller: Caller, parent: Node, name: bytes, node: Node) -> None:
    """A suspect's thread was answered this node for a name."""
    seen = fs.looked_up.get(caller.pid)
    if seen is None:
        if len(fs.looked_up) >= _THREADS:
            fs.looked_up.clear()
        seen = fs.looked_up[caller.pid] = {}
    elif len(seen) >= _LOOKED_UP:
        seen.clear()
    seen[parent.id, name] = node.sid


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
