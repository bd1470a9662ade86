"""The attic on real mounts: what an innocent verdict took from main is listed, comes back, and is purged."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isofs.errors import Exit
from support.command import refused
from support.mount import ALICE, BOB, CAROL, Mounted, Person, isoctl, mounted
from test_mount_verdicts import whole

pytestmark = pytest.mark.mount

Begin = Callable[[int], Person]


@pytest.fixture
def fresh(tree: Path) -> Iterator[Mounted]:
    """A mount whose attic nobody has used."""
    with mounted(tree) as mount:
        yield mount


def listed(mount: Mounted) -> list[tuple[str, str, str]]:
    return [(e["action"], e["kind"], e["path"]) for e in mount.facts("attic", "list")["entries"]]


def innocent(mount: Mounted) -> None:
    done = mount.isoctl("innocent", str(ALICE))
    assert done.code == 0, done


def test_what_a_merge_took_comes_back_for_everybody(fresh: Mounted, person: Begin) -> None:
    """Deleted trees, replaced files, and files that somebody has open; bob sees each at once where it was."""
    alice, bob = (Person(uid, fresh.path) for uid in (ALICE, BOB))
    try:
        bob.write("file", "main's\n")
        bob.utime("file", 10**18 + 7)
        bob.chmod("file", 0o640)
        bob.mkdir("d")
        bob.mkdir("d/e")
        bob.chmod("d/e", 0o2777)
        bob.write("d/e/f", "deep\n")
        bob.symlink("nowhere", "d/link")
        before = whole(str(fresh.path))
        fresh.facts("suspect", str(ALICE))
        assert fresh.facts("status")["attic"] == {"entries": 0, "bytes": 0}
        alice.save("file", "hers\n")
        for name in ("d/e/f", "d/link"):
            alice.remove(name)
        for name in ("d/e", "d"):
            alice.rmdir(name)
        assert fresh.facts("attic", "list")["entries"] == []
        innocent(fresh)
        assert bob.tree() == {"file": "hers\n"}
        assert sorted(listed(fresh)) == [
            ("deleted", "directory", "d"),
            ("deleted", "directory", "d/e"),
            ("deleted", "file", "d/e/f"),
            ("deleted", "symlink", "d/link"),
            ("replaced", "file", "file"),
        ]
        assert {(e["user"], e["live"]) for e in fresh.facts("attic", "list")["entries"]} == {(str(ALICE), False)}
        assert fresh.facts("status")["attic"] == {"entries": 5, "bytes": 7 + 5 + 7}
        done = fresh.facts("attic", "restore", "d/e/f")
        assert [one["path"] for one in done["restored"]] == ["d", "d/e", "d/e/f"]
        assert bob.tree() == {"file": "hers\n", "d": {"e": {"f": "deep\n"}}}
        bob.write("d/link", "taken\n")
        assert fresh.isoctl("attic", "restore", "d").code == Exit.ATTIC
        assert bob.read("d/link") == "taken\n"
        bob.remove("d/link")
        refused(fresh.isoctl("attic", "restore", "file"), Exit.ATTIC, "--replace", "--as")
        assert bob.read("file") == "hers\n"
        assert fresh.facts("attic", "restore", "file", "--replace")["stowed"] is not None
        assert fresh.facts("attic", "list", "d")["entries"][0]["path"] == "d/link"
        fresh.facts("attic", "restore", str(fresh.path / "d"))
        assert bob.read("file") == "main's\n"
        assert whole(str(fresh.path)) == before
        assert listed(fresh) == [("replaced", "file", "file")]
        fresh.facts("attic", "restore", "file", "--as", "d/hers")
        assert bob.read("d/hers") == "hers\n"
        assert listed(fresh) == []
        refused(fresh.isoctl("attic", "restore", "file"), Exit.ATTIC, "isoctl attic list")
    finally:
        for one in (alice, bob):
            one.close()


def test_restoring_is_a_trusted_change_to_other_suspects(fresh: Mounted) -> None:
    """Carol's version stays hers, and conflicts with what came back in place of what she started from."""
    alice, bob, carol = (Person(uid, fresh.path) for uid in (ALICE, BOB, CAROL))
    try:
        bob.write("file", "first\n")
        fresh.facts("suspect", str(ALICE))
        alice.write("file", "second\n")
        innocent(fresh)
        fresh.facts("suspect", str(CAROL))
        carol.append("file", "carol's\n")
        assert bob.read("file") == "second\n"
        fresh.facts("attic", "restore", "file", "--replace")
        assert bob.read("file") == "first\n"
        assert carol.read("file") == "second\ncarol's\n"
        assert fresh.isoctl("innocent", str(CAROL)).code == Exit.CONFLICTS
        assert (bob.read("file"), carol.read("file")) == ("first\n", "first\n")
    finally:
        for one in (alice, bob, carol):
            one.close()


def test_what_a_settled_conflict_replaced_is_there_too(fresh: Mounted) -> None:
    alice, bob = (Person(uid, fresh.path) for uid in (ALICE, BOB))
    try:
        bob.write("blob", "first\0")
        fresh.facts("suspect", str(ALICE))
        alice.write("blob", "hers\0")
        bob.write("blob", "his\0")
        assert fresh.isoctl("innocent", str(ALICE)).code == Exit.CONFLICTS
        assert listed(fresh) == []
        fresh.facts("resolve", str(ALICE), str(fresh.path / "blob"), "--take", "suspect")
        assert (bob.read("blob"), listed(fresh)) == ("hers\0", [("replaced", "file", "blob")])
        fresh.facts("attic", "restore", "blob", "--replace")
        assert bob.read("blob") == "his\0"
    finally:
        for one in (alice, bob):
            one.close()


def test_who_has_it_open_goes_on_with_it(fresh: Mounted) -> None:
    """A file that is open for writing is copied; its writer keeps it, without a name, and changes no entry."""
    alice = Person(ALICE, fresh.path)
    (fresh.path / "log").write_text("main\n")
    (fresh.path / "log").chmod(0o666)
    try:
        with open(fresh.path / "log", "r+") as held:
            fresh.facts("suspect", str(ALICE))
            alice.append("log", "hers\n")
            innocent(fresh)
            assert held.read() == "main\n"
            assert os.fstat(held.fileno()).st_nlink == 0
            held.write("still here\n")
            held.flush()
            assert (fresh.path / "log").read_text() == "main\nhers\n"
            fresh.facts("attic", "restore", "log", "--as", "was")
            held.seek(0)
            assert held.read() == "main\nstill here\n"
        assert (fresh.path / "was").read_text() == "main\n"
    finally:
        alice.close()


def test_a_kill_between_verdict_and_restoring_keeps_it(fresh: Mounted) -> None:
    alice = Person(ALICE, fresh.path)
    (fresh.path / "file").write_text("main's")
    fresh.facts("suspect", str(ALICE))
    alice.remove("file")
    innocent(fresh)
    alice.close()
    fresh.kill()
    fresh.mount()
    fresh.facts("attic", "restore", "file")
    assert (fresh.path / "file").read_text() == "main's"


def test_purge(fresh: Mounted) -> None:
    """Many are removed in pages; what is not old enough stays; the disk has its room back."""
    alice = Person(ALICE, fresh.path)
    for number in range(1200):
        (fresh.path / f"f{number}").write_text("x" * 10)
    os.chmod(fresh.path, 0o777)
    fresh.facts("suspect", str(ALICE))
    for number in range(1200):
        alice.remove(f"f{number}")
    innocent(fresh)
    alice.close()
    assert len(fresh.facts("attic", "list")["entries"]) == 1200
    assert fresh.facts("attic", "purge", "--older-than", "1h", "--yes") == {"entries": 0, "bytes": 0}
    refused(fresh.isoctl("attic", "purge"), Exit.USAGE, "--yes")
    assert fresh.facts("attic", "purge", "--yes") == {"entries": 1200, "bytes": 12000}
    assert listed(fresh) == []
    assert os.listdir(fresh.backing / ".isofs" / "attic") == []


def test_what_is_too_old_goes_when_it_is_mounted(tree: Path) -> None:
    with mounted(tree) as mount:
        alice = Person(ALICE, mount.path)
        for name in ("old", "new"):
            (mount.path / name).write_text(name)
        mount.facts("suspect", str(ALICE))
        alice.remove("old")
        alice.remove("new")
        innocent(mount)
        alice.close()
        first = min(entry["number"] for entry in mount.facts("attic", "list")["entries"])
        mount.umount()
        # The clock of the entries is what is shown of them, and no more: both are from long ago by it.
        month = json.dumps([31 * 86400.0, [[0.0, first]]])
        sql = (
            f"UPDATE attic SET at = '2020-01-01T00:00:00Z'; UPDATE meta SET value = '{month}' WHERE key = 'attic_ages'"
        )
        subprocess.run(["sqlite3", str(tree / ".isofs" / "isofs.db"), sql], check=True)
        mount.mount()
        entries: list[Any] = []
        for _ in range(100):
            entries = listed(mount)
            if len(entries) == 1:
                break
        assert entries == [("deleted", "file", "new")]
        mount.check()


def test_a_full_store_stops_a_verdict_that_goes_on_later(tree: Path, place: Path) -> None:
    """The store is elsewhere, so that what goes into the attic is copied: nothing is gone before it is there."""
    small = place / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(small)], check=True)
    try:
        with mounted(tree, "--store", str(small / "store")) as mount:
            alice = Person(ALICE, mount.path)
            (mount.path / "big").write_bytes(os.urandom(9 << 20))
            mount.facts("suspect", str(ALICE))
            alice.remove("big")
            refused(mount.isoctl("innocent", str(ALICE)), Exit.ATTIC, "big", "No space left", "make room")
            assert (mount.path / "big").stat().st_size == 9 << 20
            mount.check()
            subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
            innocent(mount)
            assert not (mount.path / "big").exists()
            assert listed(mount) == [("deleted", "file", "big")]
            mount.facts("attic", "restore", "big")
            assert (mount.path / "big").stat().st_size == 9 << 20
            alice.close()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_without_a_mount(tree: Path) -> None:
    for words in (["list"], ["restore", "x"], ["purge", "--yes"]):
        refused(isoctl("--mount", str(tree), "attic", *words), Exit.NO_MOUNT)
