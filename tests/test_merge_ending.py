"""The end of a verdict gives way: whatever others do between two of its slices, nothing of theirs is forgotten."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isofs.engine import checks, recovery
from isofs.merge import apply, ending
from isofs.merge.report import Report
from isofs.store.folder import open_store
from support.contest import Contest
from support.engine import killed

FILES = ("a", "b", "d/c", "d/e/f", "d/e/g")


@pytest.mark.parametrize("verdict", ["innocent", "malicious"])
def test_others_work_between_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str) -> None:
    """Row by row; after each number of slices another suspect and a trusted user change what is being forgotten."""
    monkeypatch.setattr(ending, "_TOGETHER", 1)
    for stop in itertools.count():
        contest = Contest(tmp_path / str(stop), dict.fromkeys(FILES, b"main's"), ("alice", "carol"))
        alice, carol, bob, fs = contest.suspects["alice"], contest.suspects["carol"], contest.bob, contest.fs
        for name in FILES:
            contest.write(alice, b"alice's", name)
        alice.rename(b"d/e", b"moved")
        steps = apply.merge_steps(fs, 1, Report()) if verdict == "innocent" else apply.discard_steps(fs, 1, Report())
        ahead = [next(steps, None) for _ in range(stop)]
        e = b"moved" if b"moved" in bob.listdir(b"") else b"d/e"
        contest.write(carol, b"carol's", "d/c")
        contest.write(carol, b"carol's", f"{e.decode()}/f")
        contest.write(bob, b"bob's", f"{e.decode()}/g")
        bob.rename(b"a", b"d/a")
        for _ in steps:
            pass
        seen = contest.main()
        assert not fs.views.keys() - {2}
        assert b"bob's" in {*seen.values(), *contest.waiting()}
        assert {path for path in seen if path.endswith("d/a")}
        assert carol.read(b"d/c") == b"carol's"
        assert checks.check(fs) == [], stop
        contest.close()
        if None in ahead:
            assert stop > 10
            return


def test_a_merge_remembers_nothing_that_nobody_looked_up(tmp_path: Path) -> None:
    contest = Contest(tmp_path / "main", dict.fromkeys(FILES, b"main's"))
    for name in FILES:
        contest.write(contest.suspects["alice"], b"alice's", name)
    killed(contest.fs)
    fs = recovery.open_filesystem(open_store(str(contest.path / ".isofs")), str(contest.path))
    before = set(fs.nodes)
    apply.innocent(fs, 1)
    assert set(fs.nodes) == before
    assert set(contest.main().values()) == {b"alice's"}
    recovery.close_filesystem(fs)


class Counted(dict[Any, Any]):
    """A table that counts how many of its rows are gone through."""

    rows = 0

    def __iter__(self) -> Iterator[Any]:
        for key in super().__iter__():
            Counted.rows += 1
            yield key

    def values(self) -> Any:
        return (self[key] for key in self)


def rows_at_the_end(path: Path, others: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many rows the end of a verdict on alice goes through, if carol has so many files in so many directories."""
    files = {f"{n}/f": b"main's" for n in range(others)}
    contest = Contest(path, {"a": b"main's", **files}, ("alice", "carol"))
    contest.write(contest.suspects["alice"], b"alice's", "a")
    for name in files:
        contest.write(contest.suspects["carol"], b"carol's", name)
        contest.write(contest.bob, b"bob's", name)
    fs = contest.fs
    assert len(fs.bases) == others
    fs.origins, fs.bases, Counted.rows = Counted(fs.origins), Counted(fs.bases), 0
    monkeypatch.setattr(ending, "_TOGETHER", 2)
    apply.malicious(fs, 1)
    rows = Counted.rows
    apply.malicious(fs, 2)
    assert (fs.origins, fs.bases, fs.referring) == ({}, {}, {})
    contest.close()
    return rows


def test_the_end_of_a_verdict_goes_through_what_others_have_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (rows_at_the_end(tmp_path / str(n), n, monkeypatch) for n in (10, 40))
    assert few > 10
    assert many < 5 * few
