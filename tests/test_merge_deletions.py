"""What a suspect took away is gone from main after an innocent verdict, in whatever order it has to go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from isofs.engine import checks
from isofs.merge import apply
from isofs.merge.report import Report
from support.contest import Contest


@pytest.fixture
def contest(tmp_path: Path) -> Iterator[Contest]:
    contest = Contest(tmp_path / "main", {"tree/below/file": b"", "aside/deep/down/stays": b""})
    yield contest
    contest.close()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("other", ["name", "tree/name", "tree/below/name", "aside/deep/down/name"])
def test_directories_whose_files_have_names_elsewhere(contest: Contest, other: str, first: bool) -> None:
    """A file goes under its last name, wherever that is: the directories of the others must be empty by then."""
    path = contest.path
    os.link(path / "tree/below/file", path / other)
    alice = contest.suspects["alice"]
    for name in sorted(("tree/below/file", other), key=lambda name: (name == other) is not first):
        alice.unlink(os.fsencode(name))
    for name in ("tree/below", "tree"):
        alice.rmdir(os.fsencode(name))
    report = contest.innocent()
    assert {item.action for item in report.items} == {"deleted"}
    assert not (path / "tree").exists()
    assert not (path / other).exists()
    assert (path / "aside/deep/down/stays").exists()
    assert not checks.check(contest.fs)


@pytest.mark.parametrize("steps", range(8))
def test_a_deletion_that_does_not_stand_takes_no_name(tmp_path: Path, steps: int) -> None:
    """Nor when the merge is killed after any step and goes on at the next start."""
    contest = Contest(tmp_path / "main", {"one": b"", "other": b""})
    for name in ("one", "other"):
        os.link(contest.path / name, contest.path / f"{name}.link")
    alice = contest.suspects["alice"]
    for name in (b"one", b"one.link", b"other", b"other.link"):
        alice.unlink(name)
    contest.write(alice, b"alice's", "one")
    for name in ("one", "other"):
        contest.write(contest.bob, b"bob's", name)
    merge = apply.merge_steps(contest.fs, contest.sid(), Report())
    for _ in range(steps):
        next(merge, None)
    merge.close()
    contest.start_again()
    if contest.fs.views:
        apply.resume(contest.fs, contest.sid())
    found = contest.main()
    assert found.pop("one.isofs-alice") == b"alice's"
    assert found == dict.fromkeys(("one", "one.link", "other", "other.link"), b"bob's")
    assert not checks.check(contest.fs)
    contest.close()
