"""Which processes have a file of the mount open for writing, or mapped; without touching the mount."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: Of <asm/unistd.h>, the same on all machines; Python has no name for it.
_PIDFD_GETFD = 438

_MAP_LINE = re.compile(rb"[0-9a-f]+-[0-9a-f]+ (\S+) [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) (\d+)")


@dataclass(frozen=True, slots=True)
class Holder:
    """A process and a file that it has open or mapped for writing, or has locked.

    `uids` are the process's real, effective, saved and file system uid, `inode` the file's.
    """

    pid: int
    program: str
    path: str
    uids: frozenset[int]
    inode: int


@contextlib.contextmanager
def descriptor_of(pid: int, number: int) -> Iterator[int]:
    """A descriptor of another process, the very one and not its file opened anew: OSError if that cannot be had."""
    process = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        taken = libc.syscall(_PIDFD_GETFD, process, ctypes.c_int(number), 0)
        if taken < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(process)
    try:
        yield taken
    finally:
        os.close(taken)


def holders_of(mount: str, inodes: Mapping[int, str]) -> list[Holder]:
    """Who has one of these inodes of a mount open for reading and writing, or mapped shared and writable.

    `inodes` maps inode numbers to paths, which are given back. Reads /proc only: nothing enters the mount.
    """
    device, mount_ids = _identity(mount)
    return _holders(inodes, lambda pid: _open_by(pid, mount_ids) | _mapped_by(pid, device))


def mappers_of(mount: str, inodes: Mapping[int, str]) -> list[Holder]:
    """Who has one of these inodes mapped in any way: a private map writes nothing, but keeps the file open."""
    device, _ = _identity(mount)
    return _holders(inodes, lambda pid: _mapped_by(pid, device, private=True))


def lockers_of(mount: str, inodes: Mapping[int, str]) -> list[Holder]:
    """Who holds a lock on one of these inodes of a mount, by `flock` or `fcntl`; as `holders_of`.

    Who has a file mapped keeps the locks of a descriptor that is closed: of a lock that no descriptor has, who maps the
    file is a holder.
    """
    device, mount_ids = _identity(mount)
    found = _holders(inodes, lambda pid: _open_by(pid, mount_ids, locked=True))
    hidden = {inode: inodes[inode] for inode in _locked_by_maps(device) & inodes.keys()}
    return found + (_holders(hidden, lambda pid: _mapped_by(pid, device, private=True)) if hidden else [])


def _locked_by_maps(device: tuple[int, int]) -> set[int]:
    """The inodes of a device with a lock that no descriptor of any process has."""
    locks = Counter(lock for lock in map(_lock, _read("/proc/locks").splitlines()) if lock[:1] == (device,))
    for pid in os.listdir("/proc") if locks else ():
        if pid.isdigit():
            with contextlib.suppress(OSError):
                for number in os.listdir(f"/proc/{pid}/fdinfo"):
                    lines = _read(f"/proc/{pid}/fdinfo/{number}").splitlines()
                    locks.subtract(_lock(line.partition(b":")[2]) for line in lines if line.startswith(b"lock:"))
    return {lock[1] for lock, count in locks.items() if count > 0}


def _lock(line: bytes) -> tuple[Any, ...]:
    """A lock as the kernel writes it: device and inode, and all that tells it from others; empty for who waits."""
    fields = line.split()[1:]
    if len(fields) < 5 or fields[0] == b"->":
        return ()
    major, minor, inode = fields[4].split(b":")
    return ((int(major, 16), int(minor, 16)), int(inode), *fields[:4], *fields[5:])


def _holders(inodes: Mapping[int, str], held_by: Callable[[str], set[int]]) -> list[Holder]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                held = held_by(name) & inodes.keys()
                if held:
                    program, uids = _who(name)
                    found += [Holder(int(name), program, inodes[i], uids, i) for i in sorted(held)]
    return found


def _who(pid: str) -> tuple[str, frozenset[int]]:
    program = _read(f"/proc/{pid}/comm").decode(errors="replace").strip()
    line = next(line for line in _read(f"/proc/{pid}/status").splitlines() if line.startswith(b"Uid:"))
    return program, frozenset(map(int, line.split()[1:]))


def mapped(mount: str, inodes: Iterable[int]) -> set[int]:
    """Which of these inodes of a mount some process has mapped shared and writable."""
    device, _ = _identity(mount)
    found: set[int] = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                found |= _mapped_by(name, device)
    return found & set(inodes)


def device_of(mount: str) -> tuple[int, int]:
    """The device number of a mount, as the kernel tells it of locks and mappings: (0, 0) where nobody sees it."""
    return _identity(mount)[0]


def _identity(mount: str) -> tuple[tuple[int, int], set[int]]:
    """The device number of a mount and the ids that it has in the namespaces of processes."""
    device, ids = (0, 0), set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for line in _read(f"/proc/{name}/mountinfo").splitlines():
                fields = line.split()
                if b"fuse.isofs" in fields and _unescaped(fields[4]) == os.fsencode(mount):
                    major, minor = fields[2].split(b":")
                    device = (int(major), int(minor))
                    ids.add(int(fields[0]))
    return device, ids


def _unescaped(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), field)


def _open_by(pid: str, mount_ids: set[int], *, locked: bool = False) -> set[int]:
    """The inodes that a process has open for reading and writing, or, in whatever way, with a lock on them."""
    found = set()
    for number in os.listdir(f"/proc/{pid}/fdinfo"):
        with contextlib.suppress(OSError):
            info = dict(
                line.split(b":", 1) for line in _read(f"/proc/{pid}/fdinfo/{number}").splitlines() if b":" in line
            )
            counts = b"lock" in info if locked else int(info[b"flags"], 8) & os.O_ACCMODE == os.O_RDWR
            if counts and int(info.get(b"mnt_id", b"-1")) in mount_ids and b"ino" in info:
                found.add(int(info[b"ino"]))
    return found


def _mapped_by(pid: str, device: tuple[int, int], *, private: bool = False) -> set[int]:
    found = set()
    for line in _read(f"/proc/{pid}/maps").splitlines():
        match = _MAP_LINE.match(line)
        if match and (int(match[2], 16), int(match[3], 16)) == device and (private or match[1].endswith(b"s")):
            found.add(int(match[4]))
    return found


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def kill(pids: Iterable[int]) -> None:
    """SIGKILL these processes; those that are gone are fine."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
