"""Partial verdicts on a real mount: the suspect goes on working, in files that are open all the while."""

from __future__ import annotations

import mmap
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from isofs.errors import Exit
from support.archives import contents, manifest
from support.mount import ALICE, BOB, Mounted, Person
from test_mount_verdicts import Begin

pytestmark = pytest.mark.mount


@pytest.fixture
def people(mount: Mounted, person: Begin) -> tuple[Person, Person]:
    """bob's tree, alice isolated on it; alice and bob."""
    alice, bob = person(ALICE), person(BOB)
    bob.mkdir("docs")
    bob.mkdir("src")
    for name in ("docs/plan", "docs/notes", "src/main", "src/old"):
        bob.write(name, f"bob's {name}\n")
        bob.chmod(name, 0o666)
    mount.facts("suspect", str(ALICE), "--reason", "an alert")
    return alice, bob


def map_and_store(path: str, at: int, data: bytes) -> None:
    """Write through a shared mapping, and let the kernel write the page back."""
    opened = os.open(path, os.O_RDWR)
    with mmap.mmap(opened, 0) as mapped:
        mapped[at : at + len(data)] = data
        mapped.flush()
    os.close(opened)


def merged(facts: dict[str, Any]) -> set[tuple[str, str]]:
    return {(item["action"], item["path"]) for item in facts["items"]}


def test_part_is_merged_and_the_rest_stays(mount: Mounted, people: tuple[Person, Person]) -> None:
    alice, bob = people
    alice.write("docs/plan", "alice's plan\n")
    alice.write("src/main", "alice's main\n")
    alice.mkdir("docs/new")
    alice.write("docs/new/a", "a\n")
    alice.write("docs/new/b", "b\n")
    alice.rename("docs/notes", "docs/noted")
    alice.remove("src/old")
    seen, words = alice.tree(), ("--only", "docs/plan", "--only", "/docs/new/a")
    planned = mount.facts("plan", str(ALICE), *words)
    assert alice.tree() == seen
    facts = mount.facts("innocent", str(ALICE), *words)
    assert merged(facts) == merged(planned) == {("took", "docs/plan"), ("took", "docs/new"), ("took", "docs/new/a")}
    assert facts["along"] == planned["along"]
    assert [one["path"] for one in facts["along"]] == ["docs/new"]
    assert facts["left"] == []
    assert alice.tree() == seen
    assert bob.read("docs/plan") == "alice's plan\n"
    assert bob.names("docs/new") == ["a"]
    assert bob.names("docs") == ["new", "notes", "plan"]
    assert bob.read("src/main") == "bob's src/main\n"
    (subject,) = mount.facts("status")["subjects"]
    assert subject["state"] == "suspect"
    assert [(part["objects"], part["asked"]) for part in subject["parts"]] == [
        (3, "--only docs/plan --only /docs/new/a")
    ]
    mount.check()
    alice.write("docs/plan", "alice's second plan\n")
    assert bob.read("docs/plan") == "alice's plan\n"
    seen = alice.tree()
    mount.facts("innocent", str(ALICE))
    assert bob.tree() == alice.tree() == seen
    assert mount.facts("status")["subjects"] == []


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_APPEND])
@pytest.mark.parametrize("linked", [False, True])
def test_files_that_are_open_meanwhile(mount: Mounted, people: tuple[Person, Person], flags: int, linked: bool) -> None:
    """What was written before is merged, what is written after through the same descriptor is isolated."""
    alice, bob = people
    if linked:
        bob.link("docs/plan", "docs/same")
    alice.write("docs/made", "made\n")
    opened = {name: alice(os.open, alice.path(name), flags) for name in ("docs/plan", "docs/made")}
    reading = alice(os.open, alice.path("docs/plan"), os.O_RDONLY)
    for descriptor in opened.values():
        alice(os.pwrite, descriptor, b"BEFORE", 0)
    seen = alice.tree()
    mount.facts("innocent", str(ALICE), "--only", "docs")
    assert alice.tree() == bob.tree() == seen
    merged_plan = bob.read("docs/plan")
    assert "BEFORE" in merged_plan
    assert alice(os.pread, reading, 100, 0).decode() == merged_plan
    if flags == os.O_RDWR:
        assert alice(os.pread, opened["docs/plan"], 100, 0).decode() == merged_plan
    for descriptor in opened.values():
        alice(os.pwrite, descriptor, b"after", 6)
    assert bob.tree() == seen
    assert "after" in alice.read("docs/plan")
    assert "after" in alice.read("docs/made")
    alice(os.fchmod, opened["docs/made"], 0o600)
    for descriptor in opened.values():
        alice(os.ftruncate, descriptor, 3)
    assert bob.tree() == seen
    assert len(alice.read("docs/plan")) == len(alice.read("docs/made")) == 3
    mount.check()
    mount.facts("malicious", str(ALICE), "--yes")
    assert bob.tree() == seen


def test_a_handle_from_before_the_suspicion(mount: Mounted, person: Begin) -> None:
    alice, bob = person(ALICE), person(BOB)
    bob.write("log", "bob's\n")
    bob.chmod("log", 0o666)
    opened = alice(os.open, alice.path("log"), os.O_WRONLY | os.O_APPEND)
    mount.facts("suspect", str(ALICE))
    alice(os.write, opened, b"one\n")
    assert bob.read("log") == "bob's\n"
    mount.facts("innocent", str(ALICE), "--only", "log")
    assert bob.read("log") == "bob's\none\n"
    alice(os.write, opened, b"two\n")
    assert bob.read("log") == "bob's\none\n"
    assert alice.read("log") == "bob's\none\ntwo\n"
    bob.append("log", "more\n")
    mount.check()


def test_pages_of_a_mapping(mount: Mounted, people: tuple[Person, Person]) -> None:
    alice, bob = people
    alice(map_and_store, alice.path("docs/plan"), 0, b"ALICE")
    mount.facts("innocent", str(ALICE), "--only", "plan")
    assert bob.read("docs/plan") == "ALICE docs/plan\n"
    alice(map_and_store, alice.path("docs/plan"), 0, b"again")
    assert bob.read("docs/plan") == "ALICE docs/plan\n"
    assert alice.read("docs/plan") == "again docs/plan\n"
    bob.write("docs/plan", "bob's again\n")
    assert alice.read("docs/plan") == "again docs/plan\n"


def test_working_in_a_directory_that_is_merged(mount: Mounted, people: tuple[Person, Person]) -> None:
    alice, bob = people
    alice.mkdir("new")
    alice(os.chdir, alice.path("new"))
    alice(Path("inside").write_text, "inside\n")
    mount.facts("innocent", str(ALICE), "--only", "new/", "--except", "inside")
    assert bob.names("new") == []
    assert alice(os.getcwd) == alice.path("new")
    alice(Path("more").write_text, "more\n")
    assert alice(os.listdir, ".") == ["inside", "more"] or set(alice(os.listdir, ".")) == {"inside", "more"}
    assert bob.names("new") == []
    mount.check()


def test_conflicts_stay_with_the_suspect(mount: Mounted, people: tuple[Person, Person]) -> None:
    alice, bob = people
    alice.write("docs/plan", "alice's plan\n")
    alice.write("docs/notes", "alice's notes\n")
    bob.write("docs/plan", "bob's new plan\n")
    seen = alice.tree()
    done = mount.isoctl("innocent", str(ALICE), "--only", "docs/*", "--json")
    assert done.code == Exit.CONFLICTS
    assert merged(done.json) == {("took", "docs/notes")}
    assert [(one["path"], one["asked"]) for one in done.json["left"]] == [("docs/plan", False)]
    assert done.json["conflicts"] == 0
    assert alice.tree() == seen
    assert bob.read("docs/plan") == "bob's new plan\n"
    assert mount.facts("conflicts")["conflicts"] == []


BASE = "one\ntwo\nthree\nfour\nfive\n"


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY])
def test_what_resolvers_merge_is_merged(mount: Mounted, people: tuple[Person, Person], flags: int) -> None:
    """As in a whole verdict; the suspect has what was merged then, also in files that are open."""
    alice, bob = people
    bob.write("docs/plan", BASE)
    alice.write("docs/plan", BASE.replace("five", "alice's"))
    alice.write("docs/notes", "alice's notes\n")
    alice.write("src/main", "alice's main\n")
    for name in ("docs/plan", "docs/notes"):
        bob.write(name, BASE.replace("one", "bob's"))
    opened = alice(os.open, alice.path("docs/plan"), flags)
    seen = alice.tree()
    planned = mount.isoctl("plan", str(ALICE), "--only", "docs", "--json").json
    assert alice.tree() == seen
    done = mount.isoctl("innocent", str(ALICE), "--only", "docs", "--json")
    assert done.code == Exit.CONFLICTS
    assert merged(done.json) == merged(planned) == {("merged", "docs/plan")}
    assert [one["path"] for one in done.json["left"]] == [one["path"] for one in planned["left"]] == ["docs/notes"]
    both = BASE.replace("one", "bob's").replace("five", "alice's")
    assert bob.read("docs/plan") == alice.read("docs/plan") == both
    assert alice.read("docs/notes") == "alice's notes\n"
    if flags != os.O_WRONLY:
        assert alice(os.pread, opened, 100, 0).decode() == both
    if flags != os.O_RDONLY:
        alice(os.pwrite, opened, b"ALICE", 0)
        assert alice.read("docs/plan") == "ALICE" + both[5:]
        assert bob.read("docs/plan") == both
    alice(os.close, opened)
    assert {path.name for path in (mount.backing / ".isofs/versions").glob("*/*.merged")} == set()
    mount.check()


def test_both_are_kept_of_what_is_configured_so(mount: Mounted, people: tuple[Person, Person], tmp_path: Path) -> None:
    alice, bob = people
    alice.write("docs/plan", "alice's plan\n")
    bob.write("docs/plan", "bob's new plan\n")
    rules = tmp_path / "rules.toml"
    rules.write_text('[[resolve]]\npattern = "plan"\nusing = "keep-both"\n')
    mount.isoctl("config", "edit", "--from", str(rules))
    try:
        planned = mount.facts("plan", str(ALICE), "--only", "plan")
        facts = mount.facts("innocent", str(ALICE), "--only", "plan")
    finally:
        (mount.backing / ".isofs/config.toml").unlink(missing_ok=True)
    assert merged(facts) == merged(planned) == {("renamed", "docs/plan")}
    beside = f"docs/plan.isofs-{ALICE}"
    assert (bob.read("docs/plan"), bob.read(beside)) == ("bob's new plan\n", "alice's plan\n")
    assert (alice.read("docs/plan"), alice.read(beside)) == ("bob's new plan\n", "alice's plan\n")
    assert mount.facts("conflicts")["conflicts"] == []
    mount.check()


def test_what_a_resolver_merges_can_be_accepted(mount: Mounted, people: tuple[Person, Person]) -> None:
    alice, bob = people
    bob.write("docs/plan", BASE)
    alice.write("docs/plan", BASE.replace("five", "alice's"))
    alice.write("src/main", "evil\n")
    bob.write("docs/plan", BASE.replace("one", "bob's"))
    facts = mount.facts("malicious", str(ALICE), "--yes", "--accept", "plan")
    assert merged({"items": facts["accepted"]}) == {("merged", "docs/plan")}
    assert bob.read("docs/plan") == BASE.replace("one", "bob's").replace("five", "alice's")
    assert bob.read("src/main") == "bob's src/main\n"
    assert alice.tree() == bob.tree()


@pytest.mark.parametrize("words", [(), ("--only", "plan", "--only", "src/main")])
def test_the_host_stops_a_merge_half_way(mount: Mounted, people: tuple[Person, Person], words: tuple[str, ...]) -> None:
    """It is said, nothing is lost, and the same command goes on with it; the report is of all of it."""
    alice, bob = people
    alice.write("docs/plan", "alice's plan\n")
    alice.write("src/main", "alice's main\n")
    alice.write("docs/notes", "alice's notes\n")
    held = mount.backing / "docs"
    subprocess.run(["chattr", "+i", held], check=True)
    try:
        done = mount.isoctl("innocent", str(ALICE), *words)
        assert done.code == Exit.INTERNAL
        assert "merging stopped half way: Operation not permitted; nothing is lost" in done.err
        assert f"run isoctl innocent {ALICE} again" in done.err
        assert ("with the same globs" in done.err) == bool(words)
        assert bob.read("docs/plan") == "bob's docs/plan\n"
    finally:
        subprocess.run(["chattr", "-i", held], check=True)
    facts = mount.facts("innocent", str(ALICE), *words)
    chosen = {"docs/plan", "src/main"} if words else {"docs/plan", "src/main", "docs/notes"}
    assert merged(facts) == {("took", path) for path in chosen}
    assert {path: bob.read(path) for path in chosen} == {
        path: f"alice's {path[path.index('/') + 1 :]}\n" for path in chosen
    }
    assert alice.read("docs/notes") == "alice's notes\n"
    assert bool(mount.facts("status")["subjects"]) == bool(words)
    mount.check()


def test_globs_that_name_nothing_change_nothing(mount: Mounted, people: tuple[Person, Person]) -> None:
    alice, bob = people
    alice.write("docs/plan", "alice's plan\n")
    before = bob.tree()
    for words in (("--only", "docs/plan", "--only", "nothing"), ("--except", "src"), ("--only", "!")):
        done = mount.isoctl("innocent", str(ALICE), *words)
        assert done.code == Exit.USAGE, done
    assert mount.isoctl("malicious", str(ALICE), "--yes", "--accept", "nothing").code == Exit.USAGE
    assert mount.isoctl("innocent", str(BOB), "--only", "*").code == Exit.NO_SUBJECT
    assert bob.tree() == before
    assert alice.read("docs/plan") == "alice's plan\n"


def test_malicious_but_for_what_is_accepted(mount: Mounted, people: tuple[Person, Person]) -> None:
    alice, bob = people
    alice.write("docs/plan", "alice's plan\n")
    alice.write("src/main", "evil\n")
    alice.mkdir("new")
    alice.write("new/good", "good\n")
    alice.write("new/evil", "evil\n")
    facts = mount.facts("malicious", str(ALICE), "--yes", "--accept", "docs/plan", "--accept", "good")
    assert merged({"items": facts["accepted"]}) == {("took", "docs/plan"), ("took", "new"), ("took", "new/good")}
    assert [one["path"] for one in facts["along"]] == ["new"]
    assert facts["counts"] == {"added": 1, "modified": 1}
    assert bob.read("docs/plan") == "alice's plan\n"
    assert bob.read("src/main") == "bob's src/main\n"
    assert bob.names("new") == ["good"]
    assert alice.tree() == bob.tree()
    assert mount.facts("status")["subjects"] == []
    kept = mount.backing / os.path.relpath(facts["evidence"], mount.path)
    assert manifest(kept)["about"]["accept"] == ["docs/plan", "good"]
    accepted = {version["path"] for version in manifest(kept)["versions"] if version["accepted"]}
    assert accepted == {"docs/plan", "new", "new/good"}
    found = contents(kept)
    assert {found["src/main"], found["new/good"], found["docs/plan"]} == {b"evil\n", b"good\n", b"alice's plan\n"}
    mount.check()


def test_what_cannot_be_accepted_discards_nothing(mount: Mounted, people: tuple[Person, Person]) -> None:
    alice, bob = people
    alice.write("docs/plan", "alice's plan\n")
    alice.write("src/main", "evil\n")
    bob.write("docs/plan", "bob's new plan\n")
    seen, main, kept = alice.tree(), bob.tree(), mount.facts("evidence", "list")
    done = mount.isoctl("malicious", str(ALICE), "--yes", "--accept", "plan")
    assert done.code == Exit.CONFLICTS
    assert "nothing was discarded: docs/plan: both changed it" in done.err
    assert alice.tree() == seen
    assert bob.tree() == main
    assert mount.facts("evidence", "list") == kept
