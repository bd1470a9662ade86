"""Files that are saved by renaming the old one, writing a new one in its place, and removing the old one (as vim does).

Here is found what such a removal is; it is made as if the new file had been renamed over the old one.
"""

from __future__ import annotations

from isofs.engine import tree, views
from isofs.engine.state import Filesystem, Obj, View
from isofs.engine.views import Seen


def saved_in_view(fs: Filesystem, view: View, backup: Seen, obj: Obj) -> Seen | None:
    """Where a new file is that the suspect saved in place of one of main's, whose last name is removed: a backup's."""
    if not obj.op or not obj.ino or views.names_left(fs, view, obj) != 1 or tree.located(fs, obj)[1].st_nlink != 1:
        return None
    directory, name = next(iter(obj.links))
    binding = view.binding(directory.op, name)
    if binding is None or binding.op is None or binding.replaced != obj.op or binding.op == obj.op:
        return None
    new = fs.by_op[binding.op]
    made = not new.ino and fs.vector(new) is None and new.kind == obj.kind and views.names_left(fs, view, new) == 1
    there = Seen(directory, name, new, obj)
    return there if made and there[:2] != backup[:2] and views.path(fs, view.sid, directory) is not None else None


def saved_in_main(fs: Filesystem, obj: Obj) -> tuple[Obj, bytes, Obj] | None:
    """Where main has another file in place of one of which a view keeps that name, and which is about to be removed.

    Programs save files so: they rename what was there, write a new file, and remove the backup.
    """
    found = set()
    for view in fs.views.values() if obj.op and not obj.is_dir else ():
        version = view.version(obj.op)
        for key in view.placed.get(obj.op, ()) if version is not None and version.state == "m" else ():
            b = view.binding(*key)
            there = tree.child(fs, fs.by_op[key[0]], key[1]) if b is not None and b.kept else None
            if there is not None and there[0].kind == obj.kind and there[1].st_nlink == 1:
                found.add((fs.by_op[key[0]], key[1], there[0]))
    directory, name, new = found.pop() if len(found) == 1 else (obj, b"", obj)
    return None if new is obj or _has_to_do_with(fs, new) else (directory, name, new)


def _has_to_do_with(fs: Filesystem, obj: Obj) -> bool:
    """Whether any suspect has to do with an object."""
    return bool(obj.op) and any(view.concerns(obj.op) for view in fs.all_views)
