"""Repairs: every damage is found, and mended without losing a content or deciding what a verdict has to decide."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from isofs.engine import checks, reading, recovery, suspicion
from isofs.engine.checks import Fault
from isofs.engine.repairs import Repair, repair, repairs
from isofs.engine.state import Caller, Filesystem
from isofs.errors import Exit, StoreUnusable
from isofs.merge import apply
from isofs.service import resting
from isofs.store.folder import open_store
from support.command import refused
from support.engine import Kernel, Walker
from support.mount import ALICE, Person, isoctl, mounted
from support.records import read

BOB = 61002

NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def user(kernel: Kernel, uid: int) -> Walker:
    return Walker(kernel, Caller(uid, uid, uid))


class World:
    """A store with versions, names and an attic, at rest; whatever a test does to it."""

    def __init__(self, place: Path) -> None:
        self.main, self.store = place / "main", place / "main/.isofs"
        self.main.mkdir(parents=True)
        fs = recovery.open_filesystem(open_store(str(self.store)), str(self.main))
        kernel = Kernel(fs)
        alice, bob = user(kernel, ALICE), user(kernel, BOB)
        for name in (b"file", b"gone", b"renamed", b"replaced"):
            bob.write(name, b"main's " + name, NEW)
        bob.mkdir(b"dir")
        suspicion.suspect(fs, ALICE, "carol", "", "2026-01-01T00:00:00Z")
        alice.write(b"replaced", b"carol's", NEW)
        apply.innocent(fs, 1)
        suspicion.suspect(fs, ALICE, "alice", "", "2026-01-01T00:00:00Z")
        alice.write(b"file", b"hers", NEW)
        alice.unlink(b"gone")
        alice.rename(b"renamed", b"dir/other")
        alice.write(b"new", b"new", NEW)
        alice.mkdir(b"own")
        alice.write(b"own/deep", b"deep", NEW)
        kernel.close()
        assert not checks.check(fs)
        self.sid = next(iter(fs.views))
        recovery.close_filesystem(fs)

    def sql(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.store / "isofs.db")) as connection, connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            assert connection.execute(statement, values).rowcount, statement

    def op(self, name: bytes) -> int:
        """The origin point behind a name of alice's."""
        with closing(sqlite3.connect(self.store / "isofs.db")) as connection:
            found = connection.execute(
                "SELECT op FROM origins WHERE name = ? UNION SELECT op FROM bindings WHERE name = ? AND op IS NOT NULL",
                (name, name),
            ).fetchone()
        return int(found[0])

    def content(self, name: bytes) -> Path:
        return self.store / "versions" / str(self.sid) / str(self.op(name))

    def loaded(self) -> Filesystem:
        return reading.load(open_store(str(self.store)), str(self.main))

    def everything(self) -> set[bytes]:
        """Every content in the store, whoever knows it."""
        files = [path for path in self.store.rglob("*") if path.is_file() and not path.name.startswith("isofs.db")]
        return {path.read_bytes() for path in files}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def deleted_with_content(world: World) -> None:
    path = world.content(b"gone")
    path.write_bytes(b"why")
    world.sql("UPDATE versions SET content = ? WHERE op = ?", path.name, world.op(b"gone"))


def content_missing(world: World) -> None:
    world.content(b"file").rename(world.store / "versions/elsewhere")


def own_content_missing(world: World) -> None:
    world.content(b"new").rename(world.store / "versions/elsewhere")


def content_of_other_type(world: World) -> None:
    content_missing(world)
    world.content(b"file").mkdir()


def content_linked(world: World) -> None:
    os.link(world.content(b"file"), world.main / "stolen")


def content_unknown(world: World) -> None:
    (world.store / "versions" / str(world.sid) / "4711").write_bytes(b"whose?")


def vector_unneeded(world: World) -> None:
    world.sql("UPDATE origins SET vector = '{\"0\": 3}' WHERE op = ?", world.op(b"dir"))


def vector_missing(world: World) -> None:
    world.sql("UPDATE origins SET vector = NULL WHERE op = ?", world.op(b"file"))


def vector_ahead(world: World) -> None:
    world.sql("UPDATE versions SET vector = ? WHERE op = ?", f'{{"0": 9, "{world.sid}": "m"}}', world.op(b"file"))


def vector_of_other_state(world: World) -> None:
    world.sql("UPDATE versions SET vector = ? WHERE op = ?", f'{{"0": 0, "{world.sid}": "d"}}', world.op(b"file"))


def vector_of_main(world: World) -> None:
    world.sql("UPDATE origins SET vector = ? WHERE op = ?", f'{{"0": 0, "{world.sid}": "m"}}', world.op(b"file"))


def name_in_a_file(world: World) -> None:
    world.sql("UPDATE bindings SET directory = ? WHERE name = ?", world.op(b"file"), b"new")


def name_of_deleted(world: World) -> None:
    world.sql("UPDATE bindings SET op = ? WHERE name = ?", world.op(b"gone"), b"other")


def two_names(world: World) -> None:
    world.sql(
        "INSERT INTO bindings SELECT sid, directory, ?, op, NULL, 0 FROM bindings WHERE name = ?", b"own2", b"own"
    )


def version_lost(world: World) -> None:
    world.sql("DELETE FROM bindings WHERE name = ?", b"new")


def main_moved(world: World) -> None:
    (world.main / "file").rename(world.main / "dir/moved")


def main_gone(world: World) -> None:
    (world.main / "file").unlink()


def stowed_missing(world: World) -> None:
    next((world.store / "attic").iterdir()).unlink()


def stowed_of_other_type(world: World) -> None:
    path = next((world.store / "attic").iterdir())
    path.rename(world.store / "versions/aside")
    path.mkdir()


def stowed_linked(world: World) -> None:
    os.link(next((world.store / "attic").iterdir()), world.main / "stolen")


def stowed_unknown(world: World) -> None:
    (world.store / "attic/99").write_bytes(b"whose?")


DAMAGES: dict[Callable[[World], None], Fault] = {
    deleted_with_content: Fault.CONTENT_OF_DELETED,
    content_missing: Fault.CONTENT_MISSING,
    own_content_missing: Fault.CONTENT_MISSING,
    content_of_other_type: Fault.CONTENT_OF_OTHER_TYPE,
    content_linked: Fault.CONTENT_LINKED,
    content_unknown: Fault.CONTENT_UNKNOWN,
    vector_unneeded: Fault.VECTOR_UNNEEDED,
    vector_missing: Fault.VECTOR_MISSING,
    vector_ahead: Fault.VECTOR_WRONG,
    vector_of_other_state: Fault.VECTOR_WRONG,
    vector_of_main: Fault.VECTOR_WRONG,
    name_in_a_file: Fault.BINDING_WRONG,
    name_of_deleted: Fault.BINDING_WRONG,
    two_names: Fault.NAMES_TOO_MANY,
    version_lost: Fault.VERSION_LOST,
    main_moved: Fault.MAIN_ELSEWHERE,
    main_gone: Fault.MAIN_ELSEWHERE,
    stowed_missing: Fault.STOWED_MISSING,
    stowed_of_other_type: Fault.STOWED_OF_OTHER_TYPE,
    stowed_linked: Fault.STOWED_LINKED,
    stowed_unknown: Fault.STOWED_UNKNOWN,
}


def test_every_fault_that_can_be_repaired_has_a_damage_here() -> None:
    assert set(DAMAGES.values()) == set(Fault) - {Fault.DATABASE, Fault.LIVE}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damage_is_found_and_mended_and_no_content_is_lost(world: World, damage: Callable[[World], None]) -> None:
    damage(world)
    before = world.everything()
    tree = {path.name: path.read_bytes() for path in world.main.iterdir() if path.is_file()}
    fs = world.loaded()
    assert DAMAGES[damage] in {one.problem.fault for one in repairs(fs)}
    made, left = repair(fs, lambda one: True)
    assert made
    assert not left
    recovery.close_filesystem(fs)
    assert before - world.everything() == set()
    assert tree == {path.name: path.read_bytes() for path in world.main.iterdir() if path.is_file()}
    fs = recovery.open_filesystem(open_store(str(world.store)), str(world.main))
    assert not checks.check(fs)
    assert before - world.everything() == set()
    apply.innocent(fs, world.sid)  # whatever was damaged, a verdict can be carried out
    assert not checks.check(fs)
    recovery.close_filesystem(fs)


@pytest.mark.parametrize("damage", list(DAMAGES)[::3], ids=lambda damage: damage.__name__)
def test_a_repair_that_is_refused_changes_nothing(world: World, damage: Callable[[World], None]) -> None:
    damage(world)
    fs = world.loaded()
    before = read(fs.store), world.everything()
    asked: list[Repair] = []

    def refuse(one: Repair) -> bool:
        asked.append(one)
        return False

    made, left = repair(fs, refuse)
    assert asked
    assert (made, left) == ([], checks.check(fs))
    assert (read(fs.store), world.everything()) == before
    recovery.close_filesystem(fs)


def test_a_vector_that_cannot_be_known_is_a_conflict_and_not_a_decision(world: World) -> None:
    """Main must not be overwritten, because nobody knows any more whether it was changed."""
    vector_missing(world)
    assert resting.repair(str(world.main), None, lambda one: True)["ok"]
    fs = recovery.open_filesystem(open_store(str(world.store)), str(world.main))
    apply.innocent(fs, world.sid)
    assert (world.main / "file").read_bytes() == b"main's file"
    assert world.content(b"file").read_bytes() == b"hers"
    recovery.close_filesystem(fs)


# Databases


def flipped(world: World) -> None:
    """A page in the middle is rubbish."""
    path = world.store / "isofs.db"
    data = bytearray(path.read_bytes())
    at = len(data) // 4096 // 2 * 4096
    data[at : at + 4096] = os.urandom(4096)
    path.write_bytes(data)


def cut(world: World) -> None:
    path = world.store / "isofs.db"
    os.truncate(path, path.stat().st_size // 4096 // 2 * 4096)


def header_gone(world: World) -> None:
    with open(world.store / "isofs.db", "r+b") as file:
        file.write(bytes(100))


def no_subject(world: World) -> None:
    world.sql("DELETE FROM subjects WHERE sid = ?", world.sid)


def no_directory(world: World) -> None:
    world.sql("DELETE FROM origins WHERE name = ?", b"dir")


def senseless_state(world: World) -> None:
    world.sql("UPDATE versions SET state = 'x' WHERE op = ?", world.op(b"file"))


def senseless_vector(world: World) -> None:
    world.sql("UPDATE versions SET vector = 'rubbish' WHERE op = ?", world.op(b"file"))


def number_of_text(world: World) -> None:
    world.sql("UPDATE origins SET ino = 'many' WHERE op = ?", world.op(b"file"))


BROKEN = (flipped, cut, header_gone, no_subject, no_directory, senseless_state, senseless_vector, number_of_text)


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_a_damaged_database_is_rebuilt_of_what_can_be_read(world: World, damage: Callable[[World], None]) -> None:
    """The damaged one is kept, no content is lost, and what could be read is as it was."""
    damage(world)
    before, damaged = world.everything(), (world.store / "isofs.db").read_bytes()
    checked = resting.check(str(world.main), None)
    assert not checked["ok"]
    assert checked["problems"][0]["invariant"] == "I1"
    assert not resting.repair(str(world.main), None, lambda one: False)["ok"]
    done = resting.repair(str(world.main), None, lambda one: True)
    assert done["ok"], done
    assert done["kept"] is not None
    assert (world.store / done["kept"]).read_bytes() == damaged
    assert before - world.everything() == set()
    assert resting.check(str(world.main), None)["ok"]
    fs = recovery.open_filesystem(open_store(str(world.store)), str(world.main))
    assert not checks.check(fs)
    assert before - world.everything() == set()
    assert fs.store.new_op() not in fs.origins
    recovery.close_filesystem(fs)


def test_the_database_is_read_through_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a start, a check and a repair: all of a large one takes minutes. One that was made anew is another."""
    said, connect = list[str](), sqlite3.connect

    def connected(*args: Any, **keywords: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **keywords)
        connection.set_trace_callback(said.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connected)
    fs = recovery.open_filesystem(open_store(str(world.store)), str(world.main))
    recovery.close_filesystem(fs)

    def times() -> int:
        count = sum("integrity_check" in one for one in said)
        said.clear()
        return count

    assert times() == 1
    assert resting.check(str(world.main), None)["ok"]
    assert times() == 1
    assert resting.repair(str(world.main), None, lambda one: True)["ok"]
    assert times() == 1
    senseless_state(world)
    assert resting.repair(str(world.main), None, lambda one: True)["ok"]
    assert times() == 2


def test_a_suspect_whose_row_is_lost_is_isolated_again(world: World) -> None:
    """Nobody is released by a damage: who was isolated is in a list of its own."""
    no_subject(world)
    assert any("does not know" in one["problem"] for one in resting.repair(str(world.main), None, rebuild)["problems"])
    assert not resting.check(str(world.main), None)["ok"]
    assert resting.repair(str(world.main), None, lambda one: True)["ok"]
    fs = recovery.open_filesystem(open_store(str(world.store)), str(world.main))
    assert set(fs.suspects) == {ALICE}
    assert (world.store / "rescued" / f"{world.sid}-{world.op(b'file')}").read_bytes() == b"hers"
    recovery.close_filesystem(fs)


def rebuild(one: Mapping[str, object]) -> bool:
    return "new database" in str(one["repair"])


def test_a_row_that_means_nothing_costs_that_version_only(world: World) -> None:
    senseless_state(world)
    resting.repair(str(world.main), None, lambda one: True)
    fs = recovery.open_filesystem(open_store(str(world.store)), str(world.main))
    alice = user(Kernel(fs), ALICE)
    assert alice.read(b"new") == b"new"
    assert alice.read(b"own/deep") == b"deep"
    assert alice.read(b"file") == b"main's file"
    assert (world.store / "rescued" / f"{world.sid}-{world.op(b'file')}").read_bytes() == b"hers"
    recovery.close_filesystem(fs)


def test_a_sound_database_is_left_alone(world: World) -> None:
    before = (world.store / "isofs.db").read_bytes()
    done = resting.repair(str(world.main), None, lambda one: True)
    assert done == {"ok": True, "repaired": [], "problems": [], "kept": None}
    assert (world.store / "isofs.db").read_bytes() == before


def test_another_program_s_database_is_not_repaired(world: World) -> None:
    world_db = world.store / "isofs.db"
    with closing(sqlite3.connect(world_db)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = world_db.read_bytes()
    with pytest.raises(StoreUnusable):
        resting.repair(str(world.main), None, lambda one: True)
    assert world_db.read_bytes() == before


# The command


@pytest.mark.mount
def test_check_repairs_what_is_not_mounted(tree: Path) -> None:
    with mounted(tree) as mount:
        alice = Person(ALICE, tree)
        try:
            mount.facts("suspect", str(ALICE))
            alice.write("f", "alice's\n")
        finally:
            alice.close()
        where = ("--mount", str(tree), "check")
        refused(isoctl(*where, "--repair", "--yes"), Exit.BUSY, "umount")
        mount.umount()
        (tree / ".isofs/versions/1/77").write_text("whose?")
        refused(isoctl(*where, "--repair"), Exit.USAGE, "--yes")
        refused(isoctl(*where, "--yes"), Exit.USAGE, "--repair")
        refused(isoctl("check", "--repair", "--yes"), Exit.USAGE, "--mount")
        assert isoctl(*where).code == Exit.PROBLEMS
        done = isoctl(*where, "--repair", "--yes")
        assert (done.code, done.out.count("\n")) == (0, 2), done
        assert "move the content to the folder rescued" in done.out
        assert (tree / ".isofs/rescued/1-77").read_text() == "whose?"
        again = isoctl(*where, "--repair", "--yes", "--json")
        assert again.json == {"ok": True, "repaired": [], "problems": [], "kept": None}
        mount.mount()
