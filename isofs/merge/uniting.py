"""Uniting directories: one that only the suspect has becomes one with main's of the same name."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from isofs.engine import kept
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Obj, View
from isofs.merge import naming, places
from isofs.merge.report import Item
from isofs.merge.telling import Telling
from isofs.model.records import Binding
from isofs.store import inodes


def collide(view: View, obj: Obj, there: Obj) -> bool:
    """Whether the suspect gave one name in both directories, and the merge has yet to give that in main's."""
    return any(
        entry.op is not None and not naming.contested(view, entry.op) and _taken(view, there, entry.name)
        for entry in view.bindings.get(obj.op, {}).values()
    )


def _taken(view: View, directory: Obj, name: bytes) -> bool:
    there = view.binding(directory.op, name) if directory.op else None
    return there is not None and there.op is not None


def unite(fs: Filesystem, view: View, telling: Telling, binding: Binding, obj: Obj, there: Obj) -> None:
    """Two directories of one name become one: main's, with the suspect's entries beside main's."""
    version = view.version(obj.op)
    batch = Batch(fs)
    to = batch.op_of(there)
    for entry in list(view.bindings.get(obj.op, {}).values()):
        batch.drop(entry)
        if entry.op is not None and _taken(view, there, entry.name):  # neither may take the place of the other
            entry = replace(entry, name=naming.beside(fs, view, there, entry.name))
        if entry.op is not None or not _taken(view, there, entry.name):
            batch.put(naming.united(view, entry, to))
    if binding.replaced not in (None, obj.op):
        batch.put(replace(binding, op=None))  # it stays, which the deletion will find
    else:
        batch.drop(binding)
    if version is not None:
        batch.drop(version)
    decided = view.decisions.get(obj.op)
    if decided is not None:
        batch.drop(decided)
    telling.tell(binding, Item(places.path(fs, view, there) or b"", "united", naming.UNITED))
    batch.commit(lasting=True)
    if version is not None and version.content is not None:
        with contextlib.suppress(OSError):  # `settle.tidy` tries once more
            inodes.remove(fs.store.content(view.sid, version.content))
    node = obj.node(view.sid)
    if node is not None:  # who works in the suspect's directory goes on in the common one
        obj.drop_node(node)
        node.obj = there
        if there.node(view.sid) is None:
            there.add_node(node)
        kept.forget(fs, node)
