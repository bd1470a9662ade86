"""The database: open it, read all of it, write batches of changes. One connection, one writer.

A batch is one transaction, committed to the write-ahead log when `Database.write` returns: a killed process
loses nothing of it. `Database.sync` makes everything written survive a power loss as well.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Delete,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.expression import Executable
from sqlalchemy.sql.schema import Table

from isofs.errors import StoreUnusable
from isofs.model.records import (
    Base,
    Binding,
    Change,
    Decided,
    Fingerprint,
    Op,
    Origin,
    Put,
    Record,
    Subject,
    SubjectState,
    Touch,
    Version,
)
from isofs.model.vectors import from_json, to_json
from isofs.store import schema

#: Origin points are reserved in blocks of this many, one statement a block.
OPS_PER_BLOCK = 1024

Row = dict[str, Any]


def _subject_row(r: Subject) -> Row:
    return {
        "sid": r.sid,
        "uid": r.uid,
        "name": r.name,
        "since": r.since,
        "reason": r.reason,
        "state": r.state.value,
    }


def _origin_row(r: Origin) -> Row:
    return {
        "op": r.op,
        "kind": r.kind,
        "ino": r.ino,
        "parent": r.parent,
        "name": r.name,
        "vector": None if r.vector is None else to_json(r.vector),
        "born": r.born,
        "next_ino": r.next_ino,
    }


def _version_row(r: Version) -> Row:
    mark = r.fingerprint
    return {
        "sid": r.sid,
        "op": r.op,
        "state": r.state,
        "vector": to_json(r.vector),
        "content": r.content,
        "main_ino": mark and mark.ino,
        "main_ctime_ns": mark and mark.ctime_ns,
        "main_size": mark and mark.size,
        "attributes": r.attributes,
    }


def _binding_row(r: Binding) -> Row:
    return {
        "sid": r.sid,
        "directory": r.directory,
        "name": r.name,
        "op": r.op,
        "replaced": r.replaced,
        "kept": r.kept,
    }


def _touch_row(r: Touch) -> Row:
    return {"sid": r.sid, "op": r.op, "at_ns": r.at_ns}


def _base_row(r: Base) -> Row:
    return {"op": r.op, "count": r.count, "content": r.content}


def _decided_row(r: Decided) -> Row:
    return {
        "sid": r.sid,
        "op": r.op,
        "outcome": r.outcome,
        "merged": to_json(r.merged),
        "reason": r.reason,
        "review": r.review,
    }


def _read_subject(r: Row) -> Subject:
    return Subject(**{**r, "state": SubjectState(r["state"])})


def _read_origin(r: Row) -> Origin:
    return Origin(**{**r, "vector": None if r["vector"] is None else from_json(r["vector"])})


def _read_version(r: Row) -> Version:
    mark = None if r["main_ino"] is None else Fingerprint(r["main_ino"], r["main_ctime_ns"], r["main_size"])
    if r["state"] not in ("m", "d"):
        raise ValueError(f"not a version's state: {r['state']!r}")
    return Version(r["sid"], r["op"], r["state"], from_json(r["vector"]), r["content"], mark, r["attributes"])


def _read_decided(r: Row) -> Decided:
    return Decided(**{**r, "merged": from_json(r["merged"])})


@dataclass(frozen=True, slots=True)
class _Mapping:
    """How one type of record is written to and read from its table."""

    table: Table
    write: Callable[[Any], Row]
    read: Callable[[Row], Record]


_MAPPINGS: dict[type, _Mapping] = {
    Subject: _Mapping(schema.subjects, _subject_row, _read_subject),
    Origin: _Mapping(schema.origins, _origin_row, _read_origin),
    Version: _Mapping(schema.versions, _version_row, _read_version),
    Binding: _Mapping(schema.bindings, _binding_row, lambda r: Binding(**r)),
    Touch: _Mapping(schema.touches, _touch_row, lambda r: Touch(**r)),
    Base: _Mapping(schema.bases, _base_row, lambda r: Base(**r)),
    Decided: _Mapping(schema.decisions, _decided_row, _read_decided),
}


def _put_statement(table: Table) -> Executable:
    statement = upsert(table)
    rest = {c.name: statement.excluded[c.name] for c in table.columns if not c.primary_key}
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=rest)


def _drop_statement(table: Table) -> Delete:
    statement = delete(table)
    for column in table.primary_key:
        statement = statement.where(column == bindparam(f"key_{column.name}"))
    return statement


_PUT = {kind: _put_statement(m.table) for kind, m in _MAPPINGS.items()}
_DROP = {kind: _drop_statement(m.table) for kind, m in _MAPPINGS.items()}


class Database:
    """An open database. Every method raises StoreUnusable if SQLite cannot do what is asked."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._next_op = self._reserved = 0

    def read(self) -> Iterator[Record]:
        """Every record, of all types; subjects and origins come before what refers to them."""
        with _translated(self._path):
            for mapping in _MAPPINGS.values():
                for row in self._connection.execute(select(mapping.table)).mappings():
                    yield mapping.read(dict(row))
            self._connection.rollback()

    def write(self, changes: Sequence[Change]) -> None:
        """Make the changes, all or none, durable against the death of this process."""
        with _translated(self._path), self._transaction():
            for change in changes:
                kind = type(change.record)
                row = _MAPPINGS[kind].write(change.record)
                if isinstance(change, Put):
                    self._connection.execute(_PUT[kind], row)
                else:
                    keys = {f"key_{c.name}": row[c.name] for c in _MAPPINGS[kind].table.primary_key}
                    self._connection.execute(_DROP[kind], keys)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """A transaction, rolled back also when its commit is refused (SQLite leaves it open then)."""
        try:
            with self._connection.begin():
                yield
        except BaseException:
            raw = self._connection.connection.driver_connection
            if raw is not None and raw.in_transaction:
                raw.rollback()
            raise

    def new_op(self) -> Op:
        """An origin point that was never used before."""
        if self._next_op >= self._reserved:
            with _translated(self._path), self._connection.begin():
                key = schema.meta.c.key == "next_op"
                start = int(self._connection.execute(select(schema.meta.c.value).where(key)).scalar_one())
                self._reserved = start + OPS_PER_BLOCK
                self._connection.execute(update(schema.meta).where(key).values(value=str(self._reserved)))
            self._next_op = max(start, self._next_op)
        self._next_op += 1
        return self._next_op - 1

    def sync(self) -> None:
        """Make everything written survive a power loss: the write-ahead log goes to the disk."""
        for name in (self._path + "-wal", self._path):
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)

    def damage(self) -> list[str]:
        """What SQLite's own checks find wrong, a line each; empty if the database is sound."""
        with _translated(self._path):
            rows = [str(r[0]) for r in self._connection.execute(text("PRAGMA integrity_check"))]
            rows += [
                f"row {r[1]} of {r[0]} refers to a missing row of {r[2]}"
                for r in self._connection.execute(text("PRAGMA foreign_key_check"))
            ]
            self._connection.rollback()
        return [row for row in rows if row != "ok"]

    def close(self) -> None:
        """Close the connection; SQLite folds the write-ahead log into the database."""
        with _translated(self._path):
            self._connection.close()
            self._connection.engine.dispose()


def open_database(path: str) -> Database:
    """Open the database at `path`, or make a new one. StoreUnusable if it is damaged or of another version."""
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(path, check_same_thread=False, timeout=5),
        poolclass=StaticPool,
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with _translated(path):
        connection = engine.connect()
        try:
            _check_version(connection, path)
        except BaseException:
            connection.close()
            engine.dispose()
            raise
        return Database(connection, path)


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin and end where this module says
    for pragma in ("foreign_keys = ON", "synchronous = NORMAL", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def _check_version(connection: Connection, path: str) -> None:
    def number(name: str) -> int:
        return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())

    application, version = number("application_id"), number("user_version")
    tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
    connection.rollback()
    if not tables:
        _create(connection)
    elif application != schema.APPLICATION_ID:
        raise StoreUnusable(f"{path} is not the database of an isofs store; give another --store")
    elif version != schema.VERSION:
        raise StoreUnusable(
            f"{path} is a store of version {version}, this isofs reads version {schema.VERSION};"
            " use the isofs that wrote it, or give another --store"
        )


def _create(connection: Connection) -> None:
    raw = connection.connection.driver_connection
    assert raw is not None
    raw.execute("PRAGMA journal_mode = WAL")
    with connection.begin():
        schema.metadata.create_all(connection)
        connection.execute(
            insert(schema.meta),
            [
                {"key": "created", "value": datetime.now(UTC).isoformat(timespec="seconds")},
                {"key": "next_op", "value": "1"},
            ],
        )
        connection.exec_driver_sql(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version = {schema.VERSION}")


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    """Errors of SQLite and of unreadable rows become StoreUnusable."""
    try:
        yield
    except (DatabaseError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DatabaseError) else error
        raise StoreUnusable(f"the database {path} is unusable: {cause}; see isoctl check") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreUnusable(f"the database {path} has a damaged row: {error}; see isoctl check") from error
