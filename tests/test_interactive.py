"""`isoctl innocent --interactive`: what the answers come to, and a run on a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import pytest

from isoctl.interactive import Thing, decide, things
from isofs.control import results
from isofs.errors import Exit
from support.mount import ALICE, BOB, Mounted, Person

Begin = Callable[[int], Person]


def item(number: int, path: str, action: str = "took") -> results.PlannedItem:
    return {
        "path": path,
        "action": action,
        "reason": "",
        "review": False,
        "as": None,
        "object": number,
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

    answers = decide(things(ITEMS), ask, lambda thing: looked.append(thing.number))
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
    assert decide([], lambda thing, keys: "t", lambda thing: None) == {}


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


@pytest.mark.mount
@pytest.mark.usefixtures("work")
def test_what_is_skipped_stays_isolated(mount: Mounted, alice: Person, bob: Person) -> None:
    done = terminal(mount, ["t", "s", "k", "t", "y"])
    assert done.returncode == Exit.CONFLICTS, done.stdout
    assert bob.tree() == {"a": "alice's\n", "b": "main's\n", "c": "bob's\n", "new": "alice's\n"}
    assert alice.tree() == {"a": "alice's\n", "b": "alice's\n", "c": "alice's\n", "new": "alice's\n"}
    (subject,) = mount.facts("status")["subjects"]
    assert subject["state"] == "suspect"


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
    done = terminal(mount, ["t", "t", "e", "t", "y", "y"], VISUAL=str(editor))
    assert done.returncode == 0, done.stdout
    assert bob.read("c") == "by hand\n"


@pytest.mark.mount
@pytest.mark.usefixtures("work")
def test_it_needs_a_terminal_and_goes_alone(mount: Mounted) -> None:
    for words in ((), ("--json",), ("--only", "a")):
        done = mount.isoctl("innocent", str(ALICE), "--interactive", *words)
        assert (done.code, done.out if "--json" not in words else "") == (Exit.USAGE, "")
