"""Calls by several processes at once: locks, maps, pipes, appends and running programs, trusted and suspect.

Two of a kind must have with each other what they have on the host; a trusted user and a suspect must not meet.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.calls import get, put
from support.locks import LOCKS, Lock, flock
from support.mount import ALICE, BOB, Mounted, Person

pytestmark = pytest.mark.mount

Begin = Callable[[int], Person]

#: What a worker process keeps open.
_open: dict[str, Any] = {}


def hold(key: str, path: str, flags: int = os.O_RDWR) -> None:
    _open[key] = os.open(path, flags)


def take(lock: Lock, key: str) -> None:
    lock(_open[key], fcntl.LOCK_EX)


def refused(call: Callable[..., Any], *args: Any) -> bool:
    try:
        call(*args)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES)
    return False


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("path", ["f", "d"])
def test_locks_hold_among_a_kind_and_not_across(mount: Mounted, person: Begin, lock: Any, path: str) -> None:
    """Both ways: whoever locks first, trusted user or suspect, the other is not held up. A shared directory is."""
    if path == "d" and lock is not flock:
        pytest.skip("directories can't be open for writing")
    bob, again, alice, twice = person(BOB), person(BOB), person(ALICE), person(ALICE)
    bob.write("f", "text")
    bob.mkdir("d")
    mount.ask("suspect", uid=ALICE, user="alice")
    flags = os.O_RDONLY if path == "d" else os.O_RDWR
    for first, second, others in ((bob, again, (alice, twice)), (alice, twice, (bob, again))):
        for number, one in enumerate((first, second, *others)):
            one(hold, "it", one.path(path), flags)
            if number == 0:
                one(take, lock, "it")
        assert second(refused, take, lock, "it")
        assert others[0](refused, take, lock, "it") == (path == "d")
        for one in (first, second, *others):
            one(os.close, one(_kept, "it"))


def _kept(key: str) -> Any:
    return _open[key]


def append_many(path: str, mark: str) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_APPEND)
    for number in range(200):
        os.write(opened, b"%s %d\n" % (mark.encode(), number))
    os.close(opened)


@pytest.mark.parametrize("uid", [BOB, ALICE])
def test_appends_of_several_processes_are_all_there(mount: Mounted, person: Begin, uid: int) -> None:
    bob = person(BOB)
    bob.write("log", "begin\n")
    mount.ask("suspect", uid=ALICE, user="alice")
    writers = [person(uid) for _ in range(3)]
    for number, one in enumerate(writers):
        one.begin(append_many, one.path("log"), f"writer-{number}")
    for one in writers:
        one.end()
    lines = writers[0].read("log").splitlines()
    assert len(lines) == len(set(lines)) == 601
    for number in range(3):
        mine = [line for line in lines if line.startswith(f"writer-{number} ")]
        assert mine == [f"writer-{number} {count}" for count in range(200)]
    assert (bob.read("log") == "begin\n") == (uid == ALICE)


def map_shared(path: str) -> None:
    hold("map", path)
    _open["memory"] = mmap.mmap(_open["map"], 8192)


def poke(at: int, data: bytes) -> None:
    _open["memory"][at : at + len(data)] = data


def peek(at: int, size: int) -> bytes:
    return bytes(_open["memory"][at : at + size])


def unmap() -> None:
    _open.pop("memory").close()
    os.close(_open.pop("map"))


@pytest.mark.parametrize("uid", [BOB, ALICE])
def test_shared_maps_of_two_processes(mount: Mounted, person: Begin, uid: int) -> None:
    """What one writes to memory the other reads, in memory and by calls; main's map stays as it is with a suspect's."""
    bob = person(BOB)
    bob.write("f", "." * 8192)
    mount.ask("suspect", uid=ALICE, user="alice")
    one, other = person(uid), person(uid)
    watcher = person(BOB if uid == ALICE else ALICE)
    for user in (one, other, watcher):
        user(map_shared, user.path("f"))
    one(poke, 5000, b"hello")
    assert other(peek, 5000, 5) == b"hello"
    assert other.read("f")[5000:5005] == "hello"
    other(os.pwrite, other(_kept, "map"), b"again", 10)
    assert one(peek, 10, 5) == b"again"
    if uid == ALICE:
        assert watcher(peek, 5000, 5) == watcher(peek, 10, 5) == b"....."
    for user in (one, other, watcher):
        user(unmap)
    assert ("hello" in bob.read("f")) == (uid == BOB)


def start(path: str) -> None:
    reader, writer = os.pipe()
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(reader, 0)
        os.dup2(told, 1)
        os.execv(path, [path])
    os.close(told)
    os.write(writer, b"x")
    assert os.read(ready, 1) == b"x"  # it runs, and waits for more
    _open.update(child=pid, writer=writer, reader=reader, ready=ready)


def stop() -> None:
    for key in ("writer", "reader", "ready"):
        os.close(_open.pop(key))
    os.waitpid(_open.pop("child"), 0)


def busy(path: str) -> str:
    try:
        os.close(os.open(path, os.O_WRONLY))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


@pytest.mark.parametrize("uid", [BOB, ALICE])
def test_running_programs_are_busy(mount: Mounted, person: Begin, uid: int) -> None:
    """Main's for everybody who has it, a suspect as well; what a suspect runs holds up no trusted user."""
    bob = person(BOB)
    bob(shutil.copy, "/bin/cat", bob.path("program"))
    bob.chmod("program", 0o777)
    mount.ask("suspect", uid=ALICE, user="alice")
    one, other = person(uid), person(BOB if uid == ALICE else ALICE)
    one(start, one.path("program"))
    try:
        assert one(busy, one.path("program")) == "ETXTBSY"
        assert other(busy, other.path("program")) == ("ETXTBSY" if uid == BOB else "done")
    finally:
        one(stop)
    assert one(busy, one.path("program")) == "done"


def test_a_replaced_program_runs_for_the_suspect_alone(mount: Mounted, person: Begin) -> None:
    bob, alice = person(BOB), person(ALICE)
    bob.write("tool", "#!/bin/sh\necho honest\n")
    bob.chmod("tool", 0o755)
    mount.ask("suspect", uid=ALICE, user="alice")
    alice.save("tool", "#!/bin/sh\necho evil\n")
    alice.chmod("tool", 0o755)
    for _ in range(2):
        assert alice(_output, alice.path("tool")) == "evil\n"
        assert bob(_output, bob.path("tool")) == "honest\n"


def _output(path: str) -> str:
    with os.popen(path) as pipe:
        return pipe.read()


def listen(path: str) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    server.settimeout(30)
    _open["server"] = server


def answer() -> bytes:
    client, _ = _open["server"].accept()
    with client:
        return bytes(client.recv(100))


def call(path: str, text: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.send(text)


@pytest.mark.parametrize("uid", [BOB, ALICE])
def test_sockets_and_pipes_between_processes(mount: Mounted, person: Begin, uid: int) -> None:
    mount.ask("suspect", uid=ALICE, user="alice")
    one, other = person(uid), person(uid)
    one(listen, one.path("socket"))
    other(call, other.path("socket"), b"hello")
    assert one(answer) == b"hello"
    one(os.mkfifo, one.path("pipe"))
    one.begin(get, one.path("pipe"))
    other(put, other.path("pipe"), "through")
    assert one.end() == "through"
    assert person(BOB).exists("pipe") == (uid == BOB)


def blocks(path: str) -> int:
    return os.stat(path).st_blocks * 512


def test_holes_outlive_copies_and_merges(mount: Mounted, person: Begin) -> None:
    """A sparse file beyond 4 GiB takes no space in a version, and none in main after the merge."""
    bob, alice = person(BOB), person(ALICE)
    bob.write("sparse", "begin")
    bob(os.truncate, bob.path("sparse"), 5 << 30)
    mount.ask("suspect", uid=ALICE, user="alice")
    alice(_write_far, alice.path("sparse"), 4500 << 20)
    assert alice(_read_far, alice.path("sparse"), 4500 << 20) == b"far"
    assert alice(os.path.getsize, alice.path("sparse")) == 5 << 30
    assert bob(_read_far, bob.path("sparse"), 4500 << 20) == b"\0\0\0"
    assert alice(blocks, alice.path("sparse")) < 1 << 20
    assert not mount.ask("innocent", uid=ALICE)["conflicts"]
    assert bob(_read_far, bob.path("sparse"), 4500 << 20) == b"far"
    assert bob(blocks, bob.path("sparse")) < 1 << 20


def _write_far(path: str, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"far")


def _read_far(path: str, at: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(at)
        return file.read(3)


def set_capability(path: str) -> None:
    os.setxattr(path, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))


@pytest.mark.parametrize("uid", [BOB, ALICE])
@pytest.mark.parametrize("change", ["write", "truncate", "open truncating", "chown"])
def test_a_change_takes_capabilities(mount: Mounted, person: Begin, uid: int, change: str) -> None:
    root, bob = person(0), person(BOB)
    one = person(uid)
    bob(shutil.copy, "/bin/true", bob.path("program"))
    root(os.chown, root.path("program"), uid, -1)
    root(set_capability, root.path("program"))
    mount.ask("suspect", uid=ALICE, user="alice")
    assert "security.capability" in one(os.listxattr, one.path("program"))
    path = one.path("program")
    if change == "write":
        one.append("program", "x")
    elif change == "truncate":
        one(os.truncate, path, 5)
    elif change == "open truncating":
        one.write("program", "x")
    else:
        one(os.chown, path, uid, -1)
    assert "security.capability" not in one(os.listxattr, path)
    assert ("security.capability" in bob(os.listxattr, bob.path("program"))) == (uid == ALICE)


def test_numbers_stay_over_a_rename_and_a_remount(mount: Mounted, person: Begin) -> None:
    """The inode numbers of what only the suspect has."""
    bob, alice = person(BOB), person(ALICE)
    bob.write("main", "x")
    mount.ask("suspect", uid=ALICE, user="alice")
    alice.write("new", "x")
    number = alice(os.stat, alice.path("new")).st_ino
    alice.rename("new", "renamed")
    assert alice(os.stat, alice.path("renamed")).st_ino == number
    alice.rename("renamed", "main")
    assert alice(os.stat, alice.path("main")).st_ino == number
    mount.umount()
    mount.mount()
    assert alice(os.stat, alice.path("main")).st_ino == number
    assert stat.S_ISREG(bob(os.stat, bob.path("main")).st_mode)


def test_a_file_takes_the_place_of_a_directory(mount: Mounted, person: Begin, place: Path) -> None:
    """Of one of main's that the suspect removed; by a new file, by a link, and by a rename."""
    bob, alice = person(BOB), person(ALICE)
    for name in ("one", "two", "three"):
        bob.mkdir(name)
    for name in ("linked", "moved"):
        bob.write(name, name)
    mount.ask("suspect", uid=ALICE, user="alice")
    for name in ("one", "two", "three"):
        alice.rmdir(name)
    alice.write("one", "new")
    alice.link("linked", "two")
    alice.rename("moved", "three")
    assert not mount.ask("innocent", uid=ALICE)["conflicts"]
    assert bob.tree() == {"linked": "linked", "one": "new", "three": "moved", "two": "linked"}


def test_the_times_of_a_working_directory(mount: Mounted, person: Begin) -> None:
    """Set by `.`, a suspect's are seen by `.` and by name, and by nobody else."""
    bob, alice = person(BOB), person(ALICE)
    alice.mkdir("d")
    alice.utime("d", 5)
    mount.ask("suspect", uid=ALICE, user="alice")
    alice(os.chdir, alice.path("d"))
    alice(os.utime, ".", ns=(7, 7))
    assert alice(os.stat, ".").st_mtime_ns == 7
    assert alice(_settled, alice.path("d")) == 7
    assert bob.status("d")[-1] == 5
    alice(os.chdir, "/")


def _settled(path: str) -> int:
    """The name expires a moment after the call that asked for it has been answered."""
    for _ in range(10_000):
        if (at := os.stat(path).st_mtime_ns) == 7:
            break
    return at
