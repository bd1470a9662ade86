"""Conflicts settled by hand on a real mount: what people see who have the file cached, mapped or open meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from isofs.errors import Exit
from support.command import refused
from support.mount import ALICE, BOB, CAROL, DAVE, Mounted, Person

pytestmark = pytest.mark.mount

Begin = Callable[[int], Person]


@pytest.fixture
def alice(person: Begin) -> Person:
    return person(ALICE)


@pytest.fixture
def bob(person: Begin) -> Person:
    return person(BOB)


def contest(mount: Mounted, alice: Person, bob: Person, *names: str, start: str = "start\n") -> None:
    """Both change the same lines, and alice is innocent."""
    for name in names:
        bob.write(name, start)
    mount.facts("suspect", str(ALICE))
    for name in names:
        alice.write(name, "alice's\n")
        bob.write(name, "bob's\n")
    done = mount.isoctl("innocent", str(ALICE))
    assert done.code == Exit.CONFLICTS, done


def waiting(mount: Mounted) -> list[str]:
    return [one["path"] for one in mount.facts("conflicts")["conflicts"]]


def resolve(mount: Mounted, *words: str) -> dict[str, tuple[str, str | None]]:
    """What was done, by path."""
    facts = mount.facts("resolve", str(ALICE), *words)
    assert facts["conflicts"] == len(waiting(mount))
    return {item["path"]: (item["action"], item["as"]) for item in facts["items"]}


def settled(mount: Mounted) -> None:
    mount.check()
    assert waiting(mount) == []
    assert mount.facts("status")["subjects"] == []
    assert os.listdir(mount.backing / ".isofs/versions") == []


OPEN: dict[str, int] = {}


def keep_open(path: str) -> str:
    OPEN[path] = os.open(path, os.O_RDWR)
    return look_again(path)


def look_again(path: str) -> str:
    return os.pread(OPEN[path], 1 << 16, 0).decode()


def write_on(path: str) -> str:
    os.pwrite(OPEN[path], b"more\n", len(look_again(path)))
    return look_again(path)


# Who looks on


def test_everybody_sees_what_was_chosen(mount: Mounted, alice: Person, bob: Person, person: Begin) -> None:
    """Though the kernel has names, attributes and pages of it all."""
    names = ("main", "suspect", "both", "linked")
    carol = person(CAROL)
    bob.write("linked", "start\n")
    bob.link("linked", "second")
    contest(mount, alice, bob, *names)
    before = bob.tree()
    assert alice.tree() == carol.tree() == before
    assert resolve(mount, "main", "--take", "main") == {"main": ("kept", None)}
    assert resolve(mount, "suspect", "--take", "suspect") == {"suspect": ("took", None)}
    assert resolve(mount, "both", "--take", "both") == {"both": ("renamed", f"both.isofs-{ALICE}")}
    assert waiting(mount) == ["linked"]
    assert bob(keep_open, bob.path("linked")) == "bob's\n"
    assert resolve(mount, "second", "--take", "suspect") == {"linked": ("took", None)}
    expected = {
        **before,
        "suspect": "alice's\n",
        f"both.isofs-{ALICE}": "alice's\n",
        "linked": "alice's\n",
        "second": "alice's\n",
    }
    assert bob(look_again, bob.path("linked")) == "alice's\n"
    for user in (bob, alice, carol):
        assert user.tree() == expected
        assert user.status("suspect")[4] == len("alice's\n")
    bob.append("linked", "more\n")
    assert alice.read("second") == "alice's\nmore\n"
    settled(mount)


def test_who_has_it_open_goes_on_with_the_old_file(mount: Mounted, alice: Person, bob: Person) -> None:
    """Alice opened hers before the verdict, bob his before it was settled; as after a save by somebody else."""
    bob.write("f", "start\n")
    mount.facts("suspect", str(ALICE))
    alice.write("f", "alice's\n")
    bob.write("f", "bob's\n")
    assert alice(keep_open, alice.path("f")) == "alice's\n"
    assert mount.isoctl("innocent", str(ALICE)).code == Exit.CONFLICTS
    assert bob(keep_open, bob.path("f")) == "bob's\n"
    assert resolve(mount, "f", "--take", "suspect") == {"f": ("took", None)}
    assert alice(write_on, alice.path("f")) == bob(write_on, bob.path("f")) == "bob's\nmore\n"
    assert alice.read("f") == bob.read("f") == "alice's\n"
    alice.append("f", "on main\n")
    assert bob.read("f") == "alice's\non main\n"
    settled(mount)


def test_what_main_deleted_comes_back_where_it_was(mount: Mounted, alice: Person, bob: Person) -> None:
    """Also after a restart."""
    bob.mkdir("d")
    contest(mount, alice, bob, "d/f", "d/g")
    bob.remove("d/f")
    bob.remove("d/g")
    mount.kill()
    mount.mount()
    assert waiting(mount) == ["d/f", "d/g"]
    assert bob.tree() == {"d": {}}
    assert resolve(mount, "d/f", "--take", "suspect") == {"d/f": ("restored", None)}
    assert resolve(mount, "d", "--take", "main") == {"d/g": ("kept", None)}
    assert bob.tree() == alice.tree() == {"d": {"f": "alice's\n"}}
    settled(mount)


def test_the_user_may_be_isolated_again(mount: Mounted, alice: Person, bob: Person) -> None:
    contest(mount, alice, bob, "f", "g")
    mount.facts("suspect", str(ALICE))
    alice.write("hers", "hers\n")
    assert resolve(mount, "f", "--take", "suspect") == {"f": ("took", None)}
    assert bob.tree() == {"f": "alice's\n", "g": "bob's\n"}
    assert alice.tree() == {**bob.tree(), "hers": "hers\n"}
    alice.append("f", "isolated\n")
    assert bob.read("f") == "alice's\n"
    assert resolve(mount, str(mount.path), "--take", "main") == {"g": ("kept", None)}
    assert {one["state"] for one in mount.facts("status")["subjects"]} == {"suspect"}
    mount.check()


# A content that is given


def test_with_a_file_standard_input_or_a_file_in_the_mount(
    mount: Mounted, alice: Person, bob: Person, tmp_path: Path
) -> None:
    """Owner and permissions stay everyone's."""
    contest(mount, alice, bob, "f", "g", "h")
    os.chmod(mount.path / "f", 0o4751)
    before = bob.status("f")
    (tmp_path / "file").write_bytes(b"from a file\xff\n")
    bob.write("merged", "from the mount\n")
    assert resolve(mount, "f", "--with", str(tmp_path / "file")) == {"f": ("merged", None)}
    assert resolve(mount, "g", "--with", str(mount.path / "merged")) == {"g": ("merged", None)}
    command = [sys.executable, "-m", "isoctl.main", "--mount", str(mount.path)]
    done = subprocess.run(
        [*command, "resolve", str(ALICE), "h", "--with", "-"], input=b"from a pipe\n", capture_output=True, check=True
    )
    assert done.stdout == b"merged    h: the content that was given\n"
    assert (mount.path / "f").read_bytes() == b"from a file\xff\n"
    assert bob.status("f")[:4] == before[:4]
    assert time.time() - os.stat(mount.path / "f").st_mtime < 60
    assert (bob.read("g"), bob.read("h")) == ("from the mount\n", "from a pipe\n")
    settled(mount)


def test_markers_are_edited_and_given_back(mount: Mounted, alice: Person, bob: Person, tmp_path: Path) -> None:
    contest(mount, alice, bob, "f", start="first\nstart\n")
    before, file = bob.tree(), tmp_path / "marked"
    facts = mount.facts("resolve", str(ALICE), "f", "--markers", str(file))
    assert (facts["marked"], facts["file"]) == (True, str(file))
    assert file.read_text() == (f"<<<<<<< main\nbob's\n||||||| base\nfirst\nstart\n=======\nalice's\n>>>>>>> {ALICE}\n")
    assert (bob.tree(), waiting(mount)) == (before, ["f"])
    file.write_text("both's\n")
    assert resolve(mount, "f", "--with", str(file)) == {"f": ("merged", None)}
    assert bob.tree() == {"f": "both's\n"}
    settled(mount)


# A resolver


def test_using_a_resolver_that_no_rule_gave(mount: Mounted, alice: Person, bob: Person) -> None:
    """Nobody merges an authorized_keys unseen; who asks for it gets it."""
    bob.write("authorized_keys", "one\ntwo\nthree\n")
    mount.facts("suspect", str(ALICE))
    alice.append("authorized_keys", "alice's\n")
    bob.write("authorized_keys", "bob's\ntwo\nthree\n")
    assert mount.isoctl("innocent", str(ALICE)).code == Exit.CONFLICTS
    assert resolve(mount, "authorized_keys", "--using", "text") == {"authorized_keys": ("merged", None)}
    assert bob.tree() == {"authorized_keys": "bob's\ntwo\nthree\nalice's\n"}
    settled(mount)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--using", "text"], Exit.CONFLICTS, "f waits as before: text: main and 61001 both changed line 1"),
        (["--using", "sqlite"], Exit.CONFLICTS, "f waits as before: sqlite cannot read it"),
        (["--using", "nothing"], Exit.USAGE, "there is no resolver 'nothing'"),
        (["--using", "append", "--option", "order=x"], Exit.USAGE, "append: order must be one of"),
        (["--using", "append", "--option", "x=1"], Exit.USAGE, "append has no option 'x'"),
        (["--using", "external"], Exit.USAGE, "external needs the option 'command'"),
        (["--using", "external", "--option", "command=exit 1"], Exit.CONFLICTS, "f waits as before"),
        (["--using", "external", "--option", "command=x", "--option", "timeout=y"], Exit.USAGE, "a whole number"),
    ],
    ids=str,
)
def test_what_a_resolver_leaves_open_changes_nothing(
    mount: Mounted, alice: Person, bob: Person, words: list[str], code: Exit, said: str
) -> None:
    contest(mount, alice, bob, "f")
    before = bob.tree(), mount.facts("conflicts")
    refused(mount.isoctl("resolve", str(ALICE), "f", *words), code, said)
    assert (bob.tree(), mount.facts("conflicts")) == before
    mount.check()


def test_keep_both_and_any_driver_by_hand(mount: Mounted, alice: Person, bob: Person) -> None:
    contest(mount, alice, bob, "f", "g")
    assert resolve(mount, "f", "--using", "keep-both") == {"f": ("renamed", f"f.isofs-{ALICE}")}
    driver = ["--using", "external", "--option", "command=cat %O %B >> %A", "--option", "timeout=30"]
    assert resolve(mount, "g", *driver) == {"g": ("merged", None)}
    assert bob.tree() == {"f": "bob's\n", f"f.isofs-{ALICE}": "alice's\n", "g": "bob's\nstart\nalice's\n"}
    settled(mount)


def test_what_main_changed_while_it_was_merged_is_not_overwritten(mount: Mounted, alice: Person, bob: Person) -> None:
    contest(mount, alice, bob, "f")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        begun, go = Path(place, "begun"), Path(place, "go")
        os.chmod(place, 0o777)  # the driver is nobody
        driver = f"touch {begun}; until test -e {go}; do sleep 0.02; done; cp %B %A"
        words = ["resolve", str(ALICE), "f", "--using", "external", "--option", f"command={driver}"]
        command = [sys.executable, "-m", "isoctl.main", "--mount", str(mount.path), *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
            while not begun.exists():
                assert running.poll() is None
                time.sleep(0.01)
            bob.write("f", "bob's later\n")
            go.touch()
            _, said = running.communicate(timeout=60)
    assert running.returncode == Exit.BUSY
    assert said.startswith("isoctl: f was changed in main meanwhile")
    assert bob.tree() == {"f": "bob's later\n"}
    assert waiting(mount) == ["f"]
    mount.check()


# What is printed


HOSTILE = "-a b\n'\x1b[2J\\\udcff"


def test_the_commands_that_conflicts_gives_settle_it(mount: Mounted, alice: Person, bob: Person) -> None:
    """As a shell reads them, whatever the name."""
    contest(mount, alice, bob, HOSTILE, "it's", "plain")
    for name, way in ((HOSTILE, "both"), ("it's", "suspect"), ("plain", "main")):
        (conflict,) = [one for one in mount.facts("conflicts")["conflicts"] if one["path"] == name]
        (line,) = [one for one in conflict["commands"] if one.endswith(f"--take {way}")]
        assert line.isprintable()
        assert line in [one.strip() for one in mount.isoctl("conflicts").out.splitlines()]
        script = f"printf '%s\\0' {line}"
        words = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.split(b"\0")[:-1]
        done = mount.isoctl(*map(os.fsdecode, words[1:]))
        assert done.code == 0, done
    assert bob.tree() == {
        HOSTILE: "bob's\n",
        f"{HOSTILE}.isofs-{ALICE}": "alice's\n",
        "it's": "alice's\n",
        "plain": "bob's\n",
    }
    settled(mount)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([str(DAVE), "f", "--take", "main"], Exit.NO_SUBJECT, f"nothing of {DAVE} waits for a decision"),
        ([str(ALICE), "nothing", "--take", "main"], Exit.USAGE, f"nothing of {ALICE} waits at nothing"),
        ([str(ALICE), "/elsewhere", "--take", "main"], Exit.USAGE, "/elsewhere isn't below"),
        ([str(ALICE), ".", "--using", "text"], Exit.USAGE, "3 conflicts are below the root: name one of them"),
        ([str(ALICE), "d", "--take", "both"], Exit.USAGE, "d is a directory, whose attributes are in conflict"),
        ([str(ALICE), ".", "--take", "both"], Exit.USAGE, "d is a directory, whose attributes are in conflict"),
        ([str(ALICE), "d", "--with", "/etc/passwd"], Exit.USAGE, "d is a directory, which has no content to merge"),
    ],
    ids=str,
)
def test_what_cannot_be_settled_so_says_why(
    mount: Mounted, alice: Person, bob: Person, words: list[str], code: Exit, said: str
) -> None:
    alice.mkdir("d")
    bob.write("f", "start\n")
    bob.write("g", "start\n")
    mount.facts("suspect", str(ALICE))
    for user in (alice, bob):
        user.write("f", f"{user}\n")
        user.write("g", f"{user}\n")
    alice.chmod("d", 0o711)
    os.chmod(mount.path / "d", 0o755)
    assert mount.isoctl("innocent", str(ALICE)).code == Exit.CONFLICTS
    before = bob.tree(), mount.facts("conflicts")
    refused(mount.isoctl("resolve", *words), code, said)
    assert (bob.tree(), mount.facts("conflicts")) == before
