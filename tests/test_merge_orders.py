"""Two suspects and a trusted user who all changed one file, one mailbox and one directory; verdicts in every order."""

from __future__ import annotations

from pathlib import Path

import pytest

from isofs.engine import checks
from isofs.merge import apply
from isofs.model.vectors import G, Value, Vector
from support.contest import Contest
from support.merging import letter, subjects, written

ALICE, CAROL = 1, 2
NAMES = {ALICE: "alice", CAROL: "carol"}

LINES = b"".join(b"line %d\n" % number for number in range(20))
LETTERS = written("mbox", [letter(number) for number in range(4)])


def line(number: int, name: str) -> bytes:
    return LINES.replace(b"line %d\n" % number, name.encode() + b"\n")


@pytest.fixture
def contest(tmp_path: Path) -> Contest:
    """All three work on all three: a line each, a letter each (and alice deletes one), a file and a deletion each."""
    files = {"file": LINES, "box.mbox": LETTERS, **{f"dir/{number}": b"%d" % number for number in range(4)}}
    contest = Contest(tmp_path / "main", files, ("alice", "carol"))
    alice, carol, bob = contest.suspects["alice"], contest.suspects["carol"], contest.bob
    for user, name, at in ((alice, "alice", 3), (carol, "carol", 9), (bob, "bob", 15)):
        contest.write(user, line(at, name), "file")
        kept = [letter(number) for number in range(4) if (name, number) != ("alice", 2)]
        contest.write(user, written("mbox", [*kept, letter(name)]), "box.mbox")
        contest.write(user, name.encode(), f"dir/{name}")
    alice.unlink(b"dir/0")
    carol.unlink(b"dir/1")
    bob.unlink(b"dir/2")
    return contest


def merged(innocent: set[str]) -> tuple[bytes, list[str], set[str]]:
    """What everybody's file, mailbox and directory come to when these were found innocent."""
    content = LINES
    for name, at in (("alice", 3), ("carol", 9), ("bob", 15)):
        if name in innocent | {"bob"}:
            content = content.replace(b"line %d\n" % at, name.encode() + b"\n")
    letters = {"0", "1", "2", "3", "bob", *innocent} - ({"2"} if "alice" in innocent else set())
    gone = {"2"} | ({"0"} if "alice" in innocent else set()) | ({"1"} if "carol" in innocent else set())
    return content, sorted(letters), {"0", "1", "2", "3", "bob", *innocent} - gone


def state(contest: Contest) -> tuple[bytes, list[str], set[str]]:
    main = contest.main()
    return (
        main["file"],
        sorted(subjects("mbox", main["box.mbox"])),
        {name.removeprefix("dir/") for name in main if name.startswith("dir/")},
    )


def test_before_any_verdict(contest: Contest) -> None:
    assert state(contest) == merged(set())
    for path in ("file", "box.mbox"):
        assert contest.vector(path) == Vector.of({G: 1, ALICE: 0, CAROL: 0})
    contest.close()


@pytest.mark.parametrize("order", [(ALICE, CAROL), (CAROL, ALICE)])
@pytest.mark.parametrize("guilty", [set(), {ALICE}, {CAROL}, {ALICE, CAROL}])
def test_verdicts_in_every_order(contest: Contest, order: tuple[int, int], guilty: set[int]) -> None:
    innocent: set[str] = set()
    for number, sid in enumerate(order):
        if sid in guilty:
            apply.malicious(contest.fs, sid)
        else:
            report = contest.innocent(name=NAMES[sid])
            innocent.add(NAMES[sid])
            assert report.conflicts == 0
            actions = {item.path: item.action for item in report.items}
            assert (actions[b"file"], actions[b"box.mbox"]) == ("merged", "merged")
        assert state(contest) == merged(innocent)
        assert not checks.check(contest.fs)
        if number == 0:
            # As long as the other one's versions are there, main's vectors say whose work it has (section 6.2).
            own: Value = "m" if sid not in guilty else 0
            for path in ("file", "box.mbox"):
                assert contest.vector(path) == Vector.of({G: 1, sid: own, order[1]: 0})
        else:
            assert contest.vector("file") is None
    assert not contest.fs.views
    assert not contest.fs.waiting
    contest.close()


def test_the_same_without_resolvers(contest: Contest) -> None:
    """What one merge brought makes the other's a conflict; nobody's work is lost."""
    for sid in (ALICE, CAROL):
        report = apply.innocent(contest.fs, sid)
        assert sorted(item.path for item in report.items if item.action == "conflict") == [b"box.mbox", b"file"]
    assert sorted(content for content in contest.waiting() if content.startswith(b"line")) == sorted(
        [line(3, "alice"), line(9, "carol")]
    )
    assert state(contest)[2] == merged({"alice", "carol"})[2]
    contest.close()


def test_what_somebody_started_from_who_came_after_a_merge(tmp_path: Path) -> None:
    """carol's base is main with alice's merged work in it: what she takes back of that stays taken back."""
    contest = Contest(tmp_path / "main", {"file": LINES}, ("alice", "erin"))
    alice, erin = contest.suspects["alice"], contest.suspects["erin"]
    contest.write(erin, line(17, "erin"), "file")  # whose version keeps the vectors, and the first base
    contest.write(alice, line(3, "alice"), "file")
    contest.innocent(name="alice")
    assert contest.main()["file"] == line(3, "alice")
    carol = contest.join("carol")
    contest.write(carol, line(9, "carol"), "file")
    contest.write(contest.bob, line(3, "alice").replace(b"line 15\n", b"bob\n"), "file")
    report = contest.innocent(name="carol")
    assert [item.action for item in report.items] == ["merged"]
    assert contest.main()["file"] == line(9, "carol").replace(b"line 15\n", b"bob\n")
    contest.close()
