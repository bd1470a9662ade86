"""The audit trail of a mount: what people did is in it, in order, whatever becomes of the daemon."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from isofs.audit import reading
from isofs.audit.reading import Wanted
from isofs.errors import IsofsError
from support.mount import ALICE, BOB, CAROL, DAVE, Mounted, Person, Result, isoctl, mounted, store_elsewhere, until

pytestmark = pytest.mark.mount

#: User, view, action, path, where it came from or leads to, and the error.
Told = tuple[int, str, str, bytes, bytes | str | None, str | None]

#: A name that clears a terminal, ends a line, and is no text.
HOSTILE = os.fsdecode(b"e/\x1b[2J\n\xff")


#: What is told of a read set.
COUNTED = ("path", "kind", "size", "opens", "read", "at", "last")

_marks = itertools.count()


class Trail:
    """The trail of a mount from now on."""

    def __init__(self, mount: Mounted) -> None:
        self._mount = mount
        self._folder = os.open(mount.backing / ".isofs/audit", os.O_RDONLY)
        self._lines = reading.records(self._folder, Wanted(), follow=True)
        self.told()

    def told(self) -> list[Mapping[str, Any]]:
        """What has come since this was last asked."""
        mark = f"mark-{next(_marks)}"
        os.mkdir(self._mount.path / mark)
        found = list[Mapping[str, Any]]()
        for _, fields in self._lines:
            if fields.get("file.path") == f"{self._mount.path}/{mark}":
                os.rmdir(self._mount.path / mark)
                return [one for one in found if "/mark-" not in one.get("file.path", "")]
            found.append(fields)
        raise AssertionError("the trail ended")

    def close(self) -> None:
        self._lines.close()  # type: ignore[attr-defined]
        os.close(self._folder)


@pytest.fixture
def trail(mount: Mounted) -> Iterator[Trail]:
    opened = Trail(mount)
    yield opened
    opened.close()


def called(fields: Mapping[str, Any]) -> Told:
    paths = list(reading.paths(fields))
    other = fields.get("file.target_path") or (paths[1] if len(paths) > 1 else None)
    error = fields.get("isofs.errno")
    return int(fields["user.id"]), fields["isofs.view"], fields["event.action"], paths[0], other, error


class Work:
    """A person at work, and what the trail must tell of it."""

    def __init__(self, person: Person, view: str, expected: list[Told]) -> None:
        self.person, self.view, self.expected = person, view, expected

    def did(self, action: str, path: str, other: str | None = None, error: str | None = None) -> None:
        to = other if action == "symlink" or other is None else os.fsencode(other)
        self.expected.append((self.person.uid, self.view, action, os.fsencode(path), to, error))

    def call(self, function: Callable[..., object], *args: object, error: str | None = None) -> None:
        """Make a call that succeeds or fails as told."""
        if error is None:
            self.person(function, *args)
        else:
            with pytest.raises(OSError):
                self.person(function, *args)

    def everything(self, at: str) -> None:
        """Every call there is, in a directory of one's own; `at` is where that is."""
        person, path = self.person, self.person.path
        person.mkdir(at)
        self.did("mkdir", at)
        self.did("chmod", at)
        f, g = f"{at}/f", f"{at}/g"
        person.write(f, "some text")
        self.did("create", f)
        self.did("close", f)
        person.append(f, "more")
        self.did("open", f)
        self.did("close", f)
        person(os.truncate, path(f), 3)
        self.did("truncate", f)
        person.chmod(f, 0o640)
        self.did("chmod", f)
        person(os.chown, path(f), -1, person.uid)
        self.did("chown", f)
        person.utime(f, 10**18)
        self.did("utime", f)
        person(os.setxattr, path(f), "user.x", b"1")
        self.did("setxattr", f)
        person(os.removexattr, path(f), "user.x")
        self.did("removexattr", f)
        person.link(f, g)
        self.did("link", g, f)
        person.rename(g, f"{at}/h")
        self.did("rename", f"{at}/h", g)
        person.symlink("to/nowhere", f"{at}/s")
        self.did("symlink", f"{at}/s", "to/nowhere")
        person(os.mkfifo, path(f"{at}/p"))
        self.did("mknod", f"{at}/p")
        person.mkdir(f"{at}/full")
        self.did("mkdir", f"{at}/full")
        self.did("chmod", f"{at}/full")
        person.rename(f"{at}/h", f"{at}/full/h")
        self.did("rename", f"{at}/full/h", f"{at}/h")
        self.call(os.rmdir, path(f"{at}/full"), error="ENOTEMPTY")
        self.did("rmdir", f"{at}/full", error="ENOTEMPTY")
        person.remove(f"{at}/full/h")
        self.did("unlink", f"{at}/full/h")
        person.rmdir(f"{at}/full")
        self.did("rmdir", f"{at}/full")


def test_every_call_of_everyone_and_every_opening_of_a_suspect_is_told(
    mount: Mounted, trail: Trail, person: Callable[[int], Person]
) -> None:
    expected: list[Told] = []
    bob, alice = Work(person(BOB), "main", expected), Work(person(ALICE), "main", expected)
    bob.everything("b")
    alice.everything("a")
    bob.person.mkdir("e")
    bob.person.write("e/shared", "bob's")
    bob.person.read("e/shared")
    for action, path in (("mkdir", "e"), ("chmod", "e"), ("create", "e/shared"), ("close", "e/shared")):
        bob.did(action, path)
    assert [called(fields) for fields in trail.told()] == expected
    expected.clear()

    mount.ask("suspect", uid=ALICE, user="alice")
    sid = trail.told()[-1]["isofs.subject"]
    alice.view = f"S{sid}"
    alice.everything("own")
    alice.person.read("e/shared")  # twice: only the first is new to her read set, and asked of the daemon
    alice.person.read("e/shared")
    for action in ("open", "close", "open"):
        alice.did(action, "e/shared")
    alice.person.append("e/shared", "alice's")
    alice.did("open", "e/shared")
    alice.did("close", "e/shared")
    alice.person.chmod("a/f", 0o600)
    alice.did("chmod", "a/f")
    alice.person.names("e")
    alice.did("list", "e")
    alice.person.rename("e", "moved")
    alice.did("rename", "moved", "e")
    alice.person.write("moved/new", "x")
    alice.did("create", "moved/new")
    alice.did("close", "moved/new")
    alice.person.remove("moved/shared")
    alice.did("unlink", "moved/shared")
    bob.person.append("e/shared", "bob again")
    bob.did("open", "e/shared")
    bob.did("close", "e/shared")
    bob.person.write(HOSTILE, "")
    bob.did("create", HOSTILE)
    alice.person.read(HOSTILE.replace("e/", "moved/"))
    alice.did("open", HOSTILE.replace("e/", "moved/"))
    found = trail.told()
    assert [called(fields) for fields in found] == expected
    assert [fields["event.sequence"] for fields in found] == list(
        range(found[0]["event.sequence"], found[0]["event.sequence"] + len(found))
    )
    for fields in found:
        worker = alice if fields["user.id"] == str(ALICE) else bob
        assert fields["process.pid"] == worker.person.pid
    written = [fields["isofs.written"] for fields in found if fields.get("isofs.written")]
    assert written == [9, 4, 7, 1, 9]
    [removed] = [fields for fields in found if called(fields)[2:4] == ("unlink", b"moved/shared")]
    changed = [fields for fields in found if called(fields)[:4] == (ALICE, alice.view, "close", b"e/shared")]
    assert removed["isofs.op"] == changed[-1]["isofs.op"] > 0

    read = mount.facts("reads", str(ALICE))["reads"]
    mine = [tuple(one[key] for key in COUNTED) for one in read if one["subject"] == sid]
    opened = [one["@timestamp"] for one in found if one["isofs.view"] == alice.view and "isofs.main" in one]
    assert mine == [
        ("e/shared", "file", 5, 2, 5, opened[0], opened[1]),
        ("e", "directory", None, 1, 0, opened[2], opened[2]),
        (HOSTILE.replace("e/", "moved/"), "file", 0, 1, 0, opened[3], opened[3]),
    ]


@pytest.mark.parametrize(("call", "uid"), [("suspect", CAROL), ("alert", DAVE)])
def test_what_was_open_when_somebody_was_isolated_is_in_the_read_set(
    mount: Mounted, trail: Trail, person: Callable[[int], Person], call: str, uid: int
) -> None:
    """Also what is closed at once, since it was open for writing, too."""
    for name in "fg":
        person(BOB).write(f"{call}-{name}", "secret")
        person(BOB).chmod(f"{call}-{name}", 0o666)
    alice, careless = person(uid), person(uid)
    alice(_keep_open, alice.path(f"{call}-f"))
    careless(_keep_open, careless.path(f"{call}-g"), os.O_RDWR)
    trail.told()
    mount.ask(call, uid=uid, user="alice")
    told = [fields for fields in trail.told() if fields["event.action"] == "open"]
    assert [(fields["isofs.before"], fields["isofs.main"]) for fields in told] == [(True, True)] * 2
    assert {one["path"] for one in mount.facts("reads", str(uid))["reads"]} == {f"{call}-f", f"{call}-g"}
    mount.ask("malicious", uid=uid, no_evidence=True)


_opened: list[int] = []


def _keep_open(path: str, flags: int = os.O_RDONLY) -> None:
    _opened.append(os.open(path, flags))


def _read_kept(number: int = -1) -> bytes:
    return os.read(_opened[number], 3)


def test_what_the_operator_decides_is_told(mount: Mounted, trail: Trail) -> None:
    mount.isoctl("suspect", str(ALICE), "--reason", "odd \x1b[2J logins")
    mount.isoctl("suspect", str(ALICE))
    mount.isoctl("status")
    mount.isoctl("innocent", str(ALICE))
    told = [fields for fields in trail.told() if "isofs.facts" in fields]
    assert [(one["event.action"], one["event.outcome"]) for one in told] == [
        ("suspect", "success"),
        ("suspect", "failure"),
        ("innocent", "success"),
    ]
    assert all(one["user.id"] == "0" and one["event.type"] == ["change"] for one in told)
    assert len({one["isofs.subject"] for one in told}) == 1
    assert told[0]["isofs.facts"]["reason"] == "odd \x1b[2J logins"
    assert told[1]["isofs.facts"]["error"] == "already"


def test_what_a_caller_calls_is_told_as_it_is_only_if_it_can_be_a_call(mount: Mounted, trail: Trail) -> None:
    long = {f"key{number}": "x" * 2000 for number in range(300)}
    for call, args in (("no\0such", {}), ("nothing", {"deep": [[1] * 200] * 99}), ("", long)):
        with pytest.raises(IsofsError):
            mount.ask(call, **args)
    told = [(one["event.action"], one["isofs.facts"]) for one in trail.told() if "isofs.facts" in one]
    assert [action for action, _ in told] == ["unknown", "nothing", "unknown"]
    assert told[0][1]["call"] == "no\0such"
    assert 200 < told[2][1]["left_out"] < 300


def test_what_a_suspect_read_is_in_the_evidence(
    mount: Mounted, trail: Trail, person: Callable[[int], Person], place: Path
) -> None:
    bob, dave = person(BOB), person(DAVE)
    bob.write(HOSTILE.replace("e/", ""), "secret")
    bob.write("known", "before")
    dave(_keep_open, dave.path("known"))
    mount.facts("suspect", str(DAVE), "--json")
    dave.read(HOSTILE.replace("e/", ""))
    dave.write("mine", "")
    assert dave(_read_kept) == b"bef"
    mount.facts("malicious", str(DAVE), "--yes", "--evidence", str(place / "a.tar.zst"))
    found = mount.facts("evidence", "show", str(place / "a.tar.zst"))
    assert [(one["path"], one["size"]) for one in found["read_set"]] == [("known", 6), (HOSTILE.replace("e/", ""), 6)]
    told = {key: value for key, value in found["reads"].items() if key not in ("member", "size", "sha256")}
    counted = {"objects": 2, "bytes": 12, "opens": 2, "read": 12, "complete": True, "gaps": []}
    assert told == {
        **counted,
        "first": found["read_set"][0]["at"],
        "last": max(one["last"] for one in found["read_set"]),
    }
    subject = found["read_set"][0]["subject"]
    mine = [one for one in mount.facts("reads", str(DAVE))["reads"] if one["subject"] == subject]
    assert found["read_set"] == mine
    assert [(one["opens"], one["read"]) for one in mine] == [(1, 6), (1, 6)]  # one of them is open yet
    shown = mount.isoctl("evidence", "show", str(place / "a.tar.zst")).out
    assert r"/\x1b[2J\x0a\xff".replace("/", "") in shown
    assert "\x1b" not in shown
    assert mount.isoctl("evidence", "verify", str(place / "a.tar.zst")).code == 0


def log(mount: Mounted, *words: str) -> Result:
    done = mount.isoctl("log", *words)
    assert done.code == 0, done
    return done


def test_the_log_is_shown_and_verified(mount: Mounted, trail: Trail, person: Callable[[int], Person]) -> None:
    bob = person(BOB)
    bob.mkdir("e")
    bob.write(HOSTILE, "x")
    bob.write(HOSTILE, "y")
    trail.told()
    shown = log(mount, "--user", str(BOB), "--path", "e/*").out.splitlines()
    assert [line.split()[4] for line in shown[-4:]] == ["create", "close", "open", "close"]
    assert all("\x1b" not in line and r"e/\x1b[2J\x0a\xff" in line for line in shown[-4:])
    assert ["truncated" in line for line in shown[-4:]] == [False, False, True, False]
    assert log(mount, "--user", str(BOB), "--path", f"{mount.path}/e/*").out.splitlines() == shown
    for words in (("--path", ""), ("--path", "#"), ("--since", "1h", "--until", "2h"), ("--store", "/x", "verify")):
        assert mount.isoctl("log", *words).code == 2, words
    lines = [json.loads(line) for line in log(mount, "--json").out.splitlines()]
    assert [one["event.sequence"] for one in lines] == list(range(1, len(lines) + 1))
    assert log(mount, "--since", "2100-01-01").out == ""
    assert log(mount, "--until", "2000-01-01T00:00:00").out == ""
    assert mount.isoctl("log", "--since", "yesterday").code == 2
    found = mount.facts("log", "verify")
    assert (found["ok"], found["problem"]) == (True, None)
    reader, writer = os.pipe()
    os.close(reader)
    for more in ((), ("--json",)):
        command = [sys.executable, "-m", "isoctl.main", "--mount", str(mount.path), "log", *more]
        done = subprocess.run(
            command, stdout=writer, stderr=subprocess.PIPE, check=False, env={**os.environ, "PYTHONUNBUFFERED": ""}
        )
        assert (done.returncode, done.stderr) == (0, b""), "whoever reads may have seen enough"
    os.close(writer)
    known = f"{found['last']}:{found['hash']}"
    assert mount.isoctl("log", "verify", "--known", known).code == 0
    assert mount.isoctl("log", "verify", "--known", f"{found['last']}:{'0' * 64}").code == 11


def configure(mount: Mounted, place: Path, text: str) -> None:
    (place / "config.toml").write_text(text)
    assert mount.isoctl("config", "edit", "--from", str(place / "config.toml")).code == 0


def test_what_is_recorded_is_configured_and_counts_at_once(place: Path, tree: Path) -> None:
    with mounted(tree) as mount:
        with contextlib.ExitStack() as stack:
            bob, alice = (stack.enter_context(contextlib.closing(Person(uid, tree))) for uid in (BOB, ALICE))
            mount.ask("suspect", uid=ALICE, user="alice")
            for number, on in enumerate(("off", "suspects", "writes")):
                configure(mount, place, f'[audit]\non = "{on}"\n')
                bob.write(f"bob{number}", "x")
                alice.write(f"alice{number}", "x")
                alice(_keep_open, alice.path(f"bob{number}"))
            assert alice(_read_kept, 1) + alice(_read_kept, 2) == b"xx"
        mount.umount()
        lines = [json.loads(line) for line in log(mount, "--json").out.splitlines()]
        created = [one["file.path"].rpartition("/")[2] for one in lines if one["event.action"] == "create"]
        assert created == ["alice1", "bob2", "alice2"]
        opened = [
            (one["file.path"].rpartition("/")[2], one.get("isofs.before")) for one in lines if "isofs.main" in one
        ]
        assert opened == [("bob0", True), ("bob1", None), ("bob2", None)]
        read = {one["file.path"].rpartition("/")[2]: one["isofs.read"] for one in lines if one.get("isofs.read")}
        assert read == {"bob1": 1, "bob2": 1}  # the first was open when something else came to be recorded
        assert [one["path"] for one in mount.facts("reads", str(ALICE))["reads"]] == ["bob0", "bob1", "bob2"]
        changes = [one["isofs.facts"]["on"] for one in lines if one["event.action"] == "audit-settings"]
        assert changes == ["off", "suspects", "writes"]
        assert mount.isoctl("log", "verify").code == 0
        gaps = mount.facts("reads", str(ALICE))["gaps"]
        assert [(gap["why"], gap["until"] is None) for gap in gaps] == [("off", False)]
        (tree / ".isofs/audit" / "0000000000000001.jsonl").write_bytes(b"")
        assert mount.isoctl("log", "verify").code == 11
        mount.mount()


def writers_of(tree: Path) -> list[int]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            if b"isofs.audit.writer" in words and os.fsencode(tree) in words:
                found.append(int(entry))
    return found


def test_daemon_and_writer_killed_together_lose_nothing_that_a_suspect_was_answered(tree: Path) -> None:
    """Of anybody else, what was answered last, at most."""
    with mounted(tree) as mount:
        assert mount.isoctl("suspect", str(ALICE)).code == 0
        names, last = [], []
        for turn in range(2):
            if turn:  # so that there is a writer, too
                trail = Trail(mount)
                trail.close()
                assert writers_of(tree)
            people = {"b": Person(BOB, tree), "a": Person(ALICE, tree)}
            for number in range(50):
                for name, person in people.items():
                    person.mkdir(f"{name}{turn}-{number}")
                    names.append(f"{name}{turn}-{number}")
            people["b"].mkdir(f"b{turn}-last")
            last.append(f"b{turn}-last")
            writers = [os.pidfd_open(pid) for pid in writers_of(tree)]
            for writer in writers:
                signal.pidfd_send_signal(writer, signal.SIGKILL)
                os.close(writer)
            mount.kill()
            for person in people.values():
                person.close()
            mount.mount()
        mount.umount()
        lines = [json.loads(line) for line in log(mount, "--json").out.splitlines()]
        made = [one["file.path"].rpartition("/")[2] for one in lines if one["event.action"] == "mkdir"]
        assert [name for name in made if name in names] == names
        assert {name for name in made if name[0] in people} <= {*names, *last}
        starts = [one["isofs.facts"]["killed"] for one in lines if one["event.action"] == "audit-start"]
        assert starts == [False, True, True]
        assert mount.isoctl("log", "verify").code == 0
        mount.mount()


def test_a_writer_that_dies_is_replaced_and_that_is_told(tree: Path) -> None:
    with mounted(tree) as mount:
        trail = Trail(mount)
        for pid in writers_of(tree):
            os.kill(pid, signal.SIGKILL)
        found = trail.told() + trail.told()  # the first is written by another writer, which was told of before
        assert [one["isofs.facts"] for one in found if one["event.action"] == "audit-gap"] == [{"writer": "signal 9"}]
        trail.close()
        assert mount.isoctl("log", "verify").code == 0


def test_a_read_set_that_is_not_whole_says_so_and_one_is_whole_without_its_trail(place: Path, tree: Path) -> None:
    with mounted(tree) as mount, contextlib.ExitStack() as stack:
        bob, alice = (stack.enter_context(contextlib.closing(Person(uid, tree))) for uid in (BOB, ALICE))
        for name in ("off", "kept", "lost"):
            bob.write(name, "secret")
        configure(mount, place, '[audit]\non = "off"\n')
        mount.ask("suspect", uid=ALICE, user="alice")
        alice.read("off")
        configure(mount, place, '[audit]\nfile_size = "64 KiB"\ntotal = "64 KiB"\n')
        alice.read("kept")
        until(lambda: bool(writers_of(tree)))
        [writer] = writers_of(tree)
        os.kill(writer, signal.SIGSTOP)
        try:
            for number in range(700):  # some MiB of records, more than the ring has room for
                bob.symlink(os.urandom(2000).hex(), f"link{number}")
            alice.read("lost")
        finally:
            os.kill(writer, signal.SIGCONT)

        def known() -> bool:
            bob.mkdir(f"told-{time.monotonic()}")
            return len(mount.facts("changes", str(ALICE))["read"]["gaps"]) > 1

        until(known)
        gaps = mount.facts("reads", str(ALICE))["gaps"]
        assert [gap["why"] for gap in gaps] == ["off", "lost"]
        assert all(gap["until"] for gap in gaps)
        shown = mount.isoctl("changes", str(ALICE)).out
        assert [f"not recorded from {gap['since']} until {gap['until']}" in shown for gap in gaps] == [True, True]
        mount.ask("malicious", uid=ALICE, evidence=str(place / "a.tar.zst"))
        kept = mount.facts("evidence", "show", str(place / "a.tar.zst"))
        assert (kept["reads"]["complete"], kept["reads"]["gaps"]) == (False, gaps)
        told = mount.isoctl("evidence", "show", str(place / "a.tar.zst")).out
        assert "there was no room for all records" in told
        assert "the audit trail was off" in told
        verified = mount.facts("log", "verify")
        assert verified["ok"]
        assert verified["first"] > 100  # what was told of the opening is gone
        assert [(one["path"], one["opens"], one["read"]) for one in kept["read_set"]] == [("kept", 1, 6)]
        assert mount.facts("reads", str(ALICE))["reads"] == kept["read_set"]


def test_a_trail_in_a_store_on_another_file_system(place: Path, tree: Path) -> None:
    with store_elsewhere(place) as store, mounted(tree, "--store", store) as mount:
        with contextlib.ExitStack() as stack:
            bob, alice = (stack.enter_context(contextlib.closing(Person(uid, tree))) for uid in (BOB, ALICE))
            bob.write("f", "secret")
            mount.ask("suspect", uid=ALICE, user="alice")
            alice.read("f")
            until(lambda: [one["read"] for one in mount.facts("reads", str(ALICE))["reads"]] == [6])
            assert mount.facts("log", "verify")["ok"]
            lines = log(mount, "--user", str(ALICE), "--json").out.splitlines()
            assert [json.loads(line)["event.action"] for line in lines] == ["suspect", "open", "close"]
        mount.umount()
        assert not (tree / ".isofs").exists()
        whole = isoctl("log", "--store", store, "--json").out.splitlines()
        assert [line for line in whole if line in lines] == lines
        verified = isoctl("log", "verify", "--store", store, "--json").json
        assert (verified["ok"], verified["lines"]) == (True, len(whole))
        [read] = isoctl("reads", str(ALICE), "--store", store, "--json").json["reads"]
        assert (read["path"], read["opens"], read["read"]) == ("f", 1, 6)
        mount.mount("--store", store)
