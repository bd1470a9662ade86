"""Questions about the attic's rows. Each is a statement of its own: nothing of the attic is held in memory."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, column, func, select, text, true

from isofs.model.ages import Ages, from_json, to_json
from isofs.model.records import MAIN, Op, Stowed, SubjectId
from isofs.store import schema
from isofs.store.database import Database

#: The fact about the store that says how old entries are.
AGES = "attic_ages"

_ATTIC = schema.attic
_UNSETTLED = _ATTIC.c.op.is_not(None) | _ATTIC.c.ino.is_not(None)


def entry(database: Database, number: int) -> Stowed | None:
    """The entry of a number."""
    return next(iter(_entries(database, select(_ATTIC).where(_ATTIC.c.number == number))), None)


def newest(database: Database, path: bytes) -> Stowed | None:
    """The entry that came last from a path."""
    query = select(_ATTIC).where(_ATTIC.c.path == path).order_by(_ATTIC.c.number.desc()).limit(1)
    return next(iter(_entries(database, query)), None)


def page(database: Database, before: int | None, limit: int, path: bytes = b"") -> list[Stowed]:
    """The newest entries at a path or below it, newest first; those before a number if one is given."""
    query = select(_ATTIC).where(_within(path)).order_by(_ATTIC.c.number.desc()).limit(limit)
    return _entries(database, query if before is None else query.where(_ATTIC.c.number < before))


def newest_merged(database: Database, path: bytes) -> Stowed | None:
    """The entry that a merge took last from a path or from below it."""
    query = select(_ATTIC).where(_within(path), _ATTIC.c.sid != MAIN, ~_UNSETTLED)
    return next(iter(_entries(database, query.order_by(_ATTIC.c.number.desc()).limit(1))), None)


def of_merge(database: Database, sid: SubjectId, path: bytes) -> list[Stowed]:
    """What a subject's merge took from a path and from below it, the newest of each path; directories before what
    was in them."""
    query = select(_ATTIC).where(_within(path), _ATTIC.c.sid == sid, ~_UNSETTLED)
    found = _entries(database, query.order_by(_ATTIC.c.path, _ATTIC.c.number))
    return list({entry.path: entry for entry in found}.values())


def _within(path: bytes) -> ColumnElement[bool]:
    """At a path or below it; the empty one is the root's."""
    where = _ATTIC.c.path
    return (where == path) | ((where >= path + b"/") & (where < path + b"0")) if path else true()


def oldest(database: Database, upto: int | None, limit: int) -> list[Stowed]:
    """Entries up to a number, oldest first, but none that is being made."""
    query = select(_ATTIC).where(~_UNSETTLED).order_by(_ATTIC.c.number).limit(limit)
    return _entries(database, query if upto is None else query.where(_ATTIC.c.number <= upto))


def bounds(database: Database) -> tuple[int, int]:
    """The least number of all entries and the greatest that was ever used; the least is greater if there is none."""
    greatest = last(database)
    (found,) = database.find(select(func.min(_ATTIC.c.number).label("least")))
    return (greatest + 1 if found["least"] is None else found["least"]), greatest


def ages(database: Database) -> Ages:
    """How old entries are, by their numbers."""
    return from_json(database.fact(AGES))


def set_ages(database: Database, ages: Ages) -> None:
    database.set_fact(AGES, to_json(ages))


def unsettled(database: Database, op: Op | None = None) -> list[Stowed]:
    """Entries of which main may still have what they are of; those of one object, if it is given."""
    query = select(_ATTIC).where(_UNSETTLED)
    return _entries(database, query if op is None else query.where(_ATTIC.c.op == op))


def numbers(database: Database) -> set[int]:
    """The numbers of all entries."""
    return set(database.integers(select(_ATTIC.c.number)))


def totals(database: Database) -> tuple[int, int]:
    """How many entries there are, and their size together."""
    found = database.find(select(func.count().label("count"), func.coalesce(func.sum(_ATTIC.c.size), 0).label("size")))[
        0
    ]
    return found["count"], found["size"]


def last(database: Database) -> int:
    """The greatest number that was ever used, 0 if none was."""
    query: Select[Any] = select(column("seq")).select_from(text("sqlite_sequence")).where(text("name = 'attic'"))
    return next(iter(database.integers(query)), 0)


def _entries(database: Database, query: Select[tuple[object, ...]]) -> list[Stowed]:
    return [Stowed(**row) for row in database.find(query)]
