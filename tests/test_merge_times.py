"""What a merge makes of the times of directories: main's are no older than what the suspect did in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from isofs.engine import calls
from isofs.engine.state import ROOT_NODE
from support.contest import Contest
from support.engine import Walker

OLD = 10**18


def make(user: Walker) -> None:
    user.write(b"d/new", b"x", os.O_WRONLY | os.O_CREAT)


def changed(contest: Contest) -> int:
    """When alice sees the directory changed."""
    alice = contest.suspects["alice"].caller
    found = calls.lookup(contest.fs, alice, contest.fs.nodes[ROOT_NODE], b"d")
    assert found is not None
    return found.attributes.mtime_ns


CASES: dict[str, list[Callable[[Walker], None]]] = {
    "saved by renaming": [make, lambda a: a.rename(b"d/new", b"d/file")],
    "saved by renaming from elsewhere": [lambda a: a.rename(b"other/file", b"d/file")],
    "made and removed": [make, lambda a: a.unlink(b"d/new")],
    "renamed there and back": [lambda a: a.rename(b"d/file", b"d/x"), lambda a: a.rename(b"d/x", b"d/file")],
    "made": [make],
    "removed": [lambda a: a.unlink(b"d/file")],
    "made, and the directory changed": [make, lambda a: a.chmod(b"d", 0o750)],
}


@pytest.mark.parametrize("acts", CASES.values(), ids=CASES)
def test_a_directory_is_as_young_as_the_suspect_saw_it(tmp_path: Path, acts: list[Callable[[Walker], None]]) -> None:
    contest = Contest(tmp_path / "main", {"d/file": b"1", "other/file": b"2"})
    directory = tmp_path / "main" / "d"
    os.utime(directory, ns=(OLD, OLD))
    for act in acts:
        act(contest.suspects["alice"])
    seen = changed(contest)
    assert seen > os.stat(directory).st_mtime_ns == OLD
    contest.innocent()
    assert os.stat(directory).st_mtime_ns >= seen
    assert changed(contest) == os.stat(directory).st_mtime_ns
    contest.close()


def test_a_directory_in_which_only_contents_changed_is_as_old_as_before(tmp_path: Path) -> None:
    contest = Contest(tmp_path / "main", {"d/file": b"1"})
    os.utime(tmp_path / "main" / "d", ns=(OLD, OLD))
    contest.write(contest.suspects["alice"], b"alice's", "d/file")
    contest.innocent()
    assert os.stat(tmp_path / "main" / "d").st_mtime_ns == OLD
    contest.close()
