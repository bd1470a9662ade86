"""What a suspect took away is gone from main after an innocent verdict, in whatever order it has to go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from isofs.engine import checks
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
