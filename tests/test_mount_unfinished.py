"""A verdict that was cut off and cannot be finished at the start: the mount is there, and only its subject waits."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from isofs.engine import recovery
from isofs.engine.checks import check
from isofs.errors import Exit, StoreUnusable
from isofs.merge import apply
from isofs.merge.report import Report
from isofs.model.records import SubjectState
from isofs.service import unfinished
from isofs.store.folder import Store, open_store
from support.attic import main_of
from support.command import refused
from support.engine import killed
from support.mount import ALICE, BOB, Mounted, Person, mounted
from test_merge_replaced import CASES, opened

pytestmark = pytest.mark.mount


def subject(mount: Mounted) -> dict[str, object]:
    (found,) = mount.facts("status")["subjects"]
    assert isinstance(found, dict)
    return found


def refuses(call: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno == errno.EBUSY


def test_a_merge_on_a_full_disk_waits_and_goes_on(tree: Path, place: Path) -> None:
    """The store is elsewhere and full, so that the attic cannot keep what the merge deletes."""
    small = place / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(small)], check=True)
    try:
        store = "--store", str(small / "store")
        with mounted(tree, *store) as mount:
            alice, bob = Person(ALICE, mount.path), Person(BOB, mount.path)
            (mount.path / "big").write_bytes(bytes(9 << 20))
            bob.write("his", "1\n")
            mount.facts("suspect", str(ALICE))
            alice.remove("big")
            alice.write("hers", "hers\n")
            assert not subject(mount)["stopped"]
            assert mount.isoctl("innocent", str(ALICE)).code == Exit.ATTIC
            mount.kill()
            mount.mount(*store)
            assert (subject(mount)["state"], subject(mount)["stopped"]) == ("merging", True)
            assert f"isoctl innocent {ALICE}" in mount.isoctl("status").out
            assert "finished: big cannot be kept in the attic" in (small / "store" / "log").read_text()
            bob.write("his", "2\n")
            assert bob.read("his") == "2\n"
            refuses(lambda: alice.write("more", "x"))
            subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
            mount.facts("innocent", str(ALICE))
            assert alice.tree() == bob.tree() == {"his": "2\n", "hers": "hers\n"}
            assert mount.facts("status")["subjects"] == []
            alice.close()
            bob.close()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_discarding_that_cannot_go_on_waits_for_the_same_verdict(tree: Path) -> None:
    """Its versions are in a folder that may not be changed. The evidence was kept before it began."""
    with mounted(tree) as mount:
        alice, bob = Person(ALICE, mount.path), Person(BOB, mount.path)
        bob.write("f", "his\n")
        mount.facts("suspect", str(ALICE))
        alice.append("f", "hers\n")
        mount.umount()
        versions, sql = tree / ".isofs" / "versions", "UPDATE subjects SET state = 'discarding'"
        subprocess.run(["sqlite3", str(tree / ".isofs" / "isofs.db"), sql], check=True)
        subprocess.run(["chattr", "+i", str(versions)], check=True)
        try:
            mount.mount()
            assert (subject(mount)["state"], subject(mount)["stopped"]) == ("discarding", True)
            assert f"isoctl malicious {ALICE}" in mount.isoctl("status").out
            refuses(lambda: alice.read("f"))
            assert bob.read("f") == "his\n"
            refused(mount.isoctl("innocent", str(ALICE)), Exit.NOT_ALLOWED, "malicious")
        finally:
            subprocess.run(["chattr", "-i", str(mount.backing / ".isofs" / "versions")], check=True)
        assert mount.facts("malicious", str(ALICE), "--yes")["evidence"] is None
        assert alice.read("f") == "his\n"
        assert mount.facts("status")["subjects"] == []
        mount.check()
        alice.close()
        bob.close()


def contents(main: Path) -> list[tuple[list[bytes], bytes]]:
    return sorted((sorted(was.paths), was.thing.content) for was in main_of(main).values())


@pytest.mark.parametrize("state", [SubjectState.MERGING, SubjectState.DISCARDING])
def test_any_write_of_the_store_may_be_refused_at_the_start(
    tmp_path: Path, state: SubjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And at every later one, until it is not: the end is as if nothing had been."""
    case, write = CASES["round in a circle"], Store.write
    expected = tmp_path / "expected"
    fs, (alice, _) = opened(expected)
    case(alice)
    apply.innocent(fs, 1) if state is SubjectState.MERGING else apply.malicious(fs, 1)
    recovery.close_filesystem(fs)
    main = tmp_path / "main"
    fs, (alice, _) = opened(main)
    case(alice)
    if state is SubjectState.MERGING:
        list(apply.begin_merge(fs, 1, Report()))
    else:
        next(apply.discard_steps(fs, 1, Report()))
    for refused_at in range(100):
        killed(fs)
        fs = recovery.open_filesystem(open_store(str(main / ".isofs")), str(main))
        if 1 not in fs.views:
            break
        done = 0

        def full(store: Store, changes: list[object], at: int = refused_at) -> None:
            nonlocal done
            done += 1
            if changes and done > at:
                raise StoreUnusable("the disk is full")
            write(store, changes)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", full)
            unfinished.finish(fs)
        assert check(fs) == [] or state is SubjectState.MERGING
        assert unfinished.under_way(fs, fs.subjects[1]) == (1 in fs.views)
    assert refused_at < 99
    names = [
        sorted((sorted(was.paths), was.thing.content) for was in main_of(one).values()) for one in (main, expected)
    ]
    assert names[0] == names[1]
    assert check(fs) == []
    recovery.close_filesystem(fs)
