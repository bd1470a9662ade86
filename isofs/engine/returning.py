"""The way back from a failure of the store: whoever was shut out works on, and nobody else notices.

The store is read again as a mount does it, and recovered, beside what is being served; only if every invariant holds of
that, the file system that is served takes it over. Main's nodes and what trusted users have open stay as they are. What
suspects had open is gone, as after a restart of the daemon: no handle of theirs may mean something else than it did.
"""

from __future__ import annotations

import os

from isofs.engine import failure, reading, recovery
from isofs.engine.checks import Problem, check
from isofs.engine.state import Filesystem
from isofs.errors import StoreUnusable


def bring_back(fs: Filesystem, directory: str) -> list[Problem]:
    """Use the store again. If not all invariants hold, what does not is returned, and everybody stays shut out.

    StoreUnusable if it still cannot be used, or never could since it was mounted.
    """
    assert fs.failure is not None
    if fs.failure.at_start:
        raise StoreUnusable("the store could not be used when it was mounted: mend it, then unmount and mount again")
    problems = _recovered(fs, directory)
    if problems:
        return problems
    _let_go(fs)
    fs.suspects.clear()
    try:
        reading.read(fs)
    except BaseException:
        failure.forget_all(fs)
        raise
    fs.failure = fs.trouble = None
    fs.on_change_of_state()
    return []


def _recovered(fs: Filesystem, directory: str) -> list[Problem]:
    """Let the store know what became of main, as at a start, and check what it has then."""
    if damage := fs.store.database.damage():
        raise StoreUnusable(f"the database of the store {fs.store.path} is damaged: {damage[0]}")
    beside = reading.load(fs.store, directory)
    try:
        recovery.recover(beside, watched=False)
        return check(beside, sound=True)
    finally:
        for descriptor in beside.descriptors.values():
            os.close(descriptor)


def _let_go(fs: Filesystem) -> None:
    """Forget what suspects had open, and their nodes; the kernel looks paths up again."""
    assert fs.failure is not None
    for handle in list(fs.handles.values()):
        handle.counted = False  # main's versions are others now: what is written next counts
        if handle.sid or handle.node.sid or fs.failure.shuts_out(handle.uid):
            if handle.descriptor >= 0:
                os.close(handle.descriptor)
            del fs.handles[handle.id]
            handle.node.drop_handle(handle)
    for node in [node for node in fs.nodes.values() if node.sid]:
        if node.pinned >= 0:
            os.close(node.pinned)
            node.pinned = -1
        del fs.nodes[node.id]
        fs.held.pop(node, None)
        node.obj.drop_node(node)
    for told in (fs.retries, fs.looked_up, fs.handed, fs.claims):
        told.clear()
