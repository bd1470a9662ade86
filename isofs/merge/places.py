"""Where main has things once the names of a merge are in place: what plans say, and reports while it goes on.

Both ask what is left to be done, so that they name the same paths, whatever comes first in the merge.
"""

from __future__ import annotations

from isofs.engine import tree
from isofs.engine.attic import below, where
from isofs.engine.state import Filesystem, Link, Obj, View
from isofs.merge import naming
from isofs.model.records import MOVING, Binding, Op


def path(fs: Filesystem, view: View, obj: Obj) -> bytes | None:
    """Main's path of an object after the merge, by the first of its names; None if it has none."""
    if obj.is_dir:
        return _placed(fs, view, obj)[1] if obj is fs.root or obj.ino or _ahead(view, obj) else None
    if obj.ino:
        return name_in(fs, view, *_own_link(fs, view, obj))
    ahead = _ahead(view, obj)
    return None if ahead is None else name_in(fs, view, *given(fs, view, ahead))


def name_in(fs: Filesystem, view: View, directory: Obj, name: bytes) -> bytes:
    """The path that a name in a directory has after the merge."""
    return below(_placed(fs, view, directory)[1], name)


def deleted(fs: Filesystem, view: View, obj: Obj) -> bytes:
    """Main's path of what the suspect deleted: the first of the names that the merge will take from it.

    The same while it has all of them, under whatever name one of them is out of the way.
    """
    names = naming.removed_names(fs, view, obj)
    aside = any(name.startswith(MOVING) for _, name in names)
    there = [at for at in names if not at[1].startswith(MOVING) and (aside or _child(fs, *at) is obj)]
    if obj.is_dir or not there:
        return where(fs, view, obj)
    return min(below(where(fs, view, directory), name) for directory, name in there)


def given(fs: Filesystem, view: View, binding: Binding) -> Link:
    """The name that an object gets for one that the suspect gave it: that, or one beside what main has there."""
    directory = united(fs, view, fs.by_op[binding.directory])
    return directory, _name_for(fs, view, directory, binding, _child(fs, directory, binding.name))


def first_name(fs: Filesystem, view: View, op: Op) -> Binding | None:
    """The name under which an object that main lacks is told to come into it; others are told to be more names.

    If it has one that stays as the suspect gave it, that is it: of one put beside something only that is told.
    """
    placed = [b for key in view.placed.get(op, ()) if (b := view.binding(*key)) is not None]
    return min(placed, key=lambda b: _where(fs, view, b)) if len(placed) > 1 else next(iter(placed), None)


def _where(fs: Filesystem, view: View, binding: Binding) -> tuple[bool, bytes]:
    directory, name = given(fs, view, binding)
    return (directory.op, name) != (binding.directory, binding.name), name_in(fs, view, directory, name)


def there(fs: Filesystem, view: View, binding: Binding) -> Obj | None:
    """What main has under a name, or where the directory of the name will be united with one of main's."""
    return _child(fs, united(fs, view, fs.by_op[binding.directory]), binding.name)


def stays(fs: Filesystem, view: View, binding: Binding, found: Obj) -> bool:
    """Whether what main has under a name stays there."""
    return _stays(fs, view, united(fs, view, fs.by_op[binding.directory]), binding, found)


def united(fs: Filesystem, view: View, directory: Obj) -> Obj:
    """Main's directory that one of the suspect's will be united with; else the directory itself."""
    return directory if directory.ino else _placed(fs, view, directory)[0]


def _placed(fs: Filesystem, view: View, directory: Obj) -> tuple[Obj, bytes]:
    """What a directory will be in main, and where. What would lie in a lost directory lies in the root."""
    way: list[tuple[Obj, Binding | Link]] = []
    seen, above = set[Obj](), directory
    while above is not fs.root and above not in seen:
        seen.add(above)
        binding = _ahead(view, above)
        if above.ino and (binding is None or not _moves(fs, view, binding, above)):
            link = _own_link(fs, view, above)
            way.append((above, link))
            above = link[0]
        elif binding is not None:
            way.append((above, binding))
            above = fs.by_op[binding.directory]
        else:
            break
    found, at = fs.root, b""
    for obj, by in reversed(way):
        if not isinstance(by, Binding):
            found, at = obj, below(at, by[1])
            continue
        taken = _child(fs, found, by.name)
        if taken is not None and not obj.ino and taken.is_dir and _stays(fs, view, found, by, taken):
            found, at = taken, below(at, by.name)
        else:
            found, at = obj, below(at, _name_for(fs, view, found, by, taken))
    return found, at


def _child(fs: Filesystem, directory: Obj, name: bytes) -> Obj | None:
    found = tree.child(fs, directory, name) if directory.ino else None
    return None if found is None else found[0]


def _ahead(view: View, obj: Obj) -> Binding | None:
    """The first name that the merge has yet to give an object."""
    for key in sorted(view.placed.get(obj.op, ())):
        b = view.binding(*key)
        if b is not None and not (b.kept and obj.ino) and not naming.contested(view, obj.op):
            return b
    return None


def _own_link(fs: Filesystem, view: View, obj: Obj) -> Link:
    """A name of main's; of what is out of the way for a moment the name that it will get."""
    directory, name = next(iter(tree.links(fs, obj)))
    if name.startswith(MOVING):
        names = sorted(view.placed.get(obj.op, ()) or view.hiding.get(obj.op, ()))
        return next(((fs.by_op[at], wanted) for at, wanted in names), (directory, name))
    return directory, name


def _moves(fs: Filesystem, view: View, binding: Binding, directory: Obj) -> bool:
    """Whether a directory of main's will get the name that the suspect gave it."""
    if naming.free_source(fs, view, directory) is None:
        return False
    return not naming.into_itself(fs, view, binding, directory)


def _stays(fs: Filesystem, view: View, directory: Obj, binding: Binding, found: Obj) -> bool:
    if directory.op != binding.directory:
        binding = naming.united(view, binding, directory.op)
    return naming.stays(fs, view, binding, found)


def _name_for(fs: Filesystem, view: View, directory: Obj, binding: Binding, taken: Obj | None) -> bytes:
    if directory.op != binding.directory and (first := _pending(fs, view, directory, binding.name)) is not None:
        other = given(fs, view, first)[1]  # the suspect's own name in main's directory
        if other == binding.name or (taken is not None and _stays(fs, view, directory, binding, taken)):
            return naming.beside(fs, view, directory, binding.name, but=other)
    if taken is not None and taken.op != binding.op and _stays(fs, view, directory, binding, taken):
        return naming.beside(fs, view, directory, binding.name)
    return naming.if_free(fs, view, directory, binding.name)


def _pending(fs: Filesystem, view: View, directory: Obj, name: bytes) -> Binding | None:
    """The name of the suspect's in a directory, if the merge will give it."""
    b = view.binding(directory.op, name) if directory.op else None
    if b is None or b.op is None or naming.contested(view, b.op) or not naming.takes(view, b.op):
        return None
    return None if b.kept and fs.by_op[b.op].ino else b
