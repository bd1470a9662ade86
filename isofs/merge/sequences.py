"""Messages of an MH folder that a merge gives other numbers stay in the sequences of the folder's `.mh_sequences`."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import replace

from isofs.engine import tree
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Obj, View
from isofs.merge.resolvers import maildirs
from isofs.model.records import Op, Version
from isofs.store import inodes
from isofs.store.inodes import Place

#: A longer file is no folder's.
_LONGEST = 1 << 20

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_NONBLOCK | os.O_CLOEXEC


def late(fs: Filesystem, view: View) -> set[Op]:
    """Main's `.mh_sequences` of folders with messages of the suspect's: merged when those have their numbers."""
    found = set()
    for op, bindings in view.bindings.items():
        directory = fs.by_op[op]
        if directory.ino and any(b.op is not None and maildirs.is_number(name) for name, b in bindings.items()):
            there = tree.child(fs, directory, maildirs.SEQUENCES)
            if there is not None and there[0].op:
                found.add(there[0].op)
    return found


def follow(fs: Filesystem, view: View, directory: Obj, numbers: Mapping[bytes, bytes], batch: Batch) -> list[Place]:
    """Let what the suspect's side of a folder's sequences says be about the new numbers.

    What a resolver made of both sides is made anew from that. The batch says so; the contents that are returned are to
    be removed when it is written.
    """
    there = tree.child(fs, directory, maildirs.SEQUENCES)
    version = None if there is None else view.version(there[0].op)
    if there is None or version is None or version.content is None or there[0].kind != stat.S_IFREG:
        return []
    old = fs.store.content(view.sid, version.content)
    hers = _read(old)
    if hers is None or not maildirs.is_sequences(hers):
        return []
    moved = maildirs.renumbered(hers, numbers)
    if moved == hers:
        return []
    content = _write(fs, view, moved, old)
    batch.put(replace(version, content=content))
    return [old, *_merge_again(fs, view, version, moved, there[0], batch)]


def _merge_again(fs: Filesystem, view: View, version: Version, hers: bytes, obj: Obj, batch: Batch) -> list[Place]:
    decided = view.decisions.get(version.op)
    if decided is None or decided.seen is None or version.content is None:
        return []
    kept, at = fs.base_of(version), tree.place(fs, obj)
    base, main = None if kept is None else _read(fs.store.base(kept.content)), _read(at)
    if main is None:
        return []
    before = fs.store.content(view.sid, decided.content or version.content)
    content = _write(fs, view, maildirs.merge_sequences(base or b"", main, hers), before)
    batch.put(replace(decided, content=content))
    return [before] if decided.content is not None else []


def _read(place: Place) -> bytes | None:
    """What is in a file, None if that is too much for a folder's sequences."""
    with open(os.open(place.name, _READ, dir_fd=place.directory), "rb") as file:
        content = file.read(_LONGEST + 1)
    return content if len(content) <= _LONGEST else None


def _write(fs: Filesystem, view: View, content: bytes, like: Place) -> str:
    """A new content of the suspect's folder, with the attributes of another; its name."""
    name = str(fs.store.new_op())
    to = fs.store.content(view.sid, name)
    inodes.make(to, stat.S_IFREG | 0o600)
    with open(os.open(to.name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=to.directory), "wb") as file:
        file.write(content)
    inodes.copy_attributes(like, to)
    inodes.sync(to)
    return name
