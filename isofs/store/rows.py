"""Records as rows: how each type of record is written to its table and read from it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import Delete, Insert, Select, bindparam, delete, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.sql.schema import Table

from isofs.model.records import (
    Base,
    Binding,
    Decided,
    Fingerprint,
    Origin,
    Proposal,
    Record,
    Stowed,
    Subject,
    SubjectState,
    Told,
    Touch,
    Verdict,
    Version,
)
from isofs.model.vectors import Vector, from_json, to_json
from isofs.store import schema

T = TypeVar("T")

#: What SQLite has of a record: its values in the order of the table's columns.
Row = tuple[Any, ...]


def _subject_row(r: Subject) -> Row:
    return r.sid, r.uid, r.name, r.since, r.reason, r.state.value, r.part_of, r.objects


def _origin_row(r: Origin) -> Row:
    vector = None if r.vector is None else to_json(r.vector)
    return r.op, r.kind, r.ino, r.parent, r.name, vector, r.born, r.next_ino


def _version_row(r: Version) -> Row:
    mark = r.fingerprint
    seen = (None, None, None) if mark is None else (mark.ino, mark.ctime_ns, mark.size)
    return r.sid, r.op, r.state, to_json(r.vector), r.content, *seen, r.attributes


def _binding_row(r: Binding) -> Row:
    return r.sid, r.directory, r.name, r.op, r.replaced, r.kept


def _touch_row(r: Touch) -> Row:
    return r.sid, r.op, r.at_ns


def _base_row(r: Base) -> Row:
    return r.op, r.count, r.merged, r.content


def _decided_row(r: Decided) -> Row:
    return r.sid, r.op, r.outcome, to_json(r.merged), r.reason, r.review, r.content, r.seen


def _stowed_row(r: Stowed) -> Row:
    return r.number, r.at, r.sid, r.user, r.path, r.kind, r.action, r.size, r.live, r.op, r.ino


def _proposal_row(r: Proposal) -> Row:
    told = (json.dumps(sorted(r.persons)), r.call, json.dumps(dict(r.args)), r.content, r.digest)
    return r.uid, r.at, r.by, *told, json.dumps(dict(r.seen))


def _verdict_row(r: Verdict) -> Row:
    told = (r.verdict, r.part, r.by, r.reason, json.dumps(dict(r.counts)), r.evidence)
    return r.number, r.at, r.ended, r.sid, r.uid, r.user, *told


def _told_row(r: Told) -> Row:
    return r.verdict, r.op, r.directory, r.name, r.place, r.path, r.action, r.reason, r.review, r.aside


def _unfrozen(kind: type[Record | Fingerprint]) -> Any:
    """A class of the same layout as that of a frozen record, whose objects are made in a third of the time, which sets
    each value by a call, and become records by being told so."""
    return dataclasses.make_dataclass(kind.__name__, [field.name for field in dataclasses.fields(kind)], slots=True)


_Origin, _Version, _Fingerprint = map(_unfrozen, (Origin, Version, Fingerprint))


@functools.lru_cache(maxsize=4096)
def _vector(text: str) -> Vector:
    """A vector; most objects have one of a few."""
    return from_json(text)


def _read_subject(r: Row) -> Subject:
    sid, uid, name, since, reason, state, part_of, objects = r
    return Subject(sid, uid, name, since, reason, SubjectState(state), part_of, objects)


def _read_origin(r: Row) -> Origin:
    op, kind, ino, parent, name, vector, born, next_ino = r
    made = _Origin(op, kind, ino, parent, name, None if vector is None else _vector(vector), born, next_ino)
    made.__class__ = Origin
    return made  # type: ignore[no-any-return]


def _read_version(r: Row) -> Version:
    sid, op, state, vector, content, ino, ctime_ns, size, attributes = r
    if state not in ("m", "d"):
        raise ValueError(f"not a version's state: {state!r}")
    mark = None
    if ino is not None:
        mark = _Fingerprint(ino, ctime_ns, size)
        mark.__class__ = Fingerprint
    made = _Version(sid, op, state, _vector(vector), content, mark, bool(attributes))
    made.__class__ = Version
    return made  # type: ignore[no-any-return]


def _read_binding(r: Row) -> Binding:
    sid, directory, name, op, replaced, kept = r
    return Binding(sid, directory, name, op, replaced, bool(kept))


def _read_decided(r: Row) -> Decided:
    sid, op, outcome, merged, reason, review, content, seen = r
    return Decided(sid, op, outcome, _vector(merged), reason, bool(review), content, seen)


def _read_stowed(r: Row) -> Stowed:
    number, at, sid, user, path, kind, action, size, live, op, ino = r
    return Stowed(number, at, sid, user, path, kind, action, size, bool(live), op, ino)


def read_proposal(r: Row) -> Proposal:
    uid, at, by, persons, call, args, content, digest, seen = r
    marks = {int(op): str(mark) for op, mark in json.loads(seen).items()}
    return Proposal(uid, at, by, frozenset(json.loads(persons)), call, dict(json.loads(args)), content, digest, marks)


def read_verdict(r: Row) -> Verdict:
    number, at, ended, sid, uid, user, verdict, part, by, reason, counts, evidence = r
    counted = {str(kind): int(count) for kind, count in json.loads(counts).items()}
    return Verdict(number, at, ended, sid, uid, user, verdict, part, by, reason, counted, evidence)


def read_told(r: Row) -> Told:
    verdict, op, directory, name, place, path, action, reason, review, aside = r
    return Told(verdict, op, directory, name, place, path, action, reason, bool(review), aside)


class RowMapping:
    """How one type of record is written to and read from its table.

    The statements are made once, when they are needed, and given to SQLite as they are: SQLAlchemy's own way with a
    statement takes longer than SQLite's. `put` takes a row, `drop` what `key` takes of one. `read` makes the record of
    a row of `select`; it raises ValueError and others for one that means nothing.
    """

    def __init__(self, table: Table, row: Callable[[Any], Row], read: Callable[[Row], Record]) -> None:
        self.table, self.row, self.read = table, row, read
        self.columns = [column.name for column in table.columns]
        self._keys = [column.name for column in table.primary_key]
        self._at = [self.columns.index(name) for name in self._keys]

    @functools.cached_property
    def put(self) -> str:
        insertion = upsert(self.table)
        rest = {name: insertion.excluded[name] for name in self.columns if name not in self._keys}
        return sql(insertion.on_conflict_do_update(index_elements=self._keys, set_=rest))

    @functools.cached_property
    def drop(self) -> str:
        return sql(delete(self.table).where(*(self.table.c[name] == bindparam(name) for name in self._keys)))

    @functools.cached_property
    def select(self) -> str:
        return sql(select(self.table).order_by(*self.table.primary_key))

    def key(self, row: Row) -> Row:
        return tuple(row[at] for at in self._at)


def sql(statement: Insert | Delete | Select[Any]) -> str:
    """A statement as SQLite is given it."""
    return str(statement.compile(dialect=sqlite.dialect()))


MAPPINGS: dict[type, RowMapping] = {
    Subject: RowMapping(schema.subjects, _subject_row, _read_subject),
    Origin: RowMapping(schema.origins, _origin_row, _read_origin),
    Version: RowMapping(schema.versions, _version_row, _read_version),
    Binding: RowMapping(schema.bindings, _binding_row, _read_binding),
    Touch: RowMapping(schema.touches, _touch_row, lambda r: Touch(*r)),
    Base: RowMapping(schema.bases, _base_row, lambda r: Base(*r)),
    Decided: RowMapping(schema.decisions, _decided_row, _read_decided),
    Stowed: RowMapping(schema.attic, _stowed_row, _read_stowed),
    Proposal: RowMapping(schema.proposals, _proposal_row, read_proposal),
    Verdict: RowMapping(schema.verdicts, _verdict_row, read_verdict),
    Told: RowMapping(schema.told, _told_row, read_told),
}


def readable(table: str, row: Mapping[str, Any]) -> str | None:
    """Why a row of a table means nothing, None if it means something."""
    for mapping in MAPPINGS.values():
        if mapping.table.name == table:
            try:
                mapping.row(mapping.read(tuple(row[name] for name in mapping.columns)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                return str(error)
    return None
