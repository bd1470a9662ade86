"""What the mount cannot do, and the host can: the table of docs/conformance.md. A limit that is gone fails its test."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import select
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.calls import lstat, put, rename2
from support.mount import ALICE, BOB, DAVE, Mounted, Person, Worker

pytestmark = pytest.mark.mount

Begin = Callable[[int], Person]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)

MIB = 1 << 20


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _ioctl(number: int, argument: bytes) -> int:
    opened = os.open("f", os.O_RDWR)
    try:
        return len(fcntl.ioctl(opened, number, argument))
    finally:
        os.close(opened)


def _with(flags: int, use: Callable[[int], Any]) -> Any:
    opened = os.open("f", flags)
    try:
        return use(opened)
    finally:
        os.close(opened)


def fallocate(mode: int) -> int:
    return int(_with(os.O_RDWR, lambda f: _checked(_libc.fallocate(f, mode, 0, 4096))))


def temporary_file() -> int:
    os.close(os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600))
    return 0


def seek_data() -> int:
    """Of a file with data at the beginning and at its end, and a hole between."""
    return int(_with(os.O_RDONLY, lambda f: os.lseek(f, 8192, os.SEEK_DATA)))


def extents() -> int:
    return _ioctl(0xC020660B, struct.pack("QQIIII", 0, 1 << 30, 0, 0, 0, 0))


def inode_flags() -> int:
    return _ioctl(0x80086601, bytes(8))


def project() -> int:
    return _ioctl(0x801C581F, bytes(28))


def unaligned_direct_write() -> int:
    return int(_with(os.O_RDWR | os.O_DIRECT, lambda f: os.pwrite(f, b"abc", 1)))


def far_seek() -> int:
    return int(_with(os.O_RDONLY, lambda f: os.lseek(f, 1 << 60, os.SEEK_SET)))


def read_without_waiting() -> int:
    with open("f", "rb") as file:
        file.read()
        return os.preadv(file.fileno(), [bytearray(10)], 0, os.RWF_NOWAIT)


def whiteout() -> list[Any]:
    put("w")
    rename2("w", "w2", 4)
    return lstat("w")


def without_a_trace() -> int:
    return int(_with(os.O_RDONLY, lambda f: os.preadv(f, [bytearray(10)], 0, 0x80)))


def told(field: int) -> int:
    """Whether statx tells a field."""
    buffer = ctypes.create_string_buffer(256)
    _checked(_libc.statx(-100, b"f", 0, field, buffer))
    return int(struct.unpack_from("I", buffer)[0]) & field


def at_the_end() -> int:
    """The size after a write at the beginning through a handle that appends (RWF_NOAPPEND)."""
    return int(_with(os.O_RDWR | os.O_APPEND, lambda f: (os.pwritev(f, [b"y"], 0, 0x20), os.fstat(f).st_size)[1]))


def watched_by_epoll() -> int:
    with select.epoll() as watching:
        _with(os.O_RDONLY, watching.register)
    return 0


def through_a_fifo() -> int:
    """The modification time of a FIFO that something was written to."""
    os.mkfifo("fifo")
    os.utime("fifo", ns=(5, 6))
    opened = os.open("fifo", os.O_RDWR)
    os.write(opened, b"x")
    os.close(opened)
    return os.stat("fifo").st_mtime_ns


def set_ids_after_a_mapped_write() -> int:
    opened = os.open("program", os.O_RDWR)
    with mmap.mmap(opened, 4096) as memory:
        memory[0] = 1
        memory.flush()
    os.close(opened)
    return stat.S_IMODE(os.stat("program").st_mode)


#: The call, what the mount answers (an errno or a value), and whether another than the owner makes it.
LIMITS: dict[str, tuple[Callable[[], Any], int, bool]] = {
    "fallocate": (lambda: fallocate(0), -errno.EOPNOTSUPP, False),
    "fallocate keeping the size": (lambda: fallocate(1), -errno.EOPNOTSUPP, False),
    "punching a hole": (lambda: fallocate(3), -errno.EOPNOTSUPP, False),
    "zeroing": (lambda: fallocate(0x10), -errno.EOPNOTSUPP, False),
    "O_TMPFILE": (temporary_file, -errno.EOPNOTSUPP, False),
    "SEEK_DATA": (seek_data, 8192, False),
    "FIEMAP": (extents, -errno.EOPNOTSUPP, False),
    "inode flags": (inode_flags, -errno.ENOTTY, False),
    "project id": (project, -errno.ENOTTY, False),
    "unaligned O_DIRECT": (unaligned_direct_write, 3, False),
    "a far seek": (far_seek, 1 << 60, False),
    "RWF_NOWAIT": (read_without_waiting, -errno.EOPNOTSUPP, False),
    "RWF_DONTCACHE": (without_a_trace, -errno.EOPNOTSUPP, False),
    "RENAME_WHITEOUT": (whiteout, -errno.EINVAL, False),
    "birth time": (lambda: told(0x800), 0, False),
    "alignment of direct I/O": (lambda: told(0x2000), 0, False),
    "RWF_NOAPPEND": (at_the_end, MIB + 4, False),
    "epoll": (watched_by_epoll, 0, False),
    "times of a FIFO": (through_a_fifo, 6, False),
    "set-id bits and maps": (set_ids_after_a_mapped_write, 0o777, True),
    "sizes in bits": (lambda: os.pathconf("f", "PC_FILESIZEBITS"), 32, False),
    "most names": (lambda: os.pathconf("f", "PC_LINK_MAX"), 127, False),
}


def prepare(directory: str) -> None:
    os.mkdir(directory)
    os.chdir(directory)
    os.chmod(".", 0o777)
    for name in ("f", "set", "program"):
        put(name, "x" * 8192)
        os.chown(name, ALICE, ALICE)
    with open("f", "r+b") as file:
        file.seek(MIB)
        file.write(b"end")
    os.chmod("set", 0o2664)
    os.chmod("program", 0o6777)
    os.chdir("/")


def attempt(name: str, directory: str) -> Any:
    os.chdir(directory)
    try:
        return LIMITS[name][0]()
    except OSError as error:
        return -(error.errno or 0)
    finally:
        os.chdir("/")


@pytest.mark.parametrize("suspect", [False, True], ids=["trusted", "suspect"])
@pytest.mark.parametrize("name", LIMITS)
def test_a_limit(mount: Mounted, place: Path, name: str, suspect: bool) -> None:
    _, limited, by_another = LIMITS[name]
    uid = DAVE if by_another else ALICE
    root, one = Worker(0), Worker(uid)
    try:
        for base in (place, mount.path):
            root(prepare, str(base / "work"))
        if suspect:
            mount.ask("suspect", uid=uid, user="somebody")
        on_host = one(attempt, name, str(place / "work"))
        found = one(attempt, name, str(mount.path / "work"))
    finally:
        one.close()
        root.close()
    assert found == limited, "the limit is gone: take it from docs/conformance.md"
    if on_host == limited:
        pytest.skip("the host has the same limit")


@pytest.mark.parametrize("suspect", [False, True], ids=["trusted", "suspect"])
def test_what_programs_fall_back_to(mount: Mounted, suspect: bool) -> None:
    """The C library's posix_fallocate, the kernel's copy_file_range, O_DIRECT and both kinds of maps work."""
    root = Worker(0)
    root(prepare, str(mount.path / "work"))
    root.close()
    if suspect:
        mount.ask("suspect", uid=ALICE, user="alice")
    one = Worker(ALICE)
    try:
        assert one(_fall_back, str(mount.path / "work"))
    finally:
        one.close()


def _fall_back(directory: str) -> bool:
    os.chdir(directory)
    with open("f", "r+b") as file, open("copy", "w+b") as copy:
        os.posix_fallocate(file.fileno(), 0, 3 * MIB)
        assert os.fstat(file.fileno()).st_size == 3 * MIB
        assert os.copy_file_range(file.fileno(), copy.fileno(), 4096, 0, 0) == 4096
        assert copy.read() == b"x" * 4096
    opened = os.open("f", os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as buffer:
        buffer[:] = b"z" * 4096
        assert os.pwrite(opened, buffer, 4096) == 4096
        buffer[:] = bytes(4096)
        assert os.preadv(opened, [buffer], 4096) == 4096
        assert buffer[:] == b"z" * 4096
    os.close(opened)
    assert stat.S_ISREG(os.stat("f").st_mode)
    os.chdir("/")
    return True


def _times(name: str) -> tuple[int, int]:
    at = os.stat(name)
    return at.st_atime_ns, at.st_ctime_ns


def _read_old(name: str) -> int:
    """Read a file that was changed after it was last read; its access time."""
    os.utime(name, ns=(10**17, 10**17 + 1))
    with open(name, "rb") as file:
        file.read()
    return os.stat(name).st_atime_ns


def test_a_cached_read_moves_no_access_time(mount: Mounted, place: Path, person: Begin) -> None:
    """Of a trusted user's; a suspect's own node keeps no pages, and the daemon hears of each reading."""
    bob = person(BOB)
    for base in (place, mount.path):
        base.chmod(0o777)
        bob(put, str(base / "f"), "text")
        bob(_read_old, str(base / "f"))
    assert bob(_read_old, str(place / "f")) > 10**18
    assert bob(_read_old, str(mount.path / "f")) == 10**17, "the limit is gone: take it from docs/conformance.md"


def test_a_suspects_reading_moves_no_access_time(mount: Mounted, person: Begin) -> None:
    bob, alice = person(BOB), person(ALICE)
    bob.write("f", "text")
    before = bob(_times, bob.path("f"))
    mount.ask("suspect", uid=ALICE, user="alice")
    assert alice.read("f") == "text"
    assert alice(_times, alice.path("f"))[0] == before[0], "the limit is gone: take it from docs/conformance.md"
    assert bob(_times, bob.path("f")) == before


def _list_old(name: str) -> int:
    """List a directory that was changed after it was last read; its access time."""
    os.mkdir(name)
    os.utime(name, ns=(10**17, 10**17 + 1))
    os.listdir(name)
    return os.stat(name).st_atime_ns


def test_a_suspects_listing_moves_no_access_time(mount: Mounted, person: Begin) -> None:
    """Not even of a directory of the suspect's own; a trusted user's does."""
    bob, alice = person(BOB), person(ALICE)
    mount.ask("suspect", uid=ALICE, user="alice")
    assert alice(_list_old, alice.path("hers")) == 10**17, "the limit is gone: take it from docs/conformance.md"
    assert bob(_list_old, bob.path("his")) > 10**18


def _changed_beside_a_path_descriptor(name: str) -> int:
    """Change a file by its name while a descriptor for paths only leads to it; how looking at that ends."""
    opened = os.open(name, os.O_PATH)
    put(name, "more")
    try:
        return _outcome(os.fstat, opened)
    finally:
        os.close(opened)


def test_a_suspects_path_descriptor_ends_with_the_first_change(mount: Mounted, person: Begin) -> None:
    """One of main's file; and it never leads to what the suspect made of it."""
    bob, alice = person(BOB), person(ALICE)
    for one in (bob, alice):
        one.write(f"{one.uid}", "text")
    mount.ask("suspect", uid=ALICE, user="alice")
    assert bob(_changed_beside_a_path_descriptor, bob.path(f"{BOB}")) == 0
    found = alice(_changed_beside_a_path_descriptor, alice.path(f"{ALICE}"))
    assert found == errno.ESTALE, "the limit is gone: take it from docs/conformance.md"
    assert alice(_changed_beside_a_path_descriptor, alice.path(f"{ALICE}")) == 0


def _told_of_own_changes(name: str) -> list[int]:
    """What inotify tells a process that watches a file and changes it."""
    watch = _checked(_libc.inotify_init1(os.O_NONBLOCK))
    _checked(_libc.inotify_add_watch(watch, os.fsencode(name), 0x2 | 0x4))
    os.chmod(name, 0o600)
    put(name, "more")
    try:
        events = os.read(watch, 4096)
    except BlockingIOError:
        events = b""
    os.close(watch)
    return [mask for _, mask, _, _ in struct.iter_unpack("iIII", events)]


def test_a_suspect_that_watches_a_file_of_main_is_not_told_of_its_own_changes(mount: Mounted, person: Begin) -> None:
    """The watch is on main's node. A second one, set after the first change, is told."""
    bob, alice = person(BOB), person(ALICE)
    for name in ("f", "g"):
        alice.write(name, "text")
    mount.ask("suspect", uid=ALICE, user="alice")
    told = alice(_told_of_own_changes, alice.path("f"))
    assert told == [], "the limit is gone: take it from docs/conformance.md"
    assert 0x2 in alice(_told_of_own_changes, alice.path("f"))
    assert bob.read("f") == "text"


def test_a_directory_that_a_suspect_renames_keeps_its_change_time(mount: Mounted, person: Begin) -> None:
    bob, alice = person(BOB), person(ALICE)
    bob(os.mkdir, bob.path("d"))
    before = bob(_times, bob.path("d"))[1]
    mount.ask("suspect", uid=ALICE, user="alice")
    alice.rename("d", "e")
    assert alice(_times, alice.path("e"))[1] == before, "the limit is gone: take it from docs/conformance.md"
    assert bob(_times, bob.path("d"))[1] == before


def _outcome(call: Callable[..., object], *args: object) -> int:
    try:
        call(*args)
    except OSError as error:
        return error.errno or 0
    return 0


def test_the_root_keeps_its_attributes(mount: Mounted, person: Begin) -> None:
    """Its owner may not change them as a suspect: there is one inode for all."""
    alice, root = person(ALICE), str(mount.path)
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", kind, 7, 0) for kind in (1, 4, 32))
    calls: tuple[tuple[Any, ...], ...] = (
        (os.chmod, root, 0o700),
        (os.chown, root, -1, ALICE),
        (os.setxattr, root, "system.posix_acl_access", acl),
    )
    before = os.stat(root)
    os.chown(root, ALICE, ALICE)
    try:
        assert [alice(_outcome, *call) for call in calls] == [0, 0, 0]
        mount.ask("suspect", uid=ALICE, user="alice")
        assert [alice(_outcome, *call) for call in calls] == [errno.EPERM] * 3
        assert alice(_outcome, os.utime, root) == 0
    finally:
        os.chown(root, before.st_uid, before.st_gid)
        os.chmod(root, stat.S_IMODE(before.st_mode))


def _lock_directory(path: str) -> int:
    return _outcome(fcntl.flock, os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_on_a_shared_directory_is_everybodys(mount: Mounted, person: Begin) -> None:
    bob, alice = person(BOB), person(ALICE)
    bob(os.mkdir, bob.path("d"))
    mount.ask("suspect", uid=ALICE, user="alice")
    assert alice(_lock_directory, alice.path("d")) == 0
    found = bob(_lock_directory, bob.path("d"))
    assert found == errno.EWOULDBLOCK, "the limit is gone: take it from docs/conformance.md"


def _differing(path: str) -> list[str]:
    """The names of a directory with another inode number in a listing than `stat` tells."""
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.inode() != os.lstat(entry.path).st_ino)


def test_a_listing_tells_other_numbers_of_what_a_suspect_changed(mount: Mounted, person: Begin) -> None:
    bob, alice = person(BOB), person(ALICE)
    for name in ("changed", "mains"):
        bob.write(name, "text")
    mount.ask("suspect", uid=ALICE, user="alice")
    alice.append("changed", "more")
    alice.write("new", "text")
    assert bob(_differing, bob.path("")) == []
    assert alice(_differing, alice.path("")) == ["changed"], "the limit is gone: take it from docs/conformance.md"
