"""Reports of verdicts: what is told of a merge outlives a kill at any step, whole, and nothing of it twice."""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio
from sqlalchemy import func, select

from isofs.engine import recovery
from isofs.engine.slices import at_once
from isofs.engine.state import Filesystem
from isofs.merge import apply, contested, partial, split
from isofs.merge.contested import Choice
from isofs.merge.parting import Wish
from isofs.merge.report import About, Item, Report, item
from isofs.model.records import SubjectId, Told, Verdict
from isofs.service.live import Live
from isofs.service.reports import Reports
from isofs.store import reports, schema
from isofs.store.folder import open_store
from support.contest import Contest
from support.cuts import cut_off
from support.engine import Walker, killed
from support.trees import differences
from support.vfs import EXCHANGE
from test_merge_folders import in_box
from test_merge_replaced import CASES as REPLACED
from test_merge_replaced import isolated, on_disk

SINCE = "2026-01-01T00:00:00Z"

#: Every step of every case: ISOFS_HISTORIES=5000. In CI some.
EVERY = 1 if "ISOFS_HISTORIES" in os.environ else 17
#: In CI of these, where every step is another; of the others every fifth.
STEPS = {"busy": 5, "beside": 1, "names": 1, "back": 1, "aside": 1, "places": 1} | {
    case: 3 for case in REPLACED if "other names" in case
}


def told(fs: Filesystem, sid: SubjectId) -> tuple[Verdict, list[Item]]:
    """The newest verdict on a subject and what is told of it, as the store has them."""
    verdict = reports.newest(fs.store.database, sid)
    assert verdict is not None
    return verdict, told_of(fs, verdict)


def told_of(fs: Filesystem, verdict: Verdict) -> list[Item]:
    found, after = list[Told](), None
    while page := reports.told(fs.store.database, verdict.number, after, 3):
        found, after = found + page, page[-1]
    return [item(one) for one in sorted(found, key=lambda one: one.place)]


def in_order(items: list[Item]) -> list[tuple[object, ...]]:
    """Items of which each is one that is in the other list as often."""
    return sorted((i.path, i.action, i.reason, i.review, i.aside or b"") for i in items)


class Busy:
    """A directory in which alice and bob changed the same in every way of which a merge has something to tell."""

    def __init__(self, path: Path) -> None:
        files = {name: name.encode() for name in ("f", "g", "h", "both", "late", "gone", "back", "moved", "d/e", "e/e")}
        files |= {"there/in": b"in", "circle/a": b"a", "circle/b": b"b", "deep/er/x": b"x", "twice": b"twice"}
        world = self.world = Contest(path, files, ())
        os.link(path / "f", path / "second")
        alice, bob = world.join("alice"), world.bob
        for name in ("f", "both", "back"):
            world.write(alice, b"alice's " + name.encode(), name)
        alice.unlink(b"gone")
        alice.unlink(b"late")
        alice.unlink(b"second")
        alice.rename(b"moved", b"there/moved")
        alice.rename(b"twice", b"twice.alice")
        alice.rename(b"g", b"d/g")
        alice.link(b"d/g", b"e/g")
        self._circle(alice)
        for gone in (b"deep/er/x", b"d/e"):
            alice.unlink(gone)
        alice.rmdir(b"deep/er")
        alice.rmdir(b"deep")
        alice.mkdir(b"new", 0o755)
        alice.mkdir(b"common", 0o755)
        for name in ("new/1", "new/2", "common/hers", "common/same", "aside", "there/aside"):
            world.write(alice, b"alice's " + name.encode(), name)
        alice.link(b"new/1", b"new/one")
        alice.chmod(b"h", 0o600)
        alice.chmod(b"e", 0o700)
        bob.mkdir(b"common", 0o755)
        for name in ("both", "late", "common/same", "aside", "there/aside"):
            world.write(bob, b"bob's " + name.encode(), name)
        bob.unlink(b"back")
        bob.rename(b"twice", b"twice.bob")
        world.write(bob, b"bob's", "deep/bobs")

    @staticmethod
    def _circle(alice: Walker) -> None:
        alice.rename(b"circle/a", b"circle/c")
        alice.rename(b"circle/b", b"circle/a")
        alice.rename(b"circle/c", b"circle/b")


def busy(path: Path) -> Filesystem:
    return Busy(path).world.fs


def beside(path: Path) -> Filesystem:
    """What alice gave more names than one, the first of which main has given to something else."""
    world = Contest(path, {"f": b"f", "g": b"g"}, ())
    alice = world.join("alice")
    alice.rename(b"f", b"a")
    alice.link(b"a", b"b")
    alice.mkdir(b"new", 0o755)
    alice.link(b"a", b"new/c")
    world.write(alice, b"hers", "h")
    alice.link(b"h", b"i")
    for name in ("a", "h"):
        world.write(world.bob, b"bob's", name)
    return world.fs


def names(path: Path) -> Filesystem:
    """What both gave other names, and alice more than one."""
    world = Contest(path, {"f": b"f", "g": b"g", "h": b"h"}, ())
    for plain in ("f", "g", "h"):
        os.link(path / plain, path / f"{plain}.2")
    alice = world.join("alice")
    for mains, hers in ((b"f", b"her.f"), (b"f.2", b"her.f.2"), (b"g", b"her.g"), (b"h.2", b"her.h")):
        alice.rename(mains, hers)
    alice.link(b"her.g", b"her.g.3")
    world.bob.rename(b"f.2", b"his.f.2")
    world.bob.unlink(b"g.2")
    world.bob.unlink(b"h.2")
    return world.fs


def back(path: Path) -> Filesystem:
    """What main lost comes back under all its names."""
    world = Contest(path, {"f": b"f", "d/in": b"in"}, ())
    os.link(path / "f", path / "d" / "f")
    alice = world.join("alice")
    world.write(alice, b"hers", "f")
    for name in (b"f", b"d/f"):
        world.bob.unlink(name)
    return world.fs


def places(path: Path) -> Filesystem:
    """Directories that change places, with what moves out of them."""
    world = Contest(path, {"a/f": b"f", "b/c/g": b"g"}, ())
    alice = world.join("alice")
    alice.rename(b"a", b"b/c", EXCHANGE)
    alice.rename(b"a", b"b/c/f", EXCHANGE)
    return world.fs


def aside(path: Path) -> Filesystem:
    """A file of two names, one of which the merge has to take away for a moment before it can give it another."""
    world = Contest(path, {"a/in": b"in", "c": b"c"}, ())
    os.link(path / "c", path / "a" / "c")
    alice = world.join("alice")
    alice.unlink(b"a/c")
    alice.mkdir(b"a/c", 0o755)
    alice.rename(b"a", b"c", EXCHANGE)
    return world.fs


WORLDS: dict[str, Callable[[Path], Filesystem]] = {
    "busy": busy,
    "beside": beside,
    "names": names,
    "back": back,
    "aside": aside,
    "places": places,
    "numbers": lambda path: in_box(path, "both").fs,
    **{
        case: lambda path, case=case: isolated(path, case)[0]  # type: ignore[misc]
        for case in REPLACED
        if EVERY == 1 or re.search("circle|places|other names", case)
    },
}


def merged(fs: Filesystem) -> None:
    apply.innocent(fs, 1)


def reopened(fs: Filesystem, directory: Path) -> Filesystem:
    """Killed, and started again."""
    killed(fs)
    fs = recovery.open_filesystem(open_store(str(directory / ".isofs")), str(directory))
    for sid in recovery.unfinished(fs):
        apply.resume(fs, sid)
    contested.resume(fs)
    return fs


@pytest.mark.parametrize("name", WORLDS)
def test_a_merge_that_was_cut_off_tells_what_it_did_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fs = reopened(WORLDS[name](tmp_path / "whole"), tmp_path / "whole")
    expected = in_order(apply.innocent(fs, 1).items)
    assert in_order(told(fs, 1)[1]) == expected
    merged_as = on_disk(tmp_path / "whole")
    recovery.close_filesystem(fs)
    step = min(EVERY, STEPS.get(name, 5))
    for stop in itertools.count(0, step):
        directory = tmp_path / str(stop)
        fs = WORLDS[name](directory)
        if not cut_off(stop, monkeypatch, lambda fs=fs: merged(fs)):  # type: ignore[misc]
            recovery.close_filesystem(fs)
            assert stop > 2 * step
            return
        fs = reopened(fs, directory)
        if fs.views:  # it had not begun
            apply.innocent(fs, 1)
        verdict, items = told(fs, 1)
        assert in_order(items) == expected, f"after {stop}"
        assert not differences(on_disk(directory), merged_as), f"after {stop}"
        assert verdict.ended is not None
        assert sum(verdict.counts.values()) == len(items)
        assert len(reports.verdicts(fs.store.database)) == 1
        recovery.close_filesystem(fs)


def test_a_merge_that_goes_on_tells_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs it again is told what the first run did."""
    fs = busy(tmp_path / "whole")
    expected = in_order(apply.innocent(fs, 1).items)
    recovery.close_filesystem(fs)
    fs = busy(tmp_path / "cut")
    assert cut_off(60, monkeypatch, lambda: merged(fs))
    killed(fs)
    fs = recovery.open_filesystem(open_store(str(tmp_path / "cut" / ".isofs")), str(tmp_path / "cut"))
    before = told(fs, 1)
    assert before[0].ended is None
    assert 0 < len(before[1]) < len(expected)
    assert in_order(apply.innocent(fs, 1).items) == expected
    recovery.close_filesystem(fs)


def test_a_part_that_was_cut_off_has_a_report_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def a_part(fs: Filesystem, report: Report) -> None:
        view = fs.views[1]
        pieces = at_once(partial.pieces(fs, view))
        there = at_once(partial.partial(fs, view, pieces, Wish(frozenset(piece.op for piece in pieces[::2]))))
        for _ in split.merge_steps(fs, split.merged(1, "--only some", SINCE), there, report):
            pass

    fs, report = reopened(busy(tmp_path / "whole"), tmp_path / "whole"), Report(About("carol"))
    a_part(fs, report)
    expected = in_order(report.items)
    recovery.close_filesystem(fs)
    whole = False
    for stop in itertools.count(3, 2 * EVERY):
        fs = busy(tmp_path / str(stop))
        if not cut_off(stop, monkeypatch, lambda fs=fs: a_part(fs, Report(About("carol")))):  # type: ignore[misc]
            recovery.close_filesystem(fs)
            assert stop > 4 * EVERY
            assert whole
            return
        fs = reopened(fs, tmp_path / str(stop))
        verdict, items = told(fs, 2)
        assert (verdict.part, verdict.by, verdict.user) == ("--only some", "carol", "alice")
        found = in_order(items)
        assert set(found) <= set(expected), f"after {stop}"  # what had been split off by then
        assert len(set(found)) == len(found)
        whole = found == expected
        recovery.close_filesystem(fs)


@pytest.mark.parametrize("choice", Choice)
def test_what_was_chosen_and_cut_off_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: Choice) -> None:
    """Of conflicts that are settled by hand; main has lost one of them meanwhile."""

    def in_conflict(path: Path) -> Filesystem:
        contest = Contest(path, {"one": b"1", "two": b"2"})
        for user in (contest.suspects["alice"], contest.bob):
            for name in ("one", "two"):
                contest.write(user, b"%d" % user.caller.uid, name)
        apply.innocent(contest.fs, 1)
        contest.bob.unlink(b"two")
        return contest.fs

    def settle(fs: Filesystem) -> Report:
        report = Report(About("carol", "asked both"))
        for one in list(contested.waiting(fs)):
            contested.settle_one(fs, one, choice, report)
        contested.finish(fs, list(fs.waiting), report)
        return report

    fs = in_conflict(tmp_path / "whole")
    expected = in_order(settle(fs).items)
    verdict, items = told(fs, 1)
    assert (verdict.verdict, verdict.by, verdict.reason) == ("resolve", "carol", "asked both")
    assert in_order(items) == expected
    assert [one.verdict for one in reports.verdicts(fs.store.database, 1011)] == ["resolve", "innocent"]
    recovery.close_filesystem(fs)
    for stop in itertools.count():
        fs = in_conflict(tmp_path / str(stop))
        if not cut_off(stop, monkeypatch, lambda fs=fs: settle(fs) and None):  # type: ignore[misc]
            recovery.close_filesystem(fs)
            assert stop > 4
            return
        fs = reopened(fs, tmp_path / str(stop))
        settle(fs)
        found = [told_of(fs, one) for one in reports.verdicts(fs.store.database) if one.verdict == "resolve"]
        assert in_order([one for items in found for one in items]) == expected, f"after {stop}"
        assert all(one.ended is not None for one in reports.verdicts(fs.store.database))
        recovery.close_filesystem(fs)


def test_of_a_discarding_it_is_told_how_much_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, about = busy(tmp_path / "main"), About("carol", "ransomware", {"modified": 3}, "/evidence/1.tar.zst")
    assert cut_off(2, monkeypatch, lambda: [*apply.discard_steps(fs, 1, Report(about))])
    fs = reopened(fs, tmp_path / "main")
    verdict, items = told(fs, 1)
    assert (verdict.verdict, verdict.by, verdict.reason) == ("malicious", "carol", "ransomware")
    assert (verdict.counts, verdict.evidence, items) == ({"modified": 3}, "/evidence/1.tar.zst", [])
    assert verdict.ended is not None
    recovery.close_filesystem(fs)


def test_a_report_that_cannot_be_read_keeps_no_merge_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = busy(tmp_path / "main")
    assert cut_off(60, monkeypatch, lambda: merged(fs))
    killed(fs)
    with closing(sqlite3.connect(tmp_path / "main" / ".isofs" / "isofs.db")) as connection, connection:
        connection.execute("UPDATE verdicts SET counts = 'none'")
    fs = recovery.open_filesystem(open_store(str(tmp_path / "main" / ".isofs")), str(tmp_path / "main"))
    apply.resume(fs, 1)
    assert fs.views == {}
    recovery.close_filesystem(fs)


def test_reports_are_forgotten_after_their_time(tmp_path: Path) -> None:
    fs = busy(tmp_path / "main")
    apply.innocent(fs, 1)
    kept = Reports(fs, Live(fs.store), lambda path: path)
    trio.run(kept.purge, "2020")
    assert told(fs, 1)[1]
    trio.run(kept.purge, "9999")
    assert reports.verdicts(fs.store.database) == []
    number = fs.store.database.integers(select(func.count()).select_from(schema.told))
    assert number == [0]
    recovery.close_filesystem(fs)
