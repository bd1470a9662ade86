"""Opening a file system: read the store, find main's objects again, finish what was cut off.

Nothing that was answered is lost by a kill: rows were committed before each answer. What is left to do is to
remove contents that no row knows, and to look what became of changes of main that were announced. Main may also
have been changed while nobody watched; then its objects are searched.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from isofs.engine import attic, looking, reading, tree, views
from isofs.engine.batch import Batch
from isofs.engine.outage import Failure
from isofs.engine.state import Filesystem, Obj, View
from isofs.engine.trusted import REMOVED
from isofs.errors import StoreUnusable
from isofs.model.reconcile import Outcome
from isofs.model.records import RESERVED, Binding, Op, Origin, SubjectState, Version, content_name
from isofs.model.vectors import G, Vector, trusted_deletion, trusted_modification
from isofs.store import inodes, suspects
from isofs.store.folder import Store

log = logging.getLogger(__name__)


def open_filesystem(store: Store, directory: str) -> Filesystem:
    """The file system of a store over a directory, recovered. The store is closed if it cannot be."""
    try:
        with ThreadPoolExecutor(1) as beside:
            checked = beside.submit(store.database.damage)
            fs = reading.load(store, directory)
    except BaseException:
        with contextlib.suppress(StoreUnusable):
            store.close()
        raise
    try:
        if damage := checked.result():
            raise StoreUnusable(f"the database of the store {store.path} is damaged: {damage[0]}")
        recover(fs, watched=suspects.is_watched(store.root))
    except BaseException:
        with contextlib.suppress(StoreUnusable):
            close_filesystem(fs)
        raise
    return fs


def recover(fs: Filesystem, *, watched: bool) -> None:
    """Finish what was cut off, and find what main has become; `watched` is whether all its changes are in the store."""
    _compare_suspects(fs)
    finish_announced(fs)
    attic.recover(fs)
    _dress_again(fs)
    find_moved(fs)
    _remove_unknown_contents(fs)
    if not watched:
        _count_directories(fs)
        suspects.set_watched(fs.store.root, True)


def open_without_store(store: Store, directory: str, failure: Failure) -> Filesystem:
    """The file system over a directory for those whom the failure of its store does not shut out."""
    fs = reading.load(store, directory)
    fs.failure = failure
    return fs


def _compare_suspects(fs: Filesystem) -> None:
    """A database that does not know who is isolated was replaced, or emptied, or damaged unnoticed."""
    isolated = frozenset(fs.suspects)
    try:
        known = fs.store.known()
    except StoreUnusable as error:
        log.warning("%s; it is made anew", error)
        known = None
    if unknown := unknown_suspects(fs):
        uids = ", ".join(map(str, sorted(unknown)))
        raise StoreUnusable(
            f"the database of the store {fs.store.path} does not know that the users {uids} are isolated"
        )
    if known is None or known.possible != isolated or known.changing:
        fs.store.announced(isolated)


def unknown_suspects(fs: Filesystem) -> frozenset[int]:
    """The uids that the list of suspects has as isolated, and the database has not."""
    try:
        known = fs.store.known()
    except StoreUnusable:
        return frozenset()
    return frozenset() if known is None else known.isolated - frozenset(fs.suspects)


def _count_directories(fs: Filesystem) -> None:
    """The store failed, and main was changed: directories with another change time were modified, as far as anybody
    knows. Of files the fingerprint says so at the merge."""
    batch = Batch(fs)
    for op, origin in fs.origins.items():
        if origin.kind != stat.S_IFDIR:
            continue
        obj = fs.by_op[op]
        vector = batch.vector(op)
        versions = [v for view in fs.all_views if (v := view.version(op)) is not None]
        if not obj.ino or vector is None or vector.deleted or not versions:
            continue
        at = tree.located(fs, obj)[1]
        marks = [v.fingerprint for v in versions if v.fingerprint is not None]
        if any((mark.ino, mark.ctime_ns) != (at.st_ino, at.st_ctime_ns) for mark in marks):
            batch.set_vector(op, trusted_modification(vector))
    batch.commit()


def close_filesystem(fs: Filesystem) -> None:
    """Close every descriptor and the store."""
    for handle in fs.handles.values():
        if handle.descriptor >= 0:
            os.close(handle.descriptor)
    for node in fs.nodes.values():
        if node.pinned >= 0:
            os.close(node.pinned)
    for descriptor in fs.descriptors.values():
        os.close(descriptor)
    fs.handles.clear()
    fs.nodes.clear()
    fs.descriptors.clear()
    fs.store.close()


def _dress_again(fs: Filesystem) -> None:
    """Power was cut when a version had got its data, and its row was not on the disk: it has attributes alone again."""
    for view in fs.all_views:
        for version in [version for version in view.versions.values() if version.bare]:
            assert version.content is not None
            bare, given = (fs.store.content(view.sid, name) for name in (version.content, content_name(version.op)))
            if not inodes.exists(bare) and inodes.exists(given):
                inodes.make(bare, stat.S_IFREG | 0o600)
                inodes.copy_attributes(given, bare)


def _remove_unknown_contents(fs: Filesystem) -> None:
    for sid in fs.store.known_folders():
        view = fs.view_of(sid)
        if view is None:
            fs.store.drop_folder(sid)
            continue
        known = {row.content for rows in (view.versions, view.decisions) for row in rows.values()}
        for name in set(fs.store.contents(sid)) - known:
            inodes.remove(fs.store.content(sid, name))
    bases = {base.content for base in fs.bases.values()}
    for name in os.listdir(fs.store.base("").directory):
        if name not in bases:
            inodes.remove(fs.store.base(name))


def finish_announced(fs: Filesystem) -> None:
    """Changes of main that were announced and perhaps made: look, and write down what is. Repeating it does no harm."""
    batch = Batch(fs)
    for origin in list(fs.origins.values()):
        if origin.next_ino is None:
            continue
        there = looking.inode_at(fs, origin)
        obj = fs.by_op[origin.op]
        if origin.next_ino == REMOVED and there == origin.ino:
            batch.put(replace(origin, next_ino=None, vector=_counted_again(fs, origin)))
        elif origin.next_ino == REMOVED:
            batch.put(replace(origin, next_ino=None, ino=None, parent=None))
            _lost(fs, obj)
        elif there == origin.next_ino:
            assert there is not None
            assert origin.parent is not None
            batch.put(replace(origin, next_ino=None, ino=there, born=None))
            if origin.ino is None:
                _drop_merged(fs, origin.op, batch)
            fs.objects.pop(obj.ino, None)
            obj.ino = there
            fs.objects[there] = obj
            obj.add_link((fs.by_op[origin.parent], origin.name))
        else:
            parent = None if origin.ino is None else origin.parent
            batch.put(replace(origin, next_ino=None, parent=parent))
    batch.commit()


def _drop_merged(fs: Filesystem, op: Op, batch: Batch) -> None:
    """A merge, or the settling of a conflict, had just brought the object into main: the version is main's now."""
    for view in fs.all_views:
        version, decided = view.version(op), view.decisions.get(op)
        merging = fs.subjects[view.sid].state is SubjectState.MERGING
        settling = view.sid in fs.waiting and (decided is None or decided.outcome == Outcome.TAKE.value)
        if version is not None and (merging or settling):
            batch.drop(version)
            if decided is not None and not (
                merging and len(view.placed.get(op, ())) > 1
            ):  # else it has more names to get
                batch.drop(decided)


def _counted_again(fs: Filesystem, origin: Origin) -> Vector | None:
    """The vector of an object whose deletion was announced but not made: modified once more than anyone saw."""
    vector = origin.vector
    if vector is None or not vector.deleted:
        return vector
    seen = [
        count
        for view in fs.all_views
        if (version := view.version(origin.op)) is not None and isinstance(count := version.vector.get(G, 0), int)
    ]
    return vector.replace(G, max(seen, default=0) + 1)


def _lost(fs: Filesystem, obj: Obj) -> None:
    fs.objects.pop(obj.ino, None)
    tree.close_descriptor(fs, obj)
    obj.links = ()
    obj.ino = 0


def find_moved(fs: Filesystem) -> None:
    """Find what is not where the store has it: moved or replaced while nobody watched, or deleted."""
    ordered: list[Origin] = []
    batch = Batch(fs)
    if fs.root.op and fs.origins[fs.root.op].ino != fs.root.ino:
        batch.put(replace(fs.origins[fs.root.op], ino=fs.root.ino))
    if missing := looking.missing(fs):
        found = _search(fs, {origin.ino for origin in missing if origin.ino})
        ordered = _from_the_root_down(fs, missing)
        for origin in ordered:
            _moved_or_replaced(fs, origin, found.get(origin.ino or 0), batch)
    batch.commit()
    for origin in reversed(ordered):  # what is below has its names then
        directory = fs.by_op[origin.op]
        for view in fs.all_views:
            if directory.is_dir and not directory.ino and views.has_own_below(fs, view, directory):
                _keep_directory(fs, view, origin)


def _from_the_root_down(fs: Filesystem, origins: Iterable[Origin]) -> list[Origin]:
    def depth(origin: Origin) -> int:
        count, op = 0, origin.parent
        while op is not None and count <= len(fs.origins):
            count, op = count + 1, fs.origins[op].parent
        return count

    return sorted(origins, key=depth)


def _search(fs: Filesystem, inos: set[int]) -> dict[int, tuple[int, bytes, int]]:
    """Where in main these inodes are: (inode of the directory, name, type), by a walk of the whole tree."""
    found: dict[int, tuple[int, bytes, int]] = {}
    root = fs.descriptors[fs.root]
    for _, directories, files, descriptor in os.fwalk(b".", dir_fd=root, follow_symlinks=False):
        at = os.fstat(descriptor)
        if at.st_ino == fs.root.ino and RESERVED in directories:
            directories.remove(RESERVED)
        for name in (*directories, *files):
            entry = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if entry.st_ino in inos and entry.st_dev == fs.device:
                found.setdefault(entry.st_ino, (at.st_ino, name, stat.S_IFMT(entry.st_mode)))
    return found


def _moved_or_replaced(fs: Filesystem, origin: Origin, found: tuple[int, bytes, int] | None, batch: Batch) -> None:
    if looking.inode_at(fs, origin) == origin.ino:
        return  # the directory was elsewhere: what has several names keeps the one that is known
    obj = fs.by_op[origin.op]
    if found is not None and found[2] == origin.kind:
        parent = _directory_by_inode(fs, found[0])
        if parent is not None:
            obj.links = ((parent, found[1]),)
            batch.put(replace(origin, parent=batch.op_of(parent), name=found[1]))
            return
    there = looking.inode_at(fs, origin)
    if there is not None and there not in fs.objects:
        fs.objects.pop(obj.ino, None)
        obj.ino = there
        fs.objects[there] = obj
        batch.put(replace(origin, ino=there))
        return
    _deleted_unseen(fs, origin, batch)


def _directory_by_inode(fs: Filesystem, ino: int) -> Obj | None:
    """The object of a directory of main found by its inode, with its way from the root."""
    known = fs.objects.get(ino)
    if known is not None:
        return known
    above = _search(fs, {ino}).get(ino)
    parent = _directory_by_inode(fs, above[0]) if above is not None else None
    if above is None or parent is None:
        return None
    obj = fs.objects[ino] = Obj(stat.S_IFDIR, ino)
    obj.add_link((parent, above[1]))
    return obj


def _deleted_unseen(fs: Filesystem, origin: Origin, batch: Batch) -> None:
    """Main lost the object behind our back: as if a trusted user had deleted it; views keep their versions."""
    vector = origin.vector
    if vector is not None and not vector.deleted:
        vector = trusted_deletion(vector)
    found = [(view, view.version(origin.op)) for view in fs.all_views]
    if not any(version is not None and not version.bare for _, version in found):
        vector = None
    for view, _ in found:
        _keep_unseen(view, origin, batch)
    batch.put(replace(origin, ino=None, parent=None, vector=vector))
    _lost(fs, fs.by_op[origin.op])


def _keep_unseen(view: View, origin: Origin, batch: Batch) -> None:
    version = view.version(origin.op)
    if version is None or version.bare:  # the data were main's
        if version is not None:
            batch.drop(version)
        _drop_names(view, origin.op, batch)
    elif version.state == "m" and origin.op not in view.placed and origin.parent is not None:
        name = Binding(view.sid, origin.parent, origin.name, origin.op, origin.op, kept=True)
        batch.put(name)


def _keep_directory(fs: Filesystem, view: View, was: Origin) -> None:
    """A directory that main lost unseen, with something of a suspect's in it, stays in the suspect's view.

    Its attributes are gone: it gets those of the directory above, or of the root if main lost that too.
    """
    if view.version(was.op) is not None or was.op in view.placed or was.parent is None:
        return
    above = fs.by_op[was.parent]
    at = os.fstat(tree.descriptor(fs, above if above.ino else fs.root))
    to = fs.store.content(view.sid, str(was.op))
    inodes.remove(to)
    inodes.make(to, stat.S_IFDIR | 0o700)
    inodes.own(to, at.st_uid, at.st_gid)
    inodes.chmod(to, stat.S_IMODE(at.st_mode))
    before = was.vector or Vector.of({G: 0})
    now = fs.origins[was.op].vector or trusted_deletion(before)
    batch = Batch(fs)
    batch.set_vector(was.op, now.replace(view.sid, 0))
    batch.put(Version(view.sid, was.op, "m", before.replace(view.sid, "m"), str(was.op), None, False))
    batch.put(Binding(view.sid, was.parent, was.name, was.op, was.op, kept=True))
    batch.commit()


def _drop_names(view: View, op: Op, batch: Batch) -> None:
    """What a suspect only renamed and main lost unseen exists nowhere any more."""
    for directory, name in list(view.placed.get(op, ())):
        binding = view.binding(directory, name)
        if binding is not None:
            batch.drop(binding)


def unfinished(fs: Filesystem) -> list[int]:
    """The subjects whose verdict was cut off."""
    return [s.sid for s in fs.subjects.values() if s.state in (SubjectState.MERGING, SubjectState.DISCARDING)]
