"""What a suspect took away is gone from main after an innocent verdict, in whatever order it has to go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from isofs.engine import checks, recovery, suspicion
from isofs.engine.state import Caller
from isofs.merge import apply
from isofs.merge.report import Report
from isofs.store.folder import open_store
from support.contest import Contest
from support.engine import Kernel, Walker


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


@pytest.mark.parametrize("by", ["bob", "carol"])
@pytest.mark.parametrize("names", [("copy/one", "tree/one", "tree/two"), ("tree/two", "tree/one", "copy/one")])
@pytest.mark.parametrize("kept", ["copy/mine", "copy/one"])
def test_a_suspect_keeps_of_what_others_delete_the_names_that_it_gave(
    tmp_path: Path, by: str, names: tuple[str, ...], kept: str
) -> None:
    """And no others: had it given them in main, main would have no others either."""
    contest = Contest(tmp_path / "main", {"tree/one": b"one", "copy/other": b""}, ("alice", "carol"))
    os.link(contest.path / "tree/one", contest.path / "tree/two")
    alice = contest.suspects["alice"]
    if kept == "copy/one":
        names = tuple(name for name in names if name != kept)
        alice.link(b"tree/one", b"copy/one")
    else:
        os.link(contest.path / "tree/one", contest.path / "copy/one")
        alice.rename(b"copy/one", b"copy/mine")
    for name in names:
        (contest.bob if by == "bob" else contest.suspects["carol"]).unlink(os.fsencode(name))
    if by == "carol":
        contest.innocent(name="carol")
    assert {"tree": alice.listdir(b"tree"), "copy": set(alice.listdir(b"copy"))} == {
        "tree": {},
        "copy": {b"other", os.fsencode(os.path.basename(kept))},
    }
    contest.innocent()
    assert contest.main() == {kept: b"one", "copy/other": b""}
    assert not checks.check(contest.fs)
    contest.close()


@pytest.mark.parametrize("steps", range(8))
def test_a_deletion_that_does_not_stand_takes_no_name(tmp_path: Path, steps: int) -> None:
    """Nor when the merge is killed after any step and goes on at the next start."""
    contest = Contest(tmp_path / "main", {"one": b"", "other": b""})
    for name in ("one", "other"):
        os.link(contest.path / name, contest.path / f"{name}.link")
    alice = contest.suspects["alice"]
    for path in (b"one", b"one.link", b"other", b"other.link"):
        alice.unlink(path)
    contest.write(alice, b"alice's", "one")
    for name in ("one", "other"):
        contest.write(contest.bob, b"bob's", name)
    merge = apply.merge_steps(contest.fs, contest.sid(), Report())
    for _ in range(steps):
        next(merge, None)
    merge.close()
    contest.start_again()
    if contest.fs.views:
        apply.resume(contest.fs, contest.sid())
    found = contest.main()
    assert found.pop("one.isofs-alice") == b"alice's"
    assert found == dict.fromkeys(("one", "one.link", "other", "other.link"), b"bob's")
    assert not checks.check(contest.fs)
    contest.close()


def test_what_is_in_a_directory_that_main_lost_unseen_stays_and_is_merged(tmp_path: Path) -> None:
    """Unmounted, with all that is above: nobody was asked, so nothing could be kept while it was there."""
    main = tmp_path / "main"
    (main / "top/deep").mkdir(parents=True)
    (main / "top/deep/changed").write_text("main's")
    fs = recovery.open_filesystem(open_store(str(main / ".isofs")), str(main))
    kernel = Kernel(fs)
    sid = suspicion.suspect(fs, 61001, "alice", "", "2026-01-01T00:00:00Z").sid
    alice = Walker(kernel, Caller(61001, 61001, 61001))
    (main / "top/deep").chmod(0o777)
    alice.write(b"top/deep/changed", b"hers", os.O_WRONLY | os.O_TRUNC)
    alice.write(b"top/deep/new", b"new", os.O_WRONLY | os.O_CREAT)
    kernel.close()
    recovery.close_filesystem(fs)
    shutil.rmtree(main / "top")
    fs = recovery.open_filesystem(open_store(str(main / ".isofs")), str(main))
    assert not checks.check(fs)
    apply.innocent(fs, sid)
    found = {str(path.relative_to(main)): path.read_text() for path in main.glob("top/**/*") if path.is_file()}
    assert found == {"top/deep/changed": "hers", "top/deep/new": "new"}
    recovery.close_filesystem(fs)
