"""A daemon that is killed, or hangs, and its supervisor: what survives, what does not, and that nobody sees below."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isofs.control import client, mounts
from isofs.errors import NoAnswer
from support.mount import ALICE, BOB, Mounted, Person, Worker, isoctl, mounts_below

pytestmark = pytest.mark.mount

#: Seconds that anything here may take on a machine that has other things to do.
PATIENCE = 30.0


class Watcher:
    """Looks at a directory all the time, and notes what it sees there beside errors."""

    def __init__(self, directory: Path) -> None:
        self.seen: set[tuple[str, ...]] = set()
        self._directory, self._ended = directory, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                self.seen.add(tuple(sorted(os.listdir(self._directory))))

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def until(what: str, condition: Callable[[], object]) -> float:
    """Seconds until the condition holds."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        with contextlib.suppress(OSError, NoAnswer):
            if condition():
                return time.monotonic() - began
        time.sleep(0.005)
    raise AssertionError(what)


@contextlib.contextmanager
def supervised(tree: Path, *options: str) -> Iterator[Mounted]:
    mount = Mounted(tree)
    mount.mount("--supervised", *options)
    try:
        yield mount
        if mounts_below(tree):
            supervisor = _parent(mount.pid)
            mount.umount()
            until("the supervisor ends", lambda: not Path(f"/proc/{supervisor}").exists())
            assert not mounts_below(tree)
    finally:
        subprocess.run(["umount", "-l", str(tree)], capture_output=True, check=False)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _spare(mount: Mounted) -> bool:
    """Whether the next daemon waits, with everything in memory."""
    pid = mount.pid
    children = Path(f"/proc/{_parent(pid)}/task/{_parent(pid)}/children").read_text().split()
    others = [int(child) for child in children if int(child) != pid]
    return any(b"pipe_read" in Path(f"/proc/{other}/wchan").read_bytes() for other in others)


def test_a_killed_daemon_is_back_at_once(tree: Path) -> None:
    """Open files and the current directory do not survive; the next path that is opened works, on the same store."""
    (tree / "shared").write_text("main's\n")
    (tree / "shared").chmod(0o666)
    with supervised(tree) as mount:
        alice, bob = Person(ALICE, tree), Person(BOB, tree)
        inside = Worker(BOB, cwd=tree)
        watcher = Watcher(tree)
        try:
            mount.facts("suspect", str(ALICE))
            alice.write("shared", "alice's\n")
            opened = bob(os.open, bob.path("shared"), os.O_RDWR)
            assert inside(os.listdir, ".") == ["shared"]
            until("a spare waits", lambda: _spare(mount))

            before = mount.pid
            os.kill(before, signal.SIGKILL)
            took = until("the mount answers", lambda: bob.read("shared") == "main's\n")
            assert took < 1 or os.getloadavg()[0] > 2, f"{took:.2f} s on a machine with nothing else to do"
            assert mount.pid != before

            # What survives: paths, contents, who is isolated and what they did.
            assert alice.read("shared") == "alice's\n"
            bob.write("new", "bob's\n")
            mount.check()
            # What does not: descriptors and the current directory lead to the mount that is gone.
            cut_off: list[Callable[[], object]] = [
                lambda: bob(os.read, opened, 1),
                lambda: bob(os.write, opened, b"!"),
                lambda: inside(os.listdir, "."),
            ]
            for number, call in enumerate(cut_off):
                with pytest.raises(OSError) as caught:
                    call()
                assert caught.value.errno in (errno.ENOTCONN, errno.EIO, errno.ECONNABORTED), number
            inside(os.chdir, str(tree))
            assert sorted(inside(os.listdir, ".")) == ["new", "shared"]
            bob(os.close, opened)
        finally:
            watcher.end()
            for person in (alice, bob, inside):
                person.close()
        # At no moment did the directory below, with its store, lie open.
        assert watcher.seen <= {("shared",), ("new", "shared")}


def test_a_daemon_that_hangs_is_replaced(tree: Path) -> None:
    (tree / "f").write_text("main's\n")
    with supervised(tree, "--watchdog", "3") as mount:
        before = mount.pid
        os.kill(before, signal.SIGSTOP)
        until("another daemon answers", lambda: mount.pid != before)
        until("the mount answers", lambda: (tree / "f").read_text() == "main's\n")
        log = (Path(f"/proc/{mount.pid}/root{tree}") / ".isofs" / "log").read_text()
        assert f"daemon {before} answers no more, and is killed" in log


def test_a_supervisor_gives_up_on_a_daemon_that_never_lives_long(tmp_path: Path) -> None:
    """And does not try again with one that did not even begin."""
    source = (
        "import logging, sys; from isofs.service import supervisor as s; s._PAUSES = (0,);"
        "logging.basicConfig(); sys.exit(s.supervise([sys.executable, '-c', sys.argv[1]], watchdog=5))"
    )
    ready = (
        "import os, socket; open('begun', 'a').write('.');"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM);"
        "s.sendto(b'READY=1', '\\0' + os.environ['NOTIFY_SOCKET'][1:]); os._exit(7)"
    )

    def run(child: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", source, child]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    done = run(ready)
    assert done.returncode == 7
    assert "gave up: the daemon ended 6 times in 60 s" in done.stderr
    assert (tmp_path / "begun").read_text() == "......"
    (tmp_path / "begun").unlink()
    assert run(ready.partition("s = ")[0] + "os._exit(3)").returncode == 3
    assert (tmp_path / "begun").read_text() == "."


def test_what_the_daemon_tells_systemd(tree: Path, place: Path) -> None:
    """READY when the mount answers, WATCHDOG while it does, STOPPING at the end."""
    path = place / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(PATIENCE)
        environment = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "2000000"}
        environment.pop("WATCHDOG_PID", None)
        words = [sys.executable, "-m", "isoctl.main", "mount", "--foreground", str(tree)]
        daemon = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

        def heard(line: str) -> bytes:
            while line.encode() not in (told := listener.recv(4096)):
                pass
            return told

        try:
            assert heard("READY=1") == b"READY=1\nSTATUS=ok"
            assert mounts_below(tree) == [str(tree)]
            heard("WATCHDOG=1")
            # A daemon that does not answer does not say that it is alive.
            os.kill(daemon.pid, signal.SIGSTOP)
            listener.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                while True:
                    listener.recv(4096)
            listener.settimeout(1.5)
            with pytest.raises(TimeoutError):
                listener.recv(4096)
            os.kill(daemon.pid, signal.SIGCONT)
            listener.settimeout(PATIENCE)
            heard("WATCHDOG=1")
            os.kill(daemon.pid, signal.SIGTERM)
            heard("STOPPING=1")
            assert daemon.wait(PATIENCE) == 0
        finally:
            daemon.kill()
            daemon.communicate()
            subprocess.run(["umount", "-l", str(tree)], capture_output=True, check=False)


def test_umount_waits_for_the_last_one_to_leave(tree: Path) -> None:
    """Everybody goes on meanwhile, new ones too; --lazy and --force do not wait for ever."""
    (tree / "f").write_text("main's\n")
    mount = Mounted(tree)
    mount.mount()
    inside = Worker(BOB, cwd=tree)
    try:
        pid = mount.pid
        leaving = subprocess.Popen([sys.executable, "-m", "isoctl.main", "umount", str(tree), "--timeout", "60"])
        socket_path = mounts.socket_for(str(tree))
        assert client.call(socket_path, "log_level", {})["level"] == "info"
        assert inside(os.listdir, ".") == ["f"]
        assert (tree / "f").read_text() == "main's\n"
        inside.close()
        assert leaving.wait(PATIENCE) == 0
        assert not mounts_below(tree)
        until("the daemon ends", lambda: not Path(f"/proc/{pid}").exists())

        mount.mount()
        inside = Worker(BOB, cwd=tree)
        pid = mount.pid
        done = isoctl("umount", str(tree), "--lazy")
        assert (done.code, f"({inside.pid}) of {BOB}, cwd {tree}" in done.err) == (0, True), done
        assert not mounts_below(tree)
        assert inside(os.listdir, ".") == ["f"]
        inside.close()
        until("the daemon ends", lambda: not Path(f"/proc/{pid}").exists())

        # Whatever is at its place when the daemon is told to end is left alone.
        mount.mount()
        inside = Worker(BOB, cwd=tree)
        pid = mount.pid
        assert isoctl("umount", str(tree), "--lazy").code == 0
        subprocess.run(["mount", "-t", "tmpfs", "other", str(tree)], check=True)
        os.kill(pid, signal.SIGTERM)
        until("the daemon ends", lambda: not Path(f"/proc/{pid}").exists())
        assert mounts_below(tree) == [str(tree)]
        subprocess.run(["umount", str(tree)], check=True)
        with pytest.raises(OSError):
            inside(os.listdir, ".")
        inside.close()

        mount.mount()
        inside = Worker(BOB, cwd=tree)
        assert isoctl("umount", str(tree), "--force").code == 0
        assert not mounts_below(tree)
        with pytest.raises(OSError):
            inside(os.listdir, ".")
    finally:
        inside.close()
        subprocess.run(["umount", "-l", str(tree)], capture_output=True, check=False)
