"""Verdicts on parts whose calls fail: nothing is lost, and running them again ends them as if nothing was.

Every different call that merging one part and discarding another makes fails once, as in `test_merge_faults`.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from isofs.engine import recovery
from isofs.engine.checks import Problem, check
from isofs.engine.slices import at_once
from isofs.engine.state import Filesystem
from isofs.errors import IsofsError
from isofs.merge import partial, split
from isofs.merge.parting import Wish
from isofs.merge.report import Report
from isofs.model.records import Op
from support.faults import Faults
from support.mount import ALICE
from support.trees import differences
from test_engine_machine import SINCE
from test_merge_faults import KINDS, outcome, problems, reopened, to_the_verdict

#: Kinds of faults, and whether isofs is started again after each. All of them for a longer look: ISOFS_HISTORIES=5000.
CASES = [("no space", False), ("no space for rows", True), ("broken when read", True)]
if "ISOFS_HISTORIES" in os.environ:
    CASES = list(itertools.product(KINDS, (False, True)))


def drawn(fs: Filesystem) -> tuple[frozenset[Op], frozenset[Op]]:
    """What is to be merged of alice's work, and to be discarded; the same every time."""
    view = fs.views[fs.suspects[ALICE]]
    pieces = at_once(partial.pieces(fs, view))
    merged = at_once(partial.partial(fs, view, pieces, Wish(frozenset(piece.op for piece in pieces[::2])))).chosen
    rest = frozenset(piece.op for piece in pieces) - merged
    discarded = at_once(partial.unwanted(fs, view, pieces, rest - {max(rest)})).chosen
    assert min(len(merged), len(discarded)) > 4
    return merged, discarded


def carry_out(fs: Filesystem, merged: frozenset[Op], discarded: frozenset[Op], report: Report) -> None:
    """Finish what was cut off, then do what is left to do."""
    sid = fs.suspects[ALICE]
    for begun in [s.sid for s in fs.subjects.values() if s.part_of == sid and s.sid in fs.views]:
        for _ in split.finish_steps(fs, begun, report):
            pass
        fs.store.remove_discarded(begun)
    pieces = at_once(partial.pieces(fs, fs.views[sid]))
    there = at_once(partial.partial(fs, fs.views[sid], pieces, Wish(merged & {piece.op for piece in pieces})))
    if there.chosen:
        for _ in split.merge_steps(fs, split.merged(sid, "", SINCE), there, report):
            pass
    pieces = at_once(partial.pieces(fs, fs.views[sid]))
    away = at_once(partial.unwanted(fs, fs.views[sid], pieces, discarded & {piece.op for piece in pieces}))
    if away.chosen:
        part = split.discarded(sid, "", SINCE)
        for _ in split.discard_steps(fs, part, away, Report()):
            pass
        fs.store.remove_discarded(part.sid)


def wrong(fs: Filesystem) -> list[Problem]:
    """What does not hold; a part that was cut off may be a step behind."""
    parts = {s.sid for s in fs.subjects.values() if s.part_of is not None}
    return [one for one in problems(fs) if not (one.sid in parts and one.invariant in ("I2", "I3"))]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is there after verdicts that nothing disturbed."""
    fs, report = to_the_verdict(tmp_path_factory.mktemp("undisturbed") / "main"), Report()
    carry_out(fs, *drawn(fs), report)
    found = outcome(fs, report)
    recovery.close_filesystem(fs)
    return found


@pytest.mark.parametrize(("kind", "restarted"), CASES)
def test_each_call_fails_once(tmp_path: Path, expected: Any, kind: str, restarted: bool) -> None:
    number, names = KINDS[kind]
    faults = Faults(number, names, commits=not names)
    fs, report = to_the_verdict(tmp_path / "main"), Report()
    parts = drawn(fs)
    try:
        while True:
            before = len(faults.failed)
            try:
                with faults.armed():
                    carry_out(fs, *parts, report)
                break
            except (OSError, IsofsError):
                assert len(faults.failed) > before
            assert wrong(fs) == [], faults.failed[-1]
            if restarted:
                fs = reopened(fs, tmp_path / "main")
                assert wrong(fs) == [], faults.failed[-1]
        fs = reopened(fs, tmp_path / "main")
        (trees, states, names), found = expected, outcome(fs, report)
        for user, one in trees.items():
            assert differences(found[0][user], one) == [], user
        assert (found[1], found[2]) == (states, names)
        assert check(fs) == []
    finally:
        recovery.close_filesystem(fs)
