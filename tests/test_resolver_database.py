"""Databases that sqlite3 wrote, merged row by row."""

from __future__ import annotations

import pytest

from isofs.merge.resolvers import database as module
from isofs.merge.resolvers.base import Inputs, Merged, Unresolved, propose, resolver
from support.merging import database, merge, merged, query

BASE = database(
    """
    CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
    CREATE TABLE plain(x);
    CREATE TABLE named(k TEXT COLLATE NOCASE PRIMARY KEY, v COLLATE NOCASE) WITHOUT ROWID;
    CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, x);
    CREATE TABLE child(id INTEGER PRIMARY KEY, t REFERENCES t(id));
    CREATE TABLE unlike(id INTEGER PRIMARY KEY, u UNIQUE);
    CREATE INDEX by_a ON t(a);
    CREATE TRIGGER logged AFTER INSERT ON t BEGIN INSERT INTO plain VALUES ('row ' || new.id); END;
    INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2), (3, 'three', 3);
    INSERT INTO named VALUES ('a', 'b');
    INSERT INTO counted(x) VALUES (1);
    """
)


def _merge(mine: str, theirs: str) -> Merged | Unresolved:
    main, suspect = database(mine, BASE), database(theirs, BASE)
    proposal = merge("sqlite", BASE, main, suspect)
    assert type(merge("sqlite", BASE, suspect, main)) is type(proposal)
    assert isinstance(proposal, (Merged, Unresolved))
    return proposal


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("UPDATE t SET a = 'ONE' WHERE id = 1", "UPDATE t SET b = 9 WHERE id = 2"),
        ("INSERT INTO named VALUES ('m', 'n')", "INSERT INTO t VALUES (9, x'00ff', NULL)"),
        ("DELETE FROM t WHERE id = 3", "DELETE FROM t WHERE id = 3; UPDATE t SET b = 2.5 WHERE id = 1"),
        ("UPDATE t SET b = 7 WHERE id = 1", "INSERT INTO plain VALUES (1), (1), (NULL)"),
        ("PRAGMA journal_mode = wal; DELETE FROM t WHERE id = 3", "UPDATE t SET a = 'x' WHERE id = 1"),
        ("ANALYZE; DELETE FROM t WHERE id = 3", "UPDATE t SET a = 'x' WHERE id = 1"),
    ],
)
def test_rows_of_both_sides_are_in_the_result(mine: str, theirs: str) -> None:
    proposal = _merge(mine, theirs)
    assert isinstance(proposal, Merged)
    everything = "; ".join(f"SELECT * FROM {name}" for name in ("t", "plain", "named", "counted", "child"))
    done = database(f"{mine}; {theirs}".replace("PRAGMA journal_mode = wal;", ""), BASE)
    assert query(proposal.content, everything) == query(done, everything)
    assert query(proposal.content, "PRAGMA integrity_check") == ["ok"]
    assert query(proposal.content, "SELECT a FROM t INDEXED BY by_a WHERE a > ''") == query(
        done, "SELECT a FROM t INDEXED BY by_a WHERE a > ''"
    )


@pytest.mark.parametrize(
    ("mine", "theirs", "reason"),
    [
        ("UPDATE t SET a = 'x' WHERE id = 1", "UPDATE t SET b = 9 WHERE id = 1", "the row 1 of t"),
        ("UPDATE t SET a = 'x' WHERE id = 1", "DELETE FROM t WHERE id = 1", "the row 1 of t"),
        ("INSERT INTO t VALUES (9, 1, 1)", "INSERT INTO t VALUES (9, 2, 2)", "the row 9 of t"),
        ("INSERT INTO counted(x) VALUES (5)", "INSERT INTO counted(x) VALUES (6)", "the row 2 of counted"),
        ("INSERT INTO unlike VALUES (1, 'u')", "INSERT INTO unlike VALUES (2, 'u')", "of unlike does not fit"),
        ("DELETE FROM t WHERE id = 3", "INSERT INTO child VALUES (1, 3)", "references"),
        ("CREATE TABLE new(x)", "DELETE FROM t WHERE id = 3", "main changed the schema"),
        ("DELETE FROM t WHERE id = 3", "DROP INDEX by_a", "alice changed the schema"),
        ("DELETE FROM t WHERE id = 3", "PRAGMA user_version = 5", "alice changed the schema"),
        # The comparison of this column does not tell the two apart.
        ("DELETE FROM t WHERE id = 3", "UPDATE named SET v = 'B'", "cannot be told row by row"),
    ],
)
def test_what_stands_against_a_merge(mine: str, theirs: str, reason: str) -> None:
    proposal = _merge(mine, theirs)
    assert isinstance(proposal, Unresolved)
    assert reason in proposal.reasons[0]


def test_a_number_that_was_given_away_is_not_given_again() -> None:
    main = database("UPDATE t SET b = 5 WHERE id = 1", BASE)
    suspect = database("INSERT INTO counted(x) VALUES (8), (9); DELETE FROM counted WHERE x = 9", BASE)
    again = database("INSERT INTO counted(x) VALUES (10)", merged("sqlite", BASE, main, suspect))
    assert query(again, "SELECT id FROM counted") == ["1", "2", "4"]


def test_virtual_tables_are_refused() -> None:
    base = database("CREATE VIRTUAL TABLE words USING fts5(w); CREATE TABLE t(a PRIMARY KEY)")
    main, suspect = (database(f"INSERT INTO t VALUES ({n})", base) for n in (1, 2))
    assert isinstance(merge("sqlite", base, main, suspect), Unresolved)


def test_damaged_files_are_refused() -> None:
    main = database("DELETE FROM t WHERE id = 3", BASE)
    for at in range(0, len(BASE), 997):
        broken = BASE[:at] + bytes(255 - byte for byte in BASE[at : at + 64]) + BASE[at + 64 :]
        proposal = merge("sqlite", BASE, main, broken)
        assert isinstance(proposal, Unresolved) or query(proposal.content, "PRAGMA integrity_check") == ["ok"]  # type: ignore[union-attr]
    assert isinstance(merge("sqlite", BASE, main, BASE[: len(BASE) // 2]), Unresolved)


def test_a_write_ahead_log_beside_it_is_part_of_it() -> None:
    assert b"-wal" in resolver("sqlite").companions
    main, suspect = (database(f"DELETE FROM t WHERE id = {n}", BASE) for n in (1, 2))
    inputs = Inputs(b"x.db", BASE, main, suspect, companions=(b"x.db-wal",))
    proposal = propose(resolver("sqlite"), inputs)
    assert isinstance(proposal, Unresolved)
    assert "x.db-wal" in proposal.reasons[0]


def test_work_on_a_database_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS", 0)
    main, suspect = (
        database(
            f"WITH RECURSIVE c(x) AS (SELECT {n} UNION ALL SELECT x + 2 FROM c WHERE x < 9999) "
            "INSERT INTO t SELECT x + 10, x, x FROM c",
            BASE,
        )
        for n in (1, 2)
    )
    proposal = merge("sqlite", BASE, main, suspect)
    assert isinstance(proposal, Unresolved)
    assert "interrupted" in proposal.reasons[0].lower()
