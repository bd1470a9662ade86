"""A real mount whose store fails: a full file system, and one that has become read-only."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isofs.errors import Exit
from support.command import refused
from support.mount import ALICE, BOB, Mounted, Person, isoctl, portrait

pytestmark = pytest.mark.mount


@contextlib.contextmanager
def served(tree: Path, store: Path) -> Iterator[tuple[Mounted, Person, Person]]:
    """A mount with its store elsewhere, in which alice is isolated and has changed and deleted something."""
    for name in ("changed", "deleted", "kept"):
        (tree / name).write_text("main's\n")
        (tree / name).chmod(0o666)
        os.chown(tree / name, ALICE if name == "kept" else BOB, -1)
    mount = Mounted(tree)
    mount.mount("--store", str(store))
    alice, bob = Person(ALICE, tree), Person(BOB, tree)
    try:
        mount.facts("suspect", str(ALICE))
        alice.write("changed", "alice's\n")
        alice.remove("deleted")
        yield mount, alice, bob
    finally:
        alice.close()
        bob.close()
        subprocess.run(["umount", "-l", str(tree)], capture_output=True, check=False)


def fails(person: Person, *numbers: int) -> None:
    """Whatever the person tries to change fails with one of these errors."""
    tries: list[Callable[[], None]] = [
        lambda: person.write("kept", "!"),
        lambda: person.write("new", "!"),
        lambda: person.mkdir("new"),
        lambda: person.remove("kept"),
        lambda: person.rename("kept", "moved"),
        lambda: person.link("kept", "linked"),
        lambda: person.chmod("kept", 0o600),
    ]
    for number, attempt in enumerate(tries):
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno in numbers, (number, caught.value)


def state(mount: Mounted) -> str:
    """What `status` says first."""
    return mount.isoctl("status").out.splitlines()[0]


def test_a_full_store(place: Path, tree: Path) -> None:
    """The suspect can read, and change nothing, until there is room, or main changes in a way that is not followed."""
    store = place / "disk"
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "full", str(store)], check=True)
    try:
        with served(tree, store / "store") as (mount, alice, bob):
            room = store / "room"
            with contextlib.suppress(OSError), open(room, "wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
            fails(alice, errno.ENOSPC)
            assert alice.tree() == {"changed": "alice's\n", "kept": "main's\n"}
            assert state(mount).startswith("state   degraded: ")
            bob.write("bobs", "bob's\n")
            assert bob.tree() == {"changed": "main's\n", "deleted": "main's\n", "kept": "main's\n", "bobs": "bob's\n"}

            room.unlink()
            alice.write("kept", "alice's\n")
            assert state(mount) == "state   ok"

            with contextlib.suppress(OSError), open(room, "wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
            for number in range(300):  # the log of the database has some room left
                bob.chmod("changed", 0o600 + number % 64)
            bob.write("changed", "bob's\n")
            bob.remove("kept")
            bob.rename("deleted", "moved")
            expected = {"changed": "bob's\n", "moved": "main's\n", "bobs": "bob's\n"}
            assert bob.tree() == expected
            assert portrait(str(tree)).keys() == portrait(str(mount.backing), ".isofs").keys() == expected.keys()
            fails(alice, errno.EIO)
            for attempt in (lambda: alice.read("changed"), lambda: alice.names(), lambda: alice.status("moved")):
                with pytest.raises(OSError, match="Input/output"):
                    attempt()
            status = mount.isoctl("status").out.splitlines()
            assert status[0].startswith("state   degraded: the database")
            assert status[1].startswith(f"        shut out: {ALICE}")
            refused(mount.isoctl("innocent", str(ALICE)), Exit.STORE, "mend the store")

            # With room again everything is followed, as if main had changed behind the mount.
            assert mount.isoctl("check", "--repair", "--yes", "--json").code == Exit.STORE  # it is full still
            assert mount.isoctl("status").out.splitlines()[1].startswith(f"        shut out: {ALICE}")
            room.unlink()
            with open(tree / "bobs", "rb+", buffering=0) as held:  # what trusted users have open stays open
                done = mount.facts("check", "--repair", "--yes")
                assert (done["ok"], len(done["repaired"])) == (True, 1)
                held.write(b"BOB")
                held.seek(0)
                assert held.read() == b"BOB's\n"
                held.seek(0)
                held.write(b"bob")
            refused(mount.isoctl("check", "--repair", "--yes"), Exit.BUSY, "umount")
            assert state(mount) == "state   ok"
            assert alice.tree() == {"changed": "alice's\n", "kept": "alice's\n", "bobs": "bob's\n"}
            assert bob.tree() == expected
            mount.check()
            done = mount.facts("plan", str(ALICE))
            assert {i["path"]: i["action"] for i in done["items"] if i["path"] == "changed"} == {"changed": "conflict"}
            mount.umount()
    finally:
        subprocess.run(["umount", "-l", str(store)], check=False)


def test_a_store_that_becomes_read_only(place: Path, tree: Path) -> None:
    """As a disk with errors does: at once, and with everything open."""
    image, store = place / "image", place / "disk"
    store.mkdir()
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop,errors=remount-ro", str(image), str(store)], check=True)
    try:
        with served(tree, store / "store") as (mount, alice, bob):
            number = os.stat(store).st_dev
            device = os.path.basename(os.readlink(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"))
            Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("a test")
            fails(alice, errno.EROFS, errno.EIO)
            assert state(mount).startswith("state   degraded: ")
            bob.write("changed", "bob's\n")
            bob.remove("deleted")
            assert bob.tree() == {"changed": "bob's\n", "kept": "main's\n"}
            with pytest.raises(OSError, match="Input/output"):
                alice.tree()

            # The daemon's end and a mount on the disk as it is: alice is shut out, bob goes on.
            mount.umount()
            done = isoctl("mount", str(tree), "--store", str(store / "store"))
            assert (done.code, done.err.startswith("isoctl: degraded: ")) == (0, True), done
            with pytest.raises(OSError, match="Input/output"):
                alice.names()
            bob.write("kept", "bob's\n")
            assert bob.tree() == {"changed": "bob's\n", "kept": "bob's\n"}
            assert mount.facts("status")["degraded"]["shut_out"] == [ALICE]
            mount.umount()
    finally:
        subprocess.run(["umount", str(store)], check=False)
