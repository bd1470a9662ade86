"""Questions about verdicts that were given, and about what is told of them. Nothing of it is held in memory."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, func, select, tuple_

from isofs.errors import StoreUnusable
from isofs.model.records import SubjectId, Told, Verdict
from isofs.store import schema
from isofs.store.database import Database
from isofs.store.rows import read_told, read_verdict

_VERDICTS, _TOLD = schema.verdicts, schema.told
_KEY = (_TOLD.c.op, _TOLD.c.directory, _TOLD.c.name)


def newest(database: Database, sid: SubjectId) -> Verdict | None:
    """The verdict that was given last on a subject."""
    query = select(_VERDICTS).where(_VERDICTS.c.sid == sid).order_by(_VERDICTS.c.number.desc()).limit(1)
    return next(iter(_verdicts(database, query)), None)


def verdicts(database: Database, uid: int | None = None, before: int | None = None, limit: int = -1) -> list[Verdict]:
    """Verdicts on a user's work, or on everybody's, the newest first; those before a number if one is given."""
    query = select(_VERDICTS).order_by(_VERDICTS.c.number.desc()).limit(limit)
    query = query if uid is None else query.where(_VERDICTS.c.uid == uid)
    return _verdicts(database, query if before is None else query.where(_VERDICTS.c.number < before))


def verdict(database: Database, number: int) -> Verdict | None:
    """The verdict of a number."""
    return next(iter(_verdicts(database, select(_VERDICTS).where(_VERDICTS.c.number == number))), None)


def told(database: Database, number: int, after: Told | None, limit: int) -> list[Told]:
    """What is told of a verdict, by object and name; what comes after something if that is given."""
    query = select(_TOLD).where(_TOLD.c.verdict == number).order_by(*_KEY).limit(limit)
    if after is not None:
        query = query.where(tuple_(*_KEY) > (after.op, after.directory, after.name))
    return [read_told(tuple(row.values())) for row in database.find(query)]


def counted(database: Database, number: int) -> dict[str, int]:
    """How much is told of a verdict, by what was done."""
    query = select(_TOLD.c.action, func.count().label("count")).where(_TOLD.c.verdict == number)
    return {row["action"]: row["count"] for row in database.find(query.group_by(_TOLD.c.action))}


def older(database: Database, at: str, limit: int) -> list[Verdict]:
    """Verdicts that ended before a time, the oldest first."""
    query = select(_VERDICTS).where(_VERDICTS.c.ended < at).order_by(_VERDICTS.c.number).limit(limit)
    return _verdicts(database, query)


def _verdicts(database: Database, query: Select[Any]) -> list[Verdict]:
    try:
        return [read_verdict(tuple(row.values())) for row in database.find(query)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreUnusable(f"the store has a damaged verdict: {error}; see isoctl check") from error
