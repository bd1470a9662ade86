"""The database: open it, read all of it, write batches of changes. One connection, one writer.

A batch is one transaction, committed to the write-ahead log when `Database.write` returns: a killed process
loses nothing of it. `Database.sync` makes everything written survive a power loss as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from sqlalchemy import (
    Connection,
    Delete,
    Insert,
    Select,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.schema import Table

from isofs.errors import StoreRefused, StoreUnusable
from isofs.model.records import (
    Base,
    Binding,
    Change,
    Decided,
    Fingerprint,
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
from isofs.model.vectors import Vector, from_json, to_json
from isofs.store import schema

T = TypeVar("T")

#: Origin points are reserved in blocks of this many, one statement a block.
OPS_PER_BLOCK = 1024

#: Pages of the write-ahead log after which SQLite folds it into the database, which waits for the disk twice.
LOG_PAGES = 8192

#: Seconds that a change waits for another process that writes to the database, which none of isofs's does. Everybody
#: waits meanwhile; then the change fails as if the disk did.
BUSY = 1.0

#: What a caller is answered where SQLite says more than that it failed.
_ERRNOS = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_READONLY: errno.EROFS}

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


def _maker(kind: type[T]) -> Callable[..., T]:
    """What makes a frozen record of all its values, in order, in a third of the time that the class itself needs, which
    sets each by a call: a class of the same layout, which is not frozen, makes what becomes a record then."""
    assert dataclasses.is_dataclass(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    plain: Any = dataclasses.make_dataclass(kind.__name__, names, slots=True)

    def make(*values: Any) -> T:
        made = plain(*values)
        made.__class__ = kind
        return cast(T, made)

    return make


_origin, _version, _fingerprint = _maker(Origin), _maker(Version), _maker(Fingerprint)


@functools.lru_cache(maxsize=4096)
def _vector(text: str) -> Vector:
    """A vector; most objects have one of a few."""
    return from_json(text)


def _read_subject(r: Row) -> Subject:
    sid, uid, name, since, reason, state, part_of, objects = r
    return Subject(sid, uid, name, since, reason, SubjectState(state), part_of, objects)


def _read_origin(r: Row) -> Origin:
    op, kind, ino, parent, name, vector, born, next_ino = r
    return _origin(op, kind, ino, parent, name, None if vector is None else _vector(vector), born, next_ino)


def _read_version(r: Row) -> Version:
    sid, op, state, vector, content, ino, ctime_ns, size, attributes = r
    if state not in ("m", "d"):
        raise ValueError(f"not a version's state: {state!r}")
    mark = None if ino is None else _fingerprint(ino, ctime_ns, size)
    return _version(sid, op, state, _vector(vector), content, mark, bool(attributes))


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


class _Mapping:
    """How one type of record is written to and read from its table.

    The statements are made once, and given to SQLite as they are: SQLAlchemy's own way with a statement takes longer
    than SQLite's. `put` takes a row, `drop` what `key` takes of one. `read` makes the record of a row of `select`; it
    raises ValueError and others for one that means nothing.
    """

    def __init__(self, table: Table, row: Callable[[Any], Row], read: Callable[[Row], Record]) -> None:
        self.table, self.row, self.read = table, row, read
        columns = [column.name for column in table.columns]
        keys = [column.name for column in table.primary_key]
        insertion = upsert(table)
        rest = {name: insertion.excluded[name] for name in columns if name not in keys}
        self.put = _sql(insertion.on_conflict_do_update(index_elements=keys, set_=rest))
        self.drop = _sql(delete(table).where(*(table.c[name] == bindparam(name) for name in keys)))
        self.select = _sql(select(table).order_by(*table.primary_key))
        self.columns = columns
        self._at = [columns.index(name) for name in keys]

    def key(self, row: Row) -> Row:
        return tuple(row[at] for at in self._at)


def _sql(statement: Insert | Delete | Select[Any]) -> str:
    return str(statement.compile(dialect=sqlite.dialect()))


_MAPPINGS: dict[type, _Mapping] = {
    Subject: _Mapping(schema.subjects, _subject_row, _read_subject),
    Origin: _Mapping(schema.origins, _origin_row, _read_origin),
    Version: _Mapping(schema.versions, _version_row, _read_version),
    Binding: _Mapping(schema.bindings, _binding_row, _read_binding),
    Touch: _Mapping(schema.touches, _touch_row, lambda r: Touch(*r)),
    Base: _Mapping(schema.bases, _base_row, lambda r: Base(*r)),
    Decided: _Mapping(schema.decisions, _decided_row, _read_decided),
    Stowed: _Mapping(schema.attic, _stowed_row, _read_stowed),
    Proposal: _Mapping(schema.proposals, _proposal_row, read_proposal),
    Verdict: _Mapping(schema.verdicts, _verdict_row, read_verdict),
    Told: _Mapping(schema.told, _told_row, read_told),
}

#: What is read when it is asked for.
_NOT_IN_MEMORY = (schema.attic, schema.proposals, schema.verdicts, schema.told)


def readable(table: str, row: Mapping[str, Any]) -> str | None:
    """Why a row of a table means nothing, None if it means something."""
    for mapping in _MAPPINGS.values():
        if mapping.table.name == table:
            try:
                mapping.row(mapping.read(tuple(row[name] for name in mapping.columns)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                return str(error)
    return None


class Database:
    """An open database. Every method raises StoreUnusable if SQLite cannot do what is asked."""

    def __init__(self, connection: Connection, path: str, *, is_new: bool) -> None:
        self._connection = connection
        self._path = path
        self.is_new = is_new  # whether there was nothing before
        self._next_op = self._reserved = 0
        self._unsynced = False

    def read(self) -> Iterator[Record]:
        """Every record but those that are read when they are asked for, each type by its key; subjects and origins come
        before what refers to them."""
        raw = self._connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        with _translated(self._path):
            for mapping in _MAPPINGS.values():
                if mapping.table in _NOT_IN_MEMORY:
                    continue
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
            return [value for (value,) in raw.execute(_sql(query))]

    def write(self, changes: Sequence[Change]) -> None:
        """Make the changes, all or none, durable against the death of this process."""
        raw = self._connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        with _translated(self._path):
            raw.execute("BEGIN IMMEDIATE")
            try:
                for change in changes:
                    mapping = _MAPPINGS[type(change.record)]
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
