"""The power is cut in the middle of verdicts, on a disk that keeps only what was synced."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from isofs.engine import recovery
from isofs.engine.checks import check
from isofs.engine.state import Filesystem
from isofs.merge import apply
from isofs.model.records import SubjectState
from support import power
from support.attic import Named, check_complete, main_of
from support.cuts import cut_off
from support.kill_engine import open_engine, seen
from support.mount import ALICE
from support.power import Disk
from support.trees import Tree, differences
from test_merge_faults import to_the_verdict

#: Every how many steps the power is cut; at each of them for a longer look: ISOFS_HISTORIES=5000.
STRIDES = {"innocent": 17, "malicious": 1}
if "ISOFS_HISTORIES" in os.environ:
    STRIDES = dict.fromkeys(STRIDES, 1)

Outcome = tuple[dict[str, Tree], dict[int, str], dict[tuple[int, bytes], tuple[str, str]]]

VERDICTS: dict[str, Callable[[Filesystem, int], object]] = {"innocent": apply.innocent, "malicious": apply.malicious}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """A disk, switched off, on which alice's work waits for its verdict."""
    with power.made(tmp_path_factory.mktemp("power")) as disk:
        recovery.close_filesystem(to_the_verdict(disk.directory / "main"))
        disk.umount()
        yield disk


def verdict(fs: Filesystem, word: str) -> None:
    """Judge alice, if that has not been finished."""
    sid = next(sid for sid, subject in fs.subjects.items() if subject.uid == ALICE)
    if fs.subjects[sid].state is SubjectState.SUSPECT:
        VERDICTS[word](fs, sid)


def outcome(fs: Filesystem) -> Outcome:
    found = seen(fs)
    return found.trees, found.states, found.vectors


@pytest.mark.parametrize("names", [False, True], ids=["nothing", "names"])
@pytest.mark.parametrize("word", VERDICTS)
def test_a_verdict_survives_a_cut_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk, word: str, names: bool
) -> None:
    """What is there is what would be there without the cut: everybody's views, and the attic. `names`: the file
    system had just committed all changes of names, but neither contents nor the database's log."""
    whole = disk.copied(tmp_path / "whole")
    with whole.mounted() as main:
        before, fs = main_of(main), open_engine(main)
        verdict(fs, word)
        expected = outcome(fs)
        recovery.close_filesystem(fs)
    lines, stop = [], 1
    while True:
        copy = disk.copied(tmp_path / "cut")
        with copy.mounted() as main:
            fs = open_engine(main)
            if not cut_off(stop, monkeypatch, partial(verdict, fs, word)):
                break
            copy.cut(fs, names=names)
            lines += [f"step {stop}: {line}" for line in _wrong(main, word, expected, before)]
        stop += STRIDES[word]
    recovery.close_filesystem(fs)
    assert stop > STRIDES[word]
    assert lines == []


def _wrong(main: Path, word: str, expected: Outcome, before: dict[int, Named]) -> list[str]:
    fs = open_engine(main)
    try:
        verdict(fs, word)
        trees, states, vectors = outcome(fs)
        lines = [str(problem) for problem in check(fs)]
        lines += [f"{user}: {line}" for user, tree in expected[0].items() for line in differences(trees[user], tree)]
        if states != expected[1]:
            lines.append(f"subjects are {states}")
        if vectors != expected[2]:
            lines.append(f"vectors: {sorted(set(vectors.items()) ^ set(expected[2].items()))}")
        try:
            check_complete(fs, before, main_of(main))
        except AssertionError as error:
            lines.append(f"attic: {error}")
        return lines
    finally:
        recovery.close_filesystem(fs)
