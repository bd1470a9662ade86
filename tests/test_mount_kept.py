"""What the kernel keeps of a suspect's own node of a file: it is taken back as soon as main's side changes."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

import pytest

from support.mount import ALICE, BOB, CAROL, Mounted, Person

pytestmark = pytest.mark.mount

Begin = Callable[[int], Person]
Change = Callable[[Person, Mounted], object]

TEXT = "main's own line\n" * 400


def seen(descriptor: int) -> tuple[tuple[int, ...], bytes]:
    """What `fstat` and `pread` tell, but for the time of the last access."""
    at, data = os.fstat(descriptor), os.pread(descriptor, 1 << 20, 0)
    os.fstat(descriptor)  # reading puts the access time out of date: from here on the kernel keeps attributes
    return (at.st_mode, at.st_nlink, at.st_uid, at.st_gid, at.st_size, at.st_mtime_ns, at.st_ctime_ns), data


def overwrite(path: str, data: bytes) -> None:
    """Write at the beginning through a handle that was open before anything was asked."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.pwrite(descriptor, data, 0)
    finally:
        os.close(descriptor)


def empty(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))


def _merged(bob: Person, mount: Mounted) -> None:
    """Another suspect's version becomes main's, by overwriting: the file has two names."""
    bob(os.link, bob.path("f"), bob.path("g"))
    mount.facts("suspect", str(CAROL))
    carol = Person(CAROL, mount.path)
    try:
        carol(overwrite, carol.path("f"), b"carol's")
    finally:
        carol.close()
    mount.facts("innocent", str(CAROL))


def suspect_with_files(mount: Mounted, person: Begin) -> tuple[Person, Person]:
    """alice, who is a suspect and owns two files that look alike but for what is in them, and bob."""
    alice = person(ALICE)
    for name in ("f", "g"):
        alice.write(name, TEXT)
        alice.utime(name, 10**18)
    mount.facts("suspect", str(ALICE))
    return alice, person(BOB)


CHANGES: dict[str, Change] = {
    "written": lambda bob, mount: bob(overwrite, bob.path("f"), b"MAIN"),
    "emptied": lambda bob, mount: bob(empty, bob.path("f")),
    "appended to": lambda bob, mount: bob.append("f", "more\n"),
    "cut": lambda bob, mount: bob(os.truncate, bob.path("f"), 5),
    "chmod": lambda bob, mount: bob.chmod("f", 0o604),
    "utime": lambda bob, mount: bob.utime("f", 10**18),
    "attribute": lambda bob, mount: bob(os.setxattr, bob.path("f"), "user.a", b"1"),
    "linked": lambda bob, mount: bob.link("f", "g"),
    "renamed": lambda bob, mount: bob.rename("f", "g"),
    "merged": _merged,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_suspect_sees_at_once_what_changes_in_main(mount: Mounted, person: Begin, change: Change) -> None:
    """By a descriptor, for which the kernel looks nothing up, the same as who opens the file anew."""
    alice, bob = person(ALICE), person(BOB)
    bob.write("f", TEXT)
    mount.facts("suspect", str(ALICE))
    opened = alice(os.open, alice.path("f"), os.O_RDONLY)
    before = alice(seen, opened)
    assert before[1] == TEXT.encode()
    change(bob, mount)
    after = alice(seen, opened)
    there = "f" if bob.exists("f") else "g"
    anew = alice(os.open, alice.path(there), os.O_RDONLY)
    assert after == alice(seen, anew)
    assert after == bob(seen, bob(os.open, bob.path(there), os.O_RDONLY))
    assert after != before


@pytest.mark.parametrize("change", ["linked", "renamed"])
def test_what_main_does_with_names_of_a_suspects_version(mount: Mounted, person: Begin, change: str) -> None:
    """Its link count depends on main's names, though main's content is no longer the suspect's."""
    alice, bob = person(ALICE), person(BOB)
    bob.write("f", TEXT)
    mount.facts("suspect", str(ALICE))
    opened = alice(os.open, alice.path("f"), os.O_RDWR)
    alice(os.pwrite, opened, b"alice's", 0)
    before = alice(seen, opened)
    CHANGES[change](bob, mount)
    bob.write("other", TEXT)
    after = alice(seen, opened)
    assert after == alice(seen, alice(os.open, alice.path("f"), os.O_RDONLY))
    assert after[1] == before[1]
    assert after[0][1] == (2 if change == "linked" else 1)


def test_pages_that_were_kept_are_not_read_when_main_has_others(mount: Mounted, person: Begin) -> None:
    """Neither time nor size tells the two apart."""
    alice, bob = person(ALICE), person(BOB)
    bob.write("f", TEXT)
    mount.facts("suspect", str(ALICE))
    for text in (TEXT, TEXT.upper(), TEXT.swapcase(), TEXT):
        bob(overwrite, bob.path("f"), text.encode())
        bob.utime("f", 10**18)
        assert alice.read("f") == text
        assert alice.read("f") == text


def test_a_discarded_version_is_not_read_from_pages_that_were_kept(mount: Mounted, person: Begin) -> None:
    """After a verdict on a part the suspect goes on with main's file, at the node that had its version."""
    alice, bob = suspect_with_files(mount, person)
    opened = alice(os.open, alice.path("f"), os.O_RDONLY)
    for name in ("f", "g"):
        alice(overwrite, alice.path(name), TEXT.upper().encode())
    alice.utime("f", 10**18)
    assert alice.read("f") == alice.read("f") == TEXT.upper()
    mount.facts("malicious", str(ALICE), "--accept", "g", "--yes")
    assert (bob.read("f"), bob.read("g")) == (TEXT, TEXT.upper())
    assert (alice.read("f"), alice.read("g")) == (TEXT, TEXT.upper())
    again = alice(os.open, f"/proc/self/fd/{opened}", os.O_RDONLY)
    assert alice(os.pread, again, 1 << 20, 0) == TEXT.encode()


def test_what_comes_by_a_handle_from_before_is_seen_by_others_of_the_suspects(mount: Mounted, person: Begin) -> None:
    alice, bob = person(ALICE), person(BOB)
    bob.write("f", TEXT)
    before = alice(os.open, alice.path("f"), os.O_WRONLY)
    mount.facts("suspect", str(ALICE))
    opened = alice(os.open, alice.path("f"), os.O_RDONLY)
    for data in (b"one", b"two", TEXT.encode() * 2):
        assert alice(seen, opened)[1] == alice.read("f").encode()
        alice(os.pwrite, before, data, 0)
        told, content = alice(seen, opened)
        assert content.startswith(data)
        assert told[4] == len(content) == alice.status("f")[4]
    alice(os.ftruncate, before, 3)
    assert alice(seen, opened)[1] == TEXT.encode()[:3]
    assert bob.read("f") == TEXT


def mapped(path: str) -> bytes:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        return bytes(pages)


@pytest.mark.parametrize("change", ["written", "appended to", "cut"])
def test_main_s_data_are_seen_under_attributes_of_the_suspect_s(mount: Mounted, person: Begin, change: str) -> None:
    alice, bob = suspect_with_files(mount, person)
    alice.chmod("f", 0o600)
    opened = alice(os.open, alice.path("f"), os.O_RDONLY)
    assert alice(seen, opened)[1] == alice(mapped, alice.path("f")) == TEXT.encode()
    CHANGES[change](bob, mount)
    told, content = alice(seen, opened)
    assert content == alice(mapped, alice.path("f")) == bob.read("f").encode()
    assert (told[0] & 0o777, told[4]) == (0o600, len(content))
    assert (told, content) == alice(seen, alice(os.open, alice.path("f"), os.O_RDONLY))
    alice(overwrite, alice.path("f"), b"alice's")
    assert alice(seen, opened)[1] == alice(mapped, alice.path("f")) == b"alice's" + content[7:]
    assert bob.read("f").encode() == (mount.backing / "f").read_bytes() == content


@pytest.mark.parametrize("part", [(), ("--only", "f")])
def test_attributes_of_a_big_file_are_merged_and_main_s_data_stay(
    mount: Mounted, person: Begin, part: tuple[str, ...]
) -> None:
    """It is copied in a thread; main's blocks are no suspect's before."""
    alice, bob = suspect_with_files(mount, person)
    bob.write("f", "x" * (5 << 20))
    alice.chmod("f", 0o600)
    assert [content.stat().st_blocks for content in (mount.backing / ".isofs/versions").glob("*/*")] == [0]
    bob(overwrite, bob.path("f"), b"new")
    assert mount.facts("innocent", str(ALICE), *part)["counts"] == {"took": 1}
    assert (mount.backing / "f").read_bytes() == b"new" + b"x" * ((5 << 20) - 3)
    assert (mount.backing / "f").stat().st_mode & 0o777 == 0o600
    assert alice(os.stat, alice.path("f")).st_size == 5 << 20


def test_pages_from_before_a_change_are_no_part_of_what_a_merge_brings(mount: Mounted, person: Begin) -> None:
    """The suspect's node becomes main's: trusted users open it, and its pages are older than the version."""
    alice, bob = suspect_with_files(mount, person)
    assert alice.read("f") == alice.read("g") == TEXT
    opened = alice(os.open, alice.path("f"), os.O_RDONLY)
    for name in ("f", "g"):
        bob(overwrite, bob.path(name), TEXT.upper().encode())
        os.utime(mount.backing / name, ns=(10**18, 10**18))
        alice.chmod(name, 0o640)
    mount.facts("innocent", str(ALICE))
    for name in ("f", "g"):
        assert alice.read(name) == alice.read(name) == TEXT.upper()
        assert bob(os.stat, bob.path(name)).st_mode & 0o777 == 0o640
    assert alice(os.pread, opened, 1 << 20, 0) == TEXT.upper().encode()
