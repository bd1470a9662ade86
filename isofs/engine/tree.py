"""Reaching main and the contents of versions: one component at a time, below directory descriptors.

Main's objects are found again by the names that are known of them; each time the inode is compared, so that a
name that changed hands behind the mount is never mistaken for what it was (ESTALE instead). A file whose known names
main took away may have others: then it is reached by what has it open, or main is searched for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Collection, Iterator

from isofs.engine import accounting
from isofs.engine.state import DIRECTORY_DESCRIPTORS, Filesystem, Link, Node, Obj
from isofs.errors import CallError
from isofs.model.records import RESERVED, Fingerprint, SubjectId
from isofs.store.inodes import Place, lstat

#: What the C library answers for file systems that it does not know.
_UNKNOWN_LINKS = 127

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def descriptor(fs: Filesystem, directory: Obj) -> int:
    """An open descriptor of a directory of main. It stays the tree's: use it at once, do not close it."""
    known = fs.descriptors.get(directory)
    if known is not None:
        fs.descriptors.move_to_end(directory)
        return known
    way = [directory]  # walked from the nearest open directory down; depth must not cost stack
    while way[-1] not in fs.descriptors:
        way.append(_parent(way[-1])[0])
    current = fs.descriptors[way.pop()]
    while way:
        child = way.pop()
        current = _open_directory(fs, current, child)
    return current


def _parent(obj: Obj) -> tuple[Obj, bytes]:
    for link in obj.links:
        return link
    raise CallError(errno.ESTALE)


def _open_directory(fs: Filesystem, parent: int, child: Obj) -> int:
    name = _parent(child)[1]
    try:
        opened = os.open(name, _DIRECTORY, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CallError(errno.ESTALE) from error
    try:
        at = os.fstat(opened)
        if at.st_ino != child.ino or at.st_dev != fs.device:
            raise CallError(errno.ESTALE)
    except BaseException:
        os.close(opened)
        raise
    fs.descriptors[child] = opened
    while len(fs.descriptors) > DIRECTORY_DESCRIPTORS:
        oldest = next(o for o in fs.descriptors if o is not fs.root and o is not child)
        os.close(fs.descriptors.pop(oldest))
    return opened


def close_descriptor(fs: Filesystem, directory: Obj) -> None:
    """Close the kept descriptor of a directory, if there is one."""
    known = fs.descriptors.pop(directory, None)
    if known is not None:
        os.close(known)


def place(fs: Filesystem, obj: Obj) -> Place:
    """Where main has an object, checked against its inode; ESTALE if it is at none of its known names."""
    return located(fs, obj)[0]


def located(fs: Filesystem, obj: Obj) -> tuple[Place, os.stat_result]:
    """`place`, with the attributes found there."""
    for parent, name in tuple(links(fs, obj)):
        try:
            at = Place(descriptor(fs, parent), name)
            found = lstat(at)
        except (FileNotFoundError, CallError):
            pass
        else:
            if found.st_ino == obj.ino:
                return at, found
        if len(obj.links) > 1:
            obj.drop_link((parent, name))
    if obj is fs.root:
        return Place(fs.descriptors[obj], b"."), os.fstat(fs.descriptors[obj])
    raise CallError(errno.ESTALE)


def links(fs: Filesystem, obj: Obj) -> Collection[Link]:
    """The known names of an object of main's. If main took all of them away and it has others, one is searched."""
    if not obj.links and obj.ino and obj is not fs.root and fs.objects.get(obj.ino) is obj:
        _search(fs, obj)
    return obj.links


def _search(fs: Filesystem, obj: Obj) -> None:
    """Look for a file in all of main: it has names that nobody has looked up. If it has none, it is gone, unseen."""
    for path, folders, files, opened in os.fwalk(b".", dir_fd=fs.descriptors[fs.root], follow_symlinks=False):
        if path == b"." and RESERVED in folders:
            folders.remove(RESERVED)
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=opened, follow_symlinks=False)
                if (found.st_ino, found.st_dev) == (obj.ino, fs.device) and _looked_up(fs, path, name) is obj:
                    return
    fs.objects.pop(obj.ino, None)
    obj.ino = 0


def _looked_up(fs: Filesystem, path: bytes, name: bytes) -> Obj | None:
    """What main has under a name in the directory at a path of a walk from `.`."""
    found: Obj | None = fs.root
    for part in (*path.split(b"/")[1:], name):
        there = child(fs, found, part) if found is not None else None
        found = None if there is None else there[0]
    return found


def child(fs: Filesystem, directory: Obj, name: bytes) -> tuple[Obj, os.stat_result] | None:
    """What main has under a name, with its attributes; None if nothing.

    The store's folder and whatever other file system is mounted below does not exist.
    """
    if not directory.ino:
        return None
    if name == RESERVED and directory is fs.root:
        return None
    try:
        found = os.stat(name, dir_fd=descriptor(fs, directory), follow_symlinks=False)
    except FileNotFoundError:
        return None
    if found.st_dev != fs.device:
        return None
    return known(fs, directory, name, found), found


def hidden(fs: Filesystem, directory: Obj, name: bytes) -> bool:
    """Whether main has something of another file system under a name: nobody sees it, and nothing can get the name."""
    if not directory.ino:
        return False
    with contextlib.suppress(FileNotFoundError):
        return os.stat(name, dir_fd=descriptor(fs, directory), follow_symlinks=False).st_dev != fs.device
    return False


def known(fs: Filesystem, directory: Obj, name: bytes, found: os.stat_result) -> Obj:
    """The object of an inode that was found under a name."""
    kind = stat.S_IFMT(found.st_mode)
    obj = fs.objects.get(found.st_ino)
    if obj is None or obj.kind != kind:
        obj = fs.objects[found.st_ino] = Obj(kind, found.st_ino)
    link = (directory, name)
    if link not in obj.links:
        if obj.is_dir and obj.links:
            obj.links = ()
            close_descriptor(fs, obj)
        obj.add_link(link)
    return obj


def names(fs: Filesystem, directory: Obj, *, noticed: bool = False) -> Iterator[bytes]:
    """The names in a directory of main, in the file system's order, read as they are asked for.

    `noticed` is whether its access time moves, as it does when a trusted user reads it.
    """
    if not directory.ino:
        return
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if noticed else os.O_NOATIME)
    opened = os.open(b".", flags, dir_fd=descriptor(fs, directory))
    try:
        with os.scandir(opened) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if name != RESERVED or directory is not fs.root:
                    yield name
    finally:
        os.close(opened)


def content(fs: Filesystem, sid: SubjectId, obj: Obj) -> Place | None:
    """Where the data of an active suspect's version lie, None where they are main's: while there is no version (or a
    deleted one), and while it has attributes alone."""
    view = fs.views.get(sid)
    version = view.version(obj.op) if view is not None else None
    if version is None or version.content is None or version.bare:
        return None
    return fs.store.content(sid, version.content)


def inode(fs: Filesystem, sid: SubjectId, obj: Obj) -> Place | None:
    """Where the inode with the attributes of an active suspect's version lies, None if there is none."""
    view = fs.views.get(sid)
    version = view.version(obj.op) if view is not None else None
    if version is None or version.content is None:
        return None
    return fs.store.content(sid, version.content)


def backing(fs: Filesystem, node: Node) -> Place:
    """Where the data behind a node that has a name lie: in the suspect's folder, or in main."""
    return (content(fs, node.sid, node.obj) if node.sid else None) or place(fs, node.obj)


def status(fs: Filesystem, node: Node) -> os.stat_result:
    """The attributes of what is behind a node, also of one that has no name any more."""
    if node.pinned >= 0:
        return os.fstat(node.pinned)
    if node.sid:
        at = inode(fs, node.sid, node.obj)
        if at is not None:
            own = lstat(at)
            if content(fs, node.sid, node.obj) is not None:
                return own
            return dressed(own, _status_in_main(fs, node), fs.views[node.sid].versions[node.obj.op].fingerprint)
    return _status_in_main(fs, node)


def _status_in_main(fs: Filesystem, node: Node) -> os.stat_result:
    held = _held(node)
    return located(fs, node.obj)[1] if held is None else os.fstat(held)


def _held(node: Node) -> int | None:
    """A descriptor of main's inode, if somebody has it open, and main took all of its names that are known away."""
    if node.obj.links or not node.obj.ino:
        return None
    opened = (handle.descriptor for handle in node.handles if handle.descriptor >= 0)
    return next((one for one in opened if os.fstat(one).st_ino == node.obj.ino), None)


def dressed(own: os.stat_result, main: os.stat_result, mark: Fingerprint | None) -> os.stat_result:
    """What is told of main's data under a version's own attributes, the latest set when main was as `mark` says.

    The suspect may have set the time of modification, and set-id bits, but not for what main wrote since.
    """
    mode, mtime_ns, ctime_ns = own.st_mode, own.st_mtime_ns, max(own.st_ctime_ns, main.st_ctime_ns)
    if written_since(mark, main):
        mode, mtime_ns = without_set_ids(mode), main.st_mtime_ns
    told = (mode, main.st_ino, main.st_dev, main.st_nlink, own.st_uid, own.st_gid, main.st_size)
    seconds = (ns // 10**9 for ns in (own.st_atime_ns, mtime_ns, ctime_ns))
    rest = {"st_atime_ns": own.st_atime_ns, "st_mtime_ns": mtime_ns, "st_ctime_ns": ctime_ns}
    rest |= {"st_rdev": main.st_rdev, "st_blocks": main.st_blocks, "st_blksize": main.st_blksize}
    return os.stat_result((*told, *seconds), rest)


def written_since(mark: Fingerprint | None, main: os.stat_result) -> bool:
    """Whether main's data, as they are now, are others than they were."""
    if mark is None:
        return False
    return mark.ino != main.st_ino or min(main.st_mtime_ns, main.st_ctime_ns) > mark.ctime_ns


def without_set_ids(mode: int) -> int:
    """A mode as writing leaves it, whoever writes."""
    return mode & ~(stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0))


@contextlib.contextmanager
def reached(fs: Filesystem, node: Node) -> Iterator[bytes]:
    """A path that leads to the inode with a node's attributes and to no other, whatever happens to names meanwhile."""
    own = inode(fs, node.sid, node.obj) if node.sid and node.pinned < 0 else None
    if own is not None:
        with reached_place(own) as path:
            yield path
        return
    held = node.pinned if node.pinned >= 0 else _held(node)
    if held is not None:
        yield b"/proc/self/fd/%d" % held
        return
    if node.obj.is_dir:
        yield b"/proc/self/fd/%d" % descriptor(fs, node.obj)
        return
    with reached_place(place(fs, node.obj)) as path:
        yield path


@contextlib.contextmanager
def reached_place(at: Place) -> Iterator[bytes]:
    """A path that leads to the inode at a place, to a link itself if it is one, for as long as it is used."""
    opened = open_place(at)
    try:
        yield b"/proc/self/fd/%d" % opened
    finally:
        os.close(opened)


def open_place(at: Place) -> int:
    """An O_PATH descriptor of the inode at a place, of a link itself if it is one."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    if at.name == b".":
        return os.dup(at.directory)
    return os.open(at.name, flags, dir_fd=at.directory)


def pin(fs: Filesystem, node: Node, at: Place | None = None) -> None:
    """Hold the inode behind a node open, because it is about to lose its last name; `at` is where it is, if known."""
    if node.pinned < 0:
        with contextlib.suppress(FileNotFoundError, CallError):
            own = bool(node.sid) and content(fs, node.sid, node.obj) is not None
            if own and not node.handles and not accounting.may_hold(fs, fs.views[node.sid]):
                return  # whoever has a descriptor that is not open for anything is told that it is stale
            node.borrowed = bool(node.sid) and not own
            node.pinned = open_place(at or backing(fs, node))
            if own:
                fs.views[node.sid].account.hold(node)


def unpin(fs: Filesystem, node: Node) -> None:
    """The inode behind a node did not lose its last name after all."""
    os.close(node.pinned)
    node.pinned, node.borrowed = -1, False
    view = fs.view_of(node.sid)
    if view is not None:
        view.account.let_go(node)


def longest_name(fs: Filesystem) -> int:
    """How many bytes a name may have on the directory's file system."""
    return os.fstatvfs(fs.descriptors[fs.root]).f_namemax


def most_links(fs: Filesystem) -> int:
    """How many names the directory's file system gives one inode, as far as the C library knows."""
    known = os.pathconf(b"/proc/self/fd/%d" % fs.descriptors[fs.root], "PC_LINK_MAX")
    return known if known > _UNKNOWN_LINKS else sys.maxsize
