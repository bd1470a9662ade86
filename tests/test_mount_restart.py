"""A daemon that takes a dead one's place: who asks while it reads the store waits, and is shown what was there."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import queue
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import dead_mount
from isoctl import daemon
from isofs.engine.checks import check
from isofs.errors import NoAnswer
from isofs.service.opening import Opening
from support.mount import ALICE, BOB, Mounted, Person, mounts_below
from test_failing_start import user
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


class Scene(NamedTuple):
    """A mount with its store outside of it; alice, who is isolated and has changed, renamed and made something; bob."""

    mount: Mounted
    store: Path
    alice: Person
    bob: Person


#: What alice sees, and bob.
HERS = {"shared": "alice's\n", "new": "main's\n", "made": "alice's\n"}
MAINS = {"shared": "main's\n", "old": "main's\n"}


@contextlib.contextmanager
def scene(place: Path) -> Iterator[Scene]:
    tree, store = place / "tree", place / "store"
    tree.mkdir()
    tree.chmod(0o777)
    with (
        supervised(tree, "--store", str(store), "--watchdog", "1") as mount,
        contextlib.closing(Person(ALICE, tree)) as alice,
        contextlib.closing(Person(BOB, tree)) as bob,
    ):
        for name, text in MAINS.items():
            bob.write(name, text)
            bob.chmod(name, 0o666)
        mount.facts("suspect", str(ALICE))
        alice.write("shared", "alice's\n")
        alice.rename("old", "new")
        alice.write("made", "alice's\n")
        yield Scene(mount, store, alice, bob)


class Systemd:
    """What would watch over the supervisor."""

    def __init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind("")  # the kernel chooses a name
        self.address = "@" + self._listener.getsockname()[1:].decode()
        self._told: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        """All the time: whoever tells something waits as long as nobody listens."""
        while told := self._listener.recv(4096):
            for line in told.split(b"\n"):
                self._told.put(line)

    def heard(self, line: bytes, times: int = 1) -> list[bytes]:
        """What it is told until it was told a line so many times."""
        told: list[bytes] = []
        while told.count(line) < times:
            told.append(self._told.get(timeout=PATIENCE))
        return told

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", "\0" + self.address[1:])
        self._thread.join()
        self._listener.close()


@pytest.fixture(scope="module")
def systemd() -> Iterator[Systemd]:
    with contextlib.closing(Systemd()) as one:
        yield one


@pytest.fixture(scope="module")
def there(base: Path, systemd: Systemd) -> Iterator[Scene]:
    """One for the tests that leave a mount."""
    (base / "restarts").mkdir()
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NOTIFY_SOCKET", systemd.address)
            found = stack.enter_context(scene(base / "restarts"))
        yield found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def waits(*people: Person) -> None:
    """Each of them waits for an answer of the file system."""
    for one in people:
        until("the call is made", functools.partial(waiting, one.pid))
    assert all(one.working for one in people)


def waiting(pid: int) -> bool:
    """Whether a process waits for an answer of the file system."""
    return b"request_wait_answer" in Path(f"/proc/{pid}/wchan").read_bytes()


def content(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def test_who_asks_while_the_store_is_read_waits(there: Scene, systemd: Systemd) -> None:
    """Nobody is shown anything before. A daemon that hangs meanwhile is replaced; one that takes long is not."""
    mount, alice, bob = there.mount, there.alice, there.bob
    assert (alice.tree(), bob.tree()) == (HERS, MAINS)
    supervisor, latch = parent(mount.pid), Latch(there.store)
    os.kill(mount.pid, signal.SIGKILL)
    latch.reached()
    alice.begin(os.stat, alice.path("made"))
    bob.begin(os.stat, bob.path("shared"))
    waits(alice, bob)
    assert mounts_below(mount.path) == [str(mount.path)]
    # Who waits can be killed.
    with subprocess.Popen(["stat", bob.path("shared")]) as impatient:
        until("it waits", lambda: waiting(impatient.pid))
        impatient.kill()
        assert impatient.wait(PATIENCE) == -signal.SIGKILL

    [reading] = children(supervisor)
    os.kill(reading, signal.SIGSTOP)
    for one in (alice, bob):
        with pytest.raises(OSError) as caught:
            one.end()
        assert caught.value.errno in GONE
    latch.left()
    until("it is gone", lambda: reading not in children(supervisor))
    latch.reached()
    assert mounts_below(mount.path) == [str(mount.path)]

    [reading] = children(supervisor)
    alice.begin(content, alice.path("shared"))
    bob.begin(content, bob.path("shared"))
    with pytest.raises(NoAnswer):
        mount.ask("status")
    with contextlib.closing(Person(0, mount.path)) as operator:
        operator.begin(daemon.ask_at, str(mount.path), "status", {})
        systemd.heard(b"STATUS=reading the store", times=3)  # the first daemon, the second, and this one
        assert set(systemd.heard(b"WATCHDOG=1", times=6)) == {b"WATCHDOG=1"}  # for longer than it may hang
        waits(alice, bob, operator)
        assert children(supervisor) == [reading]
        latch.release()
        assert (alice.end(), bob.end()) == ("alice's\n", "main's\n")
        assert operator.end()["pid"] == reading
    systemd.heard(b"READY=1")
    assert (alice.tree(), bob.tree()) == (HERS, MAINS)
    mount.check()


def test_a_store_that_proves_damaged_when_it_is_read(there: Scene) -> None:
    """Who waited and is isolated is shut out; everybody else goes on."""
    mount, alice, bob = there.mount, there.alice, there.bob
    latch = Latch(there.store)
    with sqlite3.connect(there.store / "isofs.db") as connection:
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


def test_a_daemon_that_is_told_to_end_while_it_reads(place: Path) -> None:
    """Its mount goes at once, with whoever waited; the supervisor ends with it, and nothing is lost."""
    with scene(place) as (mount, store, _, bob):
        tree, supervisor, latch = mount.path, parent(mount.pid), Latch(store)
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
        with contextlib.closing(Opening(str(tree), str(store))) as opening:
            fs = opening.read()
            assert not check(fs)
            assert user(fs, ALICE).read(b"shared") == b"alice's\n"


def test_a_first_mount_is_not_shown_before_the_store_is_read(tree: Path, place: Path) -> None:
    """And never, if the daemon is told to end meanwhile."""
    store = place / "store"
    with contextlib.closing(Opening(str(tree), str(store))) as opening:
        opening.read()
    latch = Latch(store)
    words = [sys.executable, "-m", "isofs.service.daemon", str(tree), str(store), "--foreground"]
    with subprocess.Popen(words) as first:
        latch.reached()
        assert not mounts_below(tree)
        first.terminate()
        latch.release()
        assert first.wait(PATIENCE) == 0
    assert not mounts_below(tree)


def test_a_daemon_that_is_told_to_end_before_it_mounts(tree: Path, place: Path) -> None:
    """It takes the dead mount's place, and leaves it: nothing is left that nobody serves."""
    begin = "import os, signal; from isofs.service import daemon, opening; opened = opening.open_store;"
    begin += "opening.open_store = lambda path: (os.kill(os.getpid(), signal.SIGTERM), opened(path))[1]; daemon._main()"
    words = [sys.executable, "-c", begin, str(tree), str(place / "store"), "--foreground"]
    with dead_mount.dead(str(tree)):
        assert subprocess.run(words, timeout=PATIENCE, check=False).returncode == 0
        assert not mounts_below(tree)
