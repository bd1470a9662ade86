"""Files saved as vim does: what is saved gets another name, which is removed when the new file is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isofs.engine import checks
from isofs.merge import apply
from support.contest import BOB, Contest
from support.cuts import cut_off
from support.engine import Walker

LINES = b"".join(b"%d\n" % number for number in range(9))
HERS, HIS = LINES.replace(b"0\n", b"hers\n"), LINES.replace(b"8\n", b"his\n")
BOTH = HERS.replace(b"8\n", b"his\n")

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


@pytest.fixture
def contest(tmp_path: Path) -> Iterator[Contest]:
    contest = Contest(tmp_path / "main", {"file": LINES, "other": b""})
    for name in ("file", "other"):
        os.chown(contest.path / name, BOB, 100)
        (contest.path / name).chmod(0o666)
    yield contest
    contest.close()


def in_place(user: Walker, content: bytes) -> None:
    user.write(b"file", content, os.O_WRONLY | os.O_TRUNC)


def over(user: Walker, content: bytes) -> None:
    user.write(b"new", content, NEW)
    user.rename(b"new", b"file")


def with_backup(user: Walker, content: bytes) -> None:
    user.rename(b"file", b"file~")
    user.write(b"file", content, NEW)
    user.unlink(b"file~")


@pytest.mark.parametrize("hers", [in_place, over, with_backup])
@pytest.mark.parametrize("his", [in_place, over, with_backup])
def test_both_sides_changes_are_merged(
    contest: Contest, hers: Callable[[Walker, bytes], None], his: Callable[[Walker, bytes], None]
) -> None:
    alice = contest.suspects["alice"]
    hers(alice, HERS)
    his(contest.bob, HIS)
    assert (alice.read(b"file"), contest.bob.read(b"file")) == (HERS, HIS)
    assert set(alice.listdir(b"")) == set(contest.bob.listdir(b"")) == {b"file", b"other"}
    planned = contest.planned()
    (item,) = contest.innocent().items
    assert ([item], item.path, item.action) == (planned, b"file", "merged")
    assert contest.main() == {"file": BOTH, "other": b""}
    assert not checks.check(contest.fs)


def test_saved_again_and_again(contest: Contest) -> None:
    alice = contest.suspects["alice"]
    for content in (b"", b"draft", HERS):
        with_backup(alice, content)
        with_backup(contest.bob, content + LINES)
    with_backup(contest.bob, HIS)
    contest.innocent()
    assert contest.main() == {"file": BOTH, "other": b""}


def test_what_has_the_file_open_goes_on(contest: Contest) -> None:
    """With the file that it had open: the new one, or the old one without a name."""
    alice = contest.suspects["alice"]
    for user, other in ((alice, contest.bob), (contest.bob, alice)):
        old = user.open(b"file", os.O_RDWR)
        before = old.read()
        user.rename(b"file", b"file~")
        user.write(b"file", b"new", NEW)
        new = user.open(b"file", os.O_RDWR)
        seen = other.read(b"file")
        user.unlink(b"file~")
        new.write(0, b"NEW")
        old.write(0, b"OLD")
        assert (user.read(b"file"), old.read()) == (b"NEW", b"OLD" + before[3:])
        assert other.read(b"file") == seen or user is contest.bob
        for file in (old, new):
            file.close()
    assert (alice.read(b"file"), contest.bob.read(b"file")) == (b"NEW", b"NEW")
    assert not checks.check(contest.fs)


@pytest.mark.parametrize("stop", range(5))
@pytest.mark.parametrize("who", ["alice", "bob"])
def test_killed_when_the_backup_is_removed(
    contest: Contest, who: str, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backup is there or not, and what either has written is there."""
    user, saved = (contest.suspects["alice"], HERS) if who == "alice" else (contest.bob, HIS)
    if who == "bob":
        in_place(contest.suspects["alice"], HERS)
    user.rename(b"file", b"file~")
    user.write(b"file", saved, NEW)
    cut_off(stop, monkeypatch, lambda: user.unlink(b"file~"))
    contest.start_again()
    assert not checks.check(contest.fs)
    apply.innocent(contest.fs, contest.sid())
    assert {HERS, saved} <= {*contest.main().values(), *contest.waiting()}
    assert contest.main()["file"] == saved
    assert not checks.check(contest.fs)


def test_a_backup_that_stays_is_the_file_under_another_name(contest: Contest) -> None:
    alice = contest.suspects["alice"]
    alice.rename(b"file", b"file~")
    alice.write(b"file", HERS, NEW)
    contest.innocent()
    assert contest.main() == {"file": HERS, "file~": LINES, "other": b""}


@pytest.mark.parametrize("instead", ["symlink", "linked", "elsewhere"])
def test_what_else_takes_a_removed_files_place_is_something_else(contest: Contest, instead: str) -> None:
    alice = contest.suspects["alice"]
    alice.rename(b"file", b"file~")
    if instead == "symlink":
        alice.symlink(b"other", b"file")
    elif instead == "linked":
        alice.write(b"file", HERS, NEW)
        alice.link(b"file", b"name")
    else:
        alice.rename(b"other", b"file")
    alice.unlink(b"file~")
    assert {item.action for item in contest.planned()} >= {"deleted"}
