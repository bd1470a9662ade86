"""What a view contains: main's current names and contents, under the suspect's own (design: "view").

Every rule of visibility is here and nowhere else. All functions take the number of the view, `MAIN` or a suspect's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from isofs.engine import tree
from isofs.engine.state import CHANNELS, OWN_NUMBERS, Filesystem, Link, Node, Obj, View, node_for
from isofs.errors import CallError
from isofs.model.records import MAIN, Binding, SubjectId
from isofs.store.inodes import exists, lstat

#: Of a file with no more names than this each is looked at when the suspect removes one.
_FEW_NAMES = 64


class Attributes(NamedTuple):
    """What `stat` tells of an object in a view. Times are nanoseconds since the epoch."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    blksize: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


class Seen(NamedTuple):
    """A name of a directory as a view has it: the object that it leads to there, and what main has under it."""

    directory: Obj
    name: bytes
    obj: Obj | None
    main: Obj | None


def child(fs: Filesystem, sid: SubjectId, directory: Obj, name: bytes) -> Obj | None:
    """The object that a name leads to in a view, None if there is none."""
    view = fs.views.get(sid)
    binding = view.binding(directory.op, name) if view is not None and directory.op else None
    if binding is not None and binding.op is not None:
        return fs.by_op[binding.op]
    return _shown(view, binding, _in_main(fs, directory, name))


def seen(fs: Filesystem, sid: SubjectId, directory: Obj, name: bytes) -> Seen:
    """`child`, with what main has under the name."""
    view, there = fs.views.get(sid), _in_main(fs, directory, name)
    binding = view.binding(directory.op, name) if view is not None and directory.op else None
    if binding is not None and binding.op is not None:
        return Seen(directory, name, fs.by_op[binding.op], there)
    return Seen(directory, name, _shown(view, binding, there), there)


def _in_main(fs: Filesystem, directory: Obj, name: bytes) -> Obj | None:
    found = tree.child(fs, directory, name)
    return None if found is None else found[0]


def _shown(view: View | None, binding: Binding | None, there: Obj | None) -> Obj | None:
    """What main has under a name, if a view without an object of its own there shows it."""
    if view is None or there is None or not (hides(view, binding, there) or _gone(view, there)):
        return there
    return None


def hides(view: View, binding: Binding | None, obj: Obj) -> bool:
    """Whether a binding that leads to nothing hides the object that main has under its name."""
    return binding is not None and binding.op is None and bool(obj.op) and binding.replaced == obj.op


def _gone(view: View, obj: Obj) -> bool:
    """Whether the suspect deleted the object, or has the directory somewhere else."""
    if not obj.op:
        return False
    version = view.versions.get(obj.op)
    if version is not None and version.state == "d":
        return True
    return obj.is_dir and obj.op in view.placed


def names(fs: Filesystem, sid: SubjectId, directory: Obj) -> Iterator[bytes]:
    """The names that may be in a directory of a view, each once; `child` says which lead to something.

    Main's come as they are read, the suspect's own after them.
    """
    view = fs.views.get(sid)
    if view is None:
        yield from tree.names(fs, directory, noticed=True)
        return
    # The view may change while it is read, and come to its end by a verdict.
    own = _own_names(view, directory)
    seen = set()
    for name in tree.names(fs, directory):
        seen.add(name)
        yield name
    for name in (*own, *_own_names(view, directory)):
        if name not in seen:
            seen.add(name)
            yield name


def _own_names(view: View, directory: Obj) -> list[bytes]:
    return [name for name, binding in view.bindings.get(directory.op, {}).items() if binding.op is not None]


def entries(fs: Filesystem, sid: SubjectId, directory: Obj) -> Iterator[tuple[bytes, Obj, os.stat_result | None]]:
    """The names in a directory of a view with the objects that they lead to, and their attributes if main told them."""
    for name in names(fs, sid, directory):
        if sid not in fs.views:
            found = tree.child(fs, directory, name)
            if found is not None:
                yield name, *found
        elif (obj := child(fs, sid, directory, name)) is not None:
            yield name, obj, None


def is_empty(fs: Filesystem, sid: SubjectId, directory: Obj) -> bool:
    """Whether nothing is in a directory of a view, nor anything of another file system in main's."""
    found = (child(fs, sid, directory, name) or tree.hidden(fs, directory, name) for name in names(fs, sid, directory))
    return not any(found)


def attributes(fs: Filesystem, sid: SubjectId, node: Node, at: os.stat_result | None = None) -> Attributes:
    """The attributes of a node's object as the view `sid` has them. `at` saves asking the file system again."""
    if at is None:
        at = tree.status(fs, node)
    obj, nlink = node.obj, at.st_nlink
    view = fs.views.get(sid)
    times = at
    if view is not None and obj.is_dir and not node.sid and node.pinned < 0:
        own = tree.content(fs, sid, obj)  # on a node that all share (the root, a working directory) only times differ
        times = at if own is None else lstat(own)
    mtime_ns, ctime_ns = times.st_mtime_ns, times.st_ctime_ns
    if view is not None and obj.op and node.pinned < 0:
        if obj.is_dir:
            nlink = _directory_links(fs, view, obj, at)
            touched = _touched(fs, view, obj)
            if touched is not None:
                mtime_ns, ctime_ns = max(mtime_ns, touched), max(ctime_ns, touched)
        else:
            ctime_ns = max(ctime_ns, view.touches.get(obj.op, 0))
            if view.concerns(obj.op):
                nlink = link_count(fs, view, obj)
    elif node.pinned >= 0 and (view is not None or not obj.links):
        nlink = 0  # whatever names it has in the attic
    if obj is fs.root and fs.store_inside and nlink > 2:
        nlink -= 1  # the store's folder does not exist through the mount
    return Attributes(
        _number(fs, view, node),
        at.st_mode,
        nlink,
        at.st_uid,
        at.st_gid,
        at.st_rdev,
        at.st_size,
        at.st_blocks,
        at.st_blksize,
        times.st_atime_ns,
        mtime_ns,
        ctime_ns,
    )


def _number(fs: Filesystem, view: View | None, node: Node) -> int:
    """The inode number that is told: it stays the same however often the kernel forgets the node."""
    obj = node.obj
    if obj is fs.root:
        return obj.ino
    if node.sid == MAIN:
        return node.id
    version = view.version(obj.op) if view is not None else None
    made_as = version.made_as if version is not None else None
    if made_as is not None and not (obj.ino and made_as == obj.op):
        return OWN_NUMBERS + made_as
    return obj.ino or node.id


def _touched(fs: Filesystem, view: View, directory: Obj) -> int | None:
    """When names in a directory last changed that its own inode does not know of, None if none did.

    For one of main's: by the suspect. For a suspect's version: by trusted users, since the version was made.
    """
    version = view.version(directory.op)
    if version is None:
        return view.touches.get(directory.op)
    mark = version.fingerprint
    if mark is None or not directory.ino:
        return None
    try:
        at = tree.located(fs, directory)[1]
    except (OSError, CallError):
        return None
    return at.st_mtime_ns if min(at.st_mtime_ns, at.st_ctime_ns) > mark.ctime_ns else None


def link_count(fs: Filesystem, view: View, obj: Obj) -> int:
    """How many names an object other than a directory has in a view."""
    count = len(view.placed.get(obj.op, ()))
    if not obj.ino:
        return count
    try:
        count += tree.located(fs, obj)[1].st_nlink
    except (OSError, CallError):
        return count
    for directory_op, name in view.hiding.get(obj.op, ()):
        found = tree.child(fs, fs.by_op[directory_op], name)
        if found is not None and found[0] is obj:
            count -= 1
    return count


def _directory_links(fs: Filesystem, view: View, obj: Obj, at: os.stat_result) -> int:
    """A directory's link count in a view: two, and one for each directory in it."""
    if obj.ino:
        version = view.version(obj.op)
        count = tree.located(fs, obj)[1].st_nlink if version and version.content else at.st_nlink
    else:
        count = at.st_nlink  # the content has nothing in it
    if count < 2:  # a file system that does not count them
        return count
    count += len(view.own_directories.get(obj.op, ()))
    for name in view.hidden_directories.get(obj.op, ()) if obj.ino else ():
        replaced = view.bindings[obj.op][name].replaced
        hidden = fs.by_op.get(replaced) if replaced else None
        count -= hidden is not None and (obj, name) in hidden.links  # the one name that main has it under
    return count


def parents(fs: Filesystem, sid: SubjectId, obj: Obj) -> Iterator[tuple[Obj, bytes]]:
    """The names of an object in a view, as (directory, name): the suspect's own first, then main's known ones."""
    view = fs.views.get(sid) or fs.waiting.get(sid)
    if view is not None and obj.op:
        version = view.version(obj.op)
        if version is not None and version.state == "d":
            return
        for directory_op, name in sorted(view.placed.get(obj.op, ())):
            yield fs.by_op[directory_op], name
        if obj.is_dir and obj.op in view.placed:
            return
    for directory, name in list(obj.links):
        binding = view.binding(directory.op, name) if view is not None and directory.op else None
        if binding is None or not (binding.op is not None or binding.replaced == obj.op):
            yield directory, name


def path(fs: Filesystem, sid: SubjectId, obj: Obj) -> bytes | None:
    """A path of an object in a view, relative to the root (`b""` is the root); None if it has no name there."""
    view = fs.view_of(sid)
    found = _path(fs, view, obj)
    if found is not None or obj.is_dir:
        return found
    for directory, name in parents(fs, sid, obj):  # the first may be in a directory that the view has not
        if (above := _path(fs, view, directory)) is not None:
            return above + b"/" + name if above else name
    return None


def _path(fs: Filesystem, view: View | None, obj: Obj) -> bytes | None:
    parts: list[bytes] = []
    while obj is not fs.root:
        found = _parent(fs, view, obj)
        if found is None or len(parts) > 4096:
            return None
        obj, name = found
        parts.append(name)
    return b"/".join(reversed(parts))


def has_path(fs: Filesystem, sid: SubjectId, obj: Obj, known: set[Obj]) -> bool:
    """Whether an object has a path in a view. `known` are objects that have one; whoever asks for many keeps it."""
    if _has_path(fs, fs.view_of(sid), obj, known):
        return True
    return not obj.is_dir and any(_has_path(fs, fs.view_of(sid), at, known) for at, _ in parents(fs, sid, obj))


def _has_path(fs: Filesystem, view: View | None, obj: Obj, known: set[Obj]) -> bool:
    way: list[Obj] = []
    while obj is not fs.root and obj not in known:
        way.append(obj)
        found = _parent(fs, view, obj)
        if found is None or len(way) > 4096:
            return False
        obj = found[0]
    known.update(way)
    return True


def _parent(fs: Filesystem, view: View | None, obj: Obj) -> tuple[Obj, bytes] | None:
    """The first of the `parents`; a path is as many of them as it is deep."""
    if view is not None and obj.op:
        version = view.versions.get(obj.op)
        if version is not None and version.state == "d":
            return None
        placed = view.placed.get(obj.op)
        if placed:
            directory_op, name = min(placed)
            return fs.by_op[directory_op], name
    for link in obj.links:
        binding = view.binding(link[0].op, link[1]) if view is not None and link[0].op else None
        if binding is None or not (binding.op is not None or binding.replaced == obj.op):
            return link
    return None


def is_below(fs: Filesystem, sid: SubjectId, obj: Obj, ancestor: Obj) -> bool:
    """Whether a directory is `ancestor` or lies below it in a view."""
    view = fs.view_of(sid)
    while obj is not ancestor:
        found = _parent(fs, view, obj)
        if found is None:
            return False
        obj = found[0]
    return True


def names_left(fs: Filesystem, view: View, obj: Obj) -> int:
    """How many names the suspect sees of an object."""
    count = link_count(fs, view, obj) if obj.op else tree.located(fs, obj)[1].st_nlink
    if count <= 1 or not obj.ino:
        return count
    reached = {fs.root}
    return count - sum(_is_covered(fs, view, obj, *name, reached) for name in _names_in_main(fs, view, obj))


def _is_covered(fs: Filesystem, view: View, obj: Obj, directory: Obj, name: bytes, reached: set[Obj]) -> bool:
    """Whether a name of main's lies behind one of the suspect's, without being counted as replaced by it.

    Its own may be there, or that of a directory in which it lies. `reached` are directories that the suspect has.
    """
    b = view.binding(directory.op, name) if directory.op else None
    if b is not None and obj.op and b.replaced == obj.op:
        return False
    return (b is not None and b.op is not None) or not has_path(fs, view.sid, directory, reached)


def _names_in_main(fs: Filesystem, view: View, obj: Obj) -> list[Link]:
    """The names that main has of an object: all, or at least those that are the suspect's as well."""

    def there(directory: Obj, name: bytes) -> bool:
        found = tree.child(fs, directory, name)
        return found is not None and found[0] is obj

    if len(obj.links) <= max(_FEW_NAMES, len(view.placed)):
        found = [link for link in list(obj.links) if there(*link)]
        if found and len(found) == tree.located(fs, obj)[1].st_nlink:
            return found
    own = ((fs.by_op[op], name) for op, names in view.bindings.items() for name, b in names.items() if b.op is not None)
    return [(directory, name) for directory, name in own if there(directory, name)]


def handed_node(fs: Filesystem, sid: SubjectId, parent: Node, obj: Obj) -> Node:
    """The node that a lookup below `parent` answers in a view: main's while it can be shared (design, 4.2, 4.3).

    Below a node of a suspect's own, everything is of its own: a directory must never hang in two places.
    """
    if parent.sid:
        return node_for(fs, parent.sid, obj)
    view = fs.views.get(sid)
    if view is None:
        return node_for(fs, MAIN, obj)
    own = obj.kind in CHANNELS or _claimed(fs, sid, obj)
    own = own or (not obj.is_dir and obj.node(sid) is not None)
    if obj.op and not own and obj is not fs.root:
        own = obj.op in view.versions or (obj.is_dir and obj.op in view.placed) or not obj.ino
    return node_for(fs, sid if own else MAIN, obj)


def _claimed(fs: Filesystem, sid: SubjectId, obj: Obj) -> bool:
    """Whether a thread of the suspect's was told to look the directory up again."""
    return obj.is_dir and any(obj in objects for objects in fs.claims[sid].values())


def has_own_below(fs: Filesystem, view: View, directory: Obj) -> bool:
    """Whether the suspect has a live entry of its own directly in a directory."""
    return any(b.op is not None for b in view.bindings.get(directory.op, {}).values())


def content_exists(fs: Filesystem, sid: SubjectId, obj: Obj) -> bool:
    """Whether a version's content, of an active suspect's or of one that waits, is really there."""
    view = fs.view_of(sid)
    version = view.version(obj.op) if view is not None else None
    return version is not None and version.content is not None and exists(fs.store.content(sid, version.content))
