"""Carrying out a partial verdict: what is merged becomes a subject of its own first, in one transaction.

From then on it is an ordinary merge, which goes on at the next start if it is cut off; before it nothing has happened.
What was left stays with the suspect. So do all nodes and handles: whoever works in a file goes on in it, and the next
change makes a version again.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from isofs.engine import tree, versions
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Handle, Node, Obj, View, node_for
from isofs.errors import IsofsError, StoreUnusable
from isofs.merge import apply
from isofs.merge.partial import split_view
from isofs.merge.plan import plan
from isofs.merge.report import Report
from isofs.model.records import MAIN, Op, Subject, SubjectId, SubjectState, Touch
from isofs.store import inodes


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the suspect has of objects that are being merged: own nodes of files, handles from before the suspicion."""

    nodes: list[tuple[Node, Obj]]
    before: list[tuple[Handle, Obj]]


def partial_steps(
    fs: Filesystem, sid: SubjectId, chosen: Collection[Op], reason: str, now: str, report: Report
) -> Iterator[tuple[int, int]]:
    """Merge these objects of a suspect's, with all that they need (`isofs.merge.partial`); yields (done, total).

    The suspect's calls must wait from before the first step to after the last.
    """
    part = split(fs, sid, chosen, reason, now)
    kept = _keep(fs, sid, part)
    try:
        yield from apply.merge_steps(fs, part, report)
    finally:
        _give_back(fs, sid, part, kept)


def split(fs: Filesystem, sid: SubjectId, chosen: Collection[Op], reason: str, now: str) -> SubjectId:
    """Make these objects of a suspect's a subject of their own whose merge has begun; returns its number."""
    view, part = fs.views[sid], max(fs.subjects) + 1
    moved = split_view(view, chosen)
    _link_contents(fs, moved, part)
    batch = Batch(fs)
    subject = fs.subjects[sid]
    batch.put(Subject(part, subject.uid, subject.name, now, reason, SubjectState.MERGING, sid, len(chosen)))
    for decided in plan(sid, apply.states(fs, moved)):
        batch.put(replace(decided, sid=part, merged=decided.merged.renamed(sid, part)))
    for op, version in moved.versions.items():
        origin = batch.origin(op)
        vector = None if origin.vector is None else origin.vector.renamed(sid, part)
        batch.put(replace(origin, vector=vector, born=part if origin.born == sid else origin.born))
        batch.drop(version)
        batch.put(replace(version, sid=part, vector=version.vector.renamed(sid, part)))
    for binding in list(moved.all_bindings()):
        batch.drop(binding)
        batch.put(replace(binding, sid=part))
    for touch in _touches(fs, view, moved, chosen):
        batch.drop(touch)
        batch.put(replace(touch, sid=part))
    try:
        batch.commit()
    except IsofsError:
        fs.store.drop_folder(part)
        raise
    fs.store.sync()  # no power cut may leave rows without contents
    for version in moved.versions.values():
        if version.content is not None:
            inodes.remove(fs.store.content(sid, version.content))
    return part


def _link_contents(fs: Filesystem, moved: View, part: SubjectId) -> None:
    """Let the part have the contents as well. StoreUnusable if that is not possible: nothing has happened then."""
    try:
        for version in moved.versions.values():
            if version.content is not None:
                inodes.link(fs.store.content(moved.sid, version.content), fs.store.content(part, version.content))
    except OSError as error:
        fs.store.drop_folder(part)
        raise StoreUnusable(
            f"what is to be merged cannot be split off: {error.strerror}; nothing was merged"
        ) from error


def _touches(fs: Filesystem, view: View, moved: View, chosen: Collection[Op]) -> list[Touch]:
    """What notes of times go along: not those of directories that live on, whose other names may have changed."""
    deleted = {op for op, version in moved.versions.items() if version.state == "d"}
    wanted = [op for op in view.touches if op in chosen and (op in deleted or not fs.by_op[op].is_dir)]
    return [Touch(view.sid, op, view.touches[op]) for op in wanted]


def _keep(fs: Filesystem, sid: SubjectId, part: SubjectId) -> _Kept:
    """Take out of the merge's way what the suspect has of the part; its directories' nodes are the part's."""
    kept = _Kept([], [])
    for op, version in fs.views[part].versions.items():
        obj = fs.by_op[op]
        if version.content is None:
            continue
        node = obj.node(sid)
        if node is not None and node.pinned < 0:
            if obj.is_dir:
                node.sid = part
            else:
                obj.drop_node(node)
                kept.nodes.append((node, obj))
        for shared in obj.nodes:  # main's, or that of an earlier suspicion
            kept.before.extend((h, obj) for h in shared.handles if h.sid == sid and h.before and _rerouted(h))
    return kept


def _rerouted(handle: Handle) -> bool:
    return handle.flags & os.O_ACCMODE == os.O_WRONLY


def _give_back(fs: Filesystem, sid: SubjectId, part: SubjectId, kept: _Kept) -> None:
    """The suspect has its nodes again, with main's object behind them, and no handle that would write to it."""
    for node, obj in kept.nodes:
        if fs.nodes.get(node.id) is not node:
            continue  # the kernel has forgotten it meanwhile
        if obj.ino:
            if obj.node(sid) is None:
                obj.add_node(node)
            for handle in node.handles:
                versions.go_back(handle, tree.place(fs, obj))
        else:
            _pin(node)
        fs.kernel.forget_attributes(node.id)
    for handle, obj in kept.before:
        if handle.id in fs.handles:
            _go_back(fs, handle, obj)
    for node in [node for node in fs.nodes.values() if node.sid == part]:
        if node.obj.node(sid) is not None:
            node.obj.drop_node(node)
        node.sid = sid
        fs.kernel.forget_attributes(node.id)


def _go_back(fs: Filesystem, handle: Handle, obj: Obj) -> None:
    """A handle from before the suspicion, for writing only, is on main's node, and opens nothing until it writes."""
    if handle.descriptor >= 0:
        os.close(handle.descriptor)
    handle.descriptor, handle.ready = -1, False
    if obj.ino:
        handle.node.drop_handle(handle)
        handle.node = node_for(fs, MAIN, obj)
        handle.node.add_handle(handle)


def _pin(node: Node) -> None:
    """Main has lost the object again: what the suspect has open of it is left to read, and to copy before a change."""
    for handle in node.handles:
        if handle.descriptor >= 0:
            node.pinned = os.open(b"/proc/self/fd/%d" % handle.descriptor, os.O_PATH | os.O_CLOEXEC)
            node.borrowed = True
            Obj(node.obj.kind, 0).add_node(node)
            return
