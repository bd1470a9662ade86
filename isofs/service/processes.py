"""Which processes have a file of the mount open for writing, or mapped; without touching the mount."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import struct
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: Of <asm/unistd.h>, the same on all machines; Python has no name for it.
_PIDFD_GETFD = 438

#: Of <fcntl.h>, and where the device is in struct statx.
_AT_STATX_DONT_SYNC, _STX_DEV = 0x4000, 136

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
    device = device_of(mount)
    return _holders(inodes, lambda pid: _open_by(pid, device, inodes) | _mapped_by(pid, device))


def writing(mount: str, uid: int) -> list[tuple[Holder, int]]:
    """What the processes of a user could write to, and how: O_WRONLY, or O_RDWR as well for what is mapped."""
    device, found = device_of(mount), []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            program, uids = _who(name)
            if uid in uids:
                ways = _written_by(name, device)
                found += [(Holder(int(name), program, "", uids, inode), way) for inode, way in sorted(ways)]
    return found


def _written_by(pid: str, device: tuple[int, int]) -> set[tuple[int, int]]:
    found = set()
    for number in os.listdir(f"/proc/{pid}/fdinfo"):
        with contextlib.suppress(OSError):
            info = _of_descriptor(pid, number)
            flags = int(info[b"flags"], 8)
            way = flags & os.O_ACCMODE
            if way != os.O_RDONLY and not flags & os.O_PATH and _device_at(f"/proc/{pid}/fd/{number}") == device:
                found.add((int(info[b"ino"]), way))
    if device[0] or device[1]:
        found |= {(inode, os.O_RDWR) for inode in _may_write_mapped(pid, device)}
    return found


def _may_write_mapped(pid: str, device: tuple[int, int]) -> set[int]:
    """The inodes that a process has mapped shared and could write: such a map may be made writable at any time."""
    if not _mapped_by(pid, device):
        return set()
    found, current = set(), 0
    for line in _read(f"/proc/{pid}/smaps").splitlines():
        match = _MAP_LINE.match(line)
        if match:
            current = int(match[4]) if (int(match[2], 16), int(match[3], 16)) == device else 0
        elif current and line.startswith(b"VmFlags:") and {b"mw", b"sh"} <= set(line.split()):
            found.add(current)
    return found


def mappers_of(mount: str, inodes: Mapping[int, str]) -> list[Holder]:
    """Who has one of these inodes mapped in any way: a private map writes nothing, but keeps the file open."""
    device = device_of(mount)
    return _holders(inodes, lambda pid: _mapped_by(pid, device, private=True))


def lockers_of(mount: str, inodes: Mapping[int, str]) -> list[Holder]:
    """Who holds a lock on one of these inodes of a mount, by `flock` or `fcntl`; as `holders_of`.

    Who has a file mapped keeps the locks of a descriptor that is closed: of a lock that no descriptor has, who maps the
    file is a holder.
    """
    device = device_of(mount)
    found = _holders(inodes, lambda pid: _open_by(pid, device, inodes, locked=True))
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
    device = device_of(mount)
    found: set[int] = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                found |= _mapped_by(name, device)
    return found & set(inodes)


def device_of(mount: str) -> tuple[int, int]:
    """The device number of a mount, as the kernel tells it of locks and mappings: (0, 0) where nobody sees it."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for line in _read(f"/proc/{name}/mountinfo").splitlines():
                fields = line.split()
                if b"fuse.isofs" in fields and _unescaped(fields[4]) == os.fsencode(mount):
                    major, minor = fields[2].split(b":")
                    return int(major), int(minor)
    return 0, 0


def _unescaped(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), field)


def _open_by(pid: str, device: tuple[int, int], inodes: Container[int], *, locked: bool = False) -> set[int]:
    """Those of these inodes that a process has open for reading and writing, or, in whatever way, with a lock on them.

    A descriptor is known by its device: by its mount it might be of one that only this process has, or had.
    """
    found = set()
    for number in os.listdir(f"/proc/{pid}/fdinfo"):
        with contextlib.suppress(OSError):
            info = _of_descriptor(pid, number)
            counts = b"lock" in info if locked else int(info[b"flags"], 8) & os.O_ACCMODE == os.O_RDWR
            inode = int(info.get(b"ino", b"-1"))
            if counts and inode in inodes and _device_at(f"/proc/{pid}/fd/{number}") == device:
                found.add(inode)
    return found


def _of_descriptor(pid: str, number: str) -> dict[bytes, bytes]:
    lines = _read(f"/proc/{pid}/fdinfo/{number}").splitlines()
    return {key: value for key, colon, value in (line.partition(b":") for line in lines) if colon}


def _device_at(path: str) -> tuple[int, int]:
    """The device of a file as the kernel knows it: no file system is asked, for it may be the one that asks."""
    libc = ctypes.CDLL(None, use_errno=True)
    status = ctypes.create_string_buffer(256)
    if libc.statx(-1, os.fsencode(path), _AT_STATX_DONT_SYNC, 0, status) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    major, minor = struct.unpack_from("II", status, _STX_DEV)
    return major, minor


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
