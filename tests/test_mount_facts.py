"""What an administrator meets with the commands on a real mount: facts, refusals, and which mount is meant."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isofs.errors import Exit
from support.archives import contents
from support.command import error, isoctl_alone, refused
from support.mount import ALICE, BOB, CAROL, Mounted, Person, isoctl, mounted, mounts_below

pytestmark = pytest.mark.mount

Begin = Callable[[int], Person]

#: What would clear a screen, forge a line of output, and isn't UTF-8; and how it must be shown.
HOSTILE = os.fsdecode(b"x\x1b[2J\n+++ forged\xff")
SHOWN = r"x\x1b[2J\x0a+++ forged\xff"
QUOTED = r'"b/x\033[2J\n+++ forged\377"'


# Refusals


def test_who_cannot_be_isolated_or_judged(mount: Mounted) -> None:
    """Each is refused for its own reason, and nobody is isolated after."""
    before = mount.state()
    for words in (["suspect", "root"], ["suspect", "0"], ["malicious", "0", "--yes"]):
        refused(mount.isoctl(*words), Exit.NOT_ALLOWED, "root can't be isolated")
    refused(mount.isoctl("suspect", "no-such-user"), Exit.NO_SUBJECT, "there is no user no-such-user")
    for words in (["innocent"], ["malicious", "--yes"], ["changes"], ["diff"]):
        refused(mount.isoctl(*words, str(ALICE)), Exit.NO_SUBJECT, f"user {ALICE} is not a suspect", "isoctl status")
    assert error(mount.isoctl("innocent", str(ALICE), "--json"))["code"] == "no_subject"
    assert mount.state() == before


def test_the_same_suspect_twice(mount: Mounted, person: Begin) -> None:
    """The first suspicion stands as it is."""
    alice = person(ALICE)
    mount.facts("suspect", str(ALICE), "--reason", "first")
    alice.write("f", "alice's\n")
    before = mount.state()
    refused(mount.isoctl("suspect", str(ALICE), "--reason", "second"), Exit.ALREADY, str(ALICE))
    assert mount.state() == before
    assert alice.read("f") == "alice's\n"


def test_malicious_is_not_carried_out_unasked(mount: Mounted, person: Begin) -> None:
    alice = person(ALICE)
    mount.facts("suspect", str(ALICE))
    alice.write("f", "alice's\n")
    before = mount.facts("changes", str(ALICE))
    refused(mount.isoctl("malicious", str(ALICE)), Exit.USAGE, "no terminal to ask on", "--yes")
    assert mount.facts("changes", str(ALICE)) == before
    assert alice.read("f") == "alice's\n"


# Which mount

EVERY = (["status"], ["suspect", "61001"], ["changes", "61001"], ["diff", "61001"], ["innocent", "61001"],
         ["malicious", "61001", "--yes"], ["conflicts"],
         ["resolve", "61001", "f", "--take", "main"], ["check"])  # fmt: skip


@pytest.mark.parametrize("words", EVERY, ids=lambda words: words[0])
def test_no_mount_at_all(words: list[str]) -> None:
    refused(isoctl_alone(*words), Exit.NO_MOUNT, "no isofs is mounted: `isoctl mount DIR` mounts one")


def test_which_of_several_mounts_is_meant(place: Path) -> None:
    one, other = place / "one", place / "other"
    one.mkdir()
    other.mkdir()

    def meant(*options: str, cwd: Path = place, variable: Path | None = None) -> str:
        mount = None if variable is None else str(variable)
        done = isoctl_alone(*options, "status", "--json", keep=[one, other], cwd=cwd, mount=mount)
        assert done.code == Exit.DONE, done
        return str(done.json["mount"])

    with mounted(one), mounted(other):
        (one / "d").mkdir()
        unclear = isoctl_alone("suspect", str(ALICE), keep=[one, other], cwd=place)
        refused(unclear, Exit.NO_MOUNT, f"choose one with --mount DIR: {one}, {other}")
        refused(isoctl_alone("--mount", str(one / "d"), "status", keep=[one, other]), Exit.NO_MOUNT, f"{one}/d")
        assert isoctl_alone("status", keep=[other], cwd=place).out.startswith(f"state   ok\nmount   {other}\n")
        assert meant(cwd=one / "d") == str(one)
        assert meant(cwd=one, variable=other) == str(other)
        assert meant("--mount", "one", variable=other) == str(one)
        for path in (one, other):
            assert isoctl("--mount", str(path), "status", "--json").json["subjects"] == []


# Behind the mount


def test_what_changed_while_unmounted_is_a_conflict(mount: Mounted, person: Begin) -> None:
    """Nothing counted it; the merge sees it all the same, and leaves it as it is."""
    alice, bob = person(ALICE), person(BOB)
    for name in ("both", "hers"):
        bob.write(name, "start\n")
    mount.facts("suspect", str(ALICE))
    for name in ("both", "hers"):
        alice.write(name, "alice's\n")
    mount.umount()
    (mount.path / "both").write_text("restored from a backup\n")
    mount.mount()
    assert alice.read("both") == "alice's\n"
    done = mount.isoctl("innocent", str(ALICE))
    assert done.code == Exit.CONFLICTS, done
    assert done.err == f"isoctl: 1 conflict to decide: `isoctl conflicts {ALICE}`\n"
    assert bob.tree() == {"both": "restored from a backup\n", "hers": "alice's\n"}
    (conflict,) = mount.facts("conflicts")["conflicts"]
    assert conflict["path"] == "both"
    assert Path(conflict["readable"]).read_text() == "alice's\n"


# Where things are kept


def test_what_is_printed_as_kept_can_be_read(mount: Mounted, person: Begin) -> None:
    """Under the mount nobody sees the store; the second path leads there while mounted, the first one after."""
    alice, bob = person(ALICE), person(BOB)
    bob.write("f", "start\n")
    mount.facts("suspect", str(ALICE))
    alice.write("f", "alice's\n")
    bob.append("f", "bob's\n")
    assert mount.isoctl("innocent", str(ALICE)).code == Exit.CONFLICTS
    lines = mount.isoctl("conflicts").out.splitlines()
    kept, now = (re.fullmatch(r" +(?:kept in|read it) +(.*)", line) for line in lines[3:5])
    assert kept
    assert now
    assert not Path(kept[1]).exists()
    assert Path(now[1]).read_text() == "alice's\n"
    assert "+alice's\n" in mount.isoctl("diff", str(ALICE)).out
    mount.umount()
    assert Path(kept[1]).read_text() == "alice's\n"
    mount.mount()
    said = mount.isoctl("malicious", str(ALICE), "--yes").out.splitlines()
    evidence = said[1].removeprefix("evidence kept in ")
    readable = Path(said[2].removeprefix("while mounted, read it in "))
    assert contents(readable) == {"f": b"alice's\n"}
    assert not Path(evidence).exists()
    mount.umount()
    assert contents(Path(evidence)) == {"f": b"alice's\n"}
    mount.mount()


# Check


def test_check_finds_damage_mounted_or_not(mount: Mounted, person: Begin) -> None:
    """It changes nothing, and what is put back is sound again."""
    alice = person(ALICE)
    mount.facts("suspect", str(ALICE))
    alice.write("f", "alice's\n")
    directory = ("--mount", str(mount.path))
    sound = mount.facts("check")
    assert (sound["ok"], sound["problems"]) == (True, [])
    assert sorted(sound) == ["checked", "ok", "problems"]

    def found(content: Path) -> None:
        done = isoctl(*directory, "check", "--json")
        assert done.code == Exit.PROBLEMS
        assert done.err == "isoctl: 1 problem found\n"
        (problem,) = done.json["problems"]
        assert sorted(problem) == ["invariant", "path", "problem", "subject"]
        assert (problem["invariant"], problem["subject"], problem["path"]) == ("I2", str(ALICE), "f")
        assert content.name in problem["problem"]
        assert f"I2: {problem['problem']} ({ALICE}, f)\n" in isoctl(*directory, "check").out

    (content,) = (mount.backing / ".isofs/versions").glob("*/*")
    content.rename(mount.backing / "aside")
    found(content)
    (mount.backing / "aside").rename(content)
    assert mount.facts("check") == sound
    mount.umount()
    stored = mount.path / ".isofs/versions" / content.parent.name / content.name
    assert isoctl(*directory, "check", "--json").json == sound
    stored.rename(mount.path / "aside")
    found(stored)
    (mount.path / "aside").rename(stored)
    assert isoctl(*directory, "check", "--json").json == sound
    mount.mount()
    assert alice.read("f") == "alice's\n"


# JSON


def keys(facts: Any) -> Any:
    """The keys of a document, all the way down; lists by their first entry."""
    if isinstance(facts, dict):
        return {key: keys(value) for key, value in facts.items() if isinstance(value, dict | list)} | dict.fromkeys(
            key for key, value in facts.items() if not isinstance(value, dict | list)
        )
    if isinstance(facts, list):
        return [keys(facts[0])] if facts else []
    return None


def flat(*names: str) -> dict[str, None]:
    return dict.fromkeys(names)


def test_the_keys_of_every_document(mount: Mounted, person: Begin) -> None:
    """Programs rely on them: none is ever renamed or dropped."""
    alice, bob, carol = person(ALICE), person(BOB), person(CAROL)
    bob.write("f", "start\n")
    suspected = mount.facts("suspect", str(ALICE), "--reason", "an alert")
    mount.facts("suspect", str(CAROL))
    alice.append("f", "alice's\n")
    carol.write("g", "carol's\n")
    bob.append("f", "bob's\n")
    assert keys(suspected) == {**flat("user", "uid", "since"), "killed": [], "left": []}
    assert keys(mount.facts("changes", str(ALICE))) == {
        **flat("user", "subject", "since"),
        "read": {**flat("files", "size", "opens", "read", "first", "last"), "gaps": []},
        "changes": [{**flat("change", "kind", "path", "from", "size"), "risks": []}],
        "risks": [],
    }
    content = flat("size", "sha256")
    assert keys(mount.facts("diff", str(ALICE))) == {
        **flat("user"),
        "entries": [{**flat("path", "change", "kind", "text", "known"), "old": content, "new": content, "risks": []}],
        "risks": [],
    }
    (dimension,) = mount.facts("plan", str(ALICE))["items"][0]["suspect"].keys() - {"G"}
    vector = flat("G", dimension)
    item: dict[str, object] = {
        **flat("path", "action", "reason", "review", "as", "object", "kind"),
        "main": vector,
        "suspect": vector,
        "risks": [],
    }
    assert keys(mount.facts("plan", str(ALICE))) == {
        **flat("user"),
        "counts": flat("conflict"),
        "items": [item],
        "risks": [],
        "along": [],
        "left": [],
    }
    done = mount.isoctl("innocent", str(ALICE), "--json")
    assert done.code == Exit.CONFLICTS
    assert keys(done.json) == {
        **flat("user", "conflicts"),
        "counts": flat("conflict"),
        "items": [flat("path", "action", "reason", "review", "as")],
        "along": [],
        "left": [],
    }
    conflicts = mount.facts("conflicts")
    (dimension,) = conflicts["conflicts"][0]["suspect"].keys() - {"G"}
    assert re.fullmatch(r"S\d+", dimension)
    assert keys(conflicts) == {
        "conflicts": [
            {
                **flat("user", "uid", "since", "path", "kind", "reason", "version", "readable"),
                "main": flat("G", dimension),
                "suspect": flat("G", dimension),
                "commands": [None],
            }
        ]
    }
    assert keys(mount.facts("resolve", str(ALICE), "f", "--markers", str(mount.path / "marked"))) == {
        **flat("user", "path", "marked", "file", "seen"),
        "reasons": [None],
    }
    changed = flat("added", "modified", "deleted", "renamed", "attributes")
    limits = ("bytes", "bytes_limit", "objects", "objects_limit", "handles", "handles_limit")
    assert keys(mount.facts("status")) == {
        **flat("state", "degraded", "mount", "store", "pid", "version", "since", "configuration", "two_person"),
        "subjects": [
            {
                **flat("user", "uid", "state", "since", "reason", "bytes", "conflicts", "review", "stopped"),
                "changed": changed,
                "parts": [],
                "quota": {**flat(*limits), "near": []},
            }
        ],
        "proposals": [],
        "quota": {**flat("bytes", "bytes_limit", "free", "reserve", "bases_left_out"), "near": []},
        "attic": flat("entries", "bytes"),
    }
    assert keys(mount.facts("resolve", str(ALICE), "f", "--take", "main")) == {
        **flat("user", "conflicts"),
        "counts": flat("kept"),
        "items": [flat("path", "action", "reason", "review", "as")],
    }
    assert keys(mount.facts("malicious", str(CAROL), "--yes")) == {
        **flat("user", "evidence", "readable"),
        "counts": flat("added"),
        "accepted": [],
        "along": [],
    }
    assert keys(mount.facts("check")) == {
        **flat("ok"),
        "checked": flat("invariants", "objects", "versions", "bindings", "stowed"),
        "problems": [],
    }


def test_the_keys_of_mount_and_umount(place: Path) -> None:
    pid = isoctl("mount", str(place), "--json").json["pid"]
    assert isoctl("umount", str(place), "--json").json == {"mount": str(place), "pid": pid, "stale": False}


# Hostile names


def safe(text: str) -> bool:
    return re.fullmatch(r"[\n -~]*", text) is not None


def test_hostile_names_of_a_suspect(mount: Mounted, person: Begin) -> None:
    """Names, reasons and lines of a suspect's choice forge no line and steer no terminal; JSON has them as they are."""
    alice, bob = person(ALICE), person(BOB)
    bob.write(HOSTILE, "start\n")
    mount.facts("suspect", str(ALICE), "--reason", "a\n\x1b[31m")
    alice.append(HOSTILE, "alice's\n")
    bob.append(HOSTILE, "bob's\n")
    assert mount.isoctl("changes", str(ALICE)).out.split(maxsplit=4)[:2] == ["modified", "file"]
    assert mount.isoctl("changes", str(ALICE)).out.endswith(f"14 B  {SHOWN}\n")
    assert r"since " in mount.isoctl("status").out
    assert r": a\x0a\x1b[31m" in mount.isoctl("status").out
    text = mount.isoctl("diff", str(ALICE), HOSTILE).out
    assert text == f"--- {QUOTED.replace('b/', 'a/', 1)}\n+++ {QUOTED}\n@@ -1 +1,2 @@\n start\n+alice's\n"
    merged = mount.isoctl("innocent", str(ALICE))
    conflicts = mount.isoctl("conflicts")
    assert f"{ALICE}: file {SHOWN}: " in conflicts.out
    for done in (merged, conflicts, mount.isoctl("status")):
        assert safe(done.out + done.err), done
    (conflict,) = mount.facts("conflicts")["conflicts"]
    assert conflict["path"] == HOSTILE
    with open(mount.path / HOSTILE, "rb+"), open(f"/proc/{os.getpid()}/comm", "w") as comm:
        comm.write("a\x1b[31m\nb")
        comm.flush()
        try:
            said = refused(
                isoctl("umount", str(mount.path)), Exit.BUSY, rf"a\x1b[31m\x0ab ({os.getpid()}) of root", SHOWN
            )
        finally:
            comm.seek(0)
            comm.write("python")
    assert safe(said)


def test_hostile_name_of_the_directory(place: Path) -> None:
    """Nor does the name of the mount itself, or of what there isn't."""
    path = place / HOSTILE
    path.mkdir()
    shown = f"{place}/{SHOWN}"
    assert isoctl("mount", str(path)).out == f"mounted {shown} (store {shown}/.isofs)\n"
    assert mounts_below(place)
    status = isoctl("--mount", str(path), "status").out
    assert status.startswith(f"state   ok\nmount   {shown}\nstore   {shown}/.isofs\n")
    assert isoctl("--mount", str(path), "status", "--json").json["mount"] == str(path)
    assert isoctl("umount", str(path)).out == f"unmounted {shown}\n"
    assert not mounts_below(place)
    refused(isoctl("mount", str(path) + "x"), Exit.NO_MOUNT, f"{shown}x")
    refused(isoctl("--mount", str(path), "suspect", HOSTILE), Exit.NO_SUBJECT, SHOWN)
