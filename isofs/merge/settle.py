"""After a verdict: nodes, handles and rows of a subject that is none any more go over to main."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from isofs.engine import kept, tree, versions
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Handle, Node, Obj, View, drop_if_unused, node_for
from isofs.errors import CallError
from isofs.model.records import MAIN, Binding, Decided, Origin, Version
from isofs.model.vectors import G, Vector
from isofs.store import inodes
from isofs.store.inodes import Place


def expire(fs: Filesystem, directory: Obj, name: bytes) -> None:
    """A name of main's changed without the kernel's doing: it must ask again."""
    for node in directory.nodes:
        fs.kernel.forget_entry(node.id, name)
        kept.forget(fs, node)


@contextlib.contextmanager
def same_times(directory: int) -> Iterator[None]:
    """Keep a directory's times: no name in it changes. If they cannot be set, what was done stays done."""
    before = os.fstat(directory)
    yield
    with contextlib.suppress(OSError):
        os.utime(b"/proc/self/fd/%d" % directory, ns=(before.st_atime_ns, before.st_mtime_ns))


def touch_directories(fs: Filesystem, view: View) -> Iterator[None]:
    """Directories of main in which the suspect changed names are as old as its last change there, at most.

    What changed a name may have left none that main lacks: a file saved by renaming, or made and removed again. Yields
    after each, when others may be served. Repeating it does no harm.
    """
    for op, touched in list(view.touches.items()):
        obj = fs.by_op[op]
        if obj.is_dir and obj.ino:
            with contextlib.suppress(OSError, CallError):  # gone behind the mount
                descriptor = tree.descriptor(fs, obj)
                at = os.fstat(descriptor)
                if at.st_mtime_ns < touched:
                    os.utime(b"/proc/self/fd/%d" % descriptor, ns=(at.st_atime_ns, touched))
                    for node in obj.nodes:
                        kept.forget(fs, node)
        yield


def overtaken(fs: Filesystem, version: Version) -> bool:
    """Whether a trusted user modified what a version was decided to replace or delete, since that was decided."""
    vector, seen = fs.origins[version.op].vector, version.vector.get(G)
    count = None if vector is None else vector.get(G)
    return isinstance(count, int) and isinstance(seen, int) and count > seen


def merged_now(fs: Filesystem, decided: Decided) -> Vector:
    """The merged vector that was decided, with what came into main's since then."""
    now, merged = fs.origins[decided.op].vector, decided.merged
    if now is None:
        return merged
    count, before = now.get(G), merged.get(G)
    if isinstance(count, int) and isinstance(before, int):
        merged = merged.replace(G, max(count, before))
    return merged.padded(now)


def beside_main(fs: Filesystem, content: Place) -> Place:
    """The content where a rename can bring it into main: itself, or a copy if the store is elsewhere."""
    if inodes.lstat(content).st_dev == fs.device:
        return content
    copy = fs.store.staged_beside(fs.descriptors[fs.root])
    fs.store_inside = True  # a scratch folder of its name, at least
    inodes.copy(content, copy)
    inodes.sync(copy)
    return copy


def promote(fs: Filesystem, view: View, obj: Obj) -> None:
    """The suspect's content has become main's: the suspect's node is main's node from now on."""
    node = obj.node(view.sid)
    if node is None or node.pinned >= 0 or obj.node(MAIN) is not None:
        return
    node.sid = MAIN
    kept.forget(fs, node)
    for handle in node.handles:
        handle.sid, handle.before, handle.counted = MAIN, False, False
        if handle.descriptor >= 0:
            at = os.fstat(handle.descriptor)
            if (at.st_dev, at.st_ino) != (fs.device, obj.ino):  # the store is elsewhere: main has a copy
                versions.reopen(fs, handle, tree.place(fs, obj))


def open_before(fs: Filesystem, view: View, obj: Obj, content: Place) -> list[Handle]:
    """What the suspect has opened for writing only before the suspicion, now open on what is about to be main's."""
    found = [h for node in obj.nodes for h in node.handles if h.sid == view.sid and h.before]
    found = [h for h in found if h.flags & os.O_ACCMODE == os.O_WRONLY]
    for handle in found:
        versions.reopen(fs, handle, content)
    return found


def lead_on(fs: Filesystem, obj: Obj, handles: list[Handle]) -> None:
    """Handles that have been opened on what is main's now belong to its node (the kernel has them on another)."""
    for handle in handles:
        before, node = handle.node, node_for(fs, MAIN, obj)
        before.drop_handle(handle)
        node.add_handle(handle)
        handle.node, handle.sid, handle.counted = node, MAIN, False
        drop_if_unused(fs, before)


def remove_content(fs: Filesystem, view: View, obj: Obj, name: str) -> None:
    """Remove a content that is no version's any more; whoever has it open keeps it until then."""
    for handle in _handles(fs, view):
        if handle.node.obj is obj:
            to_main(fs, handle)
    content = fs.store.content(view.sid, name)
    with contextlib.suppress(OSError):  # `tidy` tries once more
        if inodes.exists(content):
            fs.store.sync()
            inodes.remove(content)


def tidy(fs: Filesystem, view: View) -> None:
    """Remove a suspect's contents that no row knows any more and that could not be removed when they should."""
    if view.sid in fs.store.known_folders():
        known = {row.content for rows in (view.versions, view.decisions) for row in rows.values()}
        for name in fs.store.contents(view.sid):
            if name not in known:
                inodes.remove(fs.store.content(view.sid, name))


def remove_unused(fs: Filesystem, decided: Decided) -> None:
    """Remove what a resolver made for a decision, if it is not main's by now."""
    if decided.content is not None:
        content = fs.store.content(decided.sid, decided.content)
        if inodes.exists(content):
            fs.store.sync()
            inodes.remove(content)


def _handles(fs: Filesystem, view: View) -> list[Handle]:
    return [h for h in fs.handles.values() if h.sid == view.sid]


def to_main(fs: Filesystem, handle: Handle) -> None:
    """A handle of a former suspect goes on working on main's object; without one, on what it had."""
    handle.sid, handle.counted = MAIN, False
    handle.before = False
    _return_borrowed(fs, handle.node)
    obj = handle.node.obj
    if handle.node.pinned >= 0:
        if not handle.ready or _is_on_version(fs, handle):
            _open_pinned(handle)
        _lead_back(fs, handle)
        return
    with contextlib.suppress(OSError, CallError):
        if obj.ino:
            place = tree.place(fs, obj)
            if handle.descriptor < 0 or os.fstat(handle.descriptor).st_ino != obj.ino or not handle.ready:
                versions.reopen(fs, handle, place)
            return
    _make_anonymous(fs, handle)


def _is_on_version(fs: Filesystem, handle: Handle) -> bool:
    """Whether a handle is open on a content of the store's, which waits or will be discarded, and is not main's."""
    at = os.fstat(handle.descriptor)
    return bool(at.st_nlink) and (at.st_dev != fs.device or at.st_ino not in fs.objects)


def _lead_back(fs: Filesystem, handle: Handle) -> None:
    """What was opened before the suspicion, and main deleted, may have come back: then it is a handle on main's."""
    at = os.fstat(handle.descriptor) if handle.descriptor >= 0 else None
    obj = fs.objects.get(at.st_ino) if at is not None and at.st_dev == fs.device else None
    if obj is not None and obj.links:
        lead_on(fs, obj, [handle])


def _return_borrowed(fs: Filesystem, node: Node) -> None:
    """A node that read main's inode, which had no name in the view any more, is one of main's object again."""
    if node.pinned < 0 or not node.borrowed:
        return
    obj = fs.objects.get(os.fstat(node.pinned).st_ino)
    if obj is None or obj.kind != node.obj.kind or (obj is not node.obj and obj.node(node.sid) is not None):
        return
    node.obj.drop_node(node)
    obj.add_node(node)
    os.close(node.pinned)
    node.pinned, node.borrowed = -1, False


def _open_pinned(handle: Handle) -> None:
    """Open what a handle is of, and what no name leads to, as its caller opened it."""
    flags = versions.backing_flags(handle.flags) & ~os.O_NOFOLLOW
    opened = os.open(b"/proc/self/fd/%d" % handle.node.pinned, flags)
    if handle.descriptor >= 0:
        os.close(handle.descriptor)
    handle.descriptor, handle.ready = opened, True


def _make_anonymous(fs: Filesystem, handle: Handle) -> None:
    """What a handle has open lives on as a copy without a name: the original is evidence, or gone.

    It is one copy for all handles of the node.
    """
    if handle.descriptor < 0 or handle.node.pinned >= 0:
        return
    with contextlib.suppress(OSError):
        scratch, ino = fs.store.staged(), os.fstat(handle.descriptor).st_ino
        reader = os.open(b"/proc/self/fd/%d" % handle.descriptor, os.O_RDONLY | os.O_CLOEXEC)
        try:
            inodes.copy_content(reader, scratch, 0o600)
        finally:
            os.close(reader)
        try:
            for other in handle.node.handles:
                if other.descriptor >= 0 and os.fstat(other.descriptor).st_ino == ino:
                    versions.reopen(fs, other, scratch)
            handle.node.pinned = tree.open_place(scratch)
        finally:
            inodes.remove(scratch)


def detach_handles(fs: Filesystem, view: View, mapped: frozenset[int]) -> None:
    """All of a subject's handles leave its contents.

    What is open on the nodes `mapped` goes on as a copy without a name: the kernel may still write pages of it.
    """
    for handle in _handles(fs, view):
        if handle.node.id in mapped and handle.node.sid == view.sid:
            handle.sid, handle.before = MAIN, False
            _make_anonymous(fs, handle)
        else:
            to_main(fs, handle)


def note_places(fs: Filesystem, view: View, batch: Batch) -> None:
    """Let what waits, and main has lost without a note of where it was, come back under its name in the root."""
    for op, version in view.versions.items():
        if version.state == "m" and not fs.by_op[op].ino and op not in view.placed:
            batch.put(Binding(view.sid, batch.op_of(fs.root), fs.origins[op].name, op, op, kept=True))


def describe(origin: Origin) -> str:
    """A word for what an object is."""
    words = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "symlink",
        stat.S_IFIFO: "fifo",
        stat.S_IFSOCK: "socket",
    }
    return words.get(origin.kind, "device")
