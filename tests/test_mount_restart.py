"""A daemon that takes a dead one's place: who asks while it reads the store waits, and is shown what was there."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from isofs.control import client, mounts
from isofs.errors import Exit, NoAnswer
from support.mount import ALICE, BOB, Mounted, Person, isoctl, mounts_below
from test_mount_supervised import PATIENCE, supervised, until

pytestmark = pytest.mark.mount

#: What a call gets that waited for a daemon which ended.
GONE = (errno.ENOTCONN, errno.ECONNABORTED)


class Latch:
    """Holds every daemon that reads a store: the list of who is isolated, which is read with the rows, is a FIFO."""

    def __init__(self, store: Path) -> None:
        self._list, self._fifo = store / "suspects", -1
        self._content = self._list.read_bytes()
        os.mkfifo(store / "latch")
        os.rename(store / "latch", self._list)

    def reached(self) -> None:
        """A daemon is reading, and waits."""

        def opened() -> bool:
            self._fifo = os.open(self._list, os.O_WRONLY | os.O_NONBLOCK)
            return True

        until("a daemon reads the store", opened)

    def left(self) -> None:
        """The daemon that waited is dead."""
        os.close(self._fifo)

    def release(self) -> None:
        """Let the daemon read on."""
        scratch = self._list.with_name("sound")
        scratch.write_bytes(self._content)
        os.rename(scratch, self._list)
        os.write(self._fifo, self._content)
        os.close(self._fifo)


@pytest.fixture
def store(tree: Path) -> Path:
    """Where the store of the tree is, outside of it; there is a file that all may write."""
    (tree / "shared").write_text("main's\n")
    (tree / "shared").chmod(0o666)
    return tree.parent / "store"


@contextlib.contextmanager
def at_work(mount: Mounted) -> Iterator[tuple[Person, Person]]:
    """Alice, who is isolated and has changed, renamed and made something; and bob."""
    alice, bob = Person(ALICE, mount.path), Person(BOB, mount.path)
    try:
        bob.write("old", "main's\n")
        mount.facts("suspect", str(ALICE))
        alice.write("shared", "alice's\n")
        alice.rename("old", "new")
        alice.write("made", "alice's\n")
        yield alice, bob
    finally:
        alice.close()
        bob.close()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def waits(*people: Person) -> None:
    """Each of them waits for an answer of the file system, and goes on waiting."""
    for one in people:
        until("the call is made", lambda pid=one.pid: b"fuse" in in_kernel(pid) or b"request_wait" in in_kernel(pid))
    assert all(one.working for one in people)


def in_kernel(pid: int) -> bytes:
    return Path(f"/proc/{pid}/wchan").read_bytes()


def heard(systemd: socket.socket, line: bytes, times: int = 1) -> list[bytes]:
    """What systemd is told, until it was told a line so many times."""
    told: list[bytes] = []
    while told.count(line) < times:
        told += systemd.recv(4096).split(b"\n")
    return told


def test_who_asks_while_the_store_is_read_waits(
    tree: Path, store: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is shown anything before. A daemon that is killed meanwhile is replaced; one that takes long is not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(place / "notify"))
        systemd.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(place / "notify"))
        with supervised(tree, "--store", str(store), "--watchdog", "1") as mount, at_work(mount) as (alice, bob):
            before, supervisor = alice.tree(), parent(mount.pid)
            latch = Latch(store)
            os.kill(mount.pid, signal.SIGKILL)
            latch.reached()
            alice.begin(os.stat, alice.path("made"))
            bob.begin(os.stat, bob.path("shared"))
            waits(alice, bob)
            assert mounts_below(tree) == [str(tree)]
            # Who waits can be killed.
            impatient = subprocess.Popen(["stat", str(tree / "shared")], stdout=subprocess.DEVNULL)
            until("it waits", lambda: b"request_wait" in in_kernel(impatient.pid))
            impatient.kill()
            assert impatient.wait(PATIENCE) == -signal.SIGKILL

            [reading] = children(supervisor)
            os.kill(reading, signal.SIGKILL)
            for one in (alice, bob):
                with pytest.raises(OSError) as caught:
                    one.end()
                assert caught.value.errno in GONE
            latch.left()
            until("it is gone", lambda: reading not in children(supervisor))
            latch.reached()
            assert mounts_below(tree) == [str(tree)]

            [reading] = children(supervisor)
            alice.begin(content, alice.path("shared"))
            bob.begin(content, bob.path("shared"))
            waits(alice, bob)
            with pytest.raises(NoAnswer):
                client.call(mounts.socket_for(str(tree)), "status", {})
            heard(systemd, b"STATUS=reading the store", times=3)  # the first daemon, the second, and this one
            assert set(heard(systemd, b"WATCHDOG=1", times=6)) == {b"WATCHDOG=1"}  # for longer than it may hang
            command = subprocess.Popen([sys.executable, "-m", "isoctl.main", "--mount", str(tree), "status", "--json"])
            until("it waits", lambda: b"request_wait" in in_kernel(command.pid))
            waits(alice, bob)
            assert children(supervisor) == [reading]
            latch.release()
            assert (alice.end(), bob.end()) == ("alice's\n", "main's\n")
            assert command.wait(PATIENCE) == Exit.DONE
            heard(systemd, b"READY=1")
            assert mount.pid == reading
            assert alice.tree() == before == {"shared": "alice's\n", "new": "main's\n", "made": "alice's\n"}
            assert bob.tree() == {"shared": "main's\n", "old": "main's\n"}
            mount.check()


def content(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def test_a_store_that_proves_damaged_when_it_is_read(tree: Path, store: Path) -> None:
    """Who waited and is isolated is shut out; everybody else goes on."""
    with supervised(tree, "--store", str(store)) as mount, at_work(mount) as (alice, bob):
        latch = Latch(store)
        with sqlite3.connect(store / "isofs.db") as connection:
            for table in ("versions", "bindings", "touches", "subjects"):
                connection.execute(f"DELETE FROM {table}")
        connection.close()
        os.kill(mount.pid, signal.SIGKILL)
        latch.reached()
        alice.begin(content, alice.path("shared"))
        bob.begin(content, bob.path("shared"))
        waits(alice, bob)
        latch.release()
        with pytest.raises(OSError) as caught:
            alice.end()
        assert caught.value.errno == errno.EIO
        assert bob.end() == "main's\n"
        assert mount.ask("status")["degraded"]["shut_out"] == [ALICE]


def test_a_daemon_that_is_told_to_end_while_it_reads(tree: Path, store: Path) -> None:
    """Its mount goes at once, with whoever waited; the supervisor ends with it, and nothing is lost."""
    mount = Mounted(tree)
    mount.mount("--supervised", "--store", str(store))
    try:
        with at_work(mount) as (alice, bob):
            before, supervisor = alice.tree(), parent(mount.pid)
            latch = Latch(store)
            os.kill(mount.pid, signal.SIGKILL)
            latch.reached()
            bob.begin(content, bob.path("shared"))
            waits(bob)
            os.kill(supervisor, signal.SIGTERM)
            until("the mount is gone", lambda: not mounts_below(tree))
            latch.release()
            until("the supervisor ends", lambda: not Path(f"/proc/{supervisor}").exists())
            with pytest.raises(OSError) as caught:
                bob.end()
            assert caught.value.errno in GONE

            # A first mount is not shown before; told to end, it never is.
            latch = Latch(store)
            words = [sys.executable, "-m", "isoctl.main", "mount", "--foreground", "--store", str(store), str(tree)]
            with subprocess.Popen(words, stdout=subprocess.PIPE) as first:
                latch.reached()
                assert not mounts_below(tree)
                first.terminate()
                latch.release()
                assert first.wait(PATIENCE) == 0
            assert not mounts_below(tree)
            assert isoctl("mount", "--store", str(store), str(tree)).code == Exit.DONE
            assert alice.tree() == before
            mount.check()
            mount.umount()
    finally:
        subprocess.run(["umount", "-l", str(tree)], capture_output=True, check=False)
