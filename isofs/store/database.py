"""The database: open it, read all of it, write batches of changes. One connection, one writer.

A batch is one transaction, committed to the write-ahead log when `Database.write` returns: a killed process
loses nothing of it. `Database.sync` makes everything written survive a power loss as well.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, create_engine, delete, event, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool

from isofs.errors import StoreRefused, StoreUnusable
from isofs.model.records import Change, Op, Put, Record
from isofs.store import rows as mapped
from isofs.store import schema

R = TypeVar("R", bound=Record)

#: Origin points are reserved in blocks of this many, one statement a block.
OPS_PER_BLOCK = 1024

#: Pages of the write-ahead log after which SQLite folds it into the database, which waits for the disk twice.
LOG_PAGES = 8192

#: Seconds that a change waits for another process that writes to the database, which none of isofs's does. Everybody
#: waits meanwhile; then the change fails as if the disk did.
BUSY = 1.0

#: What a caller is answered where SQLite says more than that it failed.
_ERRNOS = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_READONLY: errno.EROFS}


class Database:
    """An open database. Every method raises StoreUnusable if SQLite cannot do what is asked."""

    def __init__(self, connection: Connection, path: str, *, is_new: bool) -> None:
        self._connection = connection
        self._path = path
        self.is_new = is_new  # whether there was nothing before
        self._next_op = self._reserved = 0
        self._unsynced = False

    def each(self, kind: type[R]) -> Iterator[R]:
        """Every record of a type, by its key."""
        raw = self._connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        with _translated(self._path):
            mapping = mapped.MAPPINGS[kind]
            yield from map(mapping.read, raw.execute(mapping.select))

    def find(self, query: Select[Any]) -> list[dict[str, Any]]:
        """The rows of a query, by column."""
        with _translated(self._path):
            found = [dict(row) for row in self._connection.execute(query).mappings()]
            self._connection.rollback()
        return found

    def integers(self, query: Select[Any]) -> list[int]:
        """The values of a query for one column of integers and without parameters; as fast as SQLite has them."""
        raw = self._connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        with _translated(self._path):
            return [value for (value,) in raw.execute(mapped.sql(query))]

    def write(self, changes: Sequence[Change]) -> None:
        """Make the changes, all or none, durable against the death of this process."""
        raw = self._connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        with _translated(self._path):
            raw.execute("BEGIN IMMEDIATE")
            try:
                for change in changes:
                    mapping = mapped.MAPPINGS[type(change.record)]
                    row = mapping.row(change.record)
                    if isinstance(change, Put):
                        raw.execute(mapping.put, row)
                    else:
                        raw.execute(mapping.drop, mapping.key(row))
                self._unsynced = True
                raw.execute("COMMIT")
            except BaseException:
                if raw.in_transaction:  # SQLite leaves it open also when the commit is refused
                    raw.execute("ROLLBACK")
                raise

    def fill(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Put rows as they are, by table, into a database that is new."""
        with _translated(self._path), self._connection.begin():
            for table in schema.metadata.sorted_tables:
                self._connection.execute(delete(table))
                if rows.get(table.name):
                    self._connection.execute(insert(table), [dict(row) for row in rows[table.name]])

    def fact(self, key: str) -> str | None:
        """A fact about the store itself, None if there is none."""
        found = self.find(select(schema.meta.c.value).where(schema.meta.c.key == key))
        return found[0]["value"] if found else None

    def set_fact(self, key: str, value: str) -> None:
        insertion = upsert(schema.meta).values(key=key, value=value)
        statement = insertion.on_conflict_do_update(index_elements=["key"], set_={"value": insertion.excluded.value})
        with _translated(self._path), self._connection.begin():
            self._connection.execute(statement)
        self._unsynced = True

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
        """Make everything written survive a power loss: the write-ahead log goes to the disk.

        Only the log: what is in the database itself SQLite has synced. And closing a descriptor of that file would end
        SQLite's locks on it (fcntl(2)): another process could then take the log away under us.
        """
        if not self._unsynced:
            return
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(self._path + "-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        self._unsynced = False

    def damage(self) -> list[str]:
        """What SQLite's own checks find wrong, a line each; empty if the database is sound.

        They look through a connection of their own: a thread may make them while this one reads.
        """
        with _translated(self._path), contextlib.closing(sqlite3.connect(self._path, timeout=BUSY)) as checking:
            return unsound(checking) or dangling(checking)

    def close(self) -> None:
        """Close the connection; SQLite folds the write-ahead log into the database."""
        with _translated(self._path):
            self._connection.close()
            self._connection.engine.dispose()


def unsound(connection: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with a database, a line each. It reads all of it."""
    return [str(row[0]) for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]


def dangling(connection: sqlite3.Connection) -> list[str]:
    """The rows of a database that refer to what is not there, a line each."""
    found = connection.execute("PRAGMA foreign_key_check")
    return [f"a row of {row[0]} refers to a missing row of {row[2]}" for row in found]


def open_database(path: str) -> Database:
    """Open the database at `path`, or make a new one. StoreUnusable if it is damaged or of another version."""
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(path, check_same_thread=False, timeout=BUSY),
        poolclass=StaticPool,
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with _translated(path):
        connection = engine.connect()
        try:
            is_new = _check_version(connection, path)
        except BaseException:
            connection.close()
            engine.dispose()
            raise
        return Database(connection, path, is_new=is_new)


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    """Transactions begin and end where this module says, and what is committed is in the page cache of the machine.

    NORMAL means that a commit does not wait for the disk: a killed process loses nothing, and a power loss what
    `Database.sync` was not called for. The log goes to the disk before it is folded into the database (OFF would leave
    that out), so that a power loss at any moment finds a sound database.
    """
    connection.isolation_level = None
    settings = {
        "foreign_keys": "ON",
        "synchronous": "NORMAL",
        "temp_store": "MEMORY",
        "wal_autocheckpoint": LOG_PAGES,
    }
    for name, value in settings.items():
        connection.execute(f"PRAGMA {name} = {value}")


def _check_version(connection: Connection, path: str) -> bool:
    """Make the database what this program reads; whether there was nothing before."""

    def number(name: str) -> int:
        return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())

    application, version = number("application_id"), number("user_version")
    tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
    connection.rollback()
    if not tables:
        _create(connection)
    elif application != schema.APPLICATION_ID:
        raise StoreRefused(f"{path} is not the database of an isofs store; give another --store")
    elif 1 <= version < schema.VERSION:
        _migrate(connection, version)
    elif version != schema.VERSION:
        raise StoreUnusable(
            f"{path} is a store of version {version}, this isofs reads version {schema.VERSION};"
            " use the isofs that wrote it, or give another --store"
        )
    return not tables


def _create(connection: Connection) -> None:
    raw = connection.connection.driver_connection
    assert raw is not None
    raw.execute("PRAGMA journal_mode = WAL")
    with connection.begin():
        for statement in schema.making():
            raw.execute(statement)
        connection.execute(
            insert(schema.meta),
            [
                {"key": "created", "value": datetime.now(UTC).isoformat(timespec="seconds")},
                {"key": "next_op", "value": "1"},
            ],
        )
        connection.exec_driver_sql(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version = {schema.VERSION}")


def _migrate(connection: Connection, version: int) -> None:
    """Bring a store of an older version to this one, in one transaction."""
    with connection.begin():
        for old in range(version, schema.VERSION):
            for statement in schema.MIGRATIONS[old]:
                connection.exec_driver_sql(statement)
        schema.metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {schema.VERSION}")


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    """Errors of SQLite and of unreadable rows become StoreUnusable."""
    try:
        yield
    except (DatabaseError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DatabaseError) else error
        number = _ERRNOS.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF)
        raise StoreUnusable(f"the database {path} is unusable: {cause}; see isoctl check", number) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreUnusable(f"the database {path} has a damaged row: {error}; see isoctl check") from error
