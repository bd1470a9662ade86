"""Changes that are made together: the store has them first, then the memory follows."""

from __future__ import annotations

import contextlib
import logging
import stat
from collections.abc import Iterator
from dataclasses import replace

from isofs.engine.outage import Trouble
from isofs.engine.state import Filesystem, Obj, View, now
from isofs.errors import StoreUnusable
from isofs.model.records import (
    Base,
    Binding,
    Change,
    Decided,
    Drop,
    Op,
    Origin,
    Proposal,
    Put,
    Record,
    Stowed,
    Subject,
    SubjectState,
    Told,
    Touch,
    Verdict,
    Version,
)
from isofs.model.vectors import Vector
from isofs.store import inodes

log = logging.getLogger(__name__)

#: The states of who is isolated.
_ISOLATED = (SubjectState.SUSPECT, SubjectState.MERGING, SubjectState.DISCARDING)

#: What is read from the store when it is asked for.
_NOT_IN_MEMORY = (Stowed, Proposal, Verdict, Told)


class Batch:
    """Changes of the store that are made together; the memory follows when the store has them.

    Reads through a batch (`origin`, `op_of`) see its own changes.
    """

    def __init__(self, fs: Filesystem) -> None:
        self.fs = fs
        self.changes: list[Change] = []
        self._ops: dict[Obj, Op] = {}
        self._origins: dict[Op, Origin] = {}
        self._puts: dict[Op, int] = {}  # where in `changes` an origin is put

    def put(self, record: Record) -> None:
        if isinstance(record, Origin):
            self._origins[record.op] = record
            at = self._puts.setdefault(record.op, len(self.changes))
            if at < len(self.changes):
                self.changes[at] = Put(record)
                return
        self.changes.append(Put(record))

    def drop(self, record: Record) -> None:
        if isinstance(record, Origin):
            self._puts.pop(record.op, None)
        self.changes.append(Drop(record))

    def origin(self, op: Op) -> Origin:
        return self._origins.get(op) or self.fs.origins[op]

    def vector(self, op: Op) -> Vector | None:
        return self.origin(op).vector

    def binding(self, view: View, directory: Op, name: bytes) -> Binding | None:
        """A suspect's entry of a directory, as this batch will leave it."""
        for change in reversed(self.changes):
            b = change.record
            if isinstance(b, Binding) and (b.sid, b.directory, b.name) == (view.sid, directory, name):
                return b if isinstance(change, Put) else None
        return view.binding(directory, name)

    def set_vector(self, op: Op, vector: Vector | None) -> None:
        self.put(replace(self.origin(op), vector=vector))

    def op_of(self, obj: Obj) -> Op:
        """The origin point of an object of main; it and the directories above get one if they have none."""
        if known := self.known_op(obj):
            return known
        op = self._ops[obj] = self.fs.store.new_op()
        if obj is self.fs.root:
            self.put(Origin(op, obj.kind, obj.ino, None, b"", None))
        else:
            parent, name = next(iter(obj.links))
            self.put(Origin(op, obj.kind, obj.ino, self.op_of(parent), name, None))
        return op

    def known_op(self, obj: Obj) -> Op:
        """The origin point that an object has, or will have by this batch; 0 if it gets none."""
        return obj.op or self._ops.get(obj, 0)

    def adopt(self, obj: Obj, op: Op) -> None:
        """Give an object that has none this origin point, whose row is in the batch."""
        self._ops[obj] = op

    def commit(self, *, lasting: bool = False) -> None:
        """Write everything, then change the memory. On an error nothing has changed.

        `lasting`: it is on the disk then, with all that was written before. A change that a merge makes of main, or the
        removal of a content, may survive a power loss as soon as it is made; so what it follows from must do so before.
        If the store is on another file system, what was done to main goes to the disk first, before rows that say so.
        """
        if lasting and self.fs.store.device != self.fs.device:
            inodes.sync_all(self.fs.descriptors[self.fs.root])
        self._commit()
        if lasting:
            self.fs.store.sync()

    def _commit(self) -> None:
        if not self.changes and not self.fs.along:
            return
        if self.fs.failure is not None:
            raise StoreUnusable(f"the store is not in use: {self.fs.failure.reason}")
        with self._announced():
            self._write()
            self._follow()

    def _write(self) -> None:
        try:
            self.fs.store.write([*self.fs.along, *self.changes])
            self.fs.along.clear()
        except StoreUnusable as error:
            if self.fs.trouble is None:
                log.error("the store takes no changes: %s", error)
                self.fs.trouble = Trouble(str(error), now())
                self.fs.on_change_of_state()
            raise
        if self.fs.trouble is not None:
            log.warning("the store takes changes again")
            self.fs.trouble = None
            self.fs.on_change_of_state()

    @contextlib.contextmanager
    def _announced(self) -> Iterator[None]:
        """Around a change of subjects: the list of who is isolated is never less than what the database may say."""
        uids = frozenset(
            change.record.uid
            for change in self.changes
            if isinstance(change.record, Subject) and self._isolates(change) != (change.record.uid in self.fs.suspects)
        )
        if not uids:
            yield
            return
        self.fs.store.announce(frozenset(self.fs.suspects), uids)
        try:
            yield
        except StoreUnusable:  # nothing was written; after anything else the next start looks what is
            self.fs.store.announced(frozenset(self.fs.suspects))
            raise
        with contextlib.suppress(OSError):  # what is written is written
            self.fs.store.sync()
        self.fs.store.announced(frozenset(self.fs.suspects))

    @staticmethod
    def _isolates(change: Change) -> bool:
        return isinstance(change, Put) and isinstance(change.record, Subject) and change.record.state in _ISOLATED

    def _follow(self) -> None:
        for obj, op in self._ops.items():
            obj.op = op
            self.fs.by_op[op] = obj
        for change in self.changes:
            apply(self.fs, change)
        self.changes, self._ops, self._origins, self._puts = [], {}, {}, {}


def apply(fs: Filesystem, change: Change) -> None:
    """Follow one change of the store in memory."""
    follow(fs, change.record, put=isinstance(change, Put))


def follow(fs: Filesystem, record: Record, *, put: bool) -> None:
    """Know of a record that the store has now (`put`), or has no more."""
    if isinstance(record, Origin):
        if (old := fs.origins.get(record.op)) is not None:
            fs.by_op[record.op]  # what is made when it is asked for is what main had, not what it gets
            _count_reference(fs, old.parent, -1)
        if put:
            fs.origins[record.op] = record
            _count_reference(fs, record.parent, 1)
        else:
            fs.origins.pop(record.op, None)
            obj = fs.by_op.pop(record.op, None)
            if obj is not None:
                obj.op = 0
    elif isinstance(record, Subject):
        _apply_subject(fs, record, put)
    elif isinstance(record, Base):
        key = record.op, record.count, record.merged
        _count_reference(fs, record.op, int(put) - (key in fs.bases))
        if put:
            fs.bases[key] = record
        else:
            fs.bases.pop(key, None)
    elif not isinstance(record, _NOT_IN_MEMORY):
        view = fs.view_of(record.sid)
        if view is not None:
            _apply_to_view(fs, view, record, put)


def _count_reference(fs: Filesystem, op: Op | None, by: int) -> None:
    if op is not None:
        fs.referring[op] += by
        if not fs.referring[op]:
            del fs.referring[op]


def _apply_subject(fs: Filesystem, subject: Subject, put: bool) -> None:
    old = fs.subjects.pop(subject.sid, None)
    if old is not None and fs.suspects.get(old.uid) == old.sid:
        del fs.suspects[old.uid]
    view = fs.views.pop(subject.sid, None) or fs.waiting.pop(subject.sid, None)
    if put:
        _put_subject(fs, subject, view or View(subject.sid))
    deciding = [one for one in map(fs.subjects.__getitem__, fs.views) if one.state is not SubjectState.SUSPECT]
    fs.in_verdict = frozenset(sid for one in deciding for sid in (one.sid, one.part_of) if sid is not None)


def _put_subject(fs: Filesystem, subject: Subject, view: View) -> None:
    fs.subjects[subject.sid] = subject
    if subject.state in _ISOLATED:
        fs.views[subject.sid] = view
        if subject.state is SubjectState.SUSPECT or subject.uid not in fs.suspects:
            fs.suspects[subject.uid] = subject.sid  # not a part of what a suspect changed, who goes on being one
    elif subject.state is SubjectState.CONFLICTS:
        fs.waiting[subject.sid] = view


def _apply_to_view(fs: Filesystem, view: View, record: Version | Binding | Touch | Decided, put: bool) -> None:
    if isinstance(record, Version):
        old = view.versions.get(record.op)
        if put:
            view.versions[record.op] = record
        else:
            view.versions.pop(record.op, None)
        view.account.follow(old.content if old is not None else None, record.content if put else None)
    elif isinstance(record, Binding):
        if put:
            to, over = (op is not None and fs.origins[op].kind == stat.S_IFDIR for op in (record.op, record.replaced))
            view.put_binding(record, to_directory=to, over_directory=over)
        else:
            view.drop_binding(record)
    elif isinstance(record, Touch):
        if put:
            view.touches[record.op] = record.at_ns
        else:
            view.touches.pop(record.op, None)
    elif put:
        view.decisions[record.op] = record
    else:
        view.decisions.pop(record.op, None)
