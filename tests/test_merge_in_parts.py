"""A verdict in parts: the parts together do what one verdict does, and each is whole wherever it is cut off."""

from __future__ import annotations

import functools
import itertools
import os
import random
from pathlib import Path

import pytest

from isofs.engine import checks, recovery
from isofs.engine.slices import at_once
from isofs.engine.state import Filesystem
from isofs.merge import apply, partial, split
from isofs.merge.parting import Wish
from isofs.merge.report import Report
from isofs.store.folder import open_store
from support.cuts import cut_off
from support.engine import Kernel, Walker, killed
from support.histories import Step, history
from support.trees import Tree, differences, tree, without_times
from test_engine_machine import PATHS, SINCE, TRUSTED
from test_merge_partial import PartingMachine, without_directory_times
from test_merge_replaced import ALICE, CASES, EVERY, INTRICATE, isolated, on_disk

#: More for a longer look: ISOFS_HISTORIES=5000.
COUNT = int(os.environ.get("ISOFS_HISTORIES", "8"))

CAROL = 1003
CALLS = {"write", "make", "link", "unlink", "rmdir", "rename", "change", "open", "use", "close", "forget"}


def calls(seed: int, user: int, length: int) -> list[Step]:
    """Calls of one user."""
    steps = [step for step in history(seed, [user] * 3, PATHS, 3 * length) if step[0] in CALLS]
    return steps[:length]


def worked(seed: int) -> PartingMachine:
    """A suspect has been at work, and nobody else since the suspicion."""
    machine = PartingMachine()
    for user, length in ((TRUSTED[0], 15), (CAROL, 40)):
        while machine.opened:
            machine.close(0)
        if user == CAROL:
            machine.suspect(0)
        for name, given in calls(seed + user, user, length):
            if machine.opened or name not in ("use", "close"):
                getattr(machine, name)(**given)
    machine.check_all()
    return machine


def merge_some(machine: PartingMachine, draw: random.Random) -> None:
    """Merge some of what the suspect did, drawn at random; nothing of that has to stay."""
    (sid,) = machine.world.views
    view = machine.fs.views[sid]
    pieces = at_once(partial.pieces(machine.fs, view))
    wanted = frozenset(piece.op for piece in pieces if draw.random() < 0.4)
    machine._note_things()
    found = at_once(partial.partial(machine.fs, view, pieces, Wish(wanted)))
    assert not found.left
    assert wanted <= found.chosen
    machine.part_of(sid, found)
    machine.check_all()


def merge_all(machine: PartingMachine) -> Tree:
    """Merge all that is left, and return main."""
    (sid,) = machine.fs.views
    assert not apply.innocent(machine.fs, sid).conflicts
    assert not checks.check(machine.fs)
    return without_directory_times(machine._main())


def merged_whole(seed: int) -> Tree:
    machine = worked(seed)
    try:
        return merge_all(machine)
    finally:
        machine.teardown()


@pytest.mark.parametrize("seed", range(COUNT))
def test_in_parts_as_at_once(seed: int) -> None:
    draw, machine = random.Random(seed), worked(seed)
    try:
        for _ in range(draw.randint(1, 3)):
            merge_some(machine, draw)
        assert not differences(merge_all(machine), merged_whole(seed))
    finally:
        machine.teardown()


@pytest.mark.parametrize("seed", range(COUNT))
def test_the_rest_discarded_leaves_what_was_merged(seed: int) -> None:
    draw, machine = random.Random(seed), worked(seed)
    try:
        merge_some(machine, draw)
        main = machine._main()
        machine.decide(0, innocent=False)
        assert not differences(machine._main(), main)
        machine.check_all()
    finally:
        machine.teardown()


def seen_by_alice(fs: Filesystem) -> Tree:
    return without_times(tree(Walker(Kernel(fs), ALICE)))


def merge_drawn(fs: Filesystem, case: str) -> None:
    """Merge some of what alice did in a case, always the same."""
    view, draw = fs.views[1], random.Random(case)
    pieces = at_once(partial.pieces(fs, view))
    wanted = frozenset(piece.op for piece in pieces if draw.random() < 0.5) or frozenset([pieces[0].op])
    found = at_once(partial.partial(fs, view, pieces, Wish(wanted)))
    assert found.chosen
    for _ in split.merge_steps(fs, split.merged(1, "", SINCE), found, Report()):
        pass


@pytest.mark.parametrize("case", CASES)
def test_part_of_what_was_replaced(tmp_path: Path, case: str) -> None:
    fs, seen = isolated(tmp_path / "main", case)
    merge_drawn(fs, case)
    assert not differences(seen_by_alice(fs), seen)
    assert not checks.check(fs)
    apply.innocent(fs, 1)
    assert not differences(on_disk(tmp_path / "main"), seen)
    assert not checks.check(fs)
    recovery.close_filesystem(fs)


@pytest.mark.parametrize("case", INTRICATE[1::EVERY])
def test_a_part_cut_off_anywhere_is_merged_or_is_not(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after each write of the store: the suspect sees the same, main has all of it or nothing."""
    fs, seen = isolated(tmp_path / "whole", case)
    before = on_disk(tmp_path / "whole")
    merge_drawn(fs, case)
    after = on_disk(tmp_path / "whole")
    recovery.close_filesystem(fs)
    for stop in itertools.count():
        directory = tmp_path / str(stop)
        fs, _ = isolated(directory, case)
        if not cut_off(stop, monkeypatch, functools.partial(merge_drawn, fs, case)):
            recovery.close_filesystem(fs)
            assert stop > 4
            return
        killed(fs)
        fs = recovery.open_filesystem(open_store(str(directory / ".isofs")), str(directory))
        for sid in recovery.unfinished(fs):
            apply.resume(fs, sid)
        assert not differences(on_disk(directory), after if stop else before), f"after {stop}"
        assert not differences(seen_by_alice(fs), seen), f"after {stop}"
        assert not checks.check(fs), f"after {stop}"
        assert fs.suspects == {ALICE.uid: 1}
        recovery.close_filesystem(fs)
