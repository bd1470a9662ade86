"""A suspect's versions of objects (Protocol 2), and the handles that go over to them.

Content is put in place before the row that refers to it and removed after the row is gone: what is killed in between
leaves a file that no row knows, and recovery removes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import replace

from isofs.engine import accounting, kept, tree, usage
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Handle, Obj, View
from isofs.errors import CallError
from isofs.model.records import Fingerprint, Touch, Version, content_name
from isofs.model.vectors import G, delete_isolated, isolate
from isofs.store import inodes
from isofs.store.inodes import Place

_CAPABILITY = "security.capability"

#: Flags of an `open` that are the caller's alone and mean nothing for the backing file.
_NOT_FOR_BACKING = os.O_CREAT | os.O_EXCL | os.O_NOCTTY | os.O_TRUNC | os.O_DIRECT


def backing_flags(flags: int) -> int:
    """The flags to open a backing file with for a caller's flags."""
    return (flags & ~_NOT_FOR_BACKING) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def untouching_flags(flags: int) -> int:
    """Flags for reading main's file on a suspect's behalf: main must not even see the access time change."""
    return (backing_flags(flags) & ~(os.O_ACCMODE | os.O_APPEND)) | os.O_NOATIME


def needs_copy(fs: Filesystem, view: View, obj: Obj) -> bool:
    """Whether a change of its data by the suspect would first have to copy the object."""
    version = view.version(obj.op)
    return obj.ino != 0 and (version is None or version.bare)


def copy_up(
    fs: Filesystem,
    view: View,
    obj: Obj,
    *,
    data: bool = True,
    attributes: bool = False,
    staged: Place | None = None,
    limited: bool = True,
) -> None:
    """Give the suspect a version of its own, state 'm' (Protocol 2, rules 3 and 8). Nothing if there is one.

    Without `data` a regular file's version starts empty. `attributes` says that nothing else is about to change: then
    it has no data of its own, until a call without it gives it those.
    `staged` is a finished copy to take instead of making one, which was admitted. What is not `limited` is made for
    a change of main, and never refused. Handles that the suspect has open on the object go
    over to the version.
    """
    version = view.version(obj.op)
    if version is not None:
        if version.state == "d":
            raise CallError(errno.ENOENT)
        if version.bare and (staged is not None or not attributes):
            give_data(fs, view, obj, version, data=data, attributes=attributes, staged=staged, limited=limited)
        elif version.bare:
            follow_main(fs, view, obj)
        elif version.attributes and not attributes:
            batch = Batch(fs)
            batch.put(replace(version, attributes=False))
            batch.commit()
        return
    source, at = tree.located(fs, obj)
    bare = attributes and staged is None and obj.kind == stat.S_IFREG
    if limited and staged is None:
        accounting.admit(fs, view, usage.on_disk(at) if data and not bare else 0, versions=1)
    batch = Batch(fs)
    op = batch.op_of(obj)
    name = content_name(op, _digest(source) if bare else None)
    to = fs.store.content(view.sid, name)
    with removed_on_error(to):
        _make_content(source, to, staged, empty=bare or (not data and obj.kind == stat.S_IFREG))
        main, own = isolate(batch.vector(op), view.sid, "m")
        batch.set_vector(op, main)
        batch.put(Version(view.sid, op, "m", own, name, fingerprint(at), attributes))
        touched = view.touches.get(op)
        if touched is not None:
            if obj.is_dir:
                set_mtime(to, max(touched, at.st_mtime_ns))
            batch.drop(Touch(view.sid, op, touched))
        batch.commit()
    diverged(fs, obj)
    move_handles(fs, view, obj)


def fingerprint(at: os.stat_result) -> Fingerprint:
    """What tells whether main changed since it was as it is `at`."""
    return Fingerprint(at.st_ino, at.st_ctime_ns, at.st_size)


def give_data(
    fs: Filesystem,
    view: View,
    obj: Obj,
    version: Version,
    *,
    data: bool = True,
    attributes: bool = True,
    staged: Place | None = None,
    limited: bool = False,
) -> None:
    """Give a version that has attributes alone data of its own, main's as they are now; arguments as of `copy_up`."""
    assert version.content is not None
    bare, op = fs.store.content(view.sid, version.content), version.op
    source, at = tree.located(fs, obj)
    if limited and staged is None:
        accounting.admit(fs, view, usage.on_disk(at) if data else 0)
    to = fs.store.content(view.sid, content_name(op))
    with removed_on_error(to):
        _make_content(source, to, staged, empty=not data)
        follow_main(fs, view, obj)
        inodes.copy_attributes(bare, to)
        batch, version = Batch(fs), view.versions[op]
        batch.put(replace(with_data(fs, version, obj), content=content_name(op), attributes=attributes))
        batch.commit()
    inodes.remove(bare)
    diverged(fs, obj)
    move_handles(fs, view, obj)


def with_data(fs: Filesystem, version: Version, obj: Obj) -> Version:
    """A version as it would be if it got its data now: it starts from main as it is, if main has changed nothing but
    data meanwhile. Else it has started from what main was, since both sides have changed attributes."""
    main = fs.origins[version.op].vector
    if main is None or not can_start_anew(fs, version, obj):
        return version
    mark = fingerprint(tree.located(fs, obj)[1])
    return replace(version, vector=isolate(main, version.sid, "m")[1], fingerprint=mark)


def can_start_anew(fs: Filesystem, version: Version, obj: Obj) -> bool:
    """Whether a version has attributes alone, and main has those that it started from."""
    main = fs.origins[version.op].vector
    if not version.bare or main is None or main.deleted:
        return False
    try:
        return version.content == content_name(version.op, _digest(tree.place(fs, obj)))
    except (OSError, CallError):
        return False


def _digest(place: Place) -> str:
    """What tells whether mode, owner and extended attributes are the same."""
    at = inodes.lstat(place)
    told = at.st_mode, at.st_uid, at.st_gid, sorted(inodes.xattrs(place).items())
    return hashlib.sha256(repr(told).encode()).hexdigest()[:32]


def follow_main(fs: Filesystem, view: View, obj: Obj) -> None:
    """Before attributes of a version that has nothing else are changed: if main's data were written since the latest
    change, it has their time, and no set-id bit or capability any more."""
    own, version = tree.inode(fs, view.sid, obj), view.version(obj.op)
    if own is None or version is None or not version.bare:
        return
    at, main = inodes.lstat(own), tree.located(fs, obj)[1]
    if tree.written_since(version.fingerprint, main):
        inodes.chmod(own, stat.S_IMODE(tree.without_set_ids(at.st_mode)))
        with contextlib.suppress(OSError):
            os.removexattr(own.path, _CAPABILITY, follow_symlinks=False)
        set_mtime(own, main.st_mtime_ns)
    vector = fs.origins[version.op].vector
    counted = vector is not None and vector.get(G) != version.vector.get(G)  # else the merge must see that it changed
    if version.fingerprint != fingerprint(main) and (counted or can_start_anew(fs, version, obj)):
        batch = Batch(fs)
        batch.put(replace(version, fingerprint=fingerprint(main)))
        batch.commit()


def _make_content(source: Place, to: Place, staged: Place | None, *, empty: bool) -> None:
    if staged is not None:
        inodes.remove(to)
        os.rename(staged.name, to.name, src_dir_fd=staged.directory, dst_dir_fd=to.directory)
    elif empty:
        inodes.remove(to)
        inodes.make(to, stat.S_IFREG | 0o600)
        inodes.copy_attributes(source, to)
    else:
        inodes.copy(source, to)


@contextlib.contextmanager
def removed_on_error(content: Place) -> Iterator[None]:
    """Around the making of a content and its row: without the row the content goes as well, most of all if the disk is
    full."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            inodes.remove(content)
        raise


def expire_names(fs: Filesystem, obj: Obj) -> None:
    """Let the kernel look up anew who asks for an object by one of main's names."""
    for directory, name in obj.links:
        for parent in directory.nodes:
            fs.kernel.forget_entry(parent.id, name)


def diverged(fs: Filesystem, obj: Obj) -> None:
    """Main's side of an object has a new version beside it: its writers count anew, attributes expire everywhere."""
    for node in obj.nodes:  # also one of a suspicion that is over: its user is trusted
        for handle in node.handles:
            handle.counted = False
        if node.sid not in fs.views:
            fs.kernel.forget_attributes(node.id)
    kept.changed(fs, obj)


def move_handles(fs: Filesystem, view: View, obj: Obj) -> None:
    """Let the suspect's open handles on an object use the content of its version from now on."""
    for node in obj.nodes:
        for handle in list(node.handles):
            if handle.sid == view.sid and not handle.before:
                reopen(fs, handle, tree.content(fs, view.sid, obj))


def reopen(fs: Filesystem, handle: Handle, at: Place | None) -> None:
    """Make a handle use the file at another place, opened as it was opened by its caller."""
    if at is None:
        return
    opened = os.open(at.name, backing_flags(handle.flags), dir_fd=at.directory)
    if handle.descriptor >= 0:
        os.close(handle.descriptor)
    handle.descriptor, handle.ready = opened, True


def go_back(handle: Handle, main: Place) -> None:
    """Make a suspect's handle on its own node what it is while there is no version: it reads main's, or nothing."""
    opened = -1
    if handle.flags & os.O_ACCMODE != os.O_WRONLY:
        opened = os.open(main.name, untouching_flags(handle.flags), dir_fd=main.directory)
    if handle.descriptor >= 0:
        os.close(handle.descriptor)
    handle.descriptor, handle.ready = opened, not handle.writes


def delete_version(fs: Filesystem, view: View, obj: Obj, batch: Batch) -> Place | None:
    """The suspect's view loses an object's last name (Protocol 2, rule 7).

    Returns the content to remove once the batch is committed.
    """
    op = batch.op_of(obj)
    version = view.version(op)
    content = fs.store.content(view.sid, version.content) if version and version.content else None
    main = batch.vector(op)
    if main is None and version is not None:  # made by the suspect: nobody else has ever seen it
        batch.drop(version)
        return content
    if (touched := view.touches.get(op)) is not None:
        batch.drop(Touch(view.sid, op, touched))  # whether the deletion stands or not
    if version is None:
        at = tree.located(fs, obj)[1]
        main, own = isolate(main, view.sid, "d")
        mark = Fingerprint(at.st_ino, at.st_ctime_ns, at.st_size)
        batch.set_vector(op, main)
        batch.put(Version(view.sid, op, "d", own, None, mark))
    else:
        own = delete_isolated(version.vector, view.sid)
        batch.put(replace(version, state="d", vector=own, content=None))
    return content


def changed_unseen(version: Version, at: os.stat_result, count: object, obj: Obj) -> bool:
    """Whether main's object, as it is `at` G's `count`, changed though G says that it did not (behind the mount)."""
    mark = version.fingerprint
    if mark is None or count != version.vector.get(G) or obj.is_dir:
        return False
    if mark.ino != at.st_ino or mark.size != at.st_size:
        return True
    return at.st_ctime_ns != mark.ctime_ns


def set_mtime(content: Place, at_ns: int | None = None) -> None:
    """Set a content's modification time, to what it is already without `at_ns`: the change time is now."""
    at = inodes.lstat(content)
    times = (at.st_atime_ns, at.st_mtime_ns if at_ns is None else at_ns)
    os.utime(content.name, ns=times, dir_fd=content.directory, follow_symlinks=False)
