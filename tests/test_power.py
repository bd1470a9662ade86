"""The power is cut in the middle of verdicts, on a disk that keeps only what was synced."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from isofs.engine import recovery
from isofs.engine.checks import check
from isofs.engine.state import Filesystem
from isofs.merge import apply, contested
from isofs.merge.report import Report
from isofs.model.records import SubjectState
from support import power
from support.attic import Named, bring_back, check_complete, entries, kept, main_of
from support.contest import Contest
from support.cuts import cut_off
from support.engine import Kernel, Walker
from support.kill_engine import open_engine, seen, session
from support.mount import ALICE
from support.power import Disk
from support.trees import Tree, differences
from test_merge_faults import to_the_verdict

#: Every how many steps the power is cut; at each of them for a longer look: ISOFS_HISTORIES=5000.
STRIDES = {"innocent": 29, "malicious": 1, "others": 3}
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


@pytest.mark.parametrize("stop", range(3, 14) if "ISOFS_HISTORIES" in os.environ else (4, 5, 7, 13))
def test_what_is_written_in_place_is_there_after_a_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Of a file with several names: what main had in the attic, and what it has instead, once nothing else has it."""
    before, after = b"main's" * 5000, b"alice's" * 5000
    with power.made(tmp_path) as disk:
        main = disk.directory / "main"
        contest = Contest(main, {"file": before}, suspects=())
        os.link(main / "file", main / "name")
        contest.write(contest.join("alice"), after)
        os.sync()
        assert cut_off(stop, monkeypatch, partial(apply.innocent, contest.fs, 1))
        disk.cut(contest.fs, names=bool(stop % 2))
        fs = open_engine(main)
        if 1 in fs.views:
            apply.innocent(fs, 1)
        assert (main / "name").read_bytes() == after
        assert [kept(fs, entry).content for entry in entries(fs)] == [before]
        recovery.close_filesystem(fs)


def test_what_was_synced_is_there_after_a_cut(tmp_path: Path, disk: Disk) -> None:
    """A suspect's content and rows, a trusted user's save over what the suspect changed. The rest may be lost, but
    neither is main touched nor does a verdict go wrong."""
    copy = disk.copied(tmp_path / "cut")
    with copy.mounted() as main:
        fs = open_engine(main)
        s = session(Kernel(fs))
        _synced(fs, s.alice, b"docs/synced", b"alice's, synced\n")
        _synced(fs, s.carol, b"docs/.new", b"carol's, synced\n")
        s.carol.rename(b"docs/.new", b"docs/report")
        s.alice.write(b"docs/late", b"alice's, not synced\n", os.O_WRONLY | os.O_CREAT)
        before = main_of(main)
        copy.cut(fs, names=True)
        fs = open_engine(main)
        assert (main / "docs/report").read_text() == "carol's, synced\n"
        assert _contents(main_of(main)) == _contents(before)
        s = session(Kernel(fs))
        assert s.alice.read(b"docs/synced") == b"alice's, synced\n"
        verdict(fs, "innocent")
        assert (main / "docs/synced").read_text() == "alice's, synced\n"
        assert check(fs) == []
        recovery.close_filesystem(fs)


def _contents(main: dict[int, Named]) -> dict[bytes, bytes]:
    return {path: named.thing.content for named in main.values() for path in named.paths}


def _synced(fs: Filesystem, user: Walker, path: bytes, content: bytes) -> None:
    """Write a file and fsync it, as the adapter does that."""
    opened = user.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    opened.write(0, content)
    os.fsync(opened.handle.descriptor)
    if opened.handle.sid:
        fs.store.sync()
    opened.close()


def bring_all_back(fs: Filesystem) -> None:
    """What the merge took from main comes back: over what is there now, or under another name."""
    for entry in entries(fs):
        if entry.user != "root":  # else it is what this replaced
            replaced = entry.action == "replaced"
            bring_back(fs, entry.number, entry.path if replaced else b"back-%d" % entry.number, replace=replaced)


def settle_all(fs: Filesystem) -> None:
    """What the merge left undecided: of every second object the suspect's, of the others both."""
    contested.resume(fs)
    report = Report()
    for one in list(contested.waiting(fs)):
        choice = contested.Choice.BOTH if one.op % 2 else contested.Choice.SUSPECT
        contested.settle_one(fs, one, choice, report)
    contested.finish(fs, list(fs.waiting), report)


@pytest.mark.parametrize("act", [bring_all_back, settle_all])
def test_what_else_changes_main_survives_a_cut_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk, act: Callable[[Filesystem], None]
) -> None:
    judged = disk.copied(tmp_path / "judged")
    with judged.mounted() as main:
        fs = open_engine(main)
        verdict(fs, "innocent")
        recovery.close_filesystem(fs)
    whole = judged.copied(tmp_path / "whole")
    with whole.mounted() as main:
        fs = open_engine(main)
        act(fs)
        expected, stowed = outcome(fs), _stowed(fs)
        recovery.close_filesystem(fs)
    stop, lines, cut = 1, list[str](), True
    while cut:
        copy = judged.copied(tmp_path / "cut")
        with copy.mounted() as main:
            fs = open_engine(main)
            if cut := cut_off(stop, monkeypatch, partial(act, fs)):
                copy.cut(fs, names=True)
                fs = open_engine(main)
                act(fs)
                found = outcome(fs)
                lines += [f"step {stop}: {problem}" for problem in check(fs)]
                for user, tree in expected[0].items():
                    lines += [f"step {stop}, {user}: {line}" for line in differences(found[0][user], tree)]
                if _stowed(fs) != stowed:
                    lines.append(f"step {stop}: the attic has {_stowed(fs)}")
            recovery.close_filesystem(fs)
        stop += STRIDES["others"]
    assert stop > 2 * STRIDES["others"]
    assert lines == []


def _stowed(fs: Filesystem) -> Counter[bytes]:
    return Counter(kept(fs, entry).content for entry in entries(fs))
