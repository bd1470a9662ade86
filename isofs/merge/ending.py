"""The end of a verdict: what nothing needs any more is forgotten, some rows at a time.

Others are served in between, and may make rows that refer to what was to be forgotten. So each slice looks by itself
what is needed, and whatever came meanwhile goes last, at one stretch. Until then the subject's state is that of a
verdict that goes on: cut off anywhere, it is gone on with, and comes here again.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from isofs.engine import kept
from isofs.engine.batch import Batch
from isofs.engine.slices import Slices, at_once
from isofs.engine.state import Filesystem, View, drop_if_unused
from isofs.merge import settle
from isofs.model.records import Base, Binding, Change, Op, Record, SubjectState, Touch
from isofs.store import inodes

T = TypeVar("T")

#: So many rows are dropped at a stretch: one or two milliseconds.
_TOGETHER = 50


def finish_steps(
    fs: Filesystem,
    view: View,
    *,
    conflicts: bool,
    mapped: frozenset[int] = frozenset(),
    last: Iterable[Change] = (),
) -> Slices[None]:
    """End the suspicion: no rows but those of contested versions, no folder unless there are some. It can be repeated.

    With `conflicts`, the versions that are left are contested. `mapped` as for `settle.detach_handles`; it concerns
    contested objects only, what was merged is main's. `last` are changes of rows that say that this is the end.
    """
    for op in list(view.versions):
        node = fs.by_op[op].node(view.sid)
        if node is not None:
            kept.forget(fs, node)
    apart = {node.id for op in view.versions if conflicts for node in fs.by_op[op].nodes}
    settle.detach_handles(fs, view, mapped & apart)
    view.moved.clear()
    view.renamed.clear()
    view.cut_off = False
    yield
    bases: list[Base] = []
    yield from _drop_rows(fs, _forgettable(view, conflicts))
    yield from _drop_bases(fs, bases)
    yield from _drop_origins(fs)
    yield from _drop_nodes(fs, view)
    left = [row for row in _left(view, conflicts) if not _noted(fs, row)]
    if left:
        at_once(_drop_rows(fs, left))
        at_once(_drop_bases(fs, bases))
        at_once(_drop_origins(fs))
    _end(fs, view, last, contested=conflicts and bool(view.versions))
    for some in _together(bases):
        yield
        for base in some:
            if (base.op, base.count, base.merged) not in fs.bases:  # else it has been made again
                with contextlib.suppress(OSError):  # it is nobody's: the next start removes it
                    inodes.remove(fs.store.base(base.content))


def _end(fs: Filesystem, view: View, last: Iterable[Change], *, contested: bool) -> None:
    """The subject is none any more, but for contested versions."""
    state = SubjectState.CONFLICTS if contested else SubjectState.ENDED
    batch = Batch(fs)
    batch.put(replace(fs.subjects[view.sid], state=state))
    batch.changes.extend(last)
    batch.commit(lasting=True)
    with contextlib.suppress(OSError):
        if contested:
            settle.tidy(fs, view)
        elif view.sid in fs.store.known_folders():
            fs.store.drop_folder(view.sid)


def _drop_nodes(fs: Filesystem, view: View) -> Slices[None]:
    """Forget what was kept for the look-ups of the subject, whose calls wait, or come to main by now."""
    fs.claims.pop(view.sid, None)
    for some in _together(list(fs.handed)):
        for key in some:
            if (handed := fs.handed.get(key)) is not None and handed.sid == view.sid:
                del fs.handed[key]
        yield
    for nodes in _together(list(fs.held)):
        for node in nodes:
            if node in fs.held and node.sid == view.sid:
                del fs.held[node]
                drop_if_unused(fs, node)
        yield


def _forgettable(view: View, conflicts: bool) -> Iterator[Record]:
    """What is left of a view, what is contested excepted. A version goes with its names, those below it before."""
    if not conflicts:
        for op in reversed(list(view.versions)):
            if (version := view.versions.get(op)) is not None:
                yield version
            for key in sorted(view.placed.get(op, ())):
                if (placed := view.binding(*key)) is not None:
                    yield placed
    for row in _left(view, conflicts):
        if not (isinstance(row, Binding) and row.kept and conflicts and row.op in view.versions):
            yield row


def _left(view: View, conflicts: bool) -> Iterator[Record]:
    """All rows of a view but contested versions, and what is decided of those."""
    if not conflicts:
        yield from list(view.versions.values())
    yield from list(view.all_bindings())
    for op, at_ns in list(view.touches.items()):
        yield Touch(view.sid, op, at_ns)
    for decided in list(view.decisions.values()):
        if not conflicts or decided.op not in view.versions:
            yield decided


def _noted(fs: Filesystem, row: Record) -> bool:
    """Whether a row is where something contested can come back that main has lost meanwhile."""
    if not isinstance(row, Binding) or not row.kept or row.op is None:
        return False
    view = fs.view_of(row.sid)
    return view is not None and row.op in view.versions and not fs.by_op[row.op].ino


def _drop_rows(fs: Filesystem, rows: Iterable[Record]) -> Slices[None]:
    for some in _together(rows):
        batch = Batch(fs)
        for row in some:
            batch.drop(row)
        batch.commit()
        yield


def _drop_bases(fs: Filesystem, dropped: list[Base]) -> Slices[None]:
    """Drop the base copies that no version started from; whoever calls removes them once the rows are on the disk."""
    for some in _together(list(fs.bases.values())):
        batch, obsolete = Batch(fs), [base for base in some if not _versioned(fs, base.op)]
        for base in obsolete:
            batch.drop(base)
        batch.commit()
        dropped += obsolete
        yield


def _drop_origins(fs: Filesystem) -> Slices[None]:
    """Reset vectors that no version needs (section 6.2), and drop origins that nothing refers to."""
    directories = list[Op]()
    for some in _together(list(fs.origins)):
        batch = Batch(fs)
        for op in some:
            origin = fs.origins.get(op)
            if origin is None:
                continue
            if origin.kind == stat.S_IFDIR:
                directories.append(op)
            elif _is_bare(fs, op):
                batch.drop(origin)
                continue
            if origin.vector is not None and not _versioned(fs, op):
                batch.put(replace(origin, vector=None))
        batch.commit()
        yield
    while directories:  # each is looked at once, and once more for each directory in it that goes
        some = [op for op in dict.fromkeys(directories[-_TOGETHER:]) if _is_bare(fs, op)]
        del directories[-_TOGETHER:]
        bare = [fs.origins[op] for op in some]
        yield from _drop_rows(fs, bare)
        directories += [origin.parent for origin in bare if origin.parent is not None]
        yield


def _together(things: Iterable[T]) -> Iterator[list[T]]:
    """The things, as many together as are forgotten at a stretch."""
    ahead = iter(things)
    while some := list(islice(ahead, _TOGETHER)):
        yield some


def _is_bare(fs: Filesystem, op: Op) -> bool:
    """Whether nothing refers to an origin, nor anything lies in it that the store knows."""
    return op in fs.origins and op not in fs.referring and not _concerned(fs, op)


def _views(fs: Filesystem) -> Iterator[View]:
    yield from fs.views.values()
    yield from fs.waiting.values()


def _versioned(fs: Filesystem, op: Op) -> bool:
    return any(op in view.versions for view in _views(fs))


def _concerned(fs: Filesystem, op: Op) -> bool:
    """Whether any view has a row about an object, or about a name in it."""
    return any(view.concerns(op) or op in view.touches or view.bindings.get(op) for view in _views(fs))
