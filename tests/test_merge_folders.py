"""Maildir and MH folders that both sides worked in, as the standard library's `mailbox` reads them afterwards."""

from __future__ import annotations

import itertools
import mailbox
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from isofs.engine import checks, recovery
from isofs.merge import apply
from isofs.store.folder import open_store
from support.contest import Contest, proposals
from support.cuts import cut_off
from support.engine import Walker, killed
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
    assert box.get_sequences()["unseen"] == [3, 4, 5]
    assert not checks.check(contest.fs)
    contest.close()


def deliver(contest: Contest, user: Walker, who: str, *numbers: int, sequences: str = "") -> None:
    """New messages of an MH folder, with a subject each, and what its sequences are then."""
    for number in numbers:
        contest.write(user, letter(f"{who} {number}").as_bytes(), f"box/{number}")
    if sequences:
        contest.write(user, sequences.encode(), "box/.mh_sequences")


def box_of(path: Path) -> tuple[dict[str, int], dict[str, set[str]]]:
    """The messages by subject, and the subjects in each sequence."""
    box = mailbox.MH(path / "box", create=False)
    found = {int(key): str(message["subject"]).removeprefix("letter ") for key, message in box.items()}
    named = {name: {found[number] for number in members} for name, members in box.get_sequences().items()}
    return {subject: number for number, subject in found.items()}, named


#: Hers and his sequences when both have delivered 3 and 4, and she 10; and who must be in which when they are merged.
SEQUENCES = {
    "both": (
        "unseen: 2-4 10\nhers: 1 3\n",
        "unseen: 3 4\n",
        {"unseen": {"his 3", "his 4", "hers 3", "hers 4", "hers 10"}, "hers": {"1", "hers 3"}},
    ),
    "hers only": (
        "unseen: 2-4 10\nhers: 1 3\n",
        "",
        {"unseen": {"2", "hers 3", "hers 4", "hers 10"}, "hers": {"1", "hers 3"}},
    ),
    "his only": ("", "unseen: 2-4\n", {"unseen": {"2", "his 3", "his 4"}}),
    "equal": ("unseen: 2-4\n", "unseen: 2-4\n", {"unseen": {"2", "his 3", "his 4", "hers 3", "hers 4"}}),
    "none": ("", "", {"unseen": {"2"}}),
}

#: The order of numbers is not that of names.
NUMBERS = {"1": 1, "2": 2, "his 3": 3, "his 4": 4, "hers 10": 10, "hers 3": 11, "hers 4": 12}


def in_box(tmp_path: Path, case: str) -> Contest:
    files = {f"box/{number}": letter(number).as_bytes() for number in (1, 2)}
    contest = Contest(tmp_path, {**files, "box/.mh_sequences": b"unseen: 2\n"})
    hers, his, _ = SEQUENCES[case]
    deliver(contest, contest.suspects["alice"], "hers", 10, 4, 3, sequences=hers)
    deliver(contest, contest.bob, "his", 3, 4, sequences=his)
    return contest


@pytest.mark.parametrize("case", SEQUENCES)
def test_messages_that_get_other_numbers_stay_in_their_sequences(tmp_path: Path, case: str) -> None:
    contest = in_box(tmp_path / "main", case)
    planned = [(item.path, item.action, item.aside) for item in contest.planned()]
    report = contest.innocent()
    assert sorted((item.path, item.action, item.aside) for item in report.items) == sorted(planned)
    assert box_of(contest.path) == (NUMBERS, SEQUENCES[case][2])
    assert not checks.check(contest.fs)
    contest.close()


def test_a_renumbering_cut_off_anywhere_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stop in itertools.count(0, 3):
        main = tmp_path / str(stop)
        contest = in_box(main, "both")
        if not cut_off(stop, monkeypatch, contest.innocent):
            contest.close()
            assert stop > 10
            return
        killed(contest.fs)
        fs = recovery.open_filesystem(open_store(str(main / ".isofs")), str(main))
        for sid in recovery.unfinished(fs):
            apply.resume(fs, sid)
        if fs.views:  # it had not begun
            apply.innocent(fs, 1, proposals(fs, 1))
        assert box_of(main) == (NUMBERS, SEQUENCES["both"][2]), stop
        assert not checks.check(fs)
        recovery.close_filesystem(fs)


def test_what_waits_knows_the_new_numbers_too(tmp_path: Path) -> None:
    """The sequences are in conflict, because no resolver is asked: hers are settled later."""
    contest = in_box(tmp_path / "main", "both")
    assert contest.innocent(found={}).conflicts == 1
    assert contest.waiting() == [b"unseen: 2 10-12\nhers: 1 11\n"]
    contest.close()
