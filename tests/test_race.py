"""Trusted processes watch what a suspect hammers, at the same time, on a real mount: they see main and nothing else."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import race_writer
from support.mount import ALICE, BOB, CAROL, DAVE, Mounted, as_user, mounted
from support.race_control import RULES, mounted_without
from support.race_handles import extend, move_about, stay_in, watch
from support.race_observers import observe
from support.race_suspect import hammer, last
from support.race_workers import Found, Shared, Worker, differences, run, total
from support.race_world import LAST, backing, build, folder, known

pytestmark = pytest.mark.mount

#: How long everybody works at the same time.
SECONDS = 4.0

#: How long a control has to see a difference; it needs less than one second.
CONTROL_SECONDS = 30.0

#: What a suspect's call may fail with because another process of the same suspect was quicker, or by its own modes.
_EXPECTED = {
    "No such file or directory",
    "File exists",
    "Permission denied",
    "Directory not empty",
    "Is a directory",
    "Not a directory",
    "No data available",
    "Too many levels of symbolic links",
}

#: How a file shows that seems longer than it is while a handle of before extends it. Measured: reads that race with
#: such writes see it, stat never does.
_LONGER = {f"size of {way}" for way in ("read", "pread", "pread beyond", "seek")}


@pytest.fixture
def main() -> Iterator[Path]:
    """A directory with the tree of these tests, not yet mounted over."""
    with folder() as path:
        build(path)
        yield path


def _suspect(mount: Mounted) -> None:
    done = mount.isoctl("suspect", str(ALICE))
    assert done.code == 0, done


def _suspects(main: Path) -> list[Worker]:
    return [Worker(f"suspect {number}", ALICE, hammer(main, number)) for number in range(3)]


def _did_a_lot(calls: Counter[str], together: int, each: int) -> None:
    """There were calls of every kind, and many. Machines are slow at times: these are lower bounds."""
    assert sum(calls.values()) > together, calls
    assert min(calls.values()) >= each, calls


def _no_strange_errors(found: dict[str, Found], *also: str) -> None:
    """No call of the suspect's failed for a reason that the suspect does not see in its own view."""
    errors = total({name: Found(one.errors) for name, one in found.items()}, "suspect")
    strange = {
        error: count for error, count in errors.items() if not any(error.endswith(e) for e in (*_EXPECTED, *also))
    }
    assert strange == {}


def _as_left(main: Path, found: dict[str, Found]) -> None:
    """The files that only one process of the suspect's changed are, for the suspect, as it left them."""
    facts = {path: fact for one in found.values() for path, fact in one.facts.items()}
    assert sorted(facts) == LAST
    assert as_user(ALICE, lambda: {path: last(main, path) for path in LAST}) == facts


def test_trusted_processes_see_nothing_of_a_suspect(main: Path) -> None:
    """Whatever the suspect does, each observation of main is what it was before, and so is main on the disk."""
    before = backing(str(main))
    with mounted(main) as mount:
        wanted = known(main)
        _suspect(mount)
        users = enumerate((BOB, CAROL, DAVE))
        observers = [Worker(f"trusted {number}", uid, observe(main, wanted, number)) for number, uid in users]
        found = run([*_suspects(main), *observers], SECONDS)
        assert differences(found) == []
        _did_a_lot(total(found, "suspect"), 300, 1)
        _did_a_lot(total(found, "trusted"), 600, 1)
        _no_strange_errors(found)
        _as_left(main, found)
        assert known(main) == wanted
    assert backing(str(main)) == before


def test_a_trusted_writer_is_read_by_others_and_by_nobody_else_changed(main: Path) -> None:
    """What one trusted user writes, others read at once and whole, though a suspect changes the same names."""
    race_writer.prepare(main, BOB)
    with mounted(main) as mount:
        _suspect(mount)
        shared = Shared()
        trusted = [
            Worker("trusted writer", BOB, race_writer.write(main)),
            *(Worker(f"trusted reader {n}", uid, race_writer.read(main, n)) for n, uid in enumerate((CAROL, DAVE))),
        ]
        found = run([*_suspects(main), *trusted], SECONDS, shared)
        assert differences(found) == []
        _did_a_lot(total(found, "suspect"), 300, 1)
        _did_a_lot(total(found, "trusted writer"), 100, 10)
        _did_a_lot(total(found, "trusted reader"), 500, 50)
        _no_strange_errors(found, "Operation not permitted")  # some files are the writer's
        _as_left(main, found)
        assert race_writer.there(main) == race_writer.last(shared)
    assert race_writer.there(main) == race_writer.last(shared)


@pytest.mark.parametrize("rule", RULES)
def test_without_one_of_the_rules_trusted_processes_see_the_suspect(main: Path, rule: str) -> None:
    """The control: with any one of the rules of design, section 4, switched off, the same observers see it."""
    with mounted_without(rule, main) as mount:
        wanted = known(main)
        _suspect(mount)
        users = enumerate((BOB, CAROL, DAVE))
        observers = [
            Worker(f"trusted {number}", uid, observe(main, wanted, number, until_different=True))
            for number, uid in users
        ]
        found = run([*_suspects(main), *observers], CONTROL_SECONDS)
        assert differences(found) != []


def test_a_rerouted_handle_never_shows_its_bytes(main: Path) -> None:
    """A suspect's handle from before writes beyond main's end: nobody reads a byte of it, and sizes are right after.

    While it writes, the kernel may believe the file longer for a moment; what is read there is zeros.
    """
    at = main / "files/f0"
    wanted = at.read_bytes()
    with mounted(main) as mount:
        held = _open_as(ALICE, at, os.O_WRONLY)
        try:
            _suspect(mount)
            readers = [Worker(f"trusted {n}", uid, watch(at, wanted)) for n, uid in enumerate((BOB, CAROL))]
            found = run([Worker("suspect", ALICE, extend(held, len(wanted))), *readers], SECONDS)
        finally:
            os.close(held)
        _did_a_lot(total(found, "suspect"), 300, 300)
        _did_a_lot(total(found, "trusted"), 1000, 100)
        seen = total({name: Found(one.different) for name, one in found.items()}, "trusted")
        assert [kind for kind in seen if kind not in _LONGER] == [], differences(found)
        assert at.read_bytes() == wanted
        assert os.stat(at).st_size == len(wanted)
    assert at.read_bytes() == wanted


def _open_as(uid: int, at: Path, flags: int) -> int:
    """A descriptor that was opened under a uid, for this process to hand down to its children."""
    os.setegid(uid)
    os.seteuid(uid)
    try:
        return os.open(at, flags)
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_getcwd_in_a_directory_that_a_suspect_moves_recovers(main: Path) -> None:
    """The one call that a suspect can disturb (docs: residual channels): it fails for a moment, and never lies."""
    directory, away = main / "moving/m0", main / "moving/x0"
    with mounted(main) as mount:
        _suspect(mount)
        staying = Worker("trusted", BOB, stay_in(directory))
        found = run([Worker("suspect", ALICE, move_about(directory, away)), staying], SECONDS)
        assert differences(found) == []
        print(found["suspect"].calls, found["trusted"].calls)  # how often it fails: docs/threat-model.md
        _did_a_lot(found["suspect"].calls, 50, 50)
        assert found["trusted"].calls["getcwd"] >= 300
        assert as_user(BOB, lambda: _returns_to(directory)) == str(directory)


def _returns_to(directory: Path) -> str:
    os.chdir(directory)
    return os.getcwd()
