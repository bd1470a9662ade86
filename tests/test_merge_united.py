"""Two directories of a suspect's view that are one in main: what has one name in both is kept, whatever happens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from isofs.engine import checks
from isofs.merge import apply
from support.contest import Contest
from support.cuts import cut_off

#: Where the merge is killed: before (even) or after (odd) a write of the store.
CUTS = range(24) if "ISOFS_HISTORIES" in os.environ else range(5, 20, 4)


@pytest.fixture
def contest(tmp_path: Path) -> Iterator[Contest]:
    """alice has had the directory `one`, in place of which bob has put `other`, and has that where it was."""
    contest = Contest(tmp_path / "main", {})
    for name in (b"one", b"other"):
        contest.bob.mkdir(name, 0o777)
    alice = contest.suspects["alice"]
    contest.write(alice, b"first", "one/file")
    contest.bob.rename(b"other", b"one")
    contest.write(alice, b"second", "other/file")
    yield contest
    contest.close()


def test_files_of_one_name_are_both_kept(contest: Contest) -> None:
    planned = contest.planned()
    items = contest.innocent().items
    assert sorted(items, key=repr) == sorted(planned, key=repr)
    assert contest.main() == {"one/file": b"second", "one/file.isofs-alice": b"first"}
    assert not checks.check(contest.fs)


def test_beside_what_main_has_under_the_name(contest: Contest) -> None:
    contest.write(contest.bob, b"bob's", "one/file")
    planned = contest.planned()
    items = contest.innocent().items
    assert sorted(items, key=repr) == sorted(planned, key=repr)
    assert contest.main() == {
        "one/file": b"bob's",
        "one/file.isofs-alice": b"second",
        "one/file.isofs-alice-2": b"first",
    }


def test_directories_of_one_name_become_one(contest: Contest) -> None:
    alice = contest.suspects["alice"]
    for path in (b"one/both", b"other/both"):
        alice.mkdir(path)
        contest.write(alice, path, f"{path.decode()}/file")
    contest.innocent()
    found = contest.main()
    assert {path: content for path, content in found.items() if "both" in path} == {
        "one/both/file": b"other/both",
        "one/both/file.isofs-alice": b"one/both",
    }
    assert len(found) == 4


@pytest.mark.parametrize("stop", CUTS)
def test_killed_at_any_write(contest: Contest, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(stop, monkeypatch, lambda: apply.innocent(contest.fs, contest.sid()))
    contest.start_again()
    if contest.fs.views:
        apply.resume(contest.fs, contest.sid())
    assert contest.main() == {"one/file": b"second", "one/file.isofs-alice": b"first"}
    assert not checks.check(contest.fs)
