"""Bringing back what the attic has. To everybody else it is as if a trusted user had made it, or renamed it there."""

from __future__ import annotations

import contextlib
import errno
import os

from isofs.engine import attic, handover, kept, main, tree, trusted
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Obj
from isofs.errors import AtticFailed, UsageError
from isofs.merge import settle
from isofs.model.records import MAIN, RESERVED, Stowed
from isofs.store import inodes
from isofs.store.inodes import Place


def missing_above(fs: Filesystem, path: bytes) -> list[bytes]:
    """The directories on the way to a path that main lacks, from the root down. AtticFailed if there is no way."""
    parts = path.split(b"/")
    if any(part in (b"", b".", b"..") for part in parts) or parts[0] == RESERVED:
        raise UsageError(f"{_text(path)} is no path in the mount")
    obj = fs.root
    for depth, name in enumerate(parts[:-1]):
        found = tree.child(fs, obj, name)
        if found is None:
            return [b"/".join(parts[:end]) for end in range(depth + 1, len(parts))]
        obj = found[0]
        if not obj.is_dir:
            raise AtticFailed(f"{_text(b'/'.join(parts[: depth + 1]))} is no directory: give another place with --as")
    return []


def must_copy(fs: Filesystem, entry: Stowed) -> bool:
    """Whether only a copy can be brought back: main is elsewhere, or somebody has the file itself open still."""
    found = inodes.lstat(fs.store.stowed(entry.number))
    pinned = (h.node.pinned for h in fs.handles.values() if h.node.pinned >= 0)
    return found.st_dev != fs.device or any(os.fstat(one).st_ino == found.st_ino for one in pinned)


def place_for_copy(fs: Filesystem) -> Place:
    """Where a copy is made that can be renamed into main."""
    staged = fs.store.staged()
    if os.fstat(staged.directory).st_dev == fs.device:
        return staged
    fs.store_inside = True  # a scratch folder of its name, at least
    return fs.store.staged_beside(fs.descriptors[fs.root])


def check_free(fs: Filesystem, path: bytes, *, replace: bool) -> None:
    """AtticFailed if main has something at a path that may not be replaced."""
    directory, name = _target(fs, path)
    there = tree.child(fs, directory, name)
    if there is not None and not replace:
        raise AtticFailed(f"{_text(path)} exists: give --replace, or another place with --as")


def restore(
    fs: Filesystem, entry: Stowed, path: bytes, *, replace: bool, operator: str, copy: Place | None = None
) -> Stowed | None:
    """Give main what an entry is of, which leaves the attic; what it replaces comes there and is returned.

    A directory comes without what was in it; in place of a directory it gives that its attributes. `copy` is a copy
    of what the attic has, to be used in its stead.
    """
    check_free(fs, path, replace=replace)
    directory, name = _target(fs, path)
    there = tree.child(fs, directory, name)
    content, to = copy or fs.store.stowed(entry.number), main.at(fs, directory, name)
    inodes.sync(content)
    stowed, batch = None, Batch(fs)
    if there is not None and there[0].is_dir and inodes.is_directory(content):
        stowed = _give_attributes(fs, there[0], content, operator)
    elif there is not None and not there[0].is_dir and not inodes.is_directory(content):
        stowed = _rename_over(fs, directory, name, there, content, to, operator)
    else:
        if there is not None and there[0].is_dir and not trusted.empty_in_main(fs, there[0]):
            raise AtticFailed(f"{_text(path)} is a directory with something in it: give another place with --as")
        if there is not None:
            remove = main.rmdir if there[0].is_dir else main.unlink
            stowed = remove(fs, directory, name, operator=operator).stowed
        _rename_to(content, to)
    settle.expire(fs, directory, name)
    if stowed is not None:
        batch.put(attic.settled(stowed))
    batch.drop(entry)
    batch.commit(lasting=True)
    for left in (fs.store.stowed(entry.number), *([copy] if copy else [])):
        inodes.remove(left)
    return stowed


def _target(fs: Filesystem, path: bytes) -> tuple[Obj, bytes]:
    *above, name = path.split(b"/")
    obj = fs.root
    for part in above:
        found = tree.child(fs, obj, part)
        if found is None or not found[0].is_dir:
            raise AtticFailed(f"the directory of {_text(path)} is not there: make it, or give another place with --as")
        obj = found[0]
    return obj, name


def _rename_to(content: Place, to: Place) -> None:
    """Rename to a free name; not over what came there behind the mount, where the file system can tell."""
    try:
        main.renameat2(content, to, main.RENAME_NOREPLACE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        main.renameat2(content, to, 0)


def _rename_over(
    fs: Filesystem,
    directory: Obj,
    name: bytes,
    there: tuple[Obj, os.stat_result],
    content: Place,
    to: Place,
    operator: str,
) -> Stowed | None:
    """As a trusted user's rename over what is there: if it is followed and of the same type it lives on, modified."""
    obj, found = there
    new = inodes.lstat(content)
    last = found.st_nlink == 1
    lives_on = bool(obj.op) and last and obj.kind == new.st_mode & ~0o7777
    batch = Batch(fs)
    stowing = attic.stowing(fs, obj, batch, "replaced", by=MAIN, operator=operator)
    with trusted.announced(fs, obj), stowing if last else contextlib.nullcontext() as stowed:
        if lives_on:
            trusted.will_replace_content(fs, obj, new.st_ino, batch)
        else:
            trusted.will_unlink(fs, directory, name, obj, batch, last=last)
        batch.commit(lasting=True)
        if last:
            handover.pin_nodes(fs, obj)
        main.renameat2(content, to, 0)
    if lives_on:
        handover.content_replaced(fs, obj, None, new.st_ino)
    else:
        main.lost_name(fs, directory, name, obj, last=last, merging=True)
    return stowed


def _give_attributes(fs: Filesystem, obj: Obj, content: Place, operator: str) -> Stowed:
    batch = Batch(fs)
    stowed = attic.stow_in_place(fs, obj, batch, by=MAIN, operator=operator)
    trusted.count_modification(fs, obj, batch)
    batch.commit(lasting=True)
    inodes.copy_attributes(content, tree.place(fs, obj))
    for node in obj.nodes:
        kept.forget(fs, node)
    return stowed


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
