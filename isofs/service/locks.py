"""Which files of a mount a process has locked; without touching the mount."""

from __future__ import annotations

from collections.abc import Iterable

_KINDS = (b"FLOCK", b"POSIX", b"OFDLCK")
_LEASE = b"LEASE"


def locked(device: tuple[int, int], inodes: Iterable[int]) -> set[int]:
    """Those of these inodes of a device on which somebody holds a lock for writing (flock, POSIX, OFD)."""
    return _held(device, inodes, (b"WRITE",))


def held(device: tuple[int, int], inodes: Iterable[int]) -> set[int]:
    """The same with locks for reading, which keep others from writing, and leases, for which who opens it waits."""
    return _held(device, inodes, (b"WRITE", b"READ"))


def _held(device: tuple[int, int], inodes: Iterable[int], modes: tuple[bytes, ...]) -> set[int]:
    with open("/proc/locks", "rb") as file:
        lines = file.read().splitlines()
    return set(inodes) & {inode for at, inode in (_holder(line, modes) for line in lines) if at == device}


def _holder(line: bytes, modes: tuple[bytes, ...]) -> tuple[tuple[int, int] | None, int]:
    """Device and inode of `1: FLOCK ADVISORY WRITE 123 00:2a:77 0 EOF`; no device if it is none of these, or waits."""
    fields = line.split()
    leased = len(fields) >= 6 and fields[1] == _LEASE and b"READ" in modes
    if not leased and (len(fields) < 6 or fields[1] not in _KINDS or fields[3] not in modes):
        return None, 0
    major, minor, inode = fields[5].split(b":")
    return (int(major, 16), int(minor, 16)), int(inode)
