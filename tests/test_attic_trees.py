"""Whole trees out of the attic: a directory comes back with all that the same merge took from it."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from isofs.engine import checks, recovery, suspicion
from isofs.engine.state import Filesystem
from isofs.errors import AtticFailed
from isofs.merge import apply
from isofs.service.attic import Attic
from isofs.service.live import Live
from isofs.store.folder import Store, open_store
from support.attic import Thing, entries, thing
from support.cuts import cut_off
from support.engine import Walker, killed
from test_merge_replaced import ALICE, clear, new, opened

SINCE = "2026-01-02T03:04:05Z"


def restore(fs: Filesystem, **asked: object) -> Any:
    async def main() -> object:
        return await Attic(fs, Live(fs.store)).restore({"by": "root", **asked}, lambda done, total: None)

    return trio.run(main)


def below(directory: Path) -> dict[str, Thing]:
    """All that is in a directory of the host but the store, by path."""
    found = (path for path in sorted(directory.rglob("*")) if ".isofs" not in path.parts)
    return {str(path.relative_to(directory)): thing(path) for path in found}


def merged(fs: Filesystem, alice: Walker, *paths: bytes) -> None:
    """Alice removes these trees and files, and is found innocent."""
    for path in paths:
        if stat.S_ISDIR(alice.stat(path).kind):
            clear(alice, path)
        else:
            alice.unlink(path)
    apply.innocent(fs, max(fs.views))


def again(fs: Filesystem) -> None:
    suspicion.suspect(fs, ALICE.uid, "alice", "", SINCE)


def paths(answer: Any, key: str = "restored") -> list[str]:
    return [one["path"] for one in answer[key]]


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    main = tmp_path / "main"
    fs, (alice, bob) = opened(main)
    bob.symlink(b"nowhere", b"full/link")
    bob.mkfifo(b"full/sub/fifo")
    bob.chmod(b"full/sub", 0o2750)
    before = below(main)
    merged(fs, alice, b"full", b"file")
    answer = restore(fs, path="full")
    assert paths(answer) == sorted(path for path in before if path.split("/")[0] == "full")
    assert (answer["left"], answer["replaced"], answer["stowed"]) == ([], [], None)
    del before["file"]
    assert below(main) == before
    assert [entry.path for entry in entries(fs)] == [b"file"]
    with pytest.raises(AtticFailed, match="does not have"):
        restore(fs, path="full")
    assert below(main) == before
    assert not checks.check(fs)
    recovery.close_filesystem(fs)


def test_what_was_taken_from_a_directory_that_is_there_comes_back_into_it(tmp_path: Path) -> None:
    main = tmp_path / "main"
    fs, (alice, _) = opened(main)
    before = below(main)
    merged(fs, alice, b"full/sub/deep", b"full/f")
    assert paths(restore(fs, path="full")) == ["full/f", "full/sub/deep", "full/sub/deep/h"]
    assert below(main) == before
    recovery.close_filesystem(fs)


def test_by_number_and_elsewhere(tmp_path: Path) -> None:
    main = tmp_path / "main"
    fs, (alice, _) = opened(main)
    before = below(main)
    merged(fs, alice, b"full")
    number = next(entry.number for entry in entries(fs) if entry.path == b"full/sub")
    restore(fs, number=number, **{"as": "empty/back"})
    back = {path: was for path, was in below(main).items() if path.startswith("empty/back")}
    assert back == {p.replace("full/sub", "empty/back"): w for p, w in before.items() if p.startswith("full/sub")}
    assert sorted(entry.path for entry in entries(fs)) == [b"full", b"full/f"]
    recovery.close_filesystem(fs)


def test_a_name_taken_meanwhile_is_left(tmp_path: Path) -> None:
    """Also what lies below a directory whose name is a file's now; the second run changes nothing."""
    main = tmp_path / "main"
    fs, (alice, bob) = opened(main)
    merged(fs, alice, b"full")
    bob.mkdir(b"full")
    new(bob, b"full/f")
    new(bob, b"full/sub")
    bob.unlink(b"other/o")
    for _ in range(2):
        answer = restore(fs, path="full")
        left = {one["path"]: one["reason"] for one in answer["left"]}
        assert sorted(left) == ["full", "full/f", "full/sub", "full/sub/deep", "full/sub/deep/h", "full/sub/g"]
        assert "full/f exists: give --replace" in left["full/f"]
        assert "full/sub is no directory" in left["full/sub/deep/h"]
        assert (answer["restored"], len(entries(fs))) == ([], 6)
        assert (bob.read(b"full/f"), bob.read(b"full/sub")) == (b"1002", b"1002")
    answer = restore(fs, path="full", replace=True)
    assert (answer["left"], paths(answer, "replaced")) == ([], ["full", "full/f", "full/sub"])
    assert answer["stowed"] == max(one["number"] for one in answer["replaced"])
    assert (bob.read(b"full/f"), bob.read(b"full/sub/deep/h")) == (b"main's full/f", b"main's full/sub/deep/h")
    with pytest.raises(AtticFailed, match="exists"):  # what was replaced does not come back by itself
        restore(fs, path="full")
    assert bob.read(b"full/f") == b"main's full/f"
    assert not checks.check(fs)
    recovery.close_filesystem(fs)


def test_one_merge_at_a_time_the_last_one_first(tmp_path: Path) -> None:
    main = tmp_path / "main"
    fs, (alice, bob) = opened(main)
    merged(fs, alice, b"full/sub", b"full/f")
    new(bob, b"full/f")
    again(fs)
    merged(fs, alice, b"full")
    assert paths(restore(fs, path="full")) == ["full", "full/f"]
    assert bob.read(b"full/f") == b"1002"
    answer = restore(fs, path="full")
    assert paths(answer) == ["full/sub", "full/sub/deep", "full/sub/deep/h", "full/sub/g"]
    assert paths(answer, "left") == ["full/f"]
    assert bob.read(b"full/f") == b"1002"
    recovery.close_filesystem(fs)


@pytest.mark.parametrize(("of", "name"), [(Store, "write"), (os, "rename"), (os, "unlink")])
def test_a_restoring_cut_off_anywhere_goes_on(
    tmp_path: Path, of: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stop in itertools.count():
        main = tmp_path / str(stop)
        fs, (alice, _) = opened(main)
        before = below(main)
        merged(fs, alice, b"full")
        if not cut_off(stop, monkeypatch, lambda fs=fs: restore(fs, path="full"), of, name):  # type: ignore[misc]
            assert below(main) == before
            recovery.close_filesystem(fs)
            return
        killed(fs)
        fs = recovery.open_filesystem(open_store(str(main / ".isofs")), str(main))
        assert not checks.check(fs)
        if entries(fs):
            assert restore(fs, path="full")["left"] == []
        assert below(main) == before, stop
        assert not entries(fs)
        recovery.close_filesystem(fs)


def test_the_list_of_a_path(tmp_path: Path) -> None:
    fs, (alice, bob) = opened(tmp_path / "main")
    new(bob, b"full-not")
    new(bob, b"full0")
    merged(fs, alice, b"full", b"full-not", b"full0")

    async def listed(path: str) -> list[str]:
        found: Any = await Attic(fs, Live(fs.store)).page({"path": path}, lambda done, total: None)
        return sorted(entry["path"] for entry in found["entries"])

    assert trio.run(listed, "full/sub") == ["full/sub", "full/sub/deep", "full/sub/deep/h", "full/sub/g"]
    assert len(trio.run(listed, "full")) == 6
    assert len(trio.run(listed, "")) == 8
    assert trio.run(listed, "ful") == []
    recovery.close_filesystem(fs)
