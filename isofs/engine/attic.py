"""The attic: before a merge replaces or removes what main has, that goes into the store, and can be brought back.

An entry costs main's users nothing that grows with its size: the inode itself is kept, by one more link, made before
main loses its own. Its row is written with the change of main that is announced, and settled with the one that
follows; until then it says what main is about to lose, and whoever finds it so looks whether main has (`settle`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from isofs.engine import tree
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Obj, View
from isofs.errors import AtticFailed, CallError, IsofsError
from isofs.model.records import MAIN, MOVING, Stowed, SubjectId
from isofs.store import attic, inodes
from isofs.store.inodes import Place

#: A file that somebody has open for writing is copied up to this size; of a larger one the file itself is kept.
COPY_LIMIT = 64 << 20

#: What says that an inode can have no second name there, so that it has to be copied.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

Action = Literal["replaced", "deleted"]


@contextlib.contextmanager
def stowing(
    fs: Filesystem, obj: Obj, batch: Batch, action: Action, *, by: SubjectId, operator: str = ""
) -> Iterator[Stowed]:
    """Around the change by which main loses an object's inode, of which the batch is the announcement.

    If the change cannot be made, nothing is kept. Whoever made it commits the entry `settled`.
    """
    place, found = tree.located(fs, obj)
    entry = _entry(fs, obj, found, action, by, operator)
    live = _keep(fs, entry, place, writable=_written_to(obj))
    entry = replace(entry, live=live, op=obj.op or None, ino=obj.ino)
    batch.put(entry)
    try:
        yield entry
    except (OSError, IsofsError):
        if _still_there(fs, entry):
            forget(fs, entry)
        raise


def stow_in_place(fs: Filesystem, obj: Obj, batch: Batch, *, by: SubjectId, operator: str = "") -> Stowed:
    """Keep a copy of an object whose inode is about to get another content, or other attributes.

    Whoever changed it commits the entry `settled`. What a merge kept before it was cut off is not kept again.
    """
    kept = _kept_before(fs, obj, by)
    if kept is not None:
        return kept
    place, found = tree.located(fs, obj)
    entry = _entry(fs, obj, found, "replaced", by, operator)
    _keep(fs, entry, place, writable=True, copy=True)
    entry = replace(entry, op=obj.op or None)
    batch.put(entry)
    return entry


def forget_kept(fs: Filesystem, obj: Obj, *, by: SubjectId) -> None:
    """An object that was kept by `stow_in_place` is not changed after all."""
    kept = _kept_before(fs, obj, by)
    if kept is not None:
        forget(fs, kept)


def _kept_before(fs: Filesystem, obj: Obj, by: SubjectId) -> Stowed | None:
    entries = attic.unsettled(fs.store.database, obj.op) if obj.op else ()
    return next((entry for entry in entries if (entry.ino, entry.sid) == (None, by)), None)


def settled(entry: Stowed) -> Stowed:
    """The entry as it is once main has been changed."""
    return replace(entry, op=None, ino=None)


def _entry(fs: Filesystem, obj: Obj, found: os.stat_result, action: Action, by: SubjectId, operator: str) -> Stowed:
    user = fs.subjects[by].name if by != MAIN else operator
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    size = found.st_size if obj.kind in (stat.S_IFREG, stat.S_IFLNK) else 0
    return Stowed(fs.store.new_number(), now, by, user, where(fs, fs.views.get(by), obj), obj.kind, action, size)


def where(fs: Filesystem, view: View | None, obj: Obj) -> bytes:
    """Where main has an object; in the merge of a view where main had it before, whatever has been renamed by now."""
    parts, way = list[bytes](), [obj]
    while way[-1] is not fs.root:
        told = view.renamed.get(way[-1].op) if view is not None else None
        if told is not None:
            parts.append(told)
            break
        directory, name = next(iter(way[-1].links)) if view is None else before(fs, view, way[-1])
        if directory in way:  # no name that somebody took meanwhile may lead in a circle
            directory, name = next(iter(way[-1].links))
        parts.append(name)
        way.append(directory)
    return b"/".join(reversed(parts))


def below(path: bytes, name: bytes) -> bytes:
    """The path of a name in the directory at a path."""
    return path + b"/" + name if path else name


def before(fs: Filesystem, view: View, obj: Obj) -> tuple[Obj, bytes]:
    """The name that main had for an object before a merge: one that the suspect took from it, unless main did.

    Of several the first from which it will be renamed, however many of its names are known by now.
    A merge that was not cut off knows what it has renamed. After a kill it knows what it told to rename, and bindings
    tell from where: that it has a name of the suspect's that the merge has not dealt with yet was main's doing too, and
    what the suspect deleted is renamed only to be out of the way.
    """
    if (moved := view.moved.get(obj.op)) is not None:
        return moved
    bindings = (view.binding(*key) for key in sorted(view.hiding.get(obj.op, ())))
    removed = (b for b in bindings if b is not None and not b.kept and b.op != obj.op)
    names = ((fs.by_op[b.directory], b.name) for b in removed if not b.name.startswith(MOVING))
    taken = [name for name in names if name[0].ino]  # main may have lost the directory meanwhile
    links = tree.links(fs, obj)
    aside = next((directory for directory, name in links if name.startswith(MOVING)), None)  # from a name there
    link = next((at for at in taken if at[0] is aside or _has(fs, *at, obj)), None) or next(iter(links))
    mains, version = view.binding(link[0].op, link[1]), view.version(obj.op)
    deleted = version is not None and version.state == "d" and not link[1].startswith(MOVING)
    mains_doing = mains is not None and (mains.op == obj.op or (mains.kept and mains.replaced == obj.op))
    if not taken or link in taken or deleted or mains_doing or obj.op not in view.renamed:
        return link
    return next((name for name in taken if name[0] is link[0]), taken[0])


def _has(fs: Filesystem, directory: Obj, name: bytes, obj: Obj) -> bool:
    found = tree.child(fs, directory, name)
    return found is not None and found[0] is obj


def _written_to(obj: Obj) -> bool:
    """Whether somebody has main's file open for writing."""
    return any(h.writes and h.sid == MAIN for node in obj.nodes for h in node.handles)


def _keep(fs: Filesystem, entry: Stowed, place: Place, *, writable: bool, copy: bool = False) -> bool:
    """Put an inode of main's into the attic. Whether it is one that may still be written to."""
    to = fs.store.stowed(entry.number)
    large = entry.kind == stat.S_IFREG and entry.size > COPY_LIMIT
    try:
        if not copy and entry.kind != stat.S_IFDIR and (large or not writable) and _linked(place, to):
            return writable
        inodes.copy(place, to)
        inodes.sync(to)  # else what main gets instead may come to the disk without it
    except OSError as error:
        inodes.remove(to)
        path, problem = entry.path.decode("utf-8", "backslashreplace"), error.strerror
        raise AtticFailed(
            f"{path} cannot be kept in the attic ({problem}), so it was left as it is: make room and repeat"
        ) from error
    return False


def _linked(place: Place, to: Place) -> bool:
    inodes.remove(to)
    try:
        os.link(place.name, to.name, src_dir_fd=place.directory, dst_dir_fd=to.directory, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def _still_there(fs: Filesystem, entry: Stowed) -> bool:
    """Whether main has not lost what an unsettled entry is of."""
    if entry.ino is None:
        return False
    if entry.op is not None:
        origin = fs.origins.get(entry.op)
        return origin is not None and origin.ino == entry.ino
    obj = fs.root
    for name in entry.path.split(b"/"):
        try:
            found = tree.child(fs, obj, name)
        except (OSError, CallError):
            return False
        if found is None:
            return False
        obj = found[0]
    return obj.ino == entry.ino


def forget(fs: Filesystem, entry: Stowed) -> None:
    """Take back an entry of what main still has."""
    with contextlib.suppress(IsofsError):  # a row without its file is dropped by the next who looks
        batch = Batch(fs)
        batch.drop(entry)
        batch.commit()
    inodes.remove(fs.store.stowed(entry.number))


def settle(fs: Filesystem, *, merged: bool = False) -> None:
    """Look what became of changes of main that were cut off: entries of what main still has are dropped.

    What was kept of an object that stays, with another content, is left for the merge that goes on, until it has
    `merged`.
    """
    batch = Batch(fs)
    for entry in attic.unsettled(fs.store.database):
        if _still_there(fs, entry):
            forget(fs, entry)
        elif entry.ino is not None or merged or entry.op not in fs.origins:
            batch.put(settled(entry))
    batch.commit()


def purge(fs: Filesystem, upto: int | None, limit: int) -> list[Stowed]:
    """Forget up to `limit` of the oldest entries, up to a number if it is given; whoever asked removes their files."""
    batch, found = Batch(fs), attic.oldest(fs.store.database, upto, limit)
    for entry in found:
        batch.drop(entry)
    batch.commit()
    return found


def recover(fs: Filesystem) -> None:
    """After a kill: settle what was cut off, and drop rows without a file and files without a row."""
    settle(fs)
    folder = fs.store.stowed(0).directory
    rows, files = attic.numbers(fs.store.database), {int(name) for name in os.listdir(folder) if name.isdigit()}
    for number in files - rows:
        inodes.remove(fs.store.stowed(number))
    batch = Batch(fs)
    for number in rows - files:
        entry = attic.entry(fs.store.database, number)
        assert entry is not None
        batch.drop(entry)
    batch.commit()
