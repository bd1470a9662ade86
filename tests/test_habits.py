"""A suspect's programs are led to nodes of their own at once where they open what they look up or list."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from isofs.engine import calls, files
from isofs.engine.habits import Habits
from isofs.engine.state import Caller, Node, node_for
from isofs.errors import CallError
from isofs.model.records import MAIN
from support.contest import Contest

#: alice, with two programs, and somebody trusted.
READER, LOOKER = Caller(1011, 100, 7, 0o022), Caller(1011, 100, 8, 0o022)
BOB = Caller(1001, 100, 9, 0o022)


def node(contest: Contest, caller: Caller, *path: bytes) -> Node:
    at = node_for(contest.fs, MAIN, contest.fs.root)
    for name in path:
        found = calls.lookup(contest.fs, caller, at, name)
        assert found is not None
        at = found.node
    return at


def listed(contest: Contest, caller: Caller, directory: Node) -> dict[bytes, int]:
    """Whose nodes a listing leads to."""
    entries = list(calls.readdir(contest.fs, caller, directory))
    return {name: calls.listed(contest.fs, caller, directory, name, obj, at).node.sid for name, obj, at in entries}


def test_who_opens_what_it_lists_is_led_to_its_own_nodes_in_what_it_lists_next(tmp_path: Path) -> None:
    tree = {f"{directory}/{name}": b"text" for directory in ("one", "two") for name in ("a", "b")}
    contest = Contest(tmp_path / "main", tree)
    (tmp_path / "main" / "two" / "inner").mkdir()
    fs, sid = contest.fs, contest.sid()
    one, two = node(contest, READER, b"one"), node(contest, READER, b"two")

    assert listed(contest, READER, one) == {b"a": MAIN, b"b": MAIN}
    assert listed(contest, LOOKER, one) == {b"a": MAIN, b"b": MAIN}
    with pytest.raises(CallError) as refused:
        files.open(fs, READER, node_for(fs, MAIN, node(contest, BOB, b"one", b"a").obj), os.O_RDONLY)
    assert refused.value.errno == errno.ESTALE

    assert listed(contest, READER, two) == {b"a": sid, b"b": sid, b"inner": MAIN}
    assert listed(contest, BOB, two) == {b"a": MAIN, b"b": MAIN, b"inner": MAIN}
    contest.close()


def test_who_only_looks_shares_mains_nodes(tmp_path: Path) -> None:
    contest = Contest(tmp_path / "main", {"one/a": b"text", "two/a": b"text"})
    fs = contest.fs
    one, two = node(contest, READER, b"one"), node(contest, READER, b"two")

    listed(contest, LOOKER, one)
    with pytest.raises(CallError):
        files.open(fs, READER, node(contest, BOB, b"one", b"a"), os.O_RDONLY)

    assert listed(contest, READER, two) == listed(contest, LOOKER, two) == {b"a": MAIN}
    contest.close()


def test_what_is_remembered_is_bounded() -> None:
    habits = Habits()
    for thread in range(3000):
        for directory in range(20):
            habits.lists(thread, directory)
        habits.opens(thread, range(19, 40))
    assert len(habits.listed) == len(habits.readers) == 1000
    assert habits.opens_listed(2999)
    assert not habits.opens_listed(0)
    for directory in range(30_000):
        habits.opens(0, [directory])
    assert len(habits.opened_in) <= 10_000
    assert habits.opens_in(29_999)


def test_a_directory_that_was_listed_long_ago_counts_no_more() -> None:
    habits = Habits()
    for directory in range(100):
        habits.lists(1, directory)
    habits.opens(1, [0])
    assert not habits.opens_listed(1)
    habits.opens(1, [99])
    assert habits.opens_listed(1)
