"""SIGKILL at any commit of a scripted session: what was answered is there, what was not is there wholly or not."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from isofs.engine import recovery
from isofs.engine.checks import check
from support.kill_daemon import start
from support.kill_engine import Seen, fresh, in_processes, killed_at, open_engine, record, seen
from support.kill_mount import play_until_death, trees
from support.kill_session import build
from support.mount import Mounted
from support.race_world import folder
from support.trees import differences

#: Processes that play sessions at the same time.
PROCESSES = 2

#: How many daemons of real mounts are killed.
MOUNTS = 3

#: Of the moments before and after each commit, every fifth: both kinds in turn. All for a longer look:
#: ISOFS_HISTORIES=5000.
EVERY = 1 if "ISOFS_HISTORIES" in os.environ else 5


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for trees that are played in."""
    old = os.umask(0)
    with folder() as path:
        yield path.parent
    os.umask(old)


def _unlike(found: Seen, expected: Seen) -> list[str]:
    """What differs between two moments, versions' vectors and main's counts excepted."""
    lines = _other_trees(found, expected)
    if found.states != expected.states:
        lines.append(f"subjects are {found.states} instead of {expected.states}")
    return lines


def _other_trees(found: Seen, expected: Seen) -> list[str]:
    return [f"{user}: {line}" for user, tree in expected.trees.items() for line in differences(found.trees[user], tree)]


def _lost(found: Seen, before: Seen, after: Seen) -> list[str]:
    """What differs after a kill between two answers, `before` and `after`: a line each, none if all is well.

    All views must be as at one of the two moments; vectors as at either. A copy that a change begins with may be
    there, and a modification of main that was about to be made may have been counted.
    """
    ways = [_unlike(found, before), _unlike(found, after)]
    lines = min(ways, key=len) if all(ways) else []
    for key in sorted(found.vectors.keys() | before.vectors.keys() | after.vectors.keys()):
        vector = found.vectors.get(key)
        copied = vector is not None and vector[0] == "m" and key not in before.vectors
        if not copied and vector not in (before.vectors.get(key), after.vectors.get(key)):
            lines.append(f"{key}: {vector}, not {before.vectors.get(key)} or {after.vectors.get(key)}")
    for path in sorted(found.counts.keys() & before.counts.keys() & after.counts.keys()):
        count, first, last = found.counts[path], before.counts[path], after.counts[path]
        counted = first + 1 if isinstance(first, int) else first
        if count not in (first, last, counted):
            lines.append(f"main's count of {path!r} is {count}, not {first} or {last}")
    return lines


def _killed(directory: Path, moments: Sequence[Seen], commit: int, when: str) -> list[str]:
    """Kill at one commit, open again, compare."""
    answered = killed_at(fresh(directory), commit, when)
    if answered is None:
        return [f"{when} commit {commit}: the session came to its end without that commit"]
    fs = open_engine(directory)
    try:
        lines = [str(problem) for problem in check(fs)]
        found = seen(fs)
    finally:
        recovery.close_filesystem(fs)
    lines += _lost(found, moments[answered], moments[answered + 1])
    return [f"{when} commit {commit}, {answered} answered: {line}" for line in lines]


def test_a_kill_at_any_commit_loses_nothing(place: Path) -> None:
    """The engine, killed right before or right after every single commit of the session."""
    moments, commits = record(fresh(place / "whole"))
    assert len(moments) > 100
    assert commits > 100
    kills = [(commit, when) for commit in range(1, commits + 1) for when in ("before", "after")][::EVERY]

    def work(number: int) -> list[str]:
        directory = place / f"process{number}"
        return [line for commit, when in kills[number::PROCESSES] for line in _killed(directory, moments, commit, when)]

    assert in_processes(PROCESSES, work) == []


@pytest.mark.mount
def test_a_daemon_killed_at_a_commit_loses_nothing(place: Path) -> None:
    """The same session by real users on a mount, whose daemon is killed at commits all over the session."""
    moments, commits = record(fresh(place / "whole"))
    lines = []
    for number in range(MOUNTS):
        commit, when = 1 + number * (commits - 1) // (MOUNTS - 1), ("before", "after")[number % 2]
        main = fresh(place / "mounted")
        build(main)
        lines += [f"{when} commit {commit}: {line}" for line in _killed_mounted(main, moments, commit, when)]
    assert lines == []


def _killed_mounted(main: Path, moments: Sequence[Seen], commit: int, when: str) -> list[str]:
    """Mount with a daemon that is killed at a commit, play, mount again with the real command, compare."""
    mount = Mounted(main)
    daemon = start(main, commit, when)
    try:
        answered, failure = play_until_death(main)
        try:
            code = daemon.wait(10)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon lives; {failure}") from None
        assert code == -signal.SIGKILL, failure
        mount.mount()
        found = Seen(trees(main))
        mount.check()
        mount.umount()
    finally:
        daemon.kill()
        daemon.communicate()
        subprocess.run(["umount", "-l", str(main)], capture_output=True, check=False)
    ways = [_other_trees(found, moments[n]) for n in (answered, min(answered + 1, len(moments) - 1))]
    return [f"{answered} answered: {line}" for line in min(ways, key=len)] if all(ways) else []
