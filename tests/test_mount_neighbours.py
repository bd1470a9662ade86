"""What trusted users notice of a suspect who works in the same directories: events, locks, listings and time."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.calls import EXCHANGE, rename2
from support.locks import Lock, flock, ofd, posix
from support.mount import ALICE, BOB, Mounted, Person

pytestmark = pytest.mark.mount

Begin = Callable[[int], Person]

_libc = ctypes.CDLL(None, use_errno=True)

#: What a worker process keeps open.
_open: dict[str, Any] = {}

_EVENTS = {
    0x1: "access", 0x2: "modify", 0x4: "attrib", 0x8: "close write", 0x10: "close", 0x20: "open", 0x40: "moved from",
    0x80: "moved to", 0x100: "create", 0x200: "delete", 0x400: "delete self", 0x800: "move self", 0x8000: "ignored",
}  # fmt: skip


def watch(*paths: str) -> None:
    _open["events"] = _libc.inotify_init1(os.O_NONBLOCK)
    for path in paths:
        assert _libc.inotify_add_watch(_open["events"], os.fsencode(path), 0xFFF) > 0


def events() -> list[tuple[int, str, str]]:
    """What happened since: the number of the watch, what, and the name."""
    found = []
    try:
        data = os.read(_open["events"], 1 << 20)
    except BlockingIOError:
        data = b""
    while data:
        number, mask, _, length = struct.unpack_from("iIII", data)
        name = data[16 : 16 + length].rstrip(b"\0").decode()
        found.append((number, _EVENTS[mask & 0xFFFF], name))
        data = data[16 + length :]
    return found


def test_what_a_watcher_is_told(mount: Mounted, person: Begin) -> None:
    """Of a shared directory what is done to which name, though none of it is done in main. Of main's files nothing."""
    bob, alice = person(BOB), person(ALICE)
    bob.mkdir("d")
    for name in ("read", "written", "moved", "removed", "linked", "swapped"):
        bob.write(f"d/{name}", "text")
    alice.write("d/hers", "text")
    mount.ask("suspect", uid=ALICE, user="alice")
    bob(watch, bob.path("d"), *(bob.path(f"d/{name}") for name in bob.names("d")))

    def told(call: Callable[..., Any], *args: Any) -> list[str]:
        call(*args)
        found = bob(events)
        assert all(number == 1 for number, _, _ in found), found
        return [f"{what} {name}" for _, what, name in found]

    assert told(alice.read, "d/read") == ["open read", "access read", "close read"]
    for _ in range(2):
        assert told(alice.write, "d/written", "x") == ["open written", "modify written", "close write written"]
    assert told(alice.rename, "d/moved", "d/to") == ["moved from moved", "moved to to"]
    assert told(alice.remove, "d/removed") == ["delete removed"]
    assert told(alice.chmod, "d/hers", 0o600) == ["attrib hers"]
    assert told(alice.link, "d/linked", "d/too") == ["create too"]
    assert told(alice.mkdir, "d/new") == ["create new", "attrib new"]
    exchanged = told(alice, rename2, alice.path("d/swapped"), alice.path("d/written"), EXCHANGE)
    assert sorted(exchanged) == [
        "moved from swapped",
        "moved from written",
        "moved to swapped",
        "moved to written",
    ]
    assert bob.names("d") == ["hers", "linked", "moved", "read", "removed", "swapped", "written"]


def hold(path: str, flags: int) -> None:
    _open["file"] = os.open(path, flags)


def lock(how: Lock, kind: int) -> bool:
    """Try to take a lock on what is held open; whether it was given."""
    try:
        how(_open["file"], kind)
    except BlockingIOError:
        return False
    return True


def leave() -> None:
    os.close(_open.pop("file"))


def wait_for_lock(how: Lock) -> None:
    """Take a lock on what is held open, as soon as it can be had."""
    while not lock(how, fcntl.LOCK_EX):
        time.sleep(0.01)


def ended(one: Person) -> bool:
    """Wait until a process has ended, which lets go of its files before."""
    found = os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
    return found is not None and found.si_code == os.CLD_KILLED


WAYS = pytest.mark.parametrize(
    ("how", "flags"), [(flock, os.O_RDONLY), (flock, os.O_WRONLY), (posix, os.O_WRONLY), (ofd, os.O_WRONLY)]
)


@WAYS
def test_a_lock_taken_later_on_what_was_open_before_holds_nobody_up(
    mount: Mounted, person: Begin, how: Lock, flags: int
) -> None:
    """Whoever takes it is ended; what the user has open besides, also on the same file, goes on."""
    bob, alice, bystander = person(BOB), person(ALICE), person(ALICE)
    bob.write("f", "text")
    for one in (alice, bystander):
        one(hold, one.path("f"), flags)
    mount.ask("suspect", uid=ALICE, user="alice")
    bob(hold, bob.path("f"), os.O_RDWR)
    assert alice(lock, how, fcntl.LOCK_EX)
    bob(wait_for_lock, how)
    assert ended(alice)
    assert bystander.alive
    told = (mount.backing / ".isofs" / "log").read_text()
    assert told.count(f"alice locked 'f', open since before: pid {alice.pid} is killed") == 1


def test_a_lock_for_reading_keeps_writers_out_as_well(mount: Mounted, person: Begin) -> None:
    bob, alice = person(BOB), person(ALICE)
    bob.write("f", "text")
    alice(hold, alice.path("f"), os.O_RDONLY)
    mount.ask("suspect", uid=ALICE, user="alice")
    bob(hold, bob.path("f"), os.O_RDWR)
    assert alice(lock, flock, fcntl.LOCK_SH)
    bob(wait_for_lock, flock)
    assert ended(alice)


@WAYS
def test_locks_on_what_was_open_before(mount: Mounted, person: Begin, how: Lock, flags: int) -> None:
    """A channel: the kernel asks nobody for a lock, and what was open before the suspicion stays on main's node.

    What the suspect opens again is on a node of its own, and its end frees the lock.
    """
    bob, alice, again = person(BOB), person(ALICE), person(ALICE)
    bob.write("f", "text")
    alice(hold, alice.path("f"), flags)
    mount.ask("suspect", uid=ALICE, user="alice", handles="leave")
    bob(hold, bob.path("f"), os.O_RDWR)
    again(hold, again.path("f"), flags)
    assert again(lock, how, fcntl.LOCK_EX)
    assert bob(lock, how, fcntl.LOCK_EX), "a lock on the suspect's own version"
    bob(lock, how, fcntl.LOCK_UN)
    assert alice(lock, how, fcntl.LOCK_EX)
    assert not bob(lock, how, fcntl.LOCK_EX), "the channel is gone: take it from docs/threat-model.md"
    alice(leave)
    bob(wait_for_lock, how)
    assert alice.alive


def fill(path: str, size: int) -> None:
    with open(path, "wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))


def look(path: str) -> None:
    """A call that reaches the daemon each time."""
    os.getxattr(path, "user.mark")


#: Bytes that take long enough to copy for others to be answered meanwhile.
SIZE = 512 << 20


@pytest.mark.parametrize("truncating", [False, True], ids=["append", "truncate"])
def test_nobody_waits_for_a_copy(mount: Mounted, person: Begin, truncating: bool) -> None:
    """While a suspect's first change copies a big file, others are answered, also the suspect's other processes."""
    bob, alice, again = person(BOB), person(ALICE), person(ALICE)
    bob(fill, bob.path("big"), SIZE)
    bob(os.chmod, bob.path("big"), 0o666)
    bob.write("small", "text")
    bob(os.setxattr, bob.path("small"), "user.mark", b"1")
    mount.ask("suspect", uid=ALICE, user="alice")
    staging = mount.backing / ".isofs" / "staging"
    if truncating:
        alice.begin(os.truncate, alice.path("big"), SIZE - 1)
    else:
        alice.begin(_append, alice.path("big"))
    while not os.listdir(staging):
        assert alice.working, "the copy was not seen"
    answered = 0
    while alice.working:
        for one in (bob, again):
            one(look, one.path("small"))
        answered += alice.working
    alice.end()
    assert answered > 4  # on a machine that is busy with other tests; some 500 on one that is not
    assert bob(os.path.getsize, bob.path("big")) == SIZE


def _append(path: str) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(opened, b"x")
    os.close(opened)
