"""Verdicts of two persons on a real mount: who proposes, who confirms, and that nothing else is carried out."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from isofs.control import client, mounts
from isofs.errors import Exit, IsofsError
from support.command import refused
from support.mount import ALICE, BOB, CAROL, DAVE, Mounted, Person, as_user
from test_mount_access import DECIDE, OBSERVE, asked, configure, conflict

pytestmark = pytest.mark.mount

TWO = '[access]\nobserve = "daemon"\ndecide = "bin"\ntwo_person = true\n'


@pytest.fixture
def two(mount: Mounted) -> Iterator[Mounted]:
    configure(mount, TWO)
    yield mount
    configure(mount, "")
    for one in mount.ask("proposals")["proposals"]:
        mount.ask("withdraw", uid=one["uid"])


@pytest.fixture
def alice(two: Mounted, person: Callable[[int], Person]) -> Person:
    """A suspect who wrote something."""
    found = person(ALICE)
    two.ask("suspect", uid=ALICE, user="alice")
    found.write("hers", "one\n")
    return found


def by(mount: Mounted, caller: int, call: str, **args: object) -> Any:
    return asked(mount, call, {"uid": ALICE, **args}, caller, DECIDE)


def decider(mount: Mounted, uid: int, *words: str) -> Any:
    return mount.isoctl(*words, uid=uid, groups=(DECIDE,))


def waiting(mount: Mounted) -> Any:
    return mount.ask("proposals")["proposals"]


def main_has(mount: Mounted, name: str) -> bool:
    return name in os.listdir(mount.backing)


@pytest.mark.parametrize(
    ("words", "merged"), [(("innocent", str(ALICE)), True), (("malicious", str(ALICE), "--yes"), False)]
)
def test_one_proposes_and_another_confirms(two: Mounted, alice: Person, words: tuple[str, ...], merged: bool) -> None:
    refused(decider(two, BOB, *words), Exit.UNCONFIRMED, "isoctl confirm alice")
    assert not main_has(two, "hers")
    assert alice.read("hers") == "one\n"
    (proposal,) = two.facts("proposals")["proposals"]
    assert (proposal["user"], proposal["by"], proposal["call"]) == ("alice", str(BOB), words[0])
    assert not proposal["changed"]
    assert two.facts("status")["proposals"] == [proposal]
    assert f"proposed by {BOB}" in two.isoctl("status").out
    refused(decider(two, BOB, "confirm", str(ALICE)), Exit.NOT_ALLOWED, "yourself")
    assert not main_has(two, "hers")
    done = decider(two, CAROL, "confirm", str(ALICE))
    assert done.code == 0, done
    assert main_has(two, "hers") is merged
    assert waiting(two) == []
    assert two.ask("status")["subjects"] == []
    refused(decider(two, DAVE, "confirm", str(ALICE)), Exit.NO_SUBJECT, "nothing is proposed")


def test_the_evidence_names_both(two: Mounted, alice: Person) -> None:
    assert by(two, BOB, "malicious", reason="worm") == "unconfirmed"
    result = by(two, CAROL, "confirm")["result"]
    about = two.facts("evidence", "show", Path(result["evidence"]).name)["about"]
    assert about["verdict"]["by"] == f"{BOB}, confirmed by {CAROL}"
    assert about["verdict"]["reason"] == "worm"


def login(uid: int, mount: Mounted, call: str) -> Any:
    """What root is answered who logged in as somebody."""

    def ask() -> Any:
        Path("/proc/self/loginuid").write_text(str(uid))
        try:
            return client.call(mounts.socket_for(str(mount.path)), call, {"uid": ALICE})
        except IsofsError as error:
            return error.code

    return as_user(0, ask)


def test_a_person_is_who_logged_in(two: Mounted, alice: Person) -> None:
    """Whoever becomes root does not become another person; nor does root without a login become anybody."""
    assert login(BOB, two, "innocent") == "unconfirmed"
    assert by(two, BOB, "confirm") == "not_allowed"
    assert login(BOB, two, "confirm") == "not_allowed"
    assert login(CAROL, two, "confirm")["confirmed_by"] == str(CAROL)
    two.ask("suspect", uid=ALICE, user="alice")
    assert asked(two, "innocent", {"uid": ALICE}, 0) == "unconfirmed"
    assert asked(two, "confirm", {"uid": ALICE}, 0) == "not_allowed"
    assert by(two, BOB, "confirm")["by"] == "root"


def test_what_changed_since_is_not_what_was_proposed(two: Mounted, alice: Person) -> None:
    assert by(two, BOB, "innocent") == "unconfirmed"
    alice.write("hers", "two\n")
    alice.write("more", "new\n")
    assert waiting(two)[0]["changed"]
    said = refused(decider(two, CAROL, "confirm", str(ALICE)), Exit.UNCONFIRMED, "(hers, more)", "--anyway")
    assert "nothing was carried out" in said
    assert not main_has(two, "hers")
    assert not main_has(two, "more")
    assert decider(two, CAROL, "confirm", str(ALICE), "--anyway").code == 0
    assert (two.path / "hers").read_text() == "two\n"
    assert main_has(two, "more")


@pytest.mark.parametrize(
    "change",
    [
        lambda alice: alice.append("hers", "x"),
        lambda alice: alice.chmod("hers", 0o600),
        lambda alice: alice.rename("hers", "other"),
        lambda alice: alice.remove("hers"),
        lambda alice: alice.mkdir("d"),
        lambda alice: alice.link("hers", "again"),
    ],
)
def test_every_change_is_noticed(two: Mounted, alice: Person, change: Callable[[Person], None]) -> None:
    assert by(two, BOB, "innocent") == "unconfirmed"
    change(alice)
    assert by(two, CAROL, "confirm") == "unconfirmed"
    assert not main_has(two, "hers")


def test_what_others_do_changes_no_proposal(two: Mounted, alice: Person, person: Callable[[int], Person]) -> None:
    dave = person(DAVE)
    dave.write("theirs", "x\n")
    alice.append("theirs", "y\n")
    assert by(two, BOB, "innocent") == "unconfirmed"
    dave.write("unrelated", "z\n")
    dave.rename("theirs", "moved")
    alice.read("theirs")
    assert not waiting(two)[0]["changed"]
    assert by(two, CAROL, "confirm")["result"]["conflicts"] == 0
    assert (two.path / "moved").read_text() == "x\ny\n"


def test_a_part_is_proposed_with_its_globs(two: Mounted, alice: Person) -> None:
    alice.write("other", "kept\n")
    assert by(two, BOB, "innocent", only=["none*"]) == "usage"
    assert waiting(two) == []
    assert by(two, BOB, "innocent", only=["her*"]) == "unconfirmed"
    assert waiting(two)[0]["words"] == ["innocent", "alice", "--only", "her*"]
    assert by(two, CAROL, "confirm")["result"]["conflicts"] == 0
    assert main_has(two, "hers")
    assert not main_has(two, "other")


@pytest.mark.parametrize("way", ["take", "content", "using"])
def test_conflicts_are_settled_by_two(mount: Mounted, place: Path, person: Callable[[int], Person], way: str) -> None:
    conflict(mount, person(ALICE), person(DAVE))
    configure(mount, TWO)
    try:
        made = place / "made"
        made.write_text("by hand\n")
        made.chmod(0o644)
        words = {"take": ("--take", "suspect"), "content": ("--with", str(made)), "using": ("--using", "append")}[way]
        refused(decider(mount, BOB, "resolve", str(ALICE), "f", *words), Exit.UNCONFIRMED)
        refused(decider(mount, BOB, "resolve", str(ALICE), "none", *words), Exit.USAGE)
        made.write_text("changed since\n")
        assert (mount.path / "f").read_text() == "three\n"
        done = decider(mount, CAROL, "confirm", str(ALICE))
        if way == "using":  # which says itself what it cannot do
            refused(done, Exit.CONFLICTS, "append")
            assert len(waiting(mount)) == 1
            assert by(mount, DAVE, "withdraw")["call"] == "resolve"
        else:
            assert done.code == 0, done
            assert (mount.path / "f").read_text() == {"take": "two\n", "content": "by hand\n"}[way]
    finally:
        configure(mount, "")


def test_a_proposal_is_one_and_goes_with_withdrawal(two: Mounted, alice: Person) -> None:
    assert by(two, BOB, "innocent") == "unconfirmed"
    assert by(two, CAROL, "malicious") == "already"
    assert asked(two, "withdraw", {"uid": ALICE}, CAROL, OBSERVE) == "not_allowed"
    assert by(two, BOB, "malicious") == "unconfirmed"
    assert [one["call"] for one in waiting(two)] == ["malicious"]
    assert by(two, CAROL, "withdraw")["by"] == str(BOB)
    assert waiting(two) == []
    assert by(two, CAROL, "confirm") == "no_subject"
    assert two.ask("status")["subjects"][0]["uid"] == ALICE


def test_who_became_a_suspect_proposed_nothing(two: Mounted, alice: Person) -> None:
    assert by(two, BOB, "innocent") == "unconfirmed"
    two.ask("suspect", uid=BOB, user="bob")
    assert by(two, CAROL, "confirm") == "not_allowed"
    assert by(two, ALICE, "confirm") == "not_allowed"
    assert not main_has(two, "hers")


def test_a_proposal_survives_a_kill_and_a_restart(two: Mounted, alice: Person) -> None:
    assert by(two, BOB, "innocent") == "unconfirmed"
    before = waiting(two)
    two.kill()
    two.mount()
    assert waiting(two) == before
    assert not before[0]["changed"]
    assert by(two, CAROL, "confirm")["call"] == "innocent"
    assert (two.path / "hers").read_text() == "one\n"


def test_a_proposal_about_nobody_goes_at_the_next_start(two: Mounted, alice: Person) -> None:
    """As a kill leaves one right after it was carried out."""
    assert by(two, BOB, "innocent") == "unconfirmed"
    configure(two, TWO.replace("true", "false"))
    two.umount()
    with closing(sqlite3.connect(two.path / ".isofs" / "isofs.db")) as database, database:
        database.execute("UPDATE proposals SET uid = ?", (DAVE,))
    two.mount()
    assert waiting(two) == []


def test_without_the_option_one_person_decides_and_what_was_proposed_goes(two: Mounted, alice: Person) -> None:
    assert by(two, BOB, "innocent") == "unconfirmed"
    configure(two, TWO.replace("true", "false"))
    assert by(two, CAROL, "innocent")["conflicts"] == 0
    assert waiting(two) == []


def test_a_suspicion_that_ended_takes_its_proposal_along(two: Mounted, alice: Person) -> None:
    """And a later one is not decided by it."""
    assert by(two, BOB, "innocent") == "unconfirmed"
    configure(two, TWO.replace("true", "false"))
    two.ask("malicious", uid=ALICE)
    two.ask("suspect", uid=ALICE, user="alice")
    configure(two, TWO)
    assert by(two, CAROL, "confirm") == "no_subject"


def test_what_no_proposal_can_hold_is_refused(two: Mounted, alice: Person) -> None:
    refusals: list[tuple[str, Mapping[str, object]]] = [
        ("innocent", {"only": "no list"}),
        ("innocent", {"uid": DAVE}),
        ("innocent", {"uid": None}),
        ("malicious", {"accept": ["none"]}),
        ("resolve", {"path": "f"}),
        ("confirm", {"anyway": "yes"}),
    ]
    for call, given in refusals:
        assert by(two, BOB, call, **given) in ("usage", "no_subject"), call
    assert waiting(two) == []
