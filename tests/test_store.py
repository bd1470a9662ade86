"""The store's promises: what it refuses to open, and that what was written stays written."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

import isofs
from isofs.engine import recovery
from isofs.errors import IsofsError, StoreUnusable
from isofs.model.records import (
    Base,
    Binding,
    Decided,
    Drop,
    Fingerprint,
    Origin,
    Put,
    Record,
    Stowed,
    Subject,
    SubjectState,
    Touch,
    Version,
)
from isofs.model.vectors import G, Vector
from isofs.store import attic, schema
from isofs.store.folder import Store, open_store
from support.records import read

ALICE = Subject(1, 1000, "alice", "2026-01-02T03:04:05Z", "an alert", SubjectState.SUSPECT)
ROOT = Origin(1, stat.S_IFDIR, 2, None, b"", None)
FILE = Origin(2, stat.S_IFREG, 77, 1, b"n\xff\n", Vector.of({G: 3, 1: 0}), next_ino=0)
MADE = Origin(3, stat.S_IFREG, None, None, b"new", None, born=1)
EVERY: list[Record] = [
    ALICE,
    ROOT,
    FILE,
    MADE,
    Version(1, 2, "d", Vector.of({G: 3, 1: "d"}), None, Fingerprint(77, 1 << 62, 1 << 40)),
    Version(1, 3, "m", Vector.of({G: 0, 1: "m"}), "3", None, True),
    Binding(1, 1, b"new", 3, None, True),
    Binding(1, 1, b"n\xff\n", None, 2),
    Touch(1, 1, 1_700_000_000_123_456_789),
    Base(2, 3, 0, "2-3"),
    Decided(1, 2, "keep", Vector.of({G: 3, 1: "d"}), "why", True),
    Decided(1, 3, "take", Vector.of({G: 3, 1: "m"}), "merged", False, "3.merged", 3),
]


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of everything below a folder."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }


def written(path: Path, records: list[Record]) -> Path:
    """A closed store with these records."""
    store = open_store(str(path))
    store.write([Put(record) for record in records])
    store.close()
    return path


def another_version(path: Path) -> None:
    written(path, EVERY)
    with closing(sqlite3.connect(path / "isofs.db")) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")


def another_application(path: Path) -> None:
    path.mkdir(0o700)
    with closing(sqlite3.connect(path / "isofs.db")) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def not_a_database(path: Path) -> None:
    path.mkdir(0o700)
    (path / "isofs.db").write_bytes(b"Dear diary, " * 1000)


def truncated(path: Path) -> None:
    written(path, EVERY)
    os.truncate(path / "isofs.db", 4096)


def open_to_others(path: Path) -> None:
    written(path, EVERY)
    path.chmod(0o750)


def of_another_user(path: Path) -> None:
    written(path, EVERY)
    os.chown(path, 1000, -1)


def foreign_folder(path: Path) -> None:
    path.mkdir(0o700)
    (path / "thesis.tex").write_text("years of work")


def a_file(path: Path) -> None:
    path.write_text("no folder")
    path.chmod(0o700)


def a_link(path: Path) -> None:
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir(0o700)
    path.symlink_to(elsewhere)


def a_damaged_row(path: Path) -> None:
    written(path, EVERY)
    with closing(sqlite3.connect(path / "isofs.db")) as connection, connection:
        connection.execute("UPDATE versions SET state = 'x' WHERE op = 2")


@pytest.mark.parametrize(
    "prepare",
    [
        another_version,
        another_application,
        not_a_database,
        open_to_others,
        of_another_user,
        foreign_folder,
        a_file,
        a_link,
    ],
)
def test_what_is_no_store_of_ours_is_refused_and_left_alone(prepare: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "store"
    prepare(path)
    before = state(tmp_path)
    with pytest.raises(StoreUnusable) as caught:
        open_store(str(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert _without_our_folders(state(tmp_path)) == _without_our_folders(before)


def _without_our_folders(found: dict[str, tuple[int, bytes]]) -> dict[str, tuple[int, bytes]]:
    """Less the empty folders and the lock that any store has: making them is no change that matters."""
    ours = {f"store/{name}" for name in ("lock", "versions", "bases", "attic", "evidence", "audit", "staging")}
    return {name: what for name, what in found.items() if name not in ours}


@pytest.mark.parametrize("prepare", [truncated, a_damaged_row])
def test_a_damaged_database_is_refused_at_the_latest_when_it_is_read(
    prepare: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "store"
    prepare(path)
    before = (path / "isofs.db").read_bytes()
    with pytest.raises(StoreUnusable):
        store_of_main(path, tmp_path)
    assert (path / "isofs.db").read_bytes() == before


def store_of_main(path: Path, main: Path) -> None:
    """Open a store the way that the daemon does."""
    recovery.open_filesystem(open_store(str(path)), str(main))


def test_no_store_is_made_where_none_is_to_be_made(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable):
        open_store(str(tmp_path / "store"), create=False)
    assert state(tmp_path) == {}


def test_a_store_is_opened_by_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "store"
    first = open_store(str(path))
    first.write([Put(ALICE)])
    before = state(path)
    with pytest.raises(StoreUnusable, match="another isofs"):
        open_store(str(path))
    other = subprocess.run([sys.executable, "-c", _OPEN, str(path)], env=_environment(), capture_output=True, text=True)
    assert other.stdout == "StoreRefused\n"
    assert state(path) == before
    first.close()
    open_store(str(path)).close()


_OPEN = """
import sys
from isofs.errors import IsofsError
from isofs.store.folder import open_store
try:
    open_store(sys.argv[1])
except IsofsError as error:
    print(type(error).__name__)
"""


def _environment() -> dict[str, str]:
    root = Path(isofs.__file__).parents[1]
    return {**os.environ, "PYTHONPATH": str(root)}


def test_a_refused_store_can_be_opened_once_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "store"
    open_to_others(path)
    with pytest.raises(IsofsError):
        open_store(str(path))
    path.chmod(0o700)
    open_store(str(path)).close()


def test_a_new_store_is_closed_to_others(tmp_path: Path) -> None:
    os.umask(0)
    open_store(str(tmp_path / "store")).close()
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


def test_a_new_database_is_what_the_schema_says(tmp_path: Path) -> None:
    open_store(str(tmp_path / "store")).close()
    engine = create_engine(f"sqlite:///{tmp_path / 'other'}")
    schema.metadata.create_all(engine)
    engine.dispose()
    made, expected = (_definitions(path) for path in (tmp_path / "store" / "isofs.db", tmp_path / "other"))
    assert made == expected
    assert len(made) > len(schema.metadata.tables)


def _definitions(path: Path) -> set[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return set(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))


def test_every_kind_of_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = open_store(str(written(tmp_path / "store", EVERY)))
    assert read(store) == EVERY
    assert store.database.damage() == []
    store.close()


def test_a_record_of_the_same_key_is_replaced(tmp_path: Path) -> None:
    later = Touch(1, 1, 5)
    store = open_store(str(written(tmp_path / "store", EVERY)))
    store.write([Put(later)])
    assert [r for r in read(store) if isinstance(r, Touch)] == [later]
    store.close()


OLD = Stowed(1, "2026-01-02T03:04:05Z", 1, "alice", b"d/n\xff\n", stat.S_IFREG, "replaced", 1 << 40, True, 2, 77)
LATER = Stowed(5, "2026-01-03T03:04:05Z", 0, "root", b"d/n\xff\n", stat.S_IFDIR, "deleted", 0)


def test_the_attic_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    store = open_store(str(written(tmp_path / "store", [*EVERY, OLD, LATER])))
    database = store.database
    assert read(store) == EVERY
    assert attic.page(database, None, 9) == [LATER, OLD]
    assert attic.page(database, 5, 9) == attic.unsettled(database) == [OLD]
    assert attic.newest(database, OLD.path) == attic.entry(database, 5) == LATER
    assert attic.entry(database, 2) is attic.newest(database, b"d") is None
    assert attic.oldest(database, None, 9) == [LATER]  # the other is being made
    assert attic.oldest(database, LATER.number - 1, 9) == []
    assert (attic.totals(database), attic.numbers(database)) == ((2, 1 << 40), {1, 5})
    store.close()


def test_a_number_of_the_attic_is_never_used_twice(tmp_path: Path) -> None:
    store = open_store(str(written(tmp_path / "store", [OLD, LATER])))
    store.write([Drop(LATER)])
    assert (store.new_number(), store.new_number()) == (6, 7)
    assert attic.totals(store.database) == (1, 1 << 40)
    store.close()


@pytest.mark.parametrize("index", range(len(EVERY)))
def test_every_kind_of_record_can_be_dropped(index: int, tmp_path: Path) -> None:
    record = EVERY[index]
    store = open_store(str(tmp_path / "store"))
    store.write([Put(ALICE), Put(ROOT), Put(FILE), Put(MADE), Put(record)])
    if record in (ALICE, ROOT):  # others refer to them
        store.write([Drop(MADE), Drop(FILE)])
    store.write([Drop(record)])
    assert record not in read(store)
    store.close()


def test_changes_are_made_all_or_none(tmp_path: Path) -> None:
    store = open_store(str(written(tmp_path / "store", EVERY)))
    into_nowhere = Binding(1, 999, b"x", None, None)
    with pytest.raises(StoreUnusable):
        store.write([Drop(Touch(1, 1, 0)), Put(into_nowhere)])
    assert read(store) == EVERY
    store.close()


def test_an_origin_point_is_never_used_twice(tmp_path: Path) -> None:
    used: list[int] = []
    for _ in range(3):
        store = open_store(str(tmp_path / "store"))
        used += [store.new_op() for _ in range(1500)]
        store.close()
    assert len(set(used)) == len(used)
    assert used == sorted(used)


def test_an_origin_point_is_not_used_again_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "store"
    killed = _killed("print(store.new_op(), flush=True)", path)
    store = open_store(str(path))
    assert store.new_op() > int(killed)
    store.close()


def test_rows_survive_a_kill_right_after_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "store"
    _killed("store.write([Put(record) for record in EVERY])", path)
    store = open_store(str(path))
    assert read(store) == EVERY
    store.close()


def _killed(statement: str, path: Path) -> str:
    """What a process printed that opened the store, did this, and was killed at once."""
    program = (
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_store import *\n"
        f"store = open_store({str(path)!r})\n"
        f"{statement}\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=_environment(), capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout


@pytest.fixture
def with_orphans(tmp_path: Path) -> Store:
    """A store in which a killed process left contents that no row knows, beside those that rows know."""
    (tmp_path / "main").mkdir()
    (tmp_path / "main" / "n").write_bytes(b"main's")
    made, file = tmp_path / "main", tmp_path / "main" / "n"
    root = Origin(1, stat.S_IFDIR, made.stat().st_ino, None, b"", None)
    origin = Origin(2, stat.S_IFREG, file.stat().st_ino, 1, b"n", Vector.of({G: 1, 1: 0}))
    version = Version(1, 2, "m", Vector.of({G: 0, 1: "m"}), "2", None)
    store = open_store(str(tmp_path / "store"))
    store.write([Put(r) for r in (ALICE, root, origin, version, Base(2, 0, 0, "2-0"))])
    folders = {"versions/1": ("2", "3"), "versions/7": ("9",), "bases": ("2-0", "2-1")}
    for folder, names in folders.items():
        (tmp_path / "store" / folder).mkdir(exist_ok=True)
        for name in names:
            (tmp_path / "store" / folder / name).write_bytes(name.encode())
    (tmp_path / "store" / "versions" / "1" / "4").mkdir()
    (tmp_path / "store" / "staging" / "1").write_bytes(b"half a copy")
    store.close()
    return open_store(str(tmp_path / "store"))


def test_contents_that_no_row_knows_are_removed_when_the_store_is_opened(with_orphans: Store, tmp_path: Path) -> None:
    fs = recovery.open_filesystem(with_orphans, str(tmp_path / "main"))
    left = {
        name: content
        for name, (mode, content) in state(tmp_path / "store").items()
        if stat.S_ISREG(mode) and "/" in name
    }
    assert left == {"versions/1/2": b"2", "bases/2-0": b"2-0"}
    assert (tmp_path / "main" / "n").read_bytes() == b"main's"
    recovery.close_filesystem(fs)


STORES = Path(__file__).parent / "stores"

#: A record of each kind as the first version wrote them.
FIRST = [record for record in EVERY if not (isinstance(record, Decided) and record.content)]


def stored(path: Path, version: int) -> Path:
    """A store as an isofs of that version left it."""
    written(path, [])
    (path / "isofs.db").unlink()
    with closing(sqlite3.connect(path / "isofs.db")) as connection:
        connection.executescript((STORES / f"version-{version}.sql").read_text())
        connection.execute("PRAGMA journal_mode = WAL")
    return path


def columns(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path / "isofs.db")) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: list(connection.execute(f"PRAGMA table_info({name})")) for name in tables}


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_stores_of_older_versions_are_brought_to_this_one(version: int, tmp_path: Path) -> None:
    path = stored(tmp_path / "old", version)
    for _ in range(2):
        store = open_store(str(path))
        assert read(store) == (FIRST if version == 1 else EVERY)
        store.close()
    assert columns(path) == columns(written(tmp_path / "new", []))


def test_every_older_version_is_stored() -> None:
    assert {path.name for path in STORES.iterdir()} == {f"version-{n}.sql" for n in range(1, schema.VERSION)}
