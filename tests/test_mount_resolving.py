"""Files that both sides changed, on a real mount: what resolvers make of them, and who says which are asked."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isofs.control import client, mounts
from isofs.errors import Exit
from isofs.service import locks
from support.locks import Lock, flock, ofd, posix
from support.merging import database, letter, query, subjects, written
from support.mount import ALICE, BOB, Mounted, Person, isoctl

pytestmark = pytest.mark.mount

Begin = Callable[[int], Person]

BASE = "one\ntwo\nthree\nfour\nfive\n"
HERS = BASE.replace("five", "alice's")
HIS = BASE.replace("one", "bob's")
BOTH = HERS.replace("one", "bob's")


@pytest.fixture(autouse=True)
def unconfigured(mount: Mounted) -> Iterator[None]:
    """The mount is another test's as well."""
    yield
    (mount.backing / ".isofs/config.toml").unlink(missing_ok=True)


@pytest.fixture
def alice(person: Begin) -> Person:
    return person(ALICE)


@pytest.fixture
def bob(person: Begin) -> Person:
    return person(BOB)


def test_what_trusted_users_have_in_their_caches(mount: Mounted, alice: Person, bob: Person) -> None:
    """Who has read a file before the merge reads the merged one after it; also under another name, also opened."""
    bob.write("f", BASE)
    bob.write("several", BASE)
    bob.link("several", "link")
    mount.facts("suspect", str(ALICE))
    for name in ("f", "several"):
        alice.write(name, HERS)
        bob.write(name, HIS)
    size = bob.status("f")[4]
    for name in ("f", "several", "link"):
        assert bob.read(name) == HIS
    planned = mount.facts("plan", str(ALICE))["items"]
    merged = mount.facts("innocent", str(ALICE))
    assert merged["counts"] == {"merged": 2}
    reasons = [(item["path"], item["reason"]) for item in merged["items"]]
    assert sorted(reasons) == sorted((item["path"], item["reason"]) for item in planned)
    for name in ("f", "several", "link"):
        assert bob.read(name) == alice.read(name) == BOTH
        assert (mount.backing / name).read_text() == BOTH
    assert bob.status("f")[4] == len(BOTH) != size
    alice.append("several", "six\n")
    assert bob.read("link") == BOTH + "six\n"


def test_one_side_replaces_a_file_of_several_names(mount: Mounted, alice: Person, bob: Person) -> None:
    """Nothing to resolve: main's inode gets the suspect's content, and nobody's cache keeps the old one."""
    bob.write("several", BASE)
    bob.link("several", "link")
    mount.facts("suspect", str(ALICE))
    alice.write("several", HERS)
    assert (bob.read("several"), bob.read("link")) == (BASE, BASE)
    mount.facts("innocent", str(ALICE))
    assert (bob.read("several"), bob.read("link")) == (HERS, HERS)
    assert bob.status("link")[4] == len(HERS)


def test_a_mailbox_that_both_wrote_to(mount: Mounted, alice: Person, bob: Person) -> None:
    """bob gets a letter and deletes one; alice, isolated, files another: no letter is lost, none is doubled."""
    start = written("mbox", [letter(number) for number in range(3)])
    bob.write("box.mbox", start.decode())
    mount.facts("suspect", str(ALICE))
    alice.write("box.mbox", written("mbox", [letter("hers")], start).decode())
    bob.write("box.mbox", written("mbox", [letter(0), letter(2), letter("his")]).decode())
    merged = mount.facts("innocent", str(ALICE))
    assert merged["counts"] == {"merged": 1}
    assert subjects("mbox", bob.read("box.mbox").encode()) == ["0", "2", "his", "hers"]


def test_a_database_that_both_wrote_to(mount: Mounted, alice: Person, bob: Person) -> None:
    path = mount.path / "stock.db"
    path.write_bytes(database("CREATE TABLE t (id INTEGER PRIMARY KEY, n); INSERT INTO t VALUES (1, 1), (2, 2);"))
    path.chmod(0o666)
    mount.path.chmod(0o777)
    mount.facts("suspect", str(ALICE))
    for person, sql in ((alice, "UPDATE t SET n = 20 WHERE id = 2"), (bob, "INSERT INTO t VALUES (3, 3)")):
        person(subprocess.run, ["sqlite3", "-bail", str(path), sql], check=True)
    assert mount.facts("innocent", str(ALICE))["counts"] == {"merged": 1}
    assert query(path.read_bytes(), "SELECT id, n FROM t ORDER BY id") == ["1|1", "2|20", "3|3"]


SAME = '[[resolve]]\npattern = "*.conf"\nusing = "same"\n'


@pytest.fixture
def rules(tmp_path: Path) -> Callable[[str], str]:
    """A file with rules."""

    def write(text: str) -> str:
        path = tmp_path / "rules.toml"
        path.write_text(text)
        return str(path)

    return write


def test_the_configuration_decides(mount: Mounted, alice: Person, bob: Person, rules: Callable[[str], str]) -> None:
    for name in ("a.conf", "a.txt"):
        bob.write(name, BASE)
    mount.facts("suspect", str(ALICE))
    for name in ("a.conf", "a.txt"):
        alice.write(name, HERS)
        bob.write(name, HIS)
    saved = mount.isoctl("config", "edit", "--from", rules(SAME))
    assert (saved.code, saved.err) == (0, "")
    shown = mount.facts("config", "show")
    assert shown["text"] == SAME
    assert shown["rules"][0] == {"pattern": ["*.conf"], "using": "same", "options": {}, "line": 1}
    assert shown["rules"][-1]["line"] is None
    done = mount.isoctl("innocent", str(ALICE), "--json")
    assert done.code == Exit.CONFLICTS
    assert {item["path"]: item["action"] for item in done.json["items"]} == {"a.conf": "conflict", "a.txt": "merged"}
    mount.facts("malicious", str(ALICE), "--yes", "--no-evidence")


def test_both_are_kept_where_that_is_configured(
    mount: Mounted, alice: Person, bob: Person, rules: Callable[[str], str]
) -> None:
    bob.write("a.conf", BASE)
    mount.facts("suspect", str(ALICE))
    alice.write("a.conf", HERS)
    bob.write("a.conf", HIS)
    both = '[[resolve]]\npattern = "*.conf"\nusing = "keep-both"\n'
    assert mount.isoctl("config", "edit", "--from", rules(both)).code == 0
    (planned,) = mount.facts("plan", str(ALICE))["items"]
    merged = mount.facts("innocent", str(ALICE))
    assert merged["items"] == [{key: planned[key] for key in merged["items"][0]}]
    assert (planned["action"], planned["as"]) == ("renamed", f"a.conf.isofs-{ALICE}")
    assert bob.tree() == {"a.conf": HIS, f"a.conf.isofs-{ALICE}": HERS}
    assert mount.facts("status")["subjects"] == []


def test_a_configuration_with_an_error_is_refused_and_not_used(
    mount: Mounted, alice: Person, bob: Person, rules: Callable[[str], str]
) -> None:
    bob.write("f", BASE)
    mount.facts("suspect", str(ALICE))
    alice.write("f", HERS)
    bob.write("f", HIS)
    wrong = rules('[[resolve]]\npattern = "*"\nusing = "magic"\n')
    for words in (("edit", "--from", wrong), ("check", wrong)):
        done = mount.isoctl("config", *words)
        assert done.code == Exit.USAGE
        assert "line 3: there is no resolver 'magic'" in done.err
    assert mount.facts("config", "show")["text"] == ""
    # Somebody wrote it with an editor of their own.
    (mount.backing / ".isofs/config.toml").write_text('using = "magic"')
    for words in (("innocent", str(ALICE)), ("plan", str(ALICE)), ("config", "show"), ("config", "check")):
        done = mount.isoctl(*words)
        assert done.code == Exit.USAGE, done
        assert "config.toml, line 1: there is no setting 'using'" in done.err
    assert (alice.read("f"), bob.read("f")) == (HERS, HIS)
    (mount.backing / ".isofs/config.toml").unlink()
    mount.facts("innocent", str(ALICE))
    assert bob.read("f") == BOTH


def test_the_configuration_of_what_is_not_mounted(mount: Mounted, rules: Callable[[str], str]) -> None:
    mount.umount()
    try:
        assert isoctl("config", "edit", "--store", str(mount.path / ".isofs"), "--from", rules(SAME)).code == 0
        assert isoctl("--mount", str(mount.path), "config", "check").code == 0
        shown = isoctl("--mount", str(mount.path), "config", "show")
        assert "attic_days = 30  (default)  # days that the attic keeps" in shown.out
        assert "\nline 1    same       *.conf\n" in shown.out
    finally:
        mount.mount()
    assert mount.facts("config", "show")["text"] == SAME


def test_no_editor_without_a_terminal(mount: Mounted) -> None:
    done = mount.isoctl("config", "edit")
    assert done.code == Exit.USAGE
    assert "--from FILE" in done.err


def test_an_editor(mount: Mounted, tmp_path: Path) -> None:
    """What it leaves is saved if it is all right; on a terminal it can be mended."""
    editor = tmp_path / "editor"
    editor.write_text(f'#!/bin/sh\ncat {tmp_path}/next > "$1"\n')
    editor.chmod(0o755)
    (tmp_path / "next").write_text(SAME)
    environment = os.environ | {"VISUAL": str(editor)}
    command = f"{sys.executable} -m isoctl.main --mount {mount.path} config edit"
    for _ in range(2):
        script = subprocess.run(
            ["script", "-qec", command, "/dev/null"], env=environment, capture_output=True, check=True
        )
    assert b"nothing was changed" in script.stdout
    assert mount.facts("config", "show")["text"] == SAME


LOCKS: dict[str, Lock] = {"fcntl": posix, "flock": flock, "ofd": ofd, "dot": lambda descriptor, kind: None}


@pytest.mark.parametrize("way", LOCKS)
def test_who_has_a_mailbox_locked_is_waited_for(mount: Mounted, alice: Person, bob: Person, way: str) -> None:
    """A mail program at work is not disturbed, and what it delivers meanwhile is merged as well."""
    start = written("mbox", [letter(1)])
    bob.write("box.mbox", start.decode())
    mount.facts("suspect", str(ALICE))
    alice.write("box.mbox", written("mbox", [letter("hers")], start).decode())
    bob.append("box.mbox", written("mbox", [letter("his")]).decode())
    path, lock = mount.path / "box.mbox", mount.path / "box.mbox.lock"
    begun, told = threading.Event(), list[Any]()

    def decide() -> None:
        call = client.call(
            mounts.socket_for(str(mount.path)), "innocent", {"uid": ALICE}, progress=lambda done, total: begun.set()
        )
        told.append(call)

    verdict = threading.Thread(target=decide)
    with open(path, "r+b") as box:
        LOCKS[way](box.fileno(), fcntl.LOCK_EX)
        if way == "dot":
            lock.touch()
        verdict.start()
        assert begun.wait(30)
        box.seek(0, os.SEEK_END)
        box.write(written("mbox", [letter("late")]))
        box.flush()
        assert not told
        LOCKS[way](box.fileno(), fcntl.LOCK_UN)
        lock.unlink(missing_ok=True)
        verdict.join()
    assert told[0]["counts"] == {"merged": 1}
    assert subjects("mbox", path.read_bytes()) == ["1", "his", "late", "hers"]


def test_what_stays_locked_stays_a_conflict(mount: Mounted, alice: Person, bob: Person) -> None:
    bob.write("f", BASE)
    mount.facts("suspect", str(ALICE))
    alice.write("f", HERS)
    bob.write("f", HIS)
    with open(mount.path / "f", "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "locked" in mount.facts("plan", str(ALICE))["items"][0]["reason"]
        done = mount.isoctl("innocent", str(ALICE), "--json")
    assert done.code == Exit.CONFLICTS
    assert "a program has it locked for writing" in done.json["items"][0]["reason"]
    assert (mount.path / "f").read_text() == HIS


def test_locks_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    """Those of writers on the file itself, not of readers, nor of other files."""
    at = os.stat(tmp_path)
    device = (os.major(at.st_dev), os.minor(at.st_dev))
    with (
        open(tmp_path / "w", "wb") as writer,
        open(tmp_path / "r", "wb+") as reader,
        open(tmp_path / "n", "wb") as none,
    ):
        inodes = [os.fstat(file.fileno()).st_ino for file in (writer, reader, none)]
        fcntl.lockf(writer, fcntl.LOCK_EX)
        fcntl.flock(reader, fcntl.LOCK_SH)
        ofd(reader.fileno(), fcntl.LOCK_SH)
        assert locks.locked(device, inodes) == {inodes[0]}
        assert locks.locked((device[0], device[1] + 1), inodes) == set()
        ofd(none.fileno(), fcntl.LOCK_EX)
        assert locks.locked(device, inodes) == {inodes[0], inodes[2]}
    assert locks.locked(device, inodes) == set()
