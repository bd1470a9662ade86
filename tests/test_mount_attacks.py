"""What a hostile user tries against everybody else: descriptors, namespaces, links, programs, leases, floods.

Whatever the attack, main is what it was for root, for a trusted user and in the directory itself; and the attack either
had its effect for the attacker alone or was refused. docs/threat-model.md has the list.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import attacks
from support.mount import ALICE, BOB, CAROL, Mounted, Person, Worker, mounted, portrait

pytestmark = pytest.mark.mount

Begin = Callable[[int], Person]

#: What a process keeps mapped.
_held: list[Any] = []

TEXT = "main's own line\n" * 20
EVIL = b"what alice writes as a suspect\n" * 30

#: A time that no clock tells, so that a change of it is seen.
LONG_AGO = 1_000_000_000_000_000_000


def long_ago(mount: Mounted, *names: str) -> None:
    for name in names:
        os.utime(mount.path / name, ns=(LONG_AGO, LONG_AGO))


@pytest.fixture
def bob(mount: Mounted, person: Begin) -> Person:
    """A trusted user, who has filled the mount."""
    one = person(BOB)
    one.mkdir("d")
    one.mkdir("d/inner")
    for name in ("f", "d/g", "d/inner/x"):
        one.write(name, TEXT)
    one(os.setxattr, one.path("f"), "user.mark", b"main's")
    one.link("f", "twin")
    one.symlink("f", "way")
    one(os.mkfifo, one.path("pipe"), 0o666)
    return one


@pytest.fixture
def alice(mount: Mounted, bob: Person, person: Begin) -> Person:
    """Who will be suspected; one of main's files is hers."""
    one = person(ALICE)
    one.write("hers", TEXT)
    long_ago(mount, "d/inner/x", "d/inner", "d/g", "d", "f", "hers", "pipe", "")
    return one


@pytest.fixture
def namespaces() -> None:
    """Only where users may make namespaces of their own."""
    if not attacks.have_namespaces(ALICE):
        pytest.skip("users may not make user namespaces here")


def suspect(mount: Mounted, *words: str) -> Any:
    return mount.facts("suspect", str(ALICE), *words)


def changed(mount: Mounted) -> set[str]:
    return {one["path"] for one in mount.facts("changes", str(ALICE))["changes"]}


def looks(mount: Mounted, bob: Person) -> dict[str, Any]:
    """Everything about main, as root and a trusted user see it, and as it lies in the directory."""
    return {
        "root": portrait(str(mount.path)),
        "bob": bob(portrait, str(mount.path)),
        "directory": portrait(str(mount.backing), skip=".isofs"),
    }


@contextlib.contextmanager
def main_is_kept(mount: Mounted, bob: Person) -> Iterator[None]:
    before = looks(mount, bob)
    yield
    assert looks(mount, bob) == before


def attempt(one: Worker, function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """What a call returns, or its errno as a negative number."""
    try:
        return one(function, *args, **keywords)
    except OSError as error:
        return -(error.errno or 0)


def overwrite(path: str | int, flags: int = os.O_WRONLY) -> None:
    """Open and write; a descriptor is opened anew, with other rights."""
    opened = os.open(f"/proc/self/fd/{path}" if isinstance(path, int) else path, flags)
    try:
        os.write(opened, EVIL)
    finally:
        os.close(opened)


def create(name: str, at: int | None = None) -> None:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=at))


def remove_at(name: str, at: int) -> None:
    os.unlink(name, dir_fd=at)


def rename_at(old: str, new: str, at: int) -> None:
    os.rename(old, new, src_dir_fd=at, dst_dir_fd=at)


def content_at(name: str, at: int) -> bytes:
    opened = os.open(name, os.O_RDONLY, dir_fd=at)
    with open(opened, "rb") as file:
        return file.read()


# Descriptors from before


REOPENED = [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND]


@pytest.mark.parametrize("way", [os.O_RDONLY, os.O_WRONLY, os.O_PATH], ids=["reading", "writing", "path"])
def test_descriptors_of_files(mount: Mounted, alice: Person, bob: Person, way: int) -> None:
    """Opened anew through /proc with more rights, cut, and given new names."""
    opened = alice(os.open, alice.path("f"), way)
    suspect(mount)
    with main_is_kept(mount, bob):
        for flags in REOPENED:
            done = attempt(alice, overwrite, opened, flags)
            assert done in (None, -errno.ESTALE), flags
        attempt(alice, os.truncate, f"/proc/self/fd/{opened}", 3)
        for by_proc in (True, False):
            named = attempt(alice, attacks.link_descriptor, opened, alice.path(f"linked-{by_proc}"), by_proc=by_proc)
            assert (named is None) == alice.exists(f"linked-{by_proc}")
            assert not bob.exists(f"linked-{by_proc}")
    assert changed(mount) <= {"f", "twin", "linked-True", "linked-False"}


@pytest.mark.parametrize("way", [os.O_RDONLY, os.O_PATH], ids=["reading", "path"])
def test_descriptors_of_directories(mount: Mounted, alice: Person, bob: Person, way: int) -> None:
    """Names are made, moved and removed relative to one, and reached by `..` from it."""
    opened = alice(os.open, alice.path("d"), way | os.O_DIRECTORY)
    suspect(mount)
    with main_is_kept(mount, bob):
        for function, *args in (
            (create, "made", opened),
            (rename_at, "g", "moved", opened),
            (remove_at, "inner/x", opened),
            (create, "../above", opened),
            (remove_at, "../twin", opened),
            (overwrite, f"/proc/self/fd/{opened}/../f"),
        ):
            done = attempt(alice, function, *args)
            assert done in (None, -errno.ESTALE), (function, args)
    attempts = {"d/made": True, "d/moved": True, "d/inner/x": False, "above": True, "twin": False}
    assert {name: alice.exists(name) for name in attempts} == attempts
    assert alice.read("f").encode().startswith(EVIL)


def test_a_working_directory_whose_parents_move(mount: Mounted, alice: Person, bob: Person) -> None:
    """Entered before the suspicion; trusted users rename it and what is above it, then remove it."""
    inside = alice(os.open, alice.path("d/inner"), os.O_RDONLY)
    alice(os.chdir, alice.path("d/inner"))
    suspect(mount)
    bob.rename("d", "e")
    bob.rename("e/inner", "other")
    with main_is_kept(mount, bob):
        for function, *args in (
            (overwrite, "x"),
            (create, "made"),
            (overwrite, "../f"),
            (create, "../made"),
            (create, "made too", inside),
        ):
            assert attempt(alice, function, *args) in (None, -errno.ESTALE, -errno.ENOENT), (function, args)
    assert alice.names("other") == ["made", "made too", "x"]
    assert alice.read("other/x").encode().startswith(EVIL)
    assert alice.exists("made")
    bob.remove("other/x")
    bob.rmdir("other")
    with main_is_kept(mount, bob):
        for function, *args in ((overwrite, "x"), (create, "late"), (create, "../late")):
            attempt(alice, function, *args)


ROUNDS = 150


def move_about(root: str) -> None:
    for _ in range(ROUNDS):
        os.rename(f"{root}/d", f"{root}/e")
        os.rename(f"{root}/e/inner", f"{root}/inner")
        os.rename(f"{root}/inner", f"{root}/e/inner")
        os.rename(f"{root}/e", f"{root}/d")


def climb(root: str, at: int) -> int:
    """Write, make and remove by ways that lead up again from what is being moved; how often it was done."""
    done = 0
    for number in range(ROUNDS):
        for function, args in (
            (overwrite, (f"{root}/d/inner/../g",)),
            (overwrite, (f"{root}/e/../f",)),
            (create, (f"../{number}", at)),
            (create, (f"../../{number}", at)),
            (remove_at, (f"../{number}", at)),
        ):
            with contextlib.suppress(FileNotFoundError, FileExistsError, PermissionError):  # the last above the mount
                function(*args)
                done += 1
    return done


def test_ways_up_while_parents_move(mount: Mounted, alice: Person, bob: Person) -> None:
    at = alice(os.open, alice.path("d/inner"), os.O_RDONLY)
    suspect(mount)
    with main_is_kept(mount, bob):
        bob.begin(move_about, str(bob.root))
        done = alice(climb, str(alice.root), at)
        bob.end()
        long_ago(mount, "d", "")
    assert done > ROUNDS


# Descriptors that are passed on


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR], ids=["writing", "both"])
def test_a_descriptor_that_is_nowhere_but_in_a_socket(mount: Mounted, alice: Person, bob: Person, flags: int) -> None:
    """No process is seen to hold it while the user is isolated; taken out again, it writes nothing of main's."""
    alice(attacks.post, alice(os.open, alice.path("f"), flags))
    with main_is_kept(mount, bob):
        mount.isoctl("suspect", str(ALICE))
        opened = alice(attacks.fetch)
        done = attempt(alice, os.write, opened, EVIL)
        assert done == (len(EVIL) if flags == os.O_WRONLY else -errno.EIO)
    assert changed(mount) == ({"f"} if flags == os.O_WRONLY else set())


def map_and_write(descriptor: int) -> None:
    _held.append(mmap.mmap(descriptor, 10))
    _held[-1][:4] = b"EVIL"


def test_a_map_of_a_descriptor_from_a_socket(mount: Mounted, alice: Person, bob: Person) -> None:
    """A channel for a second: nobody is asked for what is written to a map. Its process ends, and none of it stays."""
    alice(attacks.post, alice(os.open, alice.path("f"), os.O_RDWR))
    with main_is_kept(mount, bob):
        suspect(mount)
        opened = alice(attacks.fetch)
        alice(map_and_write, opened)
        os.waitid(os.P_PID, alice.pid, os.WEXITED | os.WNOWAIT)
        while bob.read("f") != TEXT:
            assert alice.ended
    assert (mount.backing / "f").read_text() == TEXT


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR], ids=["writing", "both"])
def test_a_descriptor_that_a_trusted_process_gave(mount: Mounted, alice: Person, bob: Person, flags: int) -> None:
    """Before the suspicion; the trusted process goes on, with whatever else it has open."""
    name = f"isofs-test-{os.getpid()}"
    alice(attacks.listen, name)
    bob(attacks.send, name, bob(os.open, bob.path("f"), flags))
    opened = alice(attacks.receive, name)
    with main_is_kept(mount, bob):
        facts = suspect(mount)
        assert [(h["pid"], h["path"]) for h in facts["killed"]] == [(alice.pid, "f")]
        assert alice.ended
        del opened
    assert bob.alive


def test_a_descriptor_that_a_trusted_process_is_given(mount: Mounted, alice: Person, bob: Person) -> None:
    """What a trusted process writes to it is the suspect's, as the file is."""
    suspect(mount)
    alice.append("f", "hers\n")
    name = f"isofs-test-{os.getpid()}"
    with main_is_kept(mount, bob):
        bob(attacks.listen, name)
        alice(attacks.send, name, alice(os.open, alice.path("f"), os.O_RDWR))
        opened = bob(attacks.receive, name)
        bob(os.pwrite, opened, b"BOB", 0)
        bob(os.close, opened)
    assert alice.read("f") == "BOB" + TEXT[3:] + "hers\n"


# Namespaces


def own_everything(path: str) -> None:
    """What root may do, and who is root in a namespace of its own may not."""
    calls: list[Callable[[], None]] = [
        lambda: os.chown(path, 0, 0),
        lambda: os.chmod(path, 0o4777),
        lambda: os.setxattr(path, "trusted.evil", b"1"),
        lambda: os.setxattr(path, "security.capability", b"\1\0\0\2" + b"\xff" * 16),
        lambda: os.mknod(f"{path}-device", stat.S_IFBLK | 0o666, os.makedev(8, 0)),
    ]
    for call in calls:
        with contextlib.suppress(OSError):
            call()


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("when", ["before", "after"])
def test_root_in_a_namespace_of_its_own(mount: Mounted, alice: Person, bob: Person, when: str) -> None:
    """It is still the suspect: what it does is isolated, and what it may not it may not there."""
    if when == "before":
        assert alice(attacks.enter_namespaces) == 0
    suspect(mount)
    if when == "after":
        assert alice(attacks.enter_namespaces) == 0
    with main_is_kept(mount, bob):
        for name in ("f", "hers"):
            alice(own_everything, alice.path(name))
        alice.append("f", "from inside\n")
        alice.write("made", "inside")
    own = portrait(str(mount.path))
    assert "made" not in own
    assert {"f", "hers", "made"} >= changed(mount) >= {"f", "made"}
    mount.facts("innocent", str(ALICE))
    for name in ("f", "made", "hers"):
        at = os.lstat(mount.path / name)
        assert at.st_uid == (BOB if name == "f" else ALICE)
        assert "trusted.evil" not in os.listxattr(mount.path / name)
    assert not any(stat.S_ISBLK(os.lstat(mount.path / name).st_mode) for name in os.listdir(mount.path))


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("what", ["", "d"], ids=["whole", "part"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_bind_mounts(mount: Mounted, alice: Person, bob: Person, place: Path, what: str, when: str) -> None:
    """The mount, or a directory of it, at another place."""
    there = place / "there"
    there.mkdir()
    alice(attacks.enter_namespaces)
    if when == "before":
        alice(attacks.bind, alice.path(what), str(there))
        kept = alice(os.open, str(there), os.O_PATH)
    suspect(mount)
    if when == "after":
        alice(attacks.bind, alice.path(what), str(there))
        kept = alice(os.open, str(there), os.O_PATH)
    name = "g" if what else "f"
    with main_is_kept(mount, bob):
        alice(overwrite, f"{there}/{name}")
        alice(create, f"{there}/made")
        alice(create, "made too", kept)
        alice(remove_at, "inner/x" if what else "twin", kept)
    assert alice(content_at, name, kept).startswith(EVIL)
    assert {"made", "made too"} <= set(alice.names(what))
    assert changed(mount) >= {f"{what}/{one}".lstrip("/") for one in (name, "made", "made too")}


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("way", ["mounted", "unmounted", "mapped"])
def test_a_file_open_by_another_mount_of_the_same(
    mount: Mounted, alice: Person, bob: Person, place: Path, way: str
) -> None:
    """Open for reading and writing before the suspicion, at a place that only the suspect has: its holder ends."""
    there = place / "there"
    there.mkdir()
    alice(attacks.enter_namespaces)
    alice(attacks.bind, alice.path(""), str(there))
    alice(hold, f"{there}/f", mapped=way == "mapped")
    if way != "mounted":
        alice(attacks.umount, str(there), attacks.MNT_DETACH)
    with main_is_kept(mount, bob):
        assert [(h["pid"], h["path"]) for h in suspect(mount)["killed"]] == [(alice.pid, "f")]
    assert alice.ended


def hold(path: str, *, mapped: bool) -> None:
    opened = os.open(path, os.O_RDWR)
    if mapped:
        _held.append(mmap.mmap(opened, 10))
        os.close(opened)


@pytest.mark.usefixtures("namespaces")
def test_what_lies_under_the_mount_stays_covered(mount: Mounted, alice: Person, bob: Person, place: Path) -> None:
    """In a namespace of its own a suspect may mount, but not take away or look beneath what it was given."""
    there = place / "there"
    there.mkdir()
    suspect(mount)
    alice(attacks.enter_namespaces)
    above = str(mount.path.parent)
    beneath = f"/proc/{mount.pid}/root{mount.path}"
    with main_is_kept(mount, bob):
        for function, *args in (
            (attacks.umount, str(mount.path)),
            (attacks.umount, str(mount.path), attacks.MNT_DETACH),
            (attacks.bind, above, str(there)),
            (attacks.overlay, above, str(there)),
            (attacks.clone_tree, above),
            (os.listdir, beneath),
            (os.listdir, f"/proc/{mount.pid}/fd"),
            (os.listdir, f"/proc/{mount.pid}/cwd"),
            (os.listdir, f"/proc/{mount.pid}/map_files"),
            (os.open, f"/proc/{mount.pid}/mem", os.O_RDWR),
            (os.rename, str(mount.path), f"{above}/moved"),
            (os.rmdir, str(mount.path)),
            (os.listdir, f"{mount.path}/.isofs"),
        ):
            refused = attempt(alice, function, *args)
            assert isinstance(refused, int), (function, args, refused)
            assert refused < 0, (function, args)
        alice(attacks.bind, above, str(there), attacks.MS_BIND | attacks.MS_REC)
        assert attempt(alice, attacks.umount, f"{there}/{mount.path.name}") < 0
        alice(overwrite, f"{there}/{mount.path.name}/f")
    assert alice.read("f").encode().startswith(EVIL)


@pytest.mark.usefixtures("namespaces")
def test_handles_of_files(mount: Mounted, alice: Person, bob: Person, place: Path) -> None:
    """By a handle of a file of the mount's, taken before, nothing is opened; root in a namespace is no exception."""
    files = [alice(attacks.take_handle, alice.path(name)) for name in ("f", "d", "hers")]
    suspect(mount)
    with main_is_kept(mount, bob):
        for inside in (False, True):
            if inside:
                alice(attacks.enter_namespaces)
            for number in files:
                for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
                    for at in (str(mount.path), str(place)):
                        assert attempt(alice, attacks.open_handle, number, at, flags) < 0, (inside, number, flags)


# What is not promised, so that the page stays true


@pytest.mark.usefixtures("namespaces")
def test_what_was_reached_before_the_mount_is_reached_after(place: Path) -> None:
    """A descriptor of the directory, a handle of a file in it, and a namespace: mount over the one way in, first."""
    tree = place / "tree"
    tree.mkdir()
    tree.chmod(0o777)
    (tree / "f").write_text("main")
    (tree / "f").chmod(0o666)
    alice, inside = Worker(ALICE), Worker(ALICE)
    try:
        kept = alice(os.open, str(tree), os.O_PATH)
        number = alice(attacks.take_handle, str(tree / "f"))
        inside(attacks.enter_namespaces)
        with mounted(tree) as mount:
            mount.ask("suspect", uid=ALICE, user="alice")
            alice(overwrite, str(tree / "f"))
            assert (tree / "f").read_text() == "main"
            alice(create, "by descriptor", kept)
            inside(create, str(tree / "by namespace"))
            assert set(os.listdir(tree)) == {"f", "by descriptor", "by namespace"}
            alice(attacks.enter_namespaces)
            for at in (str(tree), str(place), "/"):
                assert attempt(alice, attacks.open_handle, number, at, os.O_RDWR) < 0, at
            alice.close()  # or the daemon waits for the namespace, which has the mount
    finally:
        inside.close()


def run(words: list[str]) -> int:
    return subprocess.run(words, capture_output=True, check=False, timeout=60).returncode


def test_a_set_user_id_program_acts_as_its_owner(mount: Mounted, alice: Person, bob: Person, place: Path) -> None:
    """Not promised: what a suspect runs as another user, as with sudo, is that user's."""
    program = place / "touch"
    shutil.copy(shutil.which("touch") or "", program)
    os.chown(program, CAROL, CAROL)
    program.chmod(0o4755)
    suspect(mount)
    assert alice(run, [str(program), alice.path("as carol")]) == 0
    assert os.lstat(bob.path("as carol")).st_uid == CAROL
    assert alice(run, ["touch", alice.path("as alice")]) == 0
    assert not bob.exists("as alice")
    assert changed(mount) == {"as alice"}


def become(uid: int) -> None:
    os.setresuid(uid, uid, uid)


def test_a_subordinate_uid_is_another_user(mount: Mounted, bob: Person, alice: Person, person: Begin) -> None:
    """Not promised: /etc/subuid lends users other uids, and newuidmap, which is set-user-id, lets them act as those."""
    lent = person(0)
    lent(become, ALICE + 100_000)
    suspect(mount)
    lent.write("by a lent uid", "text")
    assert bob.exists("by a lent uid")


# Names, links and programs


def test_symlinks_that_lead_out_and_back(mount: Mounted, alice: Person, bob: Person, place: Path) -> None:
    """Absolute ones, ones through /proc, and ones that would be others' in the daemon's eyes."""
    outside = place / "outside"
    outside.write_text("outside")
    outside.chmod(0o600)
    alice(os.chdir, alice.path("d"))
    suspect(mount)
    targets = {
        "absolute": alice.path("f"),
        "by proc": f"/proc/self/root{alice.path('f')}",
        "by cwd": "/proc/self/cwd/../f",
        "by climbing": "../" * 30 + alice.path("f").lstrip("/"),
        "daemon": f"/proc/{mount.pid}/root{alice.path('f')}",
        "store": f"/proc/{mount.pid}/root{alice.path('.isofs/isofs.db')}",
        "outside": str(outside),
        "itself": "itself",
    }
    with main_is_kept(mount, bob):
        for name, target in targets.items():
            alice.symlink(target, name)
            done = attempt(alice, overwrite, alice.path(name))
            assert (done is None) == (name in ("absolute", "by proc", "by cwd", "by climbing")), name
        for name in ("f", "d/g", "way"):
            alice.remove(name)
            alice.symlink(str(outside), name)
        attempt(alice, os.truncate, alice.path("f"), 0)
        attempt(alice, os.chmod, alice.path("f"), 0o777)
        attempt(alice, os.setxattr, alice.path("f"), "user.evil", b"1")
    assert outside.read_text() == "outside"
    mount.facts("innocent", str(ALICE))
    assert outside.read_text() == "outside"
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
    assert {name: os.readlink(mount.path / name) for name in targets} == targets


def test_hard_links(mount: Mounted, alice: Person, bob: Person, place: Path) -> None:
    """To main's files: what is written by one is not main's, nor is the count of links."""
    shutil.copy("/bin/true", mount.path / "tool")
    os.chown(mount.path / "tool", ALICE, ALICE)
    os.chmod(mount.path / "tool", 0o4755)
    suspect(mount)
    with main_is_kept(mount, bob):
        for name in ("f", "hers", "tool"):
            alice.link(name, f"link of {name}")
            assert alice.status(name)[3] == alice.status(f"link of {name}")[3] == (3 if name == "f" else 2)
            alice(overwrite, alice.path(f"link of {name}"))
            assert alice(content_at, alice.path(name), None).startswith(EVIL)
        for name in ("way", "pipe"):  # the kernel may refuse it: they are another user's
            assert attempt(alice, os.link, alice.path(name), alice.path(f"link of {name}")) in (None, -errno.EPERM)
        alice.remove("f")
        alice.remove("twin")
        assert attempt(alice, os.link, alice.path("hers"), str(place / "out")) < 0
    assert alice.status("link of f")[3] == 1
    assert bob(run, [bob.path("tool")]) == 0


def test_set_user_id_programs_of_a_suspect(mount: Mounted, alice: Person, bob: Person) -> None:
    """Nobody else can run one, nor is run by mistake what replaced a program of main's; the verdict is warned of it."""
    shutil.copy("/bin/true", mount.path / "tool")
    os.chown(mount.path / "tool", ALICE, ALICE)
    os.chmod(mount.path / "tool", 0o755)
    suspect(mount)
    with main_is_kept(mount, bob):
        alice(shutil.copy, "/bin/false", alice.path("own"))
        alice.chmod("own", 0o6755)
        alice(shutil.copy, "/bin/false", alice.path("tool~"))
        alice.rename("tool~", "tool")
        alice.chmod("tool", 0o4755)
        assert alice(run, [alice.path("tool")]) == 1
        for one in (bob, alice, bob):
            assert one(run, [one.path("tool")]) == (0 if one is bob else 1)
        with pytest.raises(FileNotFoundError):
            bob(run, [bob.path("own")])
    risks = {c["path"]: c["risks"] for c in mount.facts("changes", str(ALICE))["changes"]}
    assert "setuid" in risks["own"]
    assert "setuid" in risks["tool"]


# Leases


def test_a_lease_from_before_holds_nobody_up(mount: Mounted, alice: Person, bob: Person) -> None:
    """Like a lock: whoever writes what it is on would wait for it."""
    opened = alice(os.open, alice.path("hers"), os.O_RDONLY)
    alice(attacks.lease, opened, fcntl.F_RDLCK)
    with main_is_kept(mount, bob):
        assert [h["pid"] for h in suspect(mount)["killed"]] == [alice.pid]
    bob.append("hers", "at once")


def test_a_lease_taken_later_holds_nobody_up(mount: Mounted, alice: Person, bob: Person) -> None:
    opened = alice(os.open, alice.path("hers"), os.O_RDONLY)
    suspect(mount)
    if attempt(alice, attacks.lease, opened, fcntl.F_RDLCK) is None:
        bob.append("hers", "a moment later")
        assert alice.ended


def test_a_suspect_breaks_a_lease(mount: Mounted, alice: Person, bob: Person) -> None:
    """A channel: who took a lease on main's file is asked for it when a suspect opens that file."""
    kept = bob(os.open, bob.path("d/g"), os.O_RDONLY)
    suspect(mount)
    bob(attacks.lease, kept, fcntl.F_RDLCK)
    assert bob(attacks.broken) == 0
    alice.begin(overwrite, alice.path("d/g"))
    while not bob(attacks.broken) and alice.working:
        pass
    assert bob(attacks.broken), "the channel is gone: take it from docs/threat-model.md"
    bob(os.close, kept)
    alice.end()


# Floods


CALLS = 400


def make_many(root: str) -> None:
    for number in range(CALLS):
        create(f"{root}/{os.getpid()}-{number}")


def make_few(root: str) -> None:
    for number in range(20):
        create(f"{root}/few-{number}")
        os.unlink(f"{root}/few-{number}")


def test_a_flood_keeps_nobody_out(mount: Mounted, alice: Person, bob: Person, person: Begin) -> None:
    """While three processes of a suspect's make files, a trusted user's calls are answered in their turn."""
    suspect(mount)
    bob.mkdir("busy")
    crowd = [alice, person(ALICE), person(ALICE)]
    with main_is_kept(mount, bob):
        for one in crowd:
            one.begin(make_many, one.path("busy"))
        bob(make_few, bob.path("d"))
        assert all(one.working for one in crowd), "the trusted user waited for the end of the flood"
        for one in crowd:
            one.end()
        long_ago(mount, "d", "")
    assert len(alice.names("busy")) == len(crowd) * CALLS
