"""Refusing suspects what would be too much, before it is done.

What they take up is looked at (`usage`) when what the last look granted is used up. An object is counted once, whether
the suspect changed it, its names, or both (`View.objects`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import NoReturn

from isofs.engine import usage
from isofs.engine.quota import (
    ERRORS,
    GRANT,
    SLACK,
    UNLIMITED,
    Account,
    Limit,
    Limits,
    Notice,
    Room,
    freeing,
    reserved,
)
from isofs.engine.state import Filesystem, Handle, Node, View
from isofs.errors import CallError
from isofs.model.records import MAIN, SubjectId

#: Bytes of a block of the file systems that there are; where blocks are larger, a limit is passed by one.
_BLOCK = 4096

#: A target that is shorter lies in the inode of its link.
_INLINE = 60

#: What `statfs` tells.
_STATFS = (
    "f_bsize",
    "f_frsize",
    "f_blocks",
    "f_bfree",
    "f_bavail",
    "f_files",
    "f_ffree",
    "f_favail",
    "f_namemax",
)

#: Inodes that are granted at a time.
_MAKES = 64


def set_limits(fs: Filesystem, limits: Limits) -> None:
    """From now on these limits count; what is there already stays."""
    fs.limits = limits
    for view in fs.all_views:
        view.account.grant(0)
        view.account.makes = 0


def limit_of(fs: Filesystem, view: View) -> Limit:
    return fs.limits.of(fs.subjects[view.sid].name)


def room(fs: Filesystem, view: View, needed: int = 0) -> Room:
    """How much more a suspect may take up. Somebody is told if it comes near a limit, or will by what is `needed`."""
    usage.settle(fs, view)
    account, limits = view.account, fs.limits
    limit = limit_of(fs, view).bytes
    found = [Room(limit - account.used - account.promised, "bytes", limit)]
    if limits.total < UNLIMITED:
        found.append(Room(_left_for(fs, view), "total", limits.total))
    if limits.reserve:
        free, reserve = free_bytes(fs)
        found.append(Room(free - reserve, "reserve", reserve))
    for one in found:
        account.eased(one.by, one.limit, one.bytes)
        if limits.near(one.limit, one.bytes - needed):
            _tell(fs, view, one, refused=False)
    return min(found, key=_bytes)


def _bytes(room: Room) -> int:
    return room.bytes


def _left_for(fs: Filesystem, view: View) -> int:
    """What the limit of all suspects together leaves for one; if little, what others were granted is taken back."""
    others, total = [other for other in fs.all_views if other is not view], fs.limits.total
    total -= view.account.used + view.account.promised
    if total - sum(other.account.at_most() for other in others) < GRANT:
        for other in others:
            usage.settle(fs, other)
            other.account.grant(0)
    return total - sum(other.account.at_most() for other in others)


def free_bytes(fs: Filesystem) -> tuple[int, int]:
    """What is free on the store's file system, less what is being copied, and what of it suspects leave to main."""
    at = fs.store.space()
    free = at.f_bavail * at.f_frsize - sum(view.account.promised for view in fs.all_views)
    return free, reserved(fs.limits.reserve, at.f_blocks * at.f_frsize)


def _look(fs: Filesystem, view: View, needed: int) -> Room:
    """`room`, and a grant of a part of it: no more than what it takes to come near a limit."""
    found = room(fs, view, needed)
    before_near = found.bytes - found.limit * (100 - fs.limits.warn_at) // 100
    view.account.grant(min(found.bytes, GRANT, before_near if before_near > 0 else GRANT))
    return found


def admit(fs: Filesystem, view: View, size: int = 0, *, versions: int = 0, names: int = 0, frees: bool = False) -> None:
    """Before a suspect's change that adds so many bytes, versions and names. CallError if that is too much.

    `frees` is whether it makes nothing but rows: what removes, or renames.
    """
    if versions or names:
        _admit_objects(fs, view, versions, names, frees)
    if frees or not (size or versions):
        return
    account, needed = view.account, size + SLACK
    if versions:
        _admit_inode(fs, view)
    account.left -= needed
    if account.left >= 0:
        return
    found = _look(fs, view, needed)
    if size > max(0, found.bytes):
        _refuse(fs, view, found)
    account.granted = max(account.granted, needed)
    account.left -= needed


def _admit_objects(fs: Filesystem, view: View, versions: int, names: int, frees: bool) -> None:
    limit, now = limit_of(fs, view).objects, view.objects
    then = max(len(view.versions) + versions, view.names + names)
    found = Room(limit - now, "objects", limit)
    if then > now and then > (freeing(limit) if frees else limit):
        _refuse(fs, view, found)
    view.account.eased("objects", limit, found.bytes)
    if fs.limits.near(limit, limit - then):
        _tell(fs, view, Room(limit - then, "objects", limit), refused=False)


def _admit_inode(fs: Filesystem, view: View) -> None:
    account = view.account
    account.makes -= 1
    if account.makes >= 0 or not fs.limits.reserve_inodes:
        return
    at = fs.store.space()
    reserve = reserved(fs.limits.reserve_inodes, at.f_files)
    found = Room(at.f_favail - reserve, "reserve_inodes", reserve)
    if at.f_files and found.bytes <= 0:
        _refuse(fs, view, found)
    account.eased(found.by, reserve, found.bytes)
    account.makes = min(_MAKES, found.bytes - 1) if at.f_files else _MAKES


def writable(fs: Filesystem, view: View, handle: Handle, offset: int, size: int) -> int:
    """How many of the bytes a suspect may write that it is about to write. CallError if not one of them."""
    account = view.account
    account.written.add(handle)
    account.left -= size + SLACK
    if account.left >= 0:
        return size
    return _writable_near(fs, view, handle, offset, size)


def _writable_near(fs: Filesystem, view: View, handle: Handle, offset: int, size: int) -> int:
    account, needed = view.account, size + SLACK
    found = _look(fs, view, needed)
    account.written.add(handle)
    if found.bytes >= needed:
        account.granted = max(account.granted, needed)
        account.left -= needed
        return size
    account.grant(found.bytes)
    account.left = 0
    fitting = _fitting(handle.descriptor, offset, size, found.bytes)
    if fitting < size and (not fitting or _may_be_pages(handle, offset + size)):
        _refuse(fs, view, found)
    return fitting


def _may_be_pages(handle: Handle, end: int) -> bool:
    """Whether a write may be of pages that somebody has mapped: of those the kernel takes no answer but yes or no."""
    return handle.flags & os.O_ACCMODE == os.O_RDWR and end <= os.fstat(handle.descriptor).st_size


def _fitting(descriptor: int, offset: int, size: int, room: int) -> int:
    """How many bytes can be written at an offset if no more than `room` may be added to the file's blocks."""
    at, end = offset - offset % _BLOCK, offset + size
    while at < end:
        hole = -(-_seek(descriptor, at, os.SEEK_HOLE, at) // _BLOCK) * _BLOCK
        if hole > at:
            at = hole
            continue
        data = min(end, _seek(descriptor, at, os.SEEK_DATA, end))
        blocks, most = -(-(data - at) // _BLOCK), max(0, room) // _BLOCK
        if blocks > most:
            return max(0, min(size, at + most * _BLOCK - offset))
        room -= blocks * _BLOCK
        at += blocks * _BLOCK
    return size


def _seek(descriptor: int, at: int, whence: int, otherwise: int) -> int:
    try:
        return os.lseek(descriptor, at, whence)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return otherwise  # there is nothing from here on


@contextlib.contextmanager
def promised(fs: Filesystem, view: View, size: int, *, versions: int = 1) -> Iterator[None]:
    """While a version is copied that will take so many bytes. CallError if that is too much."""
    admit(fs, view, size, versions=versions)
    view.account.promised += size
    try:
        yield
    finally:
        view.account.promised -= size


def of_new(kind: int, target: bytes | None) -> int:
    """The bytes that something new takes of the disk at first."""
    return _BLOCK if kind == stat.S_IFDIR or (target is not None and len(target) >= _INLINE) else 0


def changed(fs: Filesystem, view: View, node: Node, size: int = 0) -> None:
    """Before a suspect changes what is behind its node, by so many bytes if it grows at all."""
    if size:
        admit(fs, view, size)
    held = usage.behind(view, node)
    if held is not None:
        view.account.stale.add(held)


def spare(fs: Filesystem, size: int) -> bool:
    """Whether something may be kept for suspects that nobody asked for: what is reserved is not for that."""
    if not fs.limits.reserve:
        return True
    free, reserve = free_bytes(fs)
    return free - reserve >= size


def left_out(fs: Filesystem) -> None:
    """A copy of what main had was left out, because it would have taken what is reserved."""
    fs.bases_left_out += 1
    if fs.bases_left_out == 1:
        at = fs.store.space()
        fs.notify(Notice(MAIN, True, "reserve", at.f_bavail * at.f_frsize, fs.limits.reserve))


def opens(fs: Filesystem, view: View) -> None:
    """Before a suspect opens a file or a directory. CallError if it has too many open."""
    limit, together = limit_of(fs, view).handles, fs.limits.all_handles
    found = Room(limit - view.account.handles, "handles", limit)
    if together < limit * len(fs.views):
        count = sum(other.account.handles for other in fs.views.values())
        found = min(found, Room(together - count, "handles", together), key=_bytes)
    if found.bytes <= 0:
        _refuse(fs, view, found)
    view.account.eased(found.by, found.limit, found.bytes)
    if fs.limits.near(found.limit, found.bytes - 1):
        _tell(fs, view, found, refused=False)


def opens_directory(fs: Filesystem, sid: SubjectId) -> Account | None:
    """A directory is opened in a view; for a suspect's, the account whose open files it is one of."""
    view = fs.views.get(sid)
    if view is None:
        return None
    opens(fs, view)
    view.account.handles += 1
    return view.account


def may_hold(fs: Filesystem, view: View) -> bool:
    """Whether one more file without a name may be held for a suspect that has it not even open."""
    return view.account.nameless < min(limit_of(fs, view).handles, fs.limits.all_handles)


def closed(fs: Filesystem, handle: Handle) -> None:
    """A suspect's handle is about to be closed."""
    view = fs.views.get(handle.sid)
    if view is None:
        return
    account = view.account
    account.handles -= 1
    if handle in account.written:
        account.written.discard(handle)
        held = usage.held_by(view, handle)
        if held is not None:
            account.stale.add(held)
    account.let_go(handle)


def statfs(fs: Filesystem, sid: SubjectId) -> dict[str, int]:
    """What is free on main's file system; for a suspect that has come near a limit, no more than is left to it.

    Before that a suspect is told what everybody is: nothing is to give away that there is a limit.
    """
    at = os.fstatvfs(fs.descriptors[fs.root])
    found = {name: getattr(at, name) for name in _STATFS}
    view = fs.views.get(sid)
    if view is not None:
        bytes_left, objects_left = room(fs, view), limit_of(fs, view).objects - view.objects
        if fs.limits.near(bytes_left.limit, bytes_left.bytes):
            blocks = max(0, bytes_left.bytes) // at.f_frsize
            found["f_bavail"] = min(at.f_bavail, blocks)
        if fs.limits.near(limit_of(fs, view).objects, objects_left):
            for name in ("f_ffree", "f_favail"):
                found[name] = min(found[name], max(0, objects_left))
    return found


def _refuse(fs: Filesystem, view: View, found: Room) -> NoReturn:
    _tell(fs, view, found, refused=True)
    raise CallError(ERRORS[found.by])


def _tell(fs: Filesystem, view: View, found: Room, *, refused: bool) -> None:
    if view.account.news(found.by, refused=refused):
        fs.notify(Notice(view.sid, refused, found.by, found.limit - found.bytes, found.limit))
