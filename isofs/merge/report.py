"""What a verdict did, object by object, in words that an operator reads.

It is written down as the verdict goes on, so that it outlives whoever gave it, and a kill. What is told of a change
goes with a transaction before the change: a merge that was cut off in between makes the change again, and tells the
same again under the same key. So nothing is missed, and nothing told twice.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from isofs.engine.batch import Batch
from isofs.engine.slices import Slices
from isofs.engine.state import Filesystem, now
from isofs.errors import StoreUnusable
from isofs.model.records import Change, Drop, Op, Put, Subject, SubjectId, Told, Verdict
from isofs.store import reports

#: What is reported.
Kind = Literal["innocent", "malicious", "resolve"]

log = logging.getLogger(__name__)

#: So much is read back at a stretch.
_PAGE = 500

#: What is told of an object is about the object itself, not about one of its names.
ITSELF: tuple[Op, bytes] = (0, b"")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a merge did. `aside` is the name given to what could not have its own."""

    path: bytes
    action: str  # took, merged, kept, deleted, renamed, restored, united, conflict
    reason: str
    review: bool = False
    aside: bytes | None = None


@dataclass(frozen=True, slots=True)
class About:
    """Who gives a verdict and why; of a discarding also how much is discarded, and the evidence of it."""

    by: str = ""
    reason: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    evidence: str | None = None


@dataclass(slots=True)
class Report:
    """Everything that was done to subjects' work. It is written down for those whose verdict was begun with it."""

    about: About = About()
    _verdicts: dict[SubjectId, Verdict] = field(default_factory=dict)
    _told: dict[SubjectId, dict[tuple[Op, Op, bytes], Told]] = field(default_factory=dict)

    @property
    def items(self) -> list[Item]:
        return [item(told) for known in self._told.values() for told in known.values()]

    @property
    def conflicts(self) -> int:
        return self.counts.get("conflict", 0)

    @property
    def counts(self) -> dict[str, int]:
        return _counts(told for known in self._told.values() for told in known.values())

    def begin(self, subject: Subject, verdict: Kind, batch: Batch) -> None:
        """Write down, in a batch, that a verdict is given on a subject, whatever was told of the subject before."""
        about, part = self.about, subject.reason if subject.part_of is not None else ""
        who = (subject.sid, subject.uid, subject.name)
        number = batch.fs.store.new_op()
        given = Verdict(number, now(), None, *who, verdict, part, about.by, about.reason, about.counts, about.evidence)
        self._verdicts[subject.sid], self._told[subject.sid] = given, {}
        batch.put(given)

    def begin_settling(self, fs: Filesystem, subject: Subject) -> None:
        """Conflicts of a subject are about to be settled: by the verdict that is reported, or by themselves."""
        if subject.sid not in self._verdicts:
            batch = Batch(fs)
            self.begin(subject, "resolve", batch)
            fs.along.extend(batch.changes)

    def take_up(self, fs: Filesystem, subject: Subject, verdict: Kind) -> Slices[None]:
        """Go on with the report of a verdict that was cut off, or begin one if there is none."""
        yield from self.go_on(fs, subject.sid)
        if (known := self._verdicts.get(subject.sid)) is None or known.ended is not None:
            batch = Batch(fs)
            self.begin(subject, verdict, batch)
            batch.commit()

    def is_open(self, fs: Filesystem, sid: SubjectId) -> bool:
        """Whether a verdict on a subject was cut off before its end."""
        with contextlib.suppress(StoreUnusable):  # `go_on` says so
            found = reports.newest(fs.store.database, sid)
            return found is not None and found.ended is None
        return False

    def go_on(self, fs: Filesystem, sid: SubjectId) -> Slices[None]:
        """Take up what is told of the newest verdict on a subject, ended or not."""
        try:
            found = reports.newest(fs.store.database, sid)
            if found is None:
                return
            told, after = list[Told](), None
            while page := reports.told(fs.store.database, found.number, after, _PAGE):
                told, after = told + page, page[-1]
                yield
        except StoreUnusable as error:
            log.error("what was told of a verdict cannot be read: %s", error)
            return
        told.sort(key=lambda one: one.place)
        self._verdicts[sid], self._told[sid] = found, {_key(one): one for one in told}

    def tell(self, fs: Filesystem, sid: SubjectId, op: Op, item: Item, name: tuple[Op, bytes] = ITSELF) -> None:
        """Tell what becomes of an object, or of a name of it; in place of what was told of that before.

        It is written with the next transaction: to be called before the change, or before the commit that is one.
        """
        known, given = self._told.setdefault(sid, {}), self._verdicts.get(sid)
        before = known.get((op, *name))
        last = next(reversed(known.values())).place if known else -1
        place = last + 1 if before is None else before.place
        told = Told(
            given.number if given is not None else 0,
            op,
            *name,
            place,
            item.path,
            item.action,
            item.reason,
            item.review,
            item.aside,
        )
        if told != before:
            known[op, *name] = told
            if given is not None:
                fs.along.append(Put(told))

    def take_back(self, fs: Filesystem, sid: SubjectId, op: Op, name: tuple[Op, bytes] = ITSELF) -> None:
        """What was told is not so."""
        told = self._told.get(sid, {}).pop((op, *name), None)
        if told is not None and sid in self._verdicts:
            fs.along.append(Drop(told))

    def forget(self, fs: Filesystem, sid: SubjectId, op: Op, before: Item | None) -> None:
        """Nothing was done to an object after all: of it is told what was `before`."""
        fs.along.clear()
        for name in [one[1:] for one in self._told.get(sid, {}) if one[0] == op]:
            self.take_back(fs, sid, op, name)
        if before is not None:
            self.tell(fs, sid, op, before)

    def told(self, sid: SubjectId, op: Op, name: tuple[Op, bytes] = ITSELF) -> Item | None:
        """What was told of an object, or of a name of it."""
        known = self._told.get(sid, {}).get((op, *name))
        return None if known is None else item(known)

    def all_told(self, sid: SubjectId) -> Iterator[Told]:
        """All that was told of a subject's work."""
        return iter(self._told.get(sid, {}).values())

    def end(self, sid: SubjectId) -> list[Change]:
        """What says that nothing of a verdict is left to be done; to be written when that is so."""
        given = self._verdicts.get(sid)
        if given is None:
            return []
        if given.verdict == "resolve" and not self._told[sid]:
            return [Drop(self._verdicts.pop(sid))]  # nothing could be settled
        counts = _counts(self.all_told(sid)) or given.counts
        self._verdicts[sid] = replace(given, ended=given.ended or now(), counts=counts)
        return [Put(self._verdicts[sid])]


def item(told: Told) -> Item:
    """What is told, as a report says it."""
    return Item(told.path, told.action, told.reason, told.review, told.aside)


def _key(told: Told) -> tuple[Op, Op, bytes]:
    return told.op, told.directory, told.name


def _counts(told: Iterator[Told]) -> dict[str, int]:
    return dict(sorted(Counter(one.action for one in told).items()))
