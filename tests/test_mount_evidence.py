"""Evidence on real mounts: written, read back and kept before anything is discarded; nothing lost whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from isofs.errors import Exit
from support.archives import contents, manifest
from support.mount import ALICE, BOB, Mounted, Person, Result, isoctl, mounted, sh

pytestmark = pytest.mark.mount

Begin = Callable[[int], Person]


def refused(done: Result, code: Exit, *words: str) -> None:
    assert done.code == code, done
    assert done.err.count("\n") == 1, done
    for word in words:
        assert word in done.err, done


@pytest.fixture
def small(place: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    at = place / "small"
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(at)], check=True)
    yield at
    subprocess.run(["umount", "-l", str(at)], check=True)


def test_from_the_verdict_to_the_unpacked_tree(mount: Mounted, person: Begin, place: Path) -> None:
    """Written where the operator said, listed, shown, verified and unpacked by the commands."""
    alice, bob = person(ALICE), person(BOB)
    bob.write("kept", "main\n")
    bob.write("removed", "main\n")
    mount.facts("suspect", str(ALICE), "--reason", "an alert")
    alice.write("kept", "alice's\n")
    alice.remove("removed")
    alice.mkdir("d")
    alice.write("d/f", "hers\n")
    assert sh(ALICE, "ln -s /etc/shadow link; mkfifo pipe; truncate -s 1T huge; chmod 4755 d/f", mount.path).code == 0
    file = place / "out.tar.zst"
    said = mount.isoctl("malicious", str(ALICE), "--yes", "--evidence", str(file), "--reason", "she did it").out
    assert said.splitlines()[1:] == [f"evidence kept in {file}"]
    assert (file.stat().st_mode & 0o7777, file.stat().st_uid) == (0o600, 0)
    assert file.stat().st_size < 1 << 16
    assert os.listdir(place) == ["out.tar.zst"]
    assert contents(file)["kept"] == b"alice's\n"
    told = manifest(file)
    assert told["about"]["verdict"]["reason"] == "she did it"
    assert told["about"]["counts"] == {"added": 5, "modified": 1, "deleted": 1}
    shown = mount.isoctl("evidence", "show", str(file)).out
    for line in (f"uid      {ALICE}", "reason   an alert", "removed  name       removed of . (now removed)"):
        assert f"{line}\n" in shown
    assert "link -> /etc/shadow\n" in shown
    assert mount.facts("evidence", "verify", str(file))["contents"] == 3
    into = place / "into"
    done = mount.isoctl("evidence", "extract", str(file), str(into))
    assert done.out.splitlines()[-1] == "left out pipe: it is a special file"
    assert (into / "tree/d/f").read_text() == "hers\n"
    assert (into / "tree/d/f").stat().st_mode & 0o7777 == 0o600
    assert (into / "tree/huge").stat().st_size == 1 << 40
    assert os.readlink(into / "tree/link") == "/etc/shadow"
    refused(mount.isoctl("evidence", "extract", str(file), str(into)), Exit.USAGE, "File exists")


def test_the_archives_of_the_store(mount: Mounted, person: Begin, place: Path) -> None:
    """Listed while mounted and at rest; a damaged one is listed as that, and the others all the same."""
    alice = person(ALICE)
    before = len(mount.facts("evidence", "list")["evidence"])
    for text in ("one", "two"):
        mount.facts("suspect", str(ALICE), "--reason", text)
        alice.write("f", text)
        facts = mount.facts("malicious", str(ALICE), "--yes")
    name = os.path.basename(facts["evidence"])
    listed = mount.facts("evidence", "list")["evidence"]
    assert len(listed) == before + 2
    (entry,) = [e for e in listed if e["name"] == name]
    assert (entry["uid"], entry["versions"], entry["bytes"], entry["error"]) == (ALICE, 1, 3, None)
    assert name in mount.isoctl("evidence", "list").out
    for given in (name, name.removesuffix(".tar.zst")):
        assert mount.isoctl("evidence", "verify", given).code == 0
    assert mount.facts("evidence", "show", name)["about"]["reason"] == "two"
    refused(mount.isoctl("evidence", "verify", "nobody"), Exit.ARCHIVE, "no evidence nobody")
    readable = Path(facts["readable"])
    readable.write_bytes(b"x" + readable.read_bytes()[1:])
    refused(mount.isoctl("evidence", "verify", name), Exit.ARCHIVE, "damaged")
    refused(mount.isoctl("evidence", "show", name), Exit.ARCHIVE, "damaged")
    refused(mount.isoctl("evidence", "extract", name, str(place / "into")), Exit.ARCHIVE, "damaged")
    assert os.listdir(place) == []
    assert [e["name"] for e in mount.facts("evidence", "list")["evidence"] if e["error"]] == [name]
    mount.umount()
    listed_at_rest = mount.facts("evidence", "list")["evidence"]
    assert [e["name"] for e in listed_at_rest] == [e["name"] for e in listed]
    store = str(mount.path / ".isofs")
    assert isoctl("evidence", "list", "--store", store).code == 0
    refused(isoctl("evidence", "list", "--store", str(place)), Exit.NO_MOUNT, "no store")
    mount.mount()


def test_what_is_asked_for_in_vain_discards_nothing(mount: Mounted, person: Begin, place: Path, small: Path) -> None:
    """A full disk, a file that is there, no directory, a place in the mount: the suspect is one, with all its work."""
    alice, bob = person(ALICE), person(BOB)
    bob.write("f", "main\n")
    mount.facts("suspect", str(ALICE))
    alice.write("noise", Random(1).randbytes(1 << 20).hex())
    alice.append("f", "alice's\n")
    before = mount.facts("changes", str(ALICE))
    (place / "there").write_text("mine")

    def asked(file: object, *more: str) -> Result:
        return mount.isoctl("malicious", str(ALICE), "--yes", "--evidence", str(file), *more)

    refused(asked(small / "full.tar.zst"), Exit.EVIDENCE, "No space left", "nothing was discarded")
    assert os.listdir(small) == []
    refused(asked(place / "there"), Exit.USAGE, "exists already")
    refused(asked(place / "not" / "there"), Exit.USAGE, "cannot be made")
    refused(asked(mount.path / "seen"), Exit.USAGE, "would be visible")
    refused(asked(place / "f", "--no-evidence"), Exit.USAGE, "exclude each other")
    assert (place / "there").read_text() == "mine"
    assert mount.facts("changes", str(ALICE)) == before
    assert (alice.read("f"), bob.read("f")) == ("main\nalice's\n", "main\n")
    assert mount.facts("status")["subjects"][0]["state"] == "suspect"
    alice.append("f", "more\n")
    stored = len(mount.facts("evidence", "list")["evidence"])
    facts = mount.facts("malicious", str(ALICE), "--yes", "--no-evidence")
    assert (facts["evidence"], facts["readable"]) == (None, None)
    assert len(mount.facts("evidence", "list")["evidence"]) == stored
    assert alice.tree() == bob.tree() == {"f": "main\n"}


def test_a_daemon_killed_while_it_writes_loses_nothing(tree: Path) -> None:
    """The suspect is a suspect, with every byte; nothing half-written is left; the second run is like the first."""
    with mounted(tree) as mount:
        mount.facts("suspect", str(ALICE))
        (tree / "noise").write_bytes(b"main")
        (tree / "noise").chmod(0o666)
        assert sh(ALICE, f"head -c {96 << 20} /dev/urandom > noise", tree).code == 0
        digest = sh(ALICE, "sha256sum noise", tree).out
        asking = threading.Thread(target=mount.isoctl, args=("malicious", str(ALICE), "--yes"))
        asking.start()
        scratch = mount.backing / ".isofs" / "staging"
        deadline = time.monotonic() + 30
        while not any(p.stat().st_size > 1 << 20 for p in scratch.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.005)
        mount.kill()
        asking.join()
        mount.mount()
        assert mount.facts("status")["subjects"][0]["state"] == "suspect"
        assert mount.facts("evidence", "list") == {"evidence": []}
        assert list(mount.backing.glob(".isofs/staging/*")) == []
        assert sh(ALICE, "sha256sum noise", tree).out == digest
        assert (tree / "noise").read_bytes() == b"main"
        mount.facts("malicious", str(ALICE), "--yes")
        (entry,) = mount.facts("evidence", "list")["evidence"]
        (row,) = mount.facts("evidence", "show", entry["name"])["versions"]
        assert row["content"]["sha256"] == digest.split()[0]


def test_others_go_on_while_it_is_written(tree: Path) -> None:
    """Hundreds of MB are compressed; bob never waits long, and alice waits or is told that it is busy."""
    with mounted(tree) as mount:
        (tree / "f").write_text("main")
        mount.facts("suspect", str(ALICE))
        assert sh(ALICE, f"head -c {256 << 20} /dev/urandom > noise", tree).code == 0
        asking = subprocess.Popen(
            [sys.executable, "-m", "isoctl.main", "--mount", str(tree), "malicious", str(ALICE), "--yes", "--json"],
            stdout=subprocess.PIPE,
            text=True,
        )
        longest, looks = 0.0, 0
        while asking.poll() is None:
            begin = time.monotonic()
            (tree / f"bob-{looks}").write_text("b")
            longest, looks = max(longest, time.monotonic() - begin), looks + 1
            time.sleep(0.002)
        assert asking.stdout is not None
        assert json.load(asking.stdout)["counts"] == {"added": 1}
        asking.stdout.close()
        assert looks > 20
        assert longest < 1, "somebody waited for the evidence"
