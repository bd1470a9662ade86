"""Carrying out a partial verdict: what is merged, or discarded, becomes a subject of its own first.

It is split off in transactions of some objects each, in which others may be served; what is split off by then can
stand alone. From then on it is an ordinary merge, or discarding, which goes on at the next start if it is cut off.
What was left stays with the suspect. So do all nodes and handles: whoever works in a file goes on in it, and the next
change makes a version again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from isofs.engine import kept, tree, versions
from isofs.engine.batch import Batch
from isofs.engine.slices import at_once
from isofs.engine.state import Filesystem, Handle, Node, Obj, View, node_for
from isofs.errors import IsofsError, StoreUnusable
from isofs.merge import apply, settle
from isofs.merge.partial import Aside, Discarded, Looked, Partial, aside, bindings_of
from isofs.merge.report import Kind, Report
from isofs.model.records import MAIN, Decided, Op, Subject, SubjectId, SubjectState, Touch, Version
from isofs.store import inodes
from isofs.store.inodes import Place

#: What a part's state is the beginning of.
_VERDICT: Mapping[SubjectState, Kind] = {SubjectState.MERGING: "innocent", SubjectState.DISCARDING: "malicious"}

#: So many objects are split off at a stretch, unless they need each other.
_TOGETHER = 15


@dataclass(slots=True)
class Part:
    """A part of what a suspect changed, on its way to be a subject of its own. Nothing of it is, while `sid` is 0.

    `left` is what stays after all; `nodes` and `before` are what the suspect has of the rest: own nodes of files, and
    handles from before the suspicion.
    """

    of: SubjectId
    verdict: SubjectState
    reason: str
    since: str
    sid: SubjectId = 0
    left: list[Aside] = field(default_factory=list)
    nodes: list[tuple[Node, Obj]] = field(default_factory=list)
    before: list[tuple[Handle, Obj]] = field(default_factory=list)


def merged(of: SubjectId, reason: str, since: str) -> Part:
    """What is about to be merged of a suspect's work; `reason` is what was asked for."""
    return Part(of, SubjectState.MERGING, reason, since)


def discarded(of: SubjectId, reason: str, since: str) -> Part:
    """What is about to be discarded of a suspect's work."""
    return Part(of, SubjectState.DISCARDING, reason, since)


def merge_steps(fs: Filesystem, part: Part, there: Partial, report: Report) -> Iterator[tuple[int, int]]:
    """Merge what was chosen of a suspect's work; yields (done, total).

    Each object is looked at once more before it is split off. The suspect's calls must wait from before the first step
    to after the last.
    """
    total = len(there.chosen)
    try:
        for op in there.chosen:
            apply.give_data(fs, fs.views[part.of], op)
            yield 0, 2 * total
        for done in split_steps(fs, part, there, report):
            yield done, 2 * total
        if part.sid:
            for done, of in apply.merge_steps(fs, part.sid, report):
                yield total + done, total + of
    finally:
        _give_back(fs, part)


def split_steps(fs: Filesystem, part: Part, there: Partial, report: Report) -> Iterator[int]:
    """The first half of `merge_steps`: what was chosen becomes a subject of its own. Yields how much is done."""
    return _split_steps(fs, part, there.groups, _as_it_is(fs, part, there), report)


def discard_steps(fs: Filesystem, part: Part, there: Discarded, report: Report) -> Iterator[tuple[int, int]]:
    """Discard what was chosen of a suspect's work; yields (done, total).

    As for `isofs.merge.apply.discard_steps`, `Store.remove_discarded` of the part is due after it.
    """
    total = len(there.chosen)
    try:
        everything: _Choice = lambda groups: ([op for one in groups for op in one], {})  # noqa: E731
        for done in _split_steps(fs, part, there.groups, everything, report):
            yield done, total + 2
        if part.sid:
            for done, _ in apply.discard_steps(fs, part.sid, report):
                yield total + done, total + 2
    finally:
        _give_back(fs, part)


def finish_steps(fs: Filesystem, sid: SubjectId, report: Report) -> Iterator[tuple[int, int]]:
    """Go on with the verdict on a part that the host stopped half way; yields (done, total).

    Nodes and handles are the suspect's again already. After a discarding, `Store.remove_discarded` is due.
    """
    subject = fs.subjects[sid]
    if subject.part_of in fs.views:  # what the part has is not to have another name there
        fs.store.sync()
        settle.tidy(fs, fs.views[subject.part_of])
    if subject.state is SubjectState.MERGING:
        yield from apply.merge_steps(fs, sid, report)
    else:
        yield from apply.discard_steps(fs, sid, report)


#: What of some groups is split off, and what is decided of it.
_Choice = Callable[[list[Collection[Op]]], tuple[list[Op], Mapping[Op, Decided]]]


def _split_steps(
    fs: Filesystem, part: Part, groups: Sequence[Collection[Op]], choice: _Choice, report: Report
) -> Iterator[int]:
    """Split off group after group; yields how many objects are done."""
    done, old = 0, list[Place]()
    for some in _batches(groups):
        ops, decisions = choice(some)
        if ops:
            old += _split(fs, part, ops, decisions, report)
        done += sum(map(len, some))
        yield done
    if part.sid:
        fs.store.sync()  # no power cut may leave rows without contents
    for place in old:
        with contextlib.suppress(OSError):  # no row knows it any more: the next start removes it
            inodes.remove(place)
        yield done


def _batches(groups: Sequence[Collection[Op]]) -> Iterator[list[Collection[Op]]]:
    """The groups, as many together as are split off at a stretch."""
    some: list[Collection[Op]] = []
    for group in groups:
        if some and sum(map(len, some)) + len(group) > _TOGETHER:
            yield some
            some = []
        some.append(group)
    if some:
        yield some


def _as_it_is(fs: Filesystem, part: Part, there: Partial) -> _Choice:
    """Lets pass what is merged after all: main may have changed since it was chosen."""
    view = fs.views[part.of]
    looked, stays = Looked(view, there.settled, there.beside, there.resolutions), dict[Op, str]()

    def has_to_stay(group: Collection[Op]) -> bool:
        return any(op in stays or not stays.keys().isdisjoint(there.needs.get(op, ())) for op in group)

    def choice(groups: list[Collection[Op]]) -> tuple[list[Op], Mapping[Op, Decided]]:
        while True:
            for group in filter(has_to_stay, groups):
                for op in group:
                    part.left.append(aside(fs, view, op, stays.setdefault(op, "it needs what stays")))
            groups = [group for group in groups if not has_to_stay(group)]
            ops = [op for group in groups for op in group]
            _, otherwise = at_once(looked.at(fs, ops))
            if not otherwise:
                return ops, looked.view.decisions
            looked.without(ops)
            stays.update(otherwise)

    return choice


def _split(
    fs: Filesystem, part: Part, ops: Collection[Op], decisions: Mapping[Op, Decided], report: Report
) -> list[Place]:
    """Make these objects the part's. Returns the contents that are no version's any more."""
    view, number = fs.views[part.of], part.sid or max(fs.subjects) + 1
    moved = [view.versions[op] for op in ops if op in view.versions]
    decided = [decisions[op] for op in ops if op in decisions]
    names = [row.content for rows in (moved, decided) for row in rows if row.content is not None]
    try:
        for name in names:
            _link(fs.store.content(part.of, name), fs.store.content(number, name))
        batch = _rows(fs, part, number, ops, moved, decided)
        if not part.sid:
            report.begin(_subject(fs, part, number, len(ops)), _VERDICT[part.verdict], batch)
        batch.commit()
    except (OSError, IsofsError) as error:
        _unlink(fs, part, number, names)
        if not isinstance(error, OSError):
            raise
        so_far = "run it again to go on" if part.sid else "nothing was done"
        raise StoreUnusable(f"what is decided alone cannot be split off: {error.strerror}; {so_far}") from error
    part.sid = number
    for version in moved:
        _keep(fs, part, version)
    return [fs.store.content(part.of, name) for name in names]


def _link(content: Place, to: Place) -> None:
    try:
        inodes.link(content, to)
    except FileExistsError:  # of a part that could not be split off, and not be removed either
        inodes.remove(to)
        inodes.link(content, to)


def _unlink(fs: Filesystem, part: Part, number: SubjectId, names: list[str]) -> None:
    """Nothing of this was split off."""
    with contextlib.suppress(OSError):  # no row knows it: the next start removes it
        if part.sid:
            for name in names:
                inodes.remove(fs.store.content(number, name))
        else:
            fs.store.drop_folder(number)


def _rows(
    fs: Filesystem, part: Part, number: SubjectId, ops: Collection[Op], moved: list[Version], decided: list[Decided]
) -> Batch:
    view, batch = fs.views[part.of], Batch(fs)
    before = 0 if not part.sid else fs.subjects[number].objects or 0
    batch.put(_subject(fs, part, number, before + len(ops)))
    for one in decided:
        batch.put(replace(one, sid=number, merged=one.merged.renamed(part.of, number)))
    for version in moved:
        origin = batch.origin(version.op)
        vector = None if origin.vector is None else origin.vector.renamed(part.of, number)
        batch.put(replace(origin, vector=vector, born=number if origin.born == part.of else origin.born))
        batch.drop(version)
        batch.put(replace(version, sid=number, vector=version.vector.renamed(part.of, number)))
    for binding in {(b.directory, b.name): b for op in ops for b in bindings_of(view, op, ops)}.values():
        batch.drop(binding)
        batch.put(replace(binding, sid=number))
    for touch in _touches(fs, view, ops):
        batch.drop(touch)
        batch.put(replace(touch, sid=number))
    return batch


def _subject(fs: Filesystem, part: Part, number: SubjectId, count: int) -> Subject:
    of = fs.subjects[part.of]
    return Subject(number, of.uid, of.name, part.since, part.reason, part.verdict, part.of, count)


def _touches(fs: Filesystem, view: View, ops: Collection[Op]) -> Iterator[Touch]:
    """What notes of times go along: not those of directories that live on, whose other names may have changed."""
    for op in ops:
        version = view.version(op)
        deleted = version is not None and version.state == "d"
        if op in view.touches and (deleted or not fs.by_op[op].is_dir):
            yield Touch(view.sid, op, view.touches[op])


def _keep(fs: Filesystem, part: Part, version: Version) -> None:
    """Take out of the way what the suspect has of an object of the part; its directories' nodes are the part's."""
    obj = fs.by_op[version.op]
    if version.content is None:
        return
    node = obj.node(part.of)
    if node is not None and node.pinned < 0:
        if obj.is_dir:
            node.sid = part.sid
        else:
            obj.drop_node(node)
            part.nodes.append((node, obj))
    for shared in obj.nodes:  # main's, or that of an earlier suspicion
        part.before.extend((h, obj) for h in shared.handles if h.sid == part.of and h.before and _rerouted(h))


def _rerouted(handle: Handle) -> bool:
    return handle.flags & os.O_ACCMODE == os.O_WRONLY


def _give_back(fs: Filesystem, part: Part) -> None:
    """The suspect has its nodes again, with main's object behind them, and no handle that would write to it."""
    for node, obj in part.nodes:
        if fs.nodes.get(node.id) is not node:
            continue  # the kernel has forgotten it meanwhile
        if obj.ino:
            if obj.node(part.of) is None:
                obj.add_node(node)
            for handle in node.handles:
                versions.go_back(handle, tree.place(fs, obj))
        else:
            _pin(node)
        kept.forget(fs, node)
    for handle, obj in part.before:
        if handle.id in fs.handles:
            _go_back(fs, handle, obj)
    for node in [node for node in fs.nodes.values() if part.sid and node.sid == part.sid]:
        if node.obj.node(part.of) is not None:
            node.obj.drop_node(node)
        node.sid = part.of
        kept.forget(fs, node)


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
