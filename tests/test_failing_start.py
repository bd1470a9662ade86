"""A store that cannot be used when it is opened: who is shut out, and that nobody who is isolated comes to main."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isofs.engine import recovery, suspicion
from isofs.engine.state import Caller, Filesystem
from isofs.errors import StoreRefused
from isofs.service.opening import opened
from isofs.store.folder import open_store
from support.engine import Kernel, Walker
from support.host import Host
from support.trees import differences, tree
from test_engine_machine import outcome

ALICE, BOB = 4001, 4002
SINCE = "2026-01-02T03:04:05Z"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory `main` and its `store`, in which alice is isolated and has changed, made and deleted something."""
    main, store = tmp_path / "main", tmp_path / "store"
    main.mkdir()
    for name in ("changed", "deleted", "kept"):
        (main / name).write_text("main's")
    with engine(tmp_path) as fs:
        suspicion.suspect(fs, ALICE, "alice", "an alert", SINCE)
        alice = user(fs, ALICE)
        alice.write(b"changed", b"alice's", os.O_WRONLY | os.O_TRUNC)
        alice.write(b"new", b"alice's", os.O_WRONLY | os.O_CREAT)
        alice.unlink(b"deleted")
        assert tree(alice).keys() == {b"changed", b"kept", b"new"}
    assert (store / "suspects").exists()
    return tmp_path


@contextmanager
def engine(place: Path, **how: bool) -> Iterator[Filesystem]:
    fs = opened(str(place / "main"), str(place / "store"), **how)
    try:
        yield fs
    finally:
        recovery.close_filesystem(fs)


def user(fs: Filesystem, uid: int) -> Walker:
    return Walker(Kernel(fs), Caller(uid, uid, uid))


def database(place: Path) -> Path:
    return place / "store" / "isofs.db"


def text(place: Path) -> None:
    database(place).write_text("This is no database.\n" * 100)


def emptied(place: Path) -> None:
    os.truncate(database(place), 0)


def cut_in_half(place: Path) -> None:
    os.truncate(database(place), database(place).stat().st_size // 2)


def flipped(place: Path) -> None:
    """Every hundredth byte is another, behind the header, which says what kind of file it is."""
    content = bytearray(database(place).read_bytes())
    for at in range(100, len(content), 100):
        content[at] ^= 0xFF
    database(place).write_bytes(content)


def flipped_header(place: Path) -> None:
    content = bytearray(database(place).read_bytes())
    content[60:80] = bytes(byte ^ 0x55 for byte in content[60:80])
    database(place).write_bytes(content)


def gone(place: Path) -> None:
    database(place).unlink()


def of_a_later_version(place: Path) -> None:
    with sqlite3.connect(database(place)) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def a_new_one(place: Path) -> None:
    """Somebody put a sound database there, which knows of nobody."""
    database(place).unlink()
    open_store(str(place / "other")).close()
    shutil.copy(place / "other" / "isofs.db", database(place))


def a_missing_row(place: Path) -> None:
    """The database is sound for SQLite, but does not know alice any more."""
    with sqlite3.connect(database(place)) as connection:
        for table in ("versions", "bindings", "touches", "subjects"):
            connection.execute(f"DELETE FROM {table}")
    connection.close()


def a_directory(place: Path) -> None:
    database(place).unlink()
    database(place).mkdir()


DAMAGES = [
    text, emptied, cut_in_half, flipped, flipped_header, gone, of_a_later_version, a_new_one, a_missing_row, a_directory
]  # fmt: skip


def shut_out(fs: Filesystem, uid: int) -> None:
    """Whatever the user tries fails with EIO."""
    at = user(fs, uid)
    tries: list[Callable[[], object]] = [
        lambda: at.stat(b""),
        lambda: at.stat(b"kept"),
        lambda: at.read(b"changed"),
        lambda: at.listdir(b""),
        lambda: at.xattrs(b"kept"),
        lambda: at.write(b"kept", b"!", os.O_WRONLY),
        lambda: at.write(b"made", b"!", os.O_WRONLY | os.O_CREAT),
        lambda: at.mkdir(b"made"),
        lambda: at.symlink(b"kept", b"made"),
        lambda: at.unlink(b"kept"),
        lambda: at.rename(b"kept", b"moved", 0),
        lambda: at.link(b"kept", b"linked"),
        lambda: at.chmod(b"kept", 0o777),
        lambda: at.truncate(b"kept", 0),
        lambda: at.set_xattr(b"kept", "user.x", b"!"),
    ]
    assert [outcome(attempt) for attempt in tries] == ["EIO"] * len(tries)


def goes_on(fs: Filesystem, main: Path, uid: int) -> None:
    """The user works on main as on a plain directory."""
    at, twin = user(fs, uid), Host(os.fsencode(main))
    assert at.read(b"changed") == b"main's"
    at.write(b"kept", b"bob's", os.O_WRONLY | os.O_TRUNC)
    at.mkdir(b"d")
    at.rename(b"deleted", b"d/moved", 0)
    at.unlink(b"changed")
    assert twin.read(b"kept") == b"bob's"
    assert sorted(tree(twin)) == [b"d", b"d/moved", b"kept"]
    assert not differences(tree(at), tree(twin))


@pytest.mark.parametrize("damage", DAMAGES)
def test_who_is_isolated_is_shut_out_and_everybody_else_goes_on(place: Path, damage: Callable[[Path], None]) -> None:
    damage(place)
    before = {path: path.read_bytes() for path in (place / "store").rglob("*") if path.is_file()}
    with engine(place) as fs:
        assert fs.failure is not None
        assert fs.failure.isolated == frozenset({ALICE})
        assert fs.failure.reason
        shut_out(fs, ALICE)
        goes_on(fs, place / "main", BOB)
    kept = {path: path.read_bytes() for path in before if path.exists() and "isofs.db" not in path.name}
    assert kept == {path: content for path, content in before.items() if "isofs.db" not in path.name}


def a_lost_list(place: Path) -> None:
    (place / "store" / "suspects").unlink()


def a_damaged_list(place: Path) -> None:
    path = place / "store" / "suspects"
    path.write_bytes(path.read_bytes().replace(b"4001", b"4002"))


@pytest.mark.parametrize("damage", [a_lost_list, a_damaged_list])
def test_if_nothing_says_who_is_isolated_only_root_is_served(place: Path, damage: Callable[[Path], None]) -> None:
    text(place)
    damage(place)
    with engine(place) as fs:
        assert fs.failure is not None
        assert fs.failure.isolated is None
        shut_out(fs, ALICE)
        shut_out(fs, BOB)
        goes_on(fs, place / "main", 0)


def test_the_operator_may_trust_everybody(place: Path) -> None:
    text(place)
    a_lost_list(place)
    with engine(place, trust_everybody=True) as fs:
        goes_on(fs, place / "main", ALICE)


@pytest.mark.parametrize("damage", [a_lost_list, a_damaged_list])
def test_a_list_is_made_anew_from_a_sound_database(place: Path, damage: Callable[[Path], None]) -> None:
    sound = (place / "store" / "suspects").read_bytes()
    damage(place)
    with engine(place) as fs:
        assert fs.failure is None
        assert user(fs, ALICE).read(b"changed") == b"alice's"
    assert (place / "store" / "suspects").read_bytes() == sound


def test_a_store_that_is_mended_is_as_it_was(place: Path) -> None:
    sound = database(place).read_bytes()
    text(place)
    with engine(place) as fs:
        shut_out(fs, ALICE)
    database(place).write_bytes(sound)
    with engine(place) as fs:
        assert fs.failure is None
        assert tree(user(fs, ALICE)).keys() == {b"changed", b"kept", b"new"}


def test_the_list_follows_suspicions_and_verdicts(place: Path) -> None:
    from isofs.merge import apply

    with engine(place) as fs:
        suspicion.suspect(fs, BOB, "bob", "", SINCE)
        assert fs.store.known() is not None
        assert fs.store.known().possible == {ALICE, BOB}  # type: ignore[union-attr]
        apply.malicious(fs, fs.suspects[ALICE])
        assert fs.store.known().possible == {BOB}  # type: ignore[union-attr]


def test_a_suspicion_that_cannot_be_listed_is_none(place: Path) -> None:
    """Else a later damage of the database would set the user free."""
    with engine(place) as fs:
        (place / "store" / "suspects.new").mkdir()
        before = dict(fs.suspects)
        with pytest.raises(Exception, match="cannot be written"):
            suspicion.suspect(fs, BOB, "bob", "", SINCE)
        assert fs.suspects == before
        (place / "store" / "suspects.new").rmdir()
    with engine(place) as fs:
        assert fs.suspects == before


@pytest.mark.parametrize("prepare", [lambda p: p.mkdir(0o755), lambda p: (p.mkdir(0o700), (p / "x").touch())])
def test_what_never_was_a_store_is_refused(tmp_path: Path, prepare: Callable[[Path], object]) -> None:
    (tmp_path / "main").mkdir()
    prepare(tmp_path / "store")
    with pytest.raises(StoreRefused):
        opened(str(tmp_path / "main"), str(tmp_path / "store"))


def test_directories_that_nobody_watched_are_counted_as_changed(place: Path) -> None:
    """Main's directory was changed while the store failed: alice's change of it is a conflict, and not main's."""
    from isofs.engine import failure
    from isofs.errors import StoreUnusable
    from isofs.merge import apply

    with engine(place) as fs:
        user(fs, BOB).mkdir(b"d")
        user(fs, ALICE).chmod(b"d", 0o700)
    with engine(place) as fs:
        failure.fail(fs, StoreUnusable("the disk is gone"))
        user(fs, BOB).chmod(b"d", 0o711)
        shut_out(fs, ALICE)
    with engine(place) as fs:
        assert fs.failure is None
        report = apply.innocent(fs, fs.suspects[ALICE])
        assert [item.path for item in report.items if item.action == "conflict"] == [b"d"]
        assert (place / "main" / "d").stat().st_mode & 0o777 == 0o711
