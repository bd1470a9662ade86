"""SQLite databases: the suspect's changes since the base, row by row, applied to main's.

The files may be anybody's: they are opened in memory, with nothing of their schema trusted, and work on them is
bounded in SQLite's own steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import apsw

from isofs.merge.resolvers.base import Inputs, Merged, Options, Proposal, Unresolved, register, shown

_MAGIC = b"SQLite format 3\0"
_WAL_VERSIONS = slice(18, 20)  # 2 and 2 in write-ahead mode, which a database in memory cannot have

#: Thousands of steps of SQLite's virtual machine on one connection.
STEPS = 200_000

_SCHEMA = """
    SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%' ORDER BY type, name
"""

#: A changed row: the table, and the values of its primary key.
Row = tuple[str, tuple[object, ...]]
#: What was done with it.
Done = tuple[str, tuple[object, ...] | None]


class Refused(Exception):
    """The databases are not merged, and why."""


@register(
    "sqlite",
    "SQLite databases: the suspect's rows applied to main's; a row changed on both sides is left unresolved",
    needs_base=True,
    fits=lambda content, options: content.startswith(_MAGIC),
    limit=128 << 20,
    companions=(b"-wal", b"-journal"),
)
def merge_databases(inputs: Inputs, options: Options) -> Proposal:
    """Main's database with the suspect's rows. Unresolved if any row, constraint or schema stands against it."""
    assert inputs.base is not None
    if not all(side.startswith(_MAGIC) for side in inputs.sides):
        return Unresolved(("sqlite: not all contents are SQLite databases",))
    try:
        return _merge(inputs, inputs.base)
    except Refused as why:
        return Unresolved((f"sqlite: {why}",))
    except (apsw.Error, MemoryError, UnicodeError) as why:
        return Unresolved((f"sqlite: the databases cannot be worked with: {why}",))


def _merge(inputs: Inputs, base: bytes) -> Proposal:
    tables = _tables(base, inputs)
    mine, theirs = _changeset(base, inputs.main, tables), _changeset(base, inputs.suspect, tables)
    here, there = _rows(mine), _rows(theirs)
    clashes = [row for row in there if row in here and here[row] != there[row]]
    if clashes:
        told = tuple(f"sqlite: {inputs.main_name} and {inputs.suspect_name} changed {_told(row)}" for row in clashes)
        return Unresolved(told[:10])
    merged = _open(inputs.main)
    before = _broken_references(merged)
    _apply(theirs, merged, lambda change: _key(change) not in here)
    _advance_sequences(merged, inputs.suspect)
    if _broken_references(merged) - before:
        raise Refused("together, the changes leave references to rows that are gone")
    _check(merged, "the merged database")
    content = bytearray(merged.serialize("main"))
    content[_WAL_VERSIONS] = inputs.main[_WAL_VERSIONS]
    return Merged(bytes(content), (f"sqlite: {len(there.keys() - here.keys())} rows of {inputs.suspect_name} applied",))


def _open(content: bytes) -> apsw.Connection:
    db = apsw.Connection(":memory:")
    _load(db, "main", content)
    for setting, value in (
        (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
        (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
        (apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0),  # what triggers did is among the changes
        (apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0),
    ):
        db.config(setting, value)
    left = STEPS

    def too_long() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    db.set_progress_handler(too_long, 1000)
    return db


def _load(db: apsw.Connection, name: str, content: bytes) -> None:
    copy = bytearray(content)
    if copy[_WAL_VERSIONS] == b"\2\2":
        copy[_WAL_VERSIONS] = b"\1\1"
    db.deserialize(name, bytes(copy))


def _tables(base: bytes, inputs: Inputs) -> list[str]:
    """The tables, if all three databases have the same schema and are sound."""
    schemas = []
    for name, content in (("the base", base), (inputs.main_name, inputs.main), (inputs.suspect_name, inputs.suspect)):
        db = _open(content)
        schema = db.execute(_SCHEMA).fetchall()
        numbers = tuple(db.pragma(pragma) for pragma in ("user_version", "application_id", "encoding"))
        _check(db, f"the database of {name}")
        schemas.append((schema, numbers))
    for name, found in ((inputs.main_name, schemas[1]), (inputs.suspect_name, schemas[2])):
        if found != schemas[0]:
            raise Refused(f"{name} changed the schema")
    tables = []
    for kind, table, _, sql in schemas[0][0]:
        if kind == "table" and str(sql).upper().startswith("CREATE VIRTUAL"):
            raise Refused(f"the table {shown(str(table).encode())} is a virtual one")
        if kind == "table" and not str(table).startswith("sqlite_"):
            tables.append(str(table))
    return tables


def _check(db: apsw.Connection, name: str) -> None:
    if db.pragma("integrity_check") != "ok":
        raise Refused(f"{name} is damaged")


def _changeset(base: bytes, side: bytes, tables: Sequence[str]) -> bytes:
    """What makes `side` of `base`: proved by doing it, because a changeset does not tell all differences."""
    db = _open(side)
    db.execute("ATTACH ':memory:' AS base")
    _load(db, "base", base)
    session = apsw.Session(db, "main")
    session.config(apsw.SQLITE_SESSION_OBJCONFIG_ROWID, 1)  # tables without a primary key have their row ids
    for table in tables:
        session.attach(table)
        session.diff("base", table)
    changes = session.changeset()
    session.close()
    made = _open(base)
    _apply(changes, made, lambda change: True)
    for table in tables:
        if any(a != b for a, b in _pairs(_contents(made, table), _contents(db, table))):
            raise Refused(f"the changes of {shown(table.encode())} cannot be told row by row")
    return changes


def _contents(db: apsw.Connection, table: str) -> Iterator[object]:
    """The rows of a table, each with its key and with the type of every value."""
    columns = [str(column[1]) for column in db.execute(f"PRAGMA main.table_xinfo({_quoted(table)})")]
    keys = [str(c[1]) for c in db.execute(f"PRAGMA main.table_info({_quoted(table)})") if c[5]]
    order = ", ".join(_quoted(key) for key in keys) or "rowid"
    listed = ", ".join(f"quote({_quoted(column)})" for column in columns)
    if not keys:
        listed += ", rowid"
    return iter(db.execute(f"SELECT {listed} FROM main.{_quoted(table)} ORDER BY {order}"))


def _pairs(first: Iterator[object], second: Iterator[object]) -> Iterator[tuple[object, object]]:
    """Like `zip`, with a pair of unequal things where one of the two goes on."""
    end = object()
    while True:
        pair = next(first, end), next(second, None)
        if pair[0] is end and pair[1] is None:
            return
        yield pair


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _rows(changes: bytes) -> dict[Row, Done]:
    return {_key(change): (change.op, change.new) for change in apsw.Changeset.iter(changes)}


def _key(change: apsw.TableChange) -> Row:
    values = change.new if change.old is None else change.old
    assert values is not None
    key = tuple(value for at, value in enumerate(values) if at in change.pk_columns)
    return change.name, key


def _apply(changes: bytes, db: apsw.Connection, wanted: Callable[[apsw.TableChange], bool]) -> None:
    stopped: list[str] = []

    def conflict(kind: int, change: apsw.TableChange) -> int:
        if kind == apsw.SQLITE_CHANGESET_FOREIGN_KEY:
            return apsw.SQLITE_CHANGESET_OMIT  # references are checked as a whole
        stopped.append(_told(_key(change)))
        return apsw.SQLITE_CHANGESET_ABORT

    try:
        apsw.Changeset.apply(changes, db, filter_change=wanted, conflict=conflict)
    except apsw.AbortError:
        raise Refused(f"a change of {stopped[-1] if stopped else 'a row'} does not fit into the other side's") from None


def _advance_sequences(db: apsw.Connection, suspect: bytes) -> None:
    """An AUTOINCREMENT number that either side gave away is not given again."""
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'").fetchall():
        return
    for name, number in _open(suspect).execute("SELECT name, seq FROM sqlite_sequence").fetchall():
        db.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (number, name))


def _broken_references(db: apsw.Connection) -> set[tuple[object, ...]]:
    return set(db.execute("PRAGMA foreign_key_check").fetchall())


def _told(row: Row) -> str:
    table, key = row
    return shown(f"the row {', '.join(map(repr, key))} of {table}".encode(errors="backslashreplace"), 120)
