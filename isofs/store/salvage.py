"""A new database of what can still be read of a damaged one."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, asc, desc, select
from sqlalchemy.sql.schema import Table

from isofs.errors import StoreUnusable
from isofs.store import attic, inodes, schema
from isofs.store.database import OPS_PER_BLOCK, Database, dangling, open_database, unsound
from isofs.store.folder import Store
from isofs.store.inodes import Place
from isofs.store.rows import readable

#: Rows of a table by column, by their key.
_Rows = dict[tuple[Any, ...], dict[str, Any]]

#: Below every origin point that a salvaged store may have used and lost the row of.
_BEYOND = 1 << 20


@dataclass(frozen=True)
class Salvaged:
    """What could be read: rows by table; and what is left out, a line each."""

    rows: dict[str, list[dict[str, Any]]]
    lost: tuple[str, ...]

    @property
    def count(self) -> int:
        return sum(len(rows) for rows in self.rows.values())


def damage(path: str) -> list[str]:
    """What is wrong with the database of the store at a path, a line each, whatever it is. StoreUnusable if it is no
    database of a store, or one of another version: nothing can be done about that here."""
    file = os.path.join(path, "isofs.db")
    with contextlib.closing(_connected(file)) as connection:
        try:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            broken = unsound(connection)
            found = [] if broken else dangling(connection)
        except sqlite3.Error as error:
            return [str(error)]
    if application != schema.APPLICATION_ID or not 1 <= version <= schema.VERSION:
        raise StoreUnusable(f"{file} is no database of this isofs; use the isofs that wrote it, or a backup")
    if broken:
        return broken
    open_database(file).close()  # it has the tables of this version then
    return found + [line for line in salvage(path).lost if line not in found]


def salvage(path: str) -> Salvaged:
    """Read what can be read: from both ends of each table to the damage, rows that mean something and fit together."""
    lost: list[str] = []
    found: dict[str, _Rows] = {}
    with contextlib.closing(_connected(os.path.join(path, "isofs.db"))) as connection:
        connection.row_factory = sqlite3.Row
        for table in schema.metadata.sorted_tables:
            found[table.name] = {}
            for key, row in _rows(connection, table, lost):
                problem = _of_other_type(table, row) or readable(table.name, row)
                if problem is None:
                    found[table.name][key] = row
                else:
                    lost.append(f"a row of {table.name} means nothing: {problem}")
    lost += _unreferred(found)
    return Salvaged({name: list(rows.values()) for name, rows in found.items()}, tuple(lost))


def _connected(file: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{file}?mode=rw", uri=True, timeout=5)
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    return connection


def _rows(
    connection: sqlite3.Connection, table: Table, lost: list[str]
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    keys = [column.name for column in table.primary_key]
    seen = set()
    for order in (asc, desc):
        try:
            for row in connection.execute(str(select(table).order_by(*(order(table.c[name]) for name in keys)))):
                found = dict(row)
                key = tuple(found[name] for name in keys)
                if key not in seen:
                    seen.add(key)
                    yield key, found
        except sqlite3.Error as error:
            if order is desc:
                lost.append(f"{table.name} cannot be read to its end: {error}")
        else:
            return


def _of_other_type(table: Table, row: dict[str, Any]) -> str | None:
    """Which column has a value that is none of its type: SQLite itself takes any."""
    for column in table.columns:
        value, kind = row[column.name], column.type.python_type
        if value is None and column.nullable and not column.primary_key:
            continue
        if type(value) is not (int if kind is bool else kind):
            return f"{column.name} is {value!r}"
    return None


def _unreferred(found: dict[str, _Rows]) -> list[str]:
    """Drop the rows that refer to what is not there, and then those that refer to them."""
    lost: list[str] = []
    again = True
    while again:
        again = False
        for table in schema.metadata.sorted_tables:
            rows = found[table.name]
            for key, row in list(rows.items()):
                missing = [column for column in table.columns if _dangles(found, column, row)]
                if missing:
                    del rows[key]
                    again = True
                    lost.append(f"a row of {table.name} refers to a missing {missing[0].name}: {row[missing[0].name]}")
    return lost


def _dangles(found: dict[str, _Rows], column: Column[Any], row: dict[str, Any]) -> bool:
    return row[column.name] is not None and any(
        (row[column.name],) not in found[key.column.table.name] for key in column.foreign_keys
    )


def rebuild(path: str, what: Salvaged) -> str:
    """Put a new database with these rows in the place of the damaged one, which is kept; the name of that."""
    file, new = os.path.join(path, "isofs.db"), os.path.join(path, "staging", "rebuilt.db")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    database = open_database(new)
    try:
        _fill(database, what)
    finally:
        database.close()
    stem = f"isofs.db.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    kept = next(name for name in names if not os.path.lexists(os.path.join(path, name)))
    for suffix in ("-wal", "-shm", ""):  # the log first: a new database must not be given it
        with contextlib.suppress(FileNotFoundError):
            os.rename(file + suffix, os.path.join(path, kept + suffix))
    os.rename(new, file)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return kept


def _fill(database: Database, what: Salvaged) -> None:
    rows = {name: list(found) for name, found in what.rows.items()}
    highest = max((row["op"] for row in rows["origins"]), default=0)
    stored = [row for row in rows.pop("meta") if row["key"] not in ("next_op", attic.AGES)]  # new numbers may be lower
    counted = [int(row["value"]) for row in what.rows["meta"] if row["key"] == "next_op" and row["value"].isdecimal()]
    next_op = counted[0] if counted and counted[0] > highest else highest + _BEYOND
    database.fill({**rows, "meta": [*stored, {"key": "next_op", "value": str(next_op + OPS_PER_BLOCK)}]})


def unknown(store: Store, known: Callable[[int, str], bool]) -> int:
    """Move contents of versions that are not known into the folder `rescued`; how many there were."""
    count = 0
    for sid in store.known_folders():
        for name in store.contents(sid):
            if not known(sid, name):
                store.rescue(store.content(sid, name), f"{sid}-{name}")
                count += 1
    for name in os.listdir(store.stowed(0).directory):
        place = Place(store.stowed(0).directory, name.encode())
        if not known(0, name) and inodes.exists(place):
            store.rescue(place, f"attic-{name}")
            count += 1
    return count
