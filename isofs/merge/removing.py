"""Taking names from main in a merge: those that the suspect removed, and what was moved out of the way for a moment."""

from __future__ import annotations

from collections.abc import Iterator

from isofs.engine import attic, main, tree
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Obj, View
from isofs.merge import naming, places, settle
from isofs.merge.report import Item, Report
from isofs.model.reconcile import Outcome
from isofs.model.records import Binding, Decided


def clear(fs: Filesystem, view: View, report: Report, directory: Obj) -> None:
    """Delete all that main has in a directory, as the suspect did."""
    for name in list(tree.names(fs, directory)):
        found = tree.child(fs, directory, name)
        if found is None:
            continue
        if found[0].is_dir:
            clear(fs, view, report, found[0])
        remove(fs, view, report, directory, name, found[0])
        settle.expire(fs, directory, name)


def remove(fs: Filesystem, view: View, report: Report, directory: Obj, name: bytes, obj: Obj) -> None:
    """Delete what main has under a name, as the suspect did, and say so."""
    decided = view.decisions.get(obj.op)
    if decided is not None and decided.outcome == Outcome.DELETE.value:
        tell_deleted(fs, view, report, obj, decided)
    elif not obj.is_dir and tree.located(fs, obj)[1].st_nlink > 1:
        _tell_one_name(fs, view, report, directory, name, obj)
    (main.rmdir if obj.is_dir else main.unlink)(fs, directory, name, by=view.sid)


def tell_deleted(fs: Filesystem, view: View, report: Report, obj: Obj, decided: Decided) -> None:
    """Tell that an object is about to lose the first of its names, and will lose the others."""
    known = report.told(view.sid, obj.op)
    if known is None or known.action != "deleted":
        path = places.deleted(fs, view, obj)
        report.tell(fs, view.sid, obj.op, Item(path, "deleted", decided.reason, decided.review))


def _tell_one_name(fs: Filesystem, view: View, report: Report, directory: Obj, name: bytes, obj: Obj) -> None:
    """Tell that an object that lives on under others loses a name that the suspect removed."""
    binding = view.binding(directory.op, name)
    removed = binding is not None and binding.op is None and not naming.stays_as_it_is(view, obj.op)
    if removed and not name.startswith(naming.MOVING):
        path = attic.below(attic.where(fs, view, directory), name)
        report.tell(fs, view.sid, obj.op, Item(path, "deleted", naming.ONE_NAME), (directory.op, name))


def put_beside_what_stays(fs: Filesystem, view: View, report: Report) -> None:
    """After the deletions: what was moved out of the way and is not deleted after all is put beside its name."""
    for op, names in list(view.hiding.items()):
        obj = fs.by_op[op]
        for directory, name in list(obj.links):
            if name.startswith(naming.MOVING):
                aside = naming.beside(fs, view, directory, min(name for _, name in names))
                path = places.name_in(fs, view, directory, aside)
                reason = "main has put something in it: it stays, the suspect has its name"
                item = Item(path, "kept", reason, True)
                report.tell(fs, view.sid, op, item, (directory.op, aside))
                main.rename(fs, directory, name, directory, aside, by=view.sid, lives_on=False)
                settle.expire(fs, directory, name)


def remove_all(fs: Filesystem, view: View, report: Report) -> Iterator[None]:
    """Take from objects of main the names that the suspect took, where the object lives on."""
    for aside in _left_aside(fs, view):
        _remove_aside(fs, view, aside)
    for binding in list(view.all_bindings()):
        if binding.op is not None or binding.kept or binding.replaced is None:
            continue
        if view.binding(binding.directory, binding.name) != binding:
            continue  # it changed while others were served
        if binding.replaced in view.decisions and naming.stays_as_it_is(view, binding.replaced):
            continue
        obj = fs.by_op.get(binding.replaced)
        if obj is not None and obj.is_dir:
            continue
        batch = Batch(fs)
        batch.drop(binding)
        directory = fs.by_op[binding.directory]
        found = tree.child(fs, directory, binding.name)
        if obj is None or found is None or found[0] is not obj:
            batch.commit()
            continue
        if found[1].st_nlink > 1:
            _tell_one_name(fs, view, report, directory, binding.name, obj)
            main.unlink(fs, directory, binding.name, by=view.sid)
            settle.expire(fs, directory, binding.name)
        batch.commit()
        yield


def _left_aside(fs: Filesystem, view: View) -> list[Obj]:
    """What was moved out of the way, also before the merge was cut off: the store knows it by that name.

    What another merge that was stopped has yet to rename is left to that.
    """
    others = [view for sid, view in fs.views.items() if sid != view.sid]
    aside = [origin.op for origin in fs.origins.values() if origin.name.startswith(naming.MOVING)]
    return [fs.by_op[op] for op in aside if not any(op in v.placed or op in v.hiding for v in others)]


def _remove_aside(fs: Filesystem, view: View, obj: Obj) -> None:
    """A file that got its names by others than the one that was moved out of the way needs that no more."""
    if obj.is_dir or not obj.ino or naming.stays_as_it_is(view, obj.op):
        return
    for directory, name in list(obj.links):
        found = tree.child(fs, directory, name) if name.startswith(naming.MOVING) else None
        if found is not None and found[0] is obj and found[1].st_nlink > 1:
            noted = Binding(view.sid, directory.op, name, None, obj.op)
            before, after = Batch(fs), Batch(fs)
            before.put(noted)  # the origin is about to forget this name
            before.commit()
            main.unlink(fs, directory, name, by=view.sid)
            settle.expire(fs, directory, name)
            after.drop(noted)
            after.commit()
