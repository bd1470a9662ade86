"""Roles on a real mount: what members of groups reach, do and see, as real users through the real command."""

from __future__ import annotations

import grp
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from isoctl import log
from isofs.audit.reading import Wanted
from isofs.control import client, mounts
from isofs.errors import Exit, IsofsError
from isofs.service.roles import NEEDS
from support.command import refused
from support.mount import ALICE, BOB, CAROL, DAVE, Mounted, Person, Worker, as_user, isoctl

pytestmark = pytest.mark.mount

#: Groups that every machine has and that nobody needs to be in: the tests give processes their numbers.
OBSERVE, DECIDE = grp.getgrnam("daemon").gr_gid, grp.getgrnam("bin").gr_gid
CONFIGURED = '[access]\nobserve = "daemon"\ndecide = "bin"\n'

#: Every call that a daemon offers and only root may make.
ROOTS = ("umount", "attic_purge")


def configure(mount: Mounted, text: str) -> None:
    """As `isoctl config edit`, in less time."""
    (mount.backing / ".isofs" / "config.toml").write_text(text)
    assert mount.ask("status")["configuration"] is None


@pytest.fixture
def shared(mount: Mounted) -> Iterator[Mounted]:
    configure(mount, CONFIGURED)
    yield mount
    configure(mount, "")


def asked(mount: Mounted, call: str, args: Mapping[str, object], uid: int, *groups: int) -> Any:
    """What the daemon answers to a user's process, or the word of its error."""

    def ask() -> Any:
        try:
            return client.call(mounts.socket_for(str(mount.path)), call, args)
        except IsofsError as error:
            return error.code

    return as_user(uid, ask, groups=groups)


def test_without_groups_only_root_is_served(mount: Mounted) -> None:
    assert asked(mount, "status", {}, BOB, OBSERVE, DECIDE) == "not_allowed"
    configure(mount, CONFIGURED)
    assert asked(mount, "status", {}, BOB, OBSERVE)["subjects"] == []
    assert asked(mount, "status", {}, BOB) == "not_allowed"
    configure(mount, '[access]\ndecide = "bin"\n')
    assert asked(mount, "status", {}, BOB, OBSERVE) == "not_allowed"
    assert asked(mount, "status", {}, BOB, DECIDE)["subjects"] == []
    configure(mount, "")
    assert asked(mount, "status", {}, BOB, DECIDE) == "not_allowed"


@pytest.mark.parametrize(("groups", "most"), [((OBSERVE,), 1), ((DECIDE,), 2), ((OBSERVE, DECIDE), 2)])
def test_every_call_is_answered_by_role(shared: Mounted, groups: tuple[int, ...], most: int) -> None:
    """Without arguments: whoever may make it is told what is missing, everybody else nothing."""
    for call in [*NEEDS, *ROOTS, "nonsense", ""]:
        answer = asked(shared, call, {"uid": "no number"}, BOB, *groups)
        allowed = call in NEEDS and NEEDS[call] <= most
        assert (answer == "not_allowed") is not allowed, (call, answer)


def test_an_observer_sees_and_changes_nothing(shared: Mounted, person: Callable[[int], Person]) -> None:
    alice = person(ALICE)
    alice.write("plan", "one\n")
    shared.ask("suspect", uid=ALICE, user="alice")
    alice.write("plan", "two\n")

    def as_observer(*words: str) -> Any:
        return shared.isoctl(*words, uid=BOB, groups=(OBSERVE,))

    assert "alice" in as_observer("status").out
    assert "modified" in as_observer("changes", str(ALICE)).out
    assert "+two" in as_observer("diff", str(ALICE)).out
    assert as_observer("plan", str(ALICE)).code == 0
    assert as_observer("conflicts").out == "no conflicts\n"
    assert as_observer("attic", "list").out == "the attic is empty\n"
    assert as_observer("check").code == 0
    before = shared.ask("status")["subjects"]
    for words in (
        ("suspect", str(DAVE)),
        ("innocent", str(ALICE)),
        ("malicious", str(ALICE), "--yes"),
        ("resolve", str(ALICE), "plan", "--take", "main"),
        ("attic", "restore", "plan"),
    ):
        refused(as_observer(*words), Exit.NOT_ALLOWED, "your role is observe")
    for only_roots in (("config", "show"), ("config", "edit", "--from", "/dev/null"), ("evidence", "list")):
        refused(as_observer(*only_roots), Exit.NOT_ALLOWED, "only root")
    refused(as_observer("attic", "purge", "--yes"), Exit.NOT_ALLOWED, "root alone")
    refused(isoctl("umount", str(shared.path), uid=BOB, groups=(OBSERVE,)), Exit.NOT_ALLOWED, "only root")
    assert shared.ask("status")["subjects"] == before


def test_an_observer_reads_the_audit_trail(shared: Mounted, person: Callable[[int], Person]) -> None:
    """The same as root reads in the store."""
    alice = person(ALICE)
    for number in range(5):
        alice.write(f"audited-{number}\n", "x")
    asking: tuple[str, ...] = ("log", "--json", "--user", str(ALICE), "--path", "audited-*")
    for _ in range(200):  # it is written a moment later
        expected = shared.isoctl(*asking).out
        if expected.count("\n") == 10:  # made and closed
            break
        time.sleep(0.05)
    assert expected.count("\n") == 10
    assert shared.isoctl(*asking, uid=BOB, groups=(OBSERVE,)).out == expected
    shown = shared.isoctl("log", "--user", str(ALICE), uid=BOB, groups=(OBSERVE,)).out
    assert shown == shared.isoctl("log", "--user", str(ALICE)).out
    refused(shared.isoctl("log", uid=BOB), Exit.NOT_ALLOWED, "only root")
    refused(shared.isoctl("log", "verify", uid=BOB, groups=(OBSERVE,)), Exit.NOT_ALLOWED, "only root")


def test_an_observer_reads_read_sets_and_follows_the_audit_trail(
    shared: Mounted, person: Callable[[int], Person]
) -> None:
    bob, carol = person(BOB), person(CAROL)
    bob.write("read\n", "secret")
    shared.ask("suspect", uid=CAROL, user="carol")
    carol.read("read\n")

    def follow() -> object:
        found = log._asked(str(shared.path), Wanted(uid=CAROL), follow=True)
        return next(fields["file.path"] for _, fields in found if "isofs.read" in fields)

    assert as_user(DAVE, follow, groups=(OBSERVE,)) == f"{shared.path}/read\n"
    expected = shared.isoctl("reads", str(CAROL)).out
    assert r"read\x0a" in expected
    assert shared.isoctl("reads", str(CAROL), uid=DAVE, groups=(OBSERVE,)).out == expected
    changes = shared.isoctl("changes", str(CAROL), uid=DAVE, groups=(OBSERVE,)).out
    assert changes == shared.isoctl("changes", str(CAROL)).out
    total = shared.facts("changes", str(CAROL))["read"]
    assert [total[key] for key in ("files", "size", "opens", "read", "gaps")] == [1, 6, 1, 6, []]
    counted = f"(opened once, 6 B read, {total['first']} to {total['last']})"
    assert f"read  1 file of 6 B {counted}, of what others made: `isoctl reads {CAROL}`" in changes
    facts = shared.isoctl("reads", str(CAROL), "--json", uid=DAVE, groups=(OBSERVE,)).json
    assert facts == shared.facts("reads", str(CAROL))
    refused(shared.isoctl("reads", str(CAROL), uid=DAVE), Exit.NOT_ALLOWED, "only root")
    refused(shared.isoctl("reads", str(CAROL), uid=CAROL, groups=(OBSERVE,)), Exit.NOT_ALLOWED, "only root")


def test_a_decider_suspects_and_gives_verdicts(shared: Mounted, person: Callable[[int], Person]) -> None:
    alice = person(ALICE)

    def as_decider(*words: str) -> Any:
        return shared.isoctl(*words, uid=BOB, groups=(DECIDE,))

    assert as_decider("suspect", str(ALICE), "--reason", "odd").code == 0
    alice.write("made", "hers\n")
    assert "added" in as_decider("changes", str(ALICE)).out
    assert as_decider("innocent", str(ALICE)).code == 0
    assert (shared.path / "made").read_text() == "hers\n"
    assert as_decider("suspect", str(ALICE)).code == 0
    alice.write("made", "worse\n")
    refused(as_decider("malicious", str(ALICE), "--yes", "--no-evidence"), Exit.NOT_ALLOWED, "without evidence")
    elsewhere = shared.path.parent / "evidence.tar.zst"
    refused(as_decider("malicious", str(ALICE), "--yes", "--evidence", str(elsewhere)), Exit.NOT_ALLOWED, "only root")
    assert not elsewhere.exists()
    assert as_decider("malicious", str(ALICE), "--yes").code == 0
    assert (shared.path / "made").read_text() == "hers\n"
    told = shared.facts("evidence", "show", shared.facts("evidence", "list")["evidence"][-1]["name"])
    assert told["about"]["verdict"]["by"] == str(BOB)
    refused(as_decider("evidence", "list"), Exit.NOT_ALLOWED, "only root")


def test_what_a_caller_says_of_itself_and_others_counts_for_root_alone(shared: Mounted) -> None:
    told = asked(shared, "suspect", {"uid": ALICE, "user": "carol", "by": "root"}, BOB, DECIDE)
    assert told["user"] == str(ALICE)
    answer = asked(shared, "malicious", {"uid": ALICE, "by": "root"}, BOB, DECIDE)
    name = Path(answer["evidence"]).name
    assert shared.facts("evidence", "show", name)["about"]["verdict"]["by"] == str(BOB)


def test_a_suspect_decides_about_nobody(shared: Mounted) -> None:
    """Neither about herself; whatever groups she is in."""
    assert asked(shared, "status", {}, ALICE, DECIDE)["subjects"] == []
    shared.ask("suspect", uid=ALICE, user="alice")
    for call in ("status", "innocent", "suspect"):
        assert asked(shared, call, {"uid": ALICE, "user": "alice"}, ALICE, DECIDE, OBSERVE) == "not_allowed"
    assert [subject["uid"] for subject in shared.ask("status")["subjects"]] == [ALICE]
    shared.ask("innocent", uid=ALICE)
    assert asked(shared, "status", {}, ALICE, DECIDE)["subjects"] == []


def test_who_is_never_isolated(shared: Mounted) -> None:
    configure(shared, f'{CONFIGURED}never = ["{CAROL}"]\n')
    for uid, why in ((0, "root can't"), (1, "access.system_accounts"), (CAROL, "access.never")):
        for by, groups in ((0, ()), (BOB, (DECIDE,))):
            refused(shared.isoctl("suspect", str(uid), uid=by, groups=groups), Exit.NOT_ALLOWED, why)
        assert asked(shared, "suspect", {"uid": uid, "user": "x"}, 0) == "not_allowed"
    assert shared.ask("status")["subjects"] == []
    configure(shared, "[access]\nsystem_accounts = false\n")
    assert shared.isoctl("suspect", "1").code == 0
    shared.ask("innocent", uid=1)


def conflict(mount: Mounted, alice: Person, bob: Person) -> None:
    bob.write("f", "one\n")
    mount.ask("suspect", uid=ALICE, user="alice")
    alice.write("f", "two\n")
    bob.write("f", "three\n")
    assert mount.ask("innocent", uid=ALICE)["conflicts"] == 1


def test_files_of_a_caller_are_used_as_it_has_them_open(
    shared: Mounted, place: Path, person: Callable[[int], Person]
) -> None:
    """The daemon, which is root, writes into none that the caller only reads, and reads none that it cannot."""
    conflict(shared, person(ALICE), person(BOB))
    readable, secret, own = place / "readable", place / "secret", place / "own"
    for file, mode in ((readable, 0o644), (secret, 0o622), (own, 0o666)):
        file.write_text("as it was\n")
        file.chmod(mode)
    where = mounts.socket_for(str(shared.path))

    def tried(call: str, file: Path, flags: int, **args: object) -> Any:
        def attempt() -> Any:
            about = {"uid": ALICE, "user": "alice", "path": "f", **args}
            opened = os.open(file, flags)
            try:
                return client.call(where, call, {**about, "pid": os.getpid(), "descriptor": opened})
            except IsofsError as error:
                return error.code

        return as_user(BOB, attempt, groups=(DECIDE,))

    marking = {"using": "text", "options": []}
    assert tried("markers", readable, os.O_RDONLY, **marking) == "usage"
    assert tried("markers", readable, os.O_PATH, **marking) == "usage"
    assert tried("resolve", secret, os.O_WRONLY) == "usage"
    assert tried("resolve", secret, os.O_PATH) == "usage"
    assert readable.read_text() == secret.read_text() == "as it was\n"
    assert shared.ask("conflicts")["conflicts"]
    assert tried("markers", own, os.O_RDWR, **marking)["marked"]
    assert "<<<<<<<" in own.read_text()
    own.write_text("by hand\n")
    assert tried("resolve", own, os.O_RDONLY)["conflicts"] == 0
    assert (shared.path / "f").read_text() == "by hand\n"


def test_no_file_of_another_process_is_used(shared: Mounted, place: Path, person: Callable[[int], Person]) -> None:
    conflict(shared, person(ALICE), person(BOB))
    secret = place / "secret"
    secret.write_text("root's\n")
    secret.chmod(0o600)
    root = Worker(0)
    opened = root(os.open, str(secret), os.O_RDONLY)
    args = {"uid": ALICE, "user": "alice", "path": "f", "pid": root.pid, "descriptor": opened}
    assert asked(shared, "resolve", args, BOB, DECIDE) == "usage"
    root.close()
    assert (shared.path / "f").read_text() == "three\n"
    assert shared.isoctl("resolve", str(ALICE), "f", "--take", "main", uid=BOB, groups=(DECIDE,)).code == 0
