"""What suspects take up: it is looked at on the disk, and compared with what is counted.

Bytes are those of the disk (`st_blocks`): holes take none, and a copy that shares main's blocks takes all of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from isofs.engine.quota import Held
from isofs.engine.slices import Slices, now_and_then
from isofs.engine.state import Filesystem, Handle, Node, View
from isofs.store import inodes

#: Bytes by which a file may become smaller or larger without being written.
_LATE = 1 << 16


def on_disk(at: os.stat_result) -> int:
    """The bytes that an inode takes of the disk."""
    return at.st_blocks * 512


def count_all(fs: Filesystem) -> Slices[None]:
    """Look at all that the last start found. Whoever needs to know before looks by itself (`settle`)."""
    for view in fs.all_views:
        account = view.account
        for held in now_and_then(list(account.stale)):
            if held is None:
                yield
            if fs.view_of(view.sid) is not view:
                break
            if held in account.stale:
                account.measured(held, _measure(fs, view, held))
                account.stale.discard(held)
        account.counted = True


def settle(fs: Filesystem, view: View) -> None:
    """Look at what a suspect changed since it was looked at."""
    account = view.account
    for handle in account.written:
        held = held_by(view, handle)
        if held is not None:
            account.stale.add(held)
    account.written.clear()
    for held in account.stale:
        account.measured(held, _measure(fs, view, held))
    account.stale.clear()
    account.counted = True


def held_by(view: View, handle: Held) -> Held | None:
    """What a handle of the suspect's is open on, as the account calls it."""
    assert isinstance(handle, Handle)
    if view.account.holds(handle):
        return handle
    return behind(view, handle.node)


def behind(view: View, node: Node) -> Held | None:
    """What of the suspect's is behind a node, as the account calls it; None while that is main's."""
    if node.pinned >= 0 and node.sid == view.sid:  # of main's, deleted, a handle from before leads to the version
        return None if node.borrowed else node
    version = view.version(node.obj.op)
    return None if version is None else version.content


def _measure(fs: Filesystem, view: View, held: Held) -> int:
    """The bytes that something in a suspect's account takes now."""
    try:
        if isinstance(held, str):
            return on_disk(inodes.lstat(fs.store.content(view.sid, held)))
        return on_disk(os.fstat(held.pinned if isinstance(held, Node) else held.descriptor))  # type: ignore[attr-defined]
    except OSError:
        return 0


def differences(fs: Filesystem, view: View) -> Iterator[str]:
    """What is counted otherwise than it is.

    Blocks may come late: a part of a file may be missing. And they go again: XFS reserves as many as a file has, for
    what may be written next, until some time after it is closed.
    """
    account, names = view.account, sum(1 for _ in view.all_bindings())
    if view.names != names:
        yield f"{view.names} names are counted, there are {names}"
    there: set[Held] = {version.content for version in view.versions.values() if version.content is not None}
    there |= {node for node in fs.nodes.values() if node.sid == view.sid and node.pinned >= 0 and not node.borrowed}
    counted = {held for held in {*account.taken, *account.stale} if not isinstance(held, Handle)}
    if counted != there:
        yield f"{len(counted - there)} files are counted that are not there, {len(there - counted)} are not counted"
    if account.used != sum(account.taken.values()):
        yield f"{account.used} bytes are counted, {sum(account.taken.values())} by files"
    written = {held_by(view, handle) for handle in account.written}
    for held, size in account.taken.items():
        if held not in account.stale and held not in written:
            found = _measure(fs, view, held)
            if not -(found // 8 + _LATE) <= size - found <= found + 2 * _LATE:
                yield f"{size} bytes are counted of {held if isinstance(held, str) else 'an open file'}, not {found}"
    handles = sum(1 for handle in fs.handles.values() if handle.sid == view.sid)
    if view.sid in fs.views and account.handles < handles:
        yield f"{account.handles} open files are counted, there are {handles}"
