"""`isoctl innocent --interactive`: what the answers come to, and a run on a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from isoctl.interactive import Thing, decide, things
from isofs.control import client, mounts, results
from isofs.errors import Exit, UsageError
from support.archives import contents
from support.mount import ALICE, BOB, Mounted, Person

Begin = Callable[[int], Person]


def item(number: int, path: str, action: str = "took", kind: str = "file") -> results.PlannedItem:
    return {
        "path": path,
        "action": action,
        "reason": "",
        "review": False,
        "as": None,
        "object": number,
        "kind": kind,
        "main": None,
        "suspect": None,
        "risks": [],
    }


ITEMS = [
    item(1, "a/one"),
    item(2, "a/two", "conflict"),
    item(3, "a/three", "deleted"),
    item(4, "b/four"),
    item(4, "a/four", "renamed"),
    item(5, "five"),
]


def test_objects_go_directory_by_directory() -> None:
    assert [thing.number for thing in things(ITEMS)] == [5, 1, 3, 2, 4]
    assert [thing.number for thing in things(ITEMS) if thing.conflict] == [2]


def answered(keys: str) -> tuple[dict[int, str], list[int]]:
    """What these keys come to, and what was looked at; all of them must be asked for, and be on offer."""
    left, looked = list(keys), list[int]()

    def ask(thing: Thing, offered: str) -> str:
        key = left.pop(0)
        assert key in offered
        return key

    answers = decide(things(ITEMS), ask, lambda thing: looked.append(thing.number), lambda thing: True)
    assert not left
    return answers, looked


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("ttttt", {5: "t", 1: "t", 3: "t", 2: "t", 4: "t"}),
        ("tstbs", {5: "t", 1: "s", 3: "t", 2: "b", 4: "s"}),
        # All of a directory but its conflicts; to skip all of it needs no further question.
        ("tatkt", {5: "t", 1: "t", 3: "t", 2: "k", 4: "t"}),
        ("tast", {5: "t", 1: "s", 3: "s", 2: "s", 4: "t"}),
        ("kakt", {5: "k", 1: "k", 3: "k", 2: "k", 4: "t"}),
        # Back, also out of a directory that was answered as a whole.
        ("tspttet", {5: "t", 1: "t", 3: "t", 2: "e", 4: "t"}),
        ("taspkt", {5: "t", 1: "s", 3: "s", 2: "k", 4: "t"}),
    ],
)
def test_what_keys_come_to(keys: str, expected: dict[int, str]) -> None:
    assert answered(keys) == (expected, [])


def test_looking_decides_nothing() -> None:
    assert answered("dtdtttt") == ({5: "t", 1: "t", 3: "t", 2: "t", 4: "t"}, [5, 1])


def test_who_quits_decides_nothing() -> None:
    with pytest.raises(click.Abort):
        answered("ttq")


def test_nothing_to_decide() -> None:
    assert decide([], lambda thing, keys: "t", lambda thing: None, lambda thing: True) == {}


def test_who_does_not_take_what_was_edited_is_asked_again() -> None:
    keys, edited = iter("ttteebt"), list[int]()

    def edit(thing: Thing) -> bool:
        edited.append(thing.number)
        return len(edited) == 3

    answers = decide(things(ITEMS), lambda thing, offered: next(keys), lambda thing: None, edit)
    assert (answers[2], edited) == ("b", [2, 2])


@pytest.mark.parametrize(
    ("action", "kind", "keys"),
    [
        ("took", "file", "tksdapq"),
        ("conflict", "file", "tkbesdapq"),
        ("conflict", "symlink", "tkbsdapq"),
        ("conflict", "directory", "tksdapq"),
    ],
)
def test_what_is_on_offer(action: str, kind: str, keys: str) -> None:
    (thing,) = things([item(1, "a", action, kind)])
    assert thing.keys == keys


@pytest.fixture
def alice(person: Begin) -> Person:
    return person(ALICE)


@pytest.fixture
def bob(person: Begin) -> Person:
    return person(BOB)


@pytest.fixture
def work(mount: Mounted, alice: Person, bob: Person) -> None:
    """alice changes three files and makes one; bob changes one of them as well."""
    for name in ("a", "b", "c"):
        bob.write(name, "main's\n")
    mount.facts("suspect", str(ALICE))
    for name in ("a", "b", "c", "new"):
        alice.write(name, "alice's\n")
    bob.write("c", "bob's\n")


def terminal(mount: Mounted, answers: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command on a terminal, and type these answers."""
    command = f"{sys.executable} -m isoctl.main --mount {mount.path} innocent {ALICE} --interactive"
    return subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        input="".join(f"{answer}\n" for answer in answers),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.mount
@pytest.mark.usefixtures("work")
@pytest.mark.parametrize(("key", "expected"), [("t", "alice's\n"), ("k", "bob's\n"), ("b", "bob's\n")])
def test_everything_is_decided(mount: Mounted, bob: Person, key: str, expected: str) -> None:
    done = terminal(mount, ["t", "d", "t", key, "t", "y"])
    assert done.returncode == 0, done.stdout
    assert "-main's" in done.stdout  # the diff that was looked at
    tree = {"a": "alice's\n", "b": "alice's\n", "c": expected, "new": "alice's\n"}
    assert bob.tree() == tree | ({f"c.isofs-{ALICE}": "alice's\n"} if key == "b" else {})
    assert mount.facts("status")["subjects"] == []


def archives(mount: Mounted) -> set[str]:
    return {archive["path"] for archive in mount.facts("evidence", "list")["evidence"]}


@pytest.mark.mount
@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("key", "tkbs")
def test_what_is_skipped_stays_isolated(mount: Mounted, alice: Person, bob: Person, key: str) -> None:
    """And all else is done, conflicts included."""
    before = archives(mount)
    done = terminal(mount, ["t", "s", "d", key, "k", "y"])
    assert done.returncode == 0, done.stdout
    hers, his = "alice's\n", "bob's\n"
    main = {"a": hers, "b": "main's\n", "c": hers if key == "t" else his}
    beside = {f"c.isofs-{ALICE}": hers} if key == "b" else {}
    assert bob.tree() == main | beside
    assert alice.tree() == main | beside | {"b": hers} | ({"c": hers} if key == "s" else {})
    (subject,) = mount.facts("status")["subjects"]
    assert (subject["state"], subject["conflicts"]) == ("suspect", 0)
    assert subject["changed"]["modified"] == (2 if key == "s" else 1)
    (archive,) = archives(mount) - before
    kept = contents(mount.backing / os.path.relpath(archive, mount.path))
    assert kept == {"new": hers.encode()} | ({"c": hers.encode()} if key == "k" else {})
    mount.check()
    alice.write("new", "again\n")
    assert mount.isoctl("innocent", str(ALICE)).code == (Exit.CONFLICTS if key == "s" else 0)
    assert (bob.read("b"), bob.read("new")) == (hers, "again\n")
    if key == "s":
        mount.facts("malicious", str(ALICE), "--yes", "--no-evidence")
    assert mount.facts("status")["subjects"] == []


@pytest.mark.mount
def test_what_main_has_given_its_name_is_put_beside(mount: Mounted, alice: Person, bob: Person) -> None:
    """A file, a directory and what was renamed, while something else is skipped, also in that directory."""
    bob.write("old", "main's\n")
    mount.facts("suspect", str(ALICE))
    alice.mkdir("dir")
    for name in ("file", "dir/in", "other"):
        alice.write(name, "alice's\n")
    alice(os.rename, alice.path("old"), alice.path("moved"))
    for name in ("file", "dir", "moved"):
        bob.write(name, "bob's\n")
    alice(os.chdir, alice.path("dir"))
    done = terminal(mount, ["d", "t", "t", "t", "s", "d", "s", "y"])
    assert done.returncode == 0, done.stdout
    assert "+alice's" in done.stdout
    main = dict.fromkeys(("file", "dir", "moved"), "bob's\n")
    beside = {f"file.isofs-{ALICE}": "alice's\n", f"moved.isofs-{ALICE}": "main's\n", f"dir.isofs-{ALICE}": {}}
    assert bob.tree() == main | beside
    alice(Path("more").write_text, "alice's\n")
    hers = {"in": "alice's\n", "more": "alice's\n"}
    assert alice.tree() == main | beside | {"other": "alice's\n", f"dir.isofs-{ALICE}": hers}
    mount.check()
    assert mount.isoctl("innocent", str(ALICE)).code == 0
    assert bob.tree() == main | beside | {"other": "alice's\n", f"dir.isofs-{ALICE}": hers}


@pytest.mark.mount
def test_what_needs_each_other_is_decided_alike(mount: Mounted, alice: Person, bob: Person) -> None:
    """A directory cannot be discarded under what is in it, nor that be merged without it: it is said before the end."""
    mount.facts("suspect", str(ALICE))
    alice.mkdir("d")
    alice.write("d/a", "a\n")
    alice.write("d/b", "b\n")
    seen = alice.tree()
    done = terminal(mount, ["k", "t", "k", "n"])
    assert "d/a: it needs d, which stays" in done.stdout
    assert "d: d/a needs it, which stays" in done.stdout
    assert (alice.tree(), bob.tree()) == (seen, {})
    assert terminal(mount, ["k", "t", "k", "y"]).returncode == Exit.CONFLICTS
    assert (alice.tree(), bob.tree()) == ({"d": {"a": "a\n"}}, {})
    assert terminal(mount, ["s", "t", "y"]).returncode == 0
    assert (alice.tree(), bob.tree()) == ({"d": {"a": "a\n"}}, {})
    assert terminal(mount, ["k", "k", "y"]).returncode == 0
    assert alice.tree() == bob.tree() == {}
    assert mount.facts("status")["subjects"] == []


@pytest.mark.mount
@pytest.mark.usefixtures("work")
def test_what_is_discarded_while_it_is_open(mount: Mounted, alice: Person, bob: Person) -> None:
    """What alice has open goes on: main's with what she writes next, or what is left of what only she had."""
    alice.mkdir("d")
    alice(os.chdir, alice.path("d"))
    opened = {name: alice(os.open, alice.path(name), os.O_RDWR) for name in ("a", "new")}
    done = terminal(mount, ["k", "s", "t", "k", "k", "y"])
    assert done.returncode == 0, done.stdout
    main = {"a": "main's\n", "b": "main's\n", "c": "alice's\n"}
    assert alice.tree() == main | {"b": "alice's\n"}
    assert alice(os.pread, opened["a"], 100, 0) == b"main's\n"
    for descriptor in opened.values():
        alice(os.pwrite, descriptor, b"after", 0)
        alice(os.close, descriptor)
    with pytest.raises(OSError, match=r"No such file|Stale"):
        alice(Path("inside").write_text, "inside\n")
    assert alice.tree() == main | {"a": "afters\n", "b": "alice's\n"}
    assert bob.tree() == main
    mount.check()


@pytest.mark.mount
@pytest.mark.usefixtures("work")
def test_what_changes_while_somebody_decides(mount: Mounted, alice: Person, bob: Person, tmp_path: Path) -> None:
    """What was not seen is not merged, and what was edited is not taken if a side has changed since."""
    number = {one["path"]: one["object"] for one in mount.facts("plan", str(ALICE))["items"]}

    def call(name: str, **args: object) -> Mapping[str, Any]:
        return client.call(mounts.socket_for(str(mount.path)), name, {"uid": ALICE, "user": "alice", **args})

    edited = tmp_path / "edited"
    with edited.open("w+b") as file:
        asked = {"object": number["c"], "using": "text", "options": [], "descriptor": file.fileno(), "pid": os.getpid()}
        marked = call("markers", **asked)
        file.write(b"by hand\n")
        file.flush()
        decided = {
            "take": [number[name] for name in ("a", "b", "new")],
            "edited": [number["c"]],
            "pid": os.getpid(),
            "descriptors": [file.fileno()],
            "seen": [marked["seen"]],
        }
        alice.write("later", "alice's\n")
        assert call("decide", dry=True, **decided)["left"] == []
        alice.append("c", "more\n")
        with pytest.raises(UsageError, match="has changed"):
            call("decide", **decided)
        assert bob.read("a") == "main's\n"
        again = call("markers", **asked)
        file.seek(0)
        file.truncate()
        file.write(b"by hand\n")
        file.flush()
        told = call("decide", **{**decided, "seen": [again["seen"]]})
    assert told["counts"] == {"merged": 1, "took": 3}
    main = {"a": "alice's\n", "b": "alice's\n", "c": "by hand\n", "new": "alice's\n"}
    assert (bob.tree(), alice.tree()) == (main, main | {"later": "alice's\n"})


@pytest.mark.mount
@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("answers", [["t", "q"], ["t", "t", "t", "t", "n"], ["t"]])
def test_nothing_is_done_before_the_end(mount: Mounted, alice: Person, bob: Person, answers: list[str]) -> None:
    seen, main = alice.tree(), bob.tree()
    assert terminal(mount, answers).returncode != 0
    assert (alice.tree(), bob.tree()) == (seen, main)


@pytest.mark.mount
@pytest.mark.usefixtures("work")
def test_merging_by_hand(mount: Mounted, bob: Person, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\ngrep -q "<<<<<<<" "$1" && echo "by hand" > "$1"\n')
    editor.chmod(0o755)
    done = terminal(mount, ["t", "t", "e", "y", "t", "y"], VISUAL=str(editor))
    assert done.returncode == 0, done.stdout
    assert bob.read("c") == "by hand\n"


@pytest.mark.mount
@pytest.mark.usefixtures("work")
def test_it_needs_a_terminal_and_goes_alone(mount: Mounted) -> None:
    for words in ((), ("--json",), ("--only", "a")):
        done = mount.isoctl("innocent", str(ALICE), "--interactive", *words)
        assert (done.code, done.out if "--json" not in words else "") == (Exit.USAGE, "")
