"""What waits for a second person."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select

from isofs.errors import StoreUnusable
from isofs.model.records import Proposal
from isofs.store import schema
from isofs.store.database import Database
from isofs.store.rows import read_proposal

_PROPOSALS = schema.proposals


def waiting(database: Database) -> list[Proposal]:
    """All proposals, the oldest first."""
    return _found(database, select(_PROPOSALS).order_by(_PROPOSALS.c.at, _PROPOSALS.c.uid))


def about(database: Database, uid: int) -> Proposal | None:
    """The proposal about a user's work."""
    return next(iter(_found(database, select(_PROPOSALS).where(_PROPOSALS.c.uid == uid))), None)


def _found(database: Database, query: Select[Any]) -> list[Proposal]:
    try:
        return [read_proposal(tuple(row.values())) for row in database.find(query)]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreUnusable(f"the store has a damaged proposal: {error}; see isoctl check") from error
