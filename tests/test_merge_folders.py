"""Maildir and MH folders that both sides worked in, as the standard library's `mailbox` reads them afterwards."""

from __future__ import annotations

import itertools
import mailbox
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from isofs.engine import checks
from support.contest import Contest
from support.engine import Walker
from support.merging import letter

LETTERS = {f"box/cur/{number}:2,S": letter(number).as_bytes() for number in range(3)}


@pytest.fixture
def contest(tmp_path: Path) -> Iterator[Contest]:
    contest = Contest(tmp_path / "main", {**LETTERS, "box/new/3": letter(3).as_bytes(), "box/tmp/x": b""})
    yield contest
    assert not checks.check(contest.fs)
    contest.close()


def maildir(contest: Contest) -> dict[str, tuple[str, str]]:
    """The messages by subject: part and flags."""
    box = mailbox.Maildir(contest.path / "box", create=False)
    return {message["subject"].removeprefix("letter "): (message.get_subdir(), message.get_flags()) for message in box}


def name(part: str, number: int, flags: str | None) -> bytes:
    return os.fsencode(f"box/{part}/{number}" + ("" if flags is None else f":2,{flags}"))


def flag(user: Walker, old: bytes, new: bytes) -> None:
    if old != new:
        user.rename(old, new)


#: What a side may make of the flags S, and what both come to.
FLAGS = ("", "S", "FS", "RS", "FRS")


@pytest.mark.parametrize(("hers", "his"), list(itertools.product(FLAGS, FLAGS)))
def test_flags_are_merged(contest: Contest, hers: str, his: str) -> None:
    flag(contest.suspects["alice"], name("cur", 1, "S"), name("cur", 1, hers))
    flag(contest.bob, name("cur", 1, "S"), name("cur", 1, his))
    planned = contest.planned()
    report = contest.innocent()
    # S was set before: it stays where neither took it away. The others are there if either side set them.
    expected = "".join(flag for flag in "FRS" if (flag in hers and flag in his) or (flag != "S" and flag in hers + his))
    assert maildir(contest)["1"] == ("cur", expected)
    assert [(item.path, item.action) for item in report.items] == [(item.path, item.action) for item in planned]
    assert not any(item.review for item in report.items)
    assert len(maildir(contest)) == 4


def test_a_message_that_both_looked_at(contest: Contest) -> None:
    contest.suspects["alice"].rename(b"box/new/3", name("cur", 3, "S"))
    contest.bob.rename(b"box/new/3", name("cur", 3, "R"))
    contest.innocent()
    assert maildir(contest)["3"] == ("cur", "RS")


def test_deliveries_and_deletions(contest: Contest) -> None:
    """The union less what either side deleted."""
    alice, bob = contest.suspects["alice"], contest.bob
    contest.write(alice, letter("hers").as_bytes(), "box/new/hers")
    contest.write(bob, letter("his").as_bytes(), "box/new/his")
    alice.unlink(name("cur", 0, "S"))
    bob.unlink(name("cur", 1, "S"))
    contest.innocent()
    assert set(maildir(contest)) == {"2", "3", "hers", "his"}


def test_what_is_no_maildir_keeps_mains_name(tmp_path: Path) -> None:
    contest = Contest(tmp_path / "main", {"box/cur/1:2,S": b"x"})
    contest.suspects["alice"].rename(name("cur", 1, "S"), name("cur", 1, "FS"))
    contest.bob.rename(name("cur", 1, "S"), name("cur", 1, "RS"))
    report = contest.innocent()
    assert [(item.action, item.review) for item in report.items] == [("kept", True)]
    assert list(contest.main()) == ["box/cur/1:2,RS"]
    contest.close()


def test_other_renamings_in_a_maildir_keep_mains_name(contest: Contest) -> None:
    contest.suspects["alice"].rename(name("cur", 1, "S"), b"box/cur/another:2,FS")
    contest.bob.rename(name("cur", 1, "S"), name("cur", 1, "RS"))
    report = contest.innocent()
    assert [(item.action, item.review) for item in report.items] == [("kept", True)]
    assert maildir(contest)["1"] == ("cur", "RS")


def test_new_messages_of_an_mh_folder_get_free_numbers(tmp_path: Path) -> None:
    files = {f"box/{number}": letter(number).as_bytes() for number in (1, 2)}
    contest = Contest(tmp_path / "main", {**files, "box/.mh_sequences": b"unseen: 2\n"})
    alice, bob = contest.suspects["alice"], contest.bob
    for user, who, unseen in ((alice, "hers", b"unseen: 2-4\n"), (bob, "his", b"unseen: 3\n")):
        contest.write(user, letter(who).as_bytes(), "box/3")
        contest.write(user, unseen, "box/.mh_sequences")
    contest.write(alice, letter("hers too").as_bytes(), "box/4")
    contest.innocent()
    box = mailbox.MH(contest.path / "box", create=False)
    assert {int(key): str(message["subject"]).removeprefix("letter ") for key, message in box.items()} == {
        1: "1",
        2: "2",
        3: "his",
        4: "hers too",
        5: "hers",
    }
    assert box.get_sequences()["unseen"] == [3, 4]
    assert not checks.check(contest.fs)
    contest.close()
