"""Files and directories that were open when a suspicion began or ended (design, 4.4), on a real mount."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isofs.errors import Exit
from support.archives import contents
from support.locks import Lock, flock, ofd, posix
from support.mount import ALICE, BOB, Mounted, Person

pytestmark = pytest.mark.mount

Begin = Callable[[int], Person]

MAIN = "main's own line\n" * 40
SECRET = b"what alice writes as a suspect\n" * 200

_mappings: dict[int, mmap.mmap] = {}


def map_shared(descriptor: int, length: int) -> int:
    """Map a file shared and writable; returns a number for the mapping."""
    _mappings[len(_mappings)] = mmap.mmap(descriptor, length)
    return len(_mappings) - 1


def map_write(mapping: int, offset: int, data: bytes) -> None:
    _mappings[mapping][offset : offset + len(data)] = data
    _mappings[mapping].flush()


def map_read(mapping: int, offset: int, length: int) -> bytes:
    return _mappings[mapping][offset : offset + length]


def reopen_and_write(descriptor: int, flags: int, data: bytes) -> None:
    """Write through a new open of what a descriptor leads to, which has no path that could be looked up again."""
    again = os.open(f"/proc/self/fd/{descriptor}", flags)
    try:
        os.pwrite(again, data, 0)
    finally:
        os.close(again)


def observe_until(path: str, stop: str, main: bytes) -> list[str]:
    """Look at a file in every way until `stop` exists; returns whatever is not as it should be.

    A read may for an instant be padded with zeros (docs/threat-model.md: a size, for an instant).
    """
    wrong: set[str] = set()
    size, opened = len(main), os.open(path, os.O_RDONLY)
    rounds = 0
    while not os.path.exists(stop) or rounds < 50:
        rounds += 1
        again = os.open(path, os.O_RDONLY)
        seen = {
            "stat": os.stat(path).st_size,
            "fstat": os.fstat(opened).st_size,
            "fstat of a new open": os.fstat(again).st_size,
            "seek": os.lseek(opened, 0, os.SEEK_END),
        }
        wrong |= {f"{how}: {found}" for how, found in seen.items() if found != size}
        read = os.pread(opened, size * 4, 0), os.pread(again, size * 4, 0)
        wrong |= {f"read: {data!r}" for data in read if data.rstrip(b"\0") != main}
        os.close(again)
    wrong |= {"read at rest"} if os.pread(opened, size * 4, 0) != main else set()
    os.close(opened)
    return sorted(wrong)


def outcome(one: Person, function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """What a call returns, or the errno that it fails with as a negative number."""
    try:
        return one(function, *args, **keywords)
    except OSError as error:
        return -(error.errno or 0)


@pytest.fixture
def alice(person: Begin) -> Person:
    return person(ALICE)


@pytest.fixture
def bob(person: Begin) -> Person:
    return person(BOB)


@pytest.fixture
def stop(base: Path) -> Iterator[Path]:
    """The name of a file outside the mount, which is not there yet."""
    path = base / "stop"
    yield path
    path.unlink()


def suspect(mount: Mounted, *words: str) -> Any:
    return mount.facts("suspect", str(ALICE), *words)


def changed(mount: Mounted) -> set[tuple[str, str]]:
    return {(c["change"], c["path"]) for c in mount.facts("changes", str(ALICE))["changes"]}


@pytest.mark.parametrize("append", [False, True], ids=["write", "append"])
def test_a_write_only_handle_from_before_is_rerouted(mount: Mounted, alice: Person, bob: Person, append: bool) -> None:
    """What was written before stays main's; what comes after is the suspect's alone, at the right place."""
    bob.write("f", MAIN)
    opened = alice(os.open, alice.path("f"), os.O_WRONLY | (os.O_APPEND if append else 0))
    alice(os.write, opened, b"before\n")
    main = bob.read("f")
    assert main == (MAIN + "before\n" if append else "before\n" + MAIN[7:])
    before = bob.status("f")
    suspect(mount)
    alice(os.write, opened, SECRET)
    alice(os.fsync, opened)
    assert bob.read("f") == main
    assert bob.status("f") == before
    own = alice.read("f").encode()
    at = len(main) if append else 7
    assert own == main.encode()[:at] + SECRET + main.encode()[at + len(SECRET) :]
    assert changed(mount) == {("modified", "f")}
    bob.write("f", "short")
    alice(os.write, opened, b"more")
    assert bob.read("f") == "short"
    assert alice.read("f").encode() == own[: at + len(SECRET)] + b"more" + own[at + len(SECRET) + 4 :]


@pytest.mark.parametrize("flags", [0, os.O_APPEND], ids=["write", "append"])
def test_readers_of_main_never_see_a_wrong_size(
    mount: Mounted, alice: Person, bob: Person, stop: Path, flags: int
) -> None:
    """A re-routed write that makes the file longer is not noticed by those who watch main's size all the time."""
    bob.write("f", MAIN)
    opened = alice(os.open, alice.path("f"), os.O_WRONLY | flags)
    suspect(mount)
    bob.begin(observe_until, bob.path("f"), str(stop), MAIN.encode())
    for _ in range(300):
        alice(os.write, opened, SECRET)
    stop.touch()
    assert bob.end() == []


def test_a_handle_from_before_on_a_file_that_main_deletes(mount: Mounted, alice: Person, bob: Person) -> None:
    """The suspect's bytes go to its version, which stays; main's deletion stands."""
    bob.write("f", MAIN)
    bob.write("g", MAIN)
    opened = alice(os.open, alice.path("f"), os.O_WRONLY)
    other = alice(os.open, alice.path("g"), os.O_WRONLY)
    suspect(mount)
    alice(os.write, opened, b"mine")
    bob.remove("f")
    bob.remove("g")
    alice(os.write, opened, b" and more")
    outcome(alice, os.write, other, SECRET)
    assert alice.read("f").startswith("mine and more")
    assert bob.tree() == {}


def test_kill_ends_whoever_holds_a_file_for_reading_and_writing(
    mount: Mounted, alice: Person, bob: Person, person: Begin
) -> None:
    """The default. The holders are dead when the command returns, and listed; others go on."""
    bob.write("f", MAIN)
    bystander = person(ALICE)
    reader = bystander(os.open, bystander.path("f"), os.O_RDONLY)
    opened = alice(os.open, alice.path("f"), os.O_RDWR)
    alice(os.write, opened, b"before\n")
    main = bob.read("f")
    facts = suspect(mount)
    assert [(h["pid"], h["path"]) for h in facts["killed"]] == [(alice.pid, "f")]
    assert facts["killed"][0]["program"]
    assert facts["left"] == []
    assert alice.ended
    assert bystander.alive
    assert bystander(os.pread, reader, 1 << 16, 0).decode() == main
    assert bob.read("f") == main


def test_refuse_changes_nothing(mount: Mounted, alice: Person, bob: Person) -> None:
    bob.write("f", MAIN)
    opened = alice(os.open, alice.path("f"), os.O_RDWR)
    done = mount.isoctl("suspect", str(ALICE), "--handles", "refuse")
    assert done.code == Exit.HANDLES
    assert "f" in done.err
    assert len(done.err.splitlines()) == 1
    assert mount.facts("status")["subjects"] == []
    assert alice.alive
    alice(os.pwrite, opened, b"still main's", 0)
    assert bob.read("f").startswith("still main's")
    alice(os.close, opened)
    done = mount.isoctl("suspect", str(ALICE), "--handles", "refuse")
    assert done.code == Exit.DONE


def test_leave_lists_the_holders_and_isolates_the_rest(mount: Mounted, alice: Person, bob: Person) -> None:
    """The risk is the operator's: what is written through that one handle is main's, and nothing else."""
    bob.write("f", MAIN)
    bob.write("g", MAIN)
    opened = alice(os.open, alice.path("f"), os.O_RDWR)
    facts = suspect(mount, "--handles", "leave")
    assert [(h["pid"], h["path"]) for h in facts["left"]] == [(alice.pid, "f")]
    assert facts["killed"] == []
    assert alice.alive
    alice(os.pwrite, opened, b"through the old handle", 0)
    assert bob.read("f").startswith("through the old handle")
    main = bob.read("f")
    alice.write("g", "isolated")
    alice.write("f", "isolated")
    assert bob.read("f") == main
    assert bob.read("g") == MAIN
    assert (alice.read("f"), alice.read("g")) == ("isolated", "isolated")


def test_a_shared_mapping_is_a_handle_though_its_descriptor_is_closed(
    mount: Mounted, alice: Person, bob: Person
) -> None:
    bob.write("f", MAIN)
    opened = alice(os.open, alice.path("f"), os.O_RDWR)
    mapping = alice(map_shared, opened, len(MAIN))
    alice(os.close, opened)
    alice(map_write, mapping, 0, b"before\n")
    main = bob.read("f")
    assert main.startswith("before\n")
    done = mount.isoctl("suspect", str(ALICE), "--handles", "refuse")
    assert done.code == Exit.HANDLES
    assert alice.alive
    facts = suspect(mount)
    assert [(h["pid"], h["path"]) for h in facts["killed"]] == [(alice.pid, "f")]
    assert alice.ended
    assert bob.read("f") == main


def set_xattr(descriptor: int) -> None:
    os.setxattr(descriptor, "user.secret", b"1")


def remove_xattr(descriptor: int) -> None:
    os.removexattr(descriptor, "user.mark")


def set_mode(descriptor: int) -> None:
    os.fchmod(descriptor, 0o600)


def set_group(descriptor: int) -> None:
    os.fchown(descriptor, -1, ALICE + 1000)


def set_times(descriptor: int) -> None:
    os.utime(descriptor, ns=(1_000_000_001, 1_000_000_002))


def cut(descriptor: int) -> None:
    os.ftruncate(descriptor, 3)


def grow(descriptor: int) -> None:
    os.ftruncate(descriptor, 1 << 20)


def write_again(descriptor: int) -> None:
    reopen_and_write(descriptor, os.O_WRONLY, SECRET)


def write_again_both_ways(descriptor: int) -> None:
    reopen_and_write(descriptor, os.O_RDWR, SECRET)


def truncate_again(descriptor: int) -> None:
    reopen_and_write(descriptor, os.O_WRONLY | os.O_TRUNC, SECRET)


def append_again(descriptor: int) -> None:
    reopen_and_write(descriptor, os.O_WRONLY | os.O_APPEND, SECRET)


ON_DESCRIPTORS = (
    set_xattr,
    remove_xattr,
    set_mode,
    set_group,
    set_times,
    cut,
    grow,
    write_again,
    write_again_both_ways,
    truncate_again,
    append_again,
)


def facts_of(path: str) -> list[Any]:
    at = os.stat(path)
    with open(path, "rb") as file:
        content = file.read()
    xattrs = {name: os.getxattr(path, name).hex() for name in os.listxattr(path)}
    return [at.st_mode, at.st_uid, at.st_gid, at.st_size, at.st_mtime_ns, at.st_nlink, content.decode(), xattrs]


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY], ids=["read", "write"])
@pytest.mark.parametrize("call", ON_DESCRIPTORS, ids=lambda call: call.__name__)
def test_calls_on_descriptors_from_before_never_reach_main(
    mount: Mounted, bob: Person, base: Path, call: Callable[[int], None], flags: int
) -> None:
    """They have no path to be looked up again: they are re-routed to the suspect's version or refused."""
    alice = Person(ALICE, mount.path, groups=(ALICE + 1000,))
    try:
        alice.write("f", MAIN)
        alice(os.setxattr, alice.path("f"), "user.mark", b"main's")
        opened = alice(os.open, alice.path("f"), flags)
        before = bob(facts_of, bob.path("f"))
        suspect(mount)
        answer = outcome(alice, call, opened)
        assert bob(facts_of, bob.path("f")) == before
        again = outcome(alice, call, opened)
        assert bob(facts_of, bob.path("f")) == before
        own = alice(facts_of, alice.path("f"))
        if answer is not None and again is not None:
            assert own == before
        else:
            assert own != before
            assert changed(mount) <= {("modified", "f"), ("attributes", "f")}
            assert changed(mount)
        with open(f"/proc/{mount.pid}/root{mount.path}/f") as backing:
            assert backing.read() == MAIN
    finally:
        alice.close()


def test_a_descriptor_from_before_of_a_directory_never_changes_main(mount: Mounted, alice: Person, bob: Person) -> None:
    """The same for directories: mode, times and attributes, and names made relative to the descriptor."""
    alice.mkdir("d")
    opened = alice(os.open, alice.path("d"), os.O_RDONLY)
    before = bob.status("d")
    suspect(mount)
    for call in (set_xattr, set_mode, set_times):
        outcome(alice, call, opened)
        assert bob.status("d") == before
        assert bob(os.listxattr, bob.path("d")) == []
    outcome(alice, os.mkdir, "inner", dir_fd=opened)
    assert bob.names("d") == []
    assert bob.status("d") == before


FILES = {"untouched": MAIN, "modified": MAIN}


@pytest.fixture
def at_work(mount: Mounted, alice: Person, bob: Person) -> dict[tuple[str, str], int]:
    """Descriptors of a suspect's by file and way of opening: of main's files, of its versions, of its own file."""
    for name, text in FILES.items():
        bob.write(name, text)
    suspect(mount)
    alice.append("modified", "and alice's\n")
    alice.write("made", "alice made it\n")
    ways = {"read": os.O_RDONLY, "write": os.O_WRONLY, "both": os.O_RDWR}
    return {
        (name, way): alice(os.open, alice.path(name), flags) for name in (*FILES, "made") for way, flags in ways.items()
    }


def test_handles_go_on_on_main_after_innocent(
    mount: Mounted, alice: Person, bob: Person, at_work: dict[tuple[str, str], int]
) -> None:
    """What is read is main's, and what is written is seen by everybody."""
    mount.facts("innocent", str(ALICE))
    for name in (*FILES, "made"):
        bob.write(name, "0123456789")
        alice(os.pwrite, at_work[name, "write"], b"W", 0)
        alice(os.pwrite, at_work[name, "both"], b"B", 1)
        assert bob.read(name) == "WB23456789", name
        assert alice(os.pread, at_work[name, "read"], 100, 0) == b"WB23456789", name
        assert alice(os.pread, at_work[name, "both"], 100, 0) == b"WB23456789", name
        bob.append(name, "bob")
        assert alice(os.fstat, at_work[name, "read"]).st_size == 13
        assert alice(os.pread, at_work[name, "read"], 100, 0) == b"WB23456789bob", name
        alice(os.fchmod, at_work[name, "read"], 0o640) if name == "made" else None
    assert stat.S_IMODE(bob.status("made")[0]) == 0o640


def test_handles_go_on_on_main_after_malicious(
    mount: Mounted, alice: Person, bob: Person, at_work: dict[tuple[str, str], int]
) -> None:
    """On main's files they work on main; what only the suspect had has no name, and no call on it does harm."""
    evidence = Path(mount.facts("malicious", str(ALICE), "--yes")["readable"])
    assert bob.tree() == FILES
    for name in FILES:
        assert alice(os.pread, at_work[name, "read"], 1 << 16, 0).decode() == MAIN
        assert alice(os.pread, at_work[name, "both"], 1 << 16, 0).decode() == MAIN
        bob.write(name, "0123456789")
        alice(os.pwrite, at_work[name, "write"], b"W", 0)
        alice(os.pwrite, at_work[name, "both"], b"B", 1)
        assert bob.read(name) == "WB23456789", name
        assert alice(os.pread, at_work[name, "read"], 100, 0) == b"WB23456789", name
    assert outcome(alice, os.pread, at_work["made", "read"], 100, 0) == b"alice made it\n"
    assert outcome(alice, os.pwrite, at_work["made", "both"], b"x", 0) == 1
    assert bob.names() == sorted(FILES)
    assert contents(evidence)["made"] == b"alice made it\n"


@pytest.mark.parametrize("verdict", [("innocent",), ("malicious", "--yes")], ids=["innocent", "malicious"])
def test_rerouted_handles_are_mains_again_after_the_verdict(
    mount: Mounted, alice: Person, bob: Person, verdict: tuple[str, ...]
) -> None:
    """A handle for writing from before the suspicion, written through or not, ends where it began: on main.

    One for reading shows what was main's, as it does for anybody when a file is replaced.
    """
    ways = {"w": os.O_WRONLY, "a": os.O_WRONLY | os.O_APPEND, "r": os.O_RDONLY}
    opened = dict[tuple[str, str], int]()
    for name in ("used", "unused"):
        bob.write(name, "0123456789")
        opened |= {(name, way): alice(os.open, alice.path(name), flags) for way, flags in ways.items()}
    suspect(mount)
    alice(os.pwrite, opened["used", "w"], b"S", 0)
    assert bob.read("used") == "0123456789"
    mount.facts(verdict[0], str(ALICE), *verdict[1:])
    first = {"used": "S" if verdict[0] == "innocent" else "0", "unused": "0"}
    for name in ("used", "unused"):
        alice(os.pwrite, opened[name, "w"], b"W", 1)
        alice(os.write, opened[name, "a"], b"end")
        assert bob.read(name) == first[name] + "W23456789end"
        read = alice(os.pread, opened[name, "r"], 100, 0).decode()
        assert read == ("0123456789" if first[name] == "S" else "0W23456789end")


def test_a_mapping_goes_on_on_main_after_innocent(mount: Mounted, alice: Person, bob: Person) -> None:
    bob.write("f", MAIN)
    suspect(mount)
    opened = alice(os.open, alice.path("f"), os.O_RDWR)
    mapping = alice(map_shared, opened, len(MAIN))
    alice(map_write, mapping, 0, b"mapped")
    assert bob.read("f") == MAIN
    mount.facts("innocent", str(ALICE))
    assert bob.read("f") == "mapped" + MAIN[6:]
    alice(map_write, mapping, 6, b"again")
    assert bob.read("f") == "mappedagain" + MAIN[11:]
    assert alice(map_read, mapping, 0, 11) == b"mappedagain"


def make_here(name: str) -> None:
    """Create a file relative to the working directory."""
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))


@pytest.mark.parametrize("verdict", [("innocent",), ("malicious", "--yes")], ids=["innocent", "malicious"])
def test_a_working_directory_of_mains_goes_on(
    mount: Mounted, alice: Person, bob: Person, verdict: tuple[str, ...]
) -> None:
    """Entered before the suspicion or after it: relative names lead to main after the verdict."""
    bob.mkdir("d")
    bob.write("d/f", "main")
    alice(os.chdir, alice.path("d"))
    suspect(mount)
    alice(make_here, "hers")
    assert bob.names("d") == ["f"]
    alice(os.chdir, alice.path("d"))
    mount.facts(verdict[0], str(ALICE), *verdict[1:])
    kept = ["hers"] if verdict[0] == "innocent" else []
    assert alice(os.getcwd) == alice.path("d")
    assert sorted(alice(os.listdir, ".")) == ["f", *kept]
    alice(make_here, "after")
    assert bob.names("d") == sorted(["after", "f", *kept])
    assert bob(os.stat, bob.path("d")).st_ino == alice(os.stat, ".").st_ino


def test_a_working_directory_that_the_suspect_made_goes_on_after_innocent(
    mount: Mounted, alice: Person, bob: Person
) -> None:
    suspect(mount)
    alice.mkdir("new")
    alice.mkdir("new/inner")
    alice(os.chdir, alice.path("new/inner"))
    alice(make_here, "hers")
    mount.facts("innocent", str(ALICE))
    assert alice(os.getcwd) == alice.path("new/inner")
    assert alice(os.listdir, ".") == ["hers"]
    alice(make_here, "after")
    assert bob.names("new/inner") == ["after", "hers"]
    bob.write("new/inner/bob", "x")
    assert sorted(alice(os.listdir, ".")) == ["after", "bob", "hers"]
    assert sorted(alice(os.listdir, "..")) == ["inner"]
    alice(os.rename, "hers", "../hers")
    assert bob.names("new") == ["hers", "inner"]
    bob.rename("new", "newer")
    assert alice(os.getcwd) == alice.path("newer/inner")


def test_a_working_directory_that_the_suspect_renamed_goes_on_after_innocent(
    mount: Mounted, alice: Person, bob: Person
) -> None:
    bob.mkdir("d")
    bob.write("d/f", "main")
    suspect(mount)
    alice(os.chdir, alice.path("d"))
    alice.rename("d", "e")
    alice(make_here, "hers")
    assert bob.tree() == {"d": {"f": "main"}}
    mount.facts("innocent", str(ALICE))
    assert bob.names() == ["e"]
    assert sorted(alice(os.listdir, ".")) == ["f", "hers"]
    alice(make_here, "after")
    assert bob.names("e") == ["after", "f", "hers"]
    assert alice(os.getcwd) == alice.path("e")


def test_a_working_directory_that_the_suspect_made_is_dead_after_malicious(
    mount: Mounted, alice: Person, bob: Person
) -> None:
    """It is like a directory that was removed: nothing in it, nothing can be made in it, nobody is harmed."""
    suspect(mount)
    alice.mkdir("new")
    alice(os.chdir, alice.path("new"))
    alice(make_here, "hers")
    mount.facts("malicious", str(ALICE), "--yes")
    assert outcome(alice, os.listdir, ".") in ([], -2, -116)
    assert outcome(alice, make_here, "after") in (-2, -116)
    assert bob.names() == []
    alice(os.chdir, alice.path(""))
    alice(make_here, "after")
    assert bob.names() == ["after"]


def test_a_trusted_user_with_the_same_file_open_is_spared(mount: Mounted, alice: Person, bob: Person) -> None:
    bob.write("f", MAIN)
    kept = bob(os.open, bob.path("f"), os.O_RDWR)
    alice(os.open, alice.path("f"), os.O_RDWR)
    facts = suspect(mount)
    assert [h["pid"] for h in facts["killed"]] == [alice.pid]
    assert bob.alive
    bob(os.pwrite, kept, b"bob goes on", 0)
    assert bob.read("f").startswith("bob goes on")


def open_and_become(path: str, uid: int) -> None:
    """Open a file for reading and writing as one user, and go on as another."""
    os.seteuid(ALICE)
    os.open(path, os.O_RDWR)
    os.seteuid(0)
    os.setuid(uid)


def test_another_users_process_with_the_suspects_descriptor_ends(mount: Mounted, bob: Person, person: Begin) -> None:
    bob.write("f", MAIN)
    heir = person(0)
    heir(open_and_become, heir.path("f"), BOB)
    assert [h["pid"] for h in suspect(mount)["killed"]] == [heir.pid]
    assert heir.ended


def map_privately(path: str, flags: int = os.O_RDWR, lock: Lock | None = None) -> None:
    """Keep a file that was opened, and perhaps locked, by nothing but a private map of it."""
    long = ctypes.c_long
    libc = ctypes.CDLL(None)
    libc.mmap.argtypes, libc.mmap.restype = (long,) * 6, long
    opened = os.open(path, flags)
    if lock is not None:
        lock(opened, fcntl.LOCK_SH)
    assert libc.mmap(0, 4096, mmap.PROT_READ, mmap.MAP_PRIVATE, opened, 0) != -1
    os.close(opened)


def test_a_private_map_of_what_was_opened_both_ways_is_ended_too(mount: Mounted, alice: Person, bob: Person) -> None:
    bob.write("f", MAIN)
    alice(map_privately, alice.path("f"))
    assert [h["pid"] for h in suspect(mount)["killed"]] == [alice.pid]
    assert alice.ended
    assert bob.alive


def open_and_lock(path: str, flags: int, lock: Lock) -> None:
    lock(os.open(path, flags), fcntl.LOCK_EX)


LOCKS = [(flock, os.O_RDONLY), (flock, os.O_WRONLY), (posix, os.O_WRONLY), (ofd, os.O_WRONLY)]


@pytest.mark.parametrize("how", LOCKS)
def test_a_lock_from_before_holds_nobody_up(
    mount: Mounted, alice: Person, bob: Person, person: Begin, how: tuple[Lock, int]
) -> None:
    """Its holder ends, as one who has a file open for reading and writing; others of the suspect's go on."""
    lock, flags = how
    bob.write("f", MAIN)
    bystander = person(ALICE)
    bystander(os.open, bystander.path("f"), flags)
    alice(open_and_lock, alice.path("f"), flags, lock)
    with pytest.raises(BlockingIOError):
        bob(open_and_lock, bob.path("f"), os.O_RDWR, lock)
    done = mount.isoctl("suspect", str(ALICE), "--handles", "refuse")
    assert done.code == Exit.HANDLES
    assert alice.alive
    facts = suspect(mount)
    assert [(h["pid"], h["path"]) for h in facts["killed"]] == [(alice.pid, "f")]
    assert bystander.alive
    bob(open_and_lock, bob.path("f"), os.O_RDWR, lock)


@pytest.mark.parametrize("lock", [flock, ofd])
def test_a_lock_that_a_map_keeps_holds_nobody_up(mount: Mounted, alice: Person, bob: Person, lock: Lock) -> None:
    """Its descriptor is closed. A trusted user who has the file mapped goes on."""
    bob.write("f", MAIN)
    bob.write("g", MAIN)
    bob(map_privately, bob.path("f"), os.O_RDONLY)
    alice(map_privately, alice.path("g"), os.O_RDONLY)
    alice(map_privately, alice.path("f"), os.O_RDONLY, lock)
    with pytest.raises(BlockingIOError):
        bob(open_and_lock, bob.path("f"), os.O_RDWR, lock)
    facts = suspect(mount)
    assert [(h["pid"], h["path"]) for h in facts["killed"]] == [(alice.pid, "f")]
    assert bob.alive
    bob(open_and_lock, bob.path("f"), os.O_RDWR, lock)


def test_a_lock_may_be_left(mount: Mounted, alice: Person, bob: Person) -> None:
    bob.write("f", MAIN)
    alice(open_and_lock, alice.path("f"), os.O_RDONLY, flock)
    facts = suspect(mount, "--handles", "leave")
    assert [(h["pid"], h["path"]) for h in facts["left"]] == [(alice.pid, "f")]
    assert alice.alive


def test_a_trusted_users_lock_is_no_reason(mount: Mounted, alice: Person, bob: Person) -> None:
    bob.write("f", MAIN)
    bob(open_and_lock, bob.path("f"), os.O_RDONLY, flock)
    alice(os.open, alice.path("f"), os.O_RDONLY)
    facts = suspect(mount)
    assert facts["killed"] == facts["left"] == []
    assert alice.alive
    assert bob.alive
