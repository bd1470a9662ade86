"""Which files of a mount a process has locked for writing; without touching the mount."""

from __future__ import annotations

from collections.abc import Iterable


def locked(device: tuple[int, int], inodes: Iterable[int]) -> set[int]:
    """Those of these inodes of a device on which somebody holds a lock for writing (flock, POSIX, OFD)."""
    with open("/proc/locks", "rb") as file:
        lines = file.read().splitlines()
    return set(inodes) & {inode for at, inode in map(_holder, lines) if at == device}


def _holder(line: bytes) -> tuple[tuple[int, int] | None, int]:
    """Device and inode of `1: FLOCK ADVISORY WRITE 123 00:2a:77 0 EOF`; no device if it is no writer's, or waits."""
    fields = line.split()
    if len(fields) < 6 or fields[1] == b"->" or fields[3] != b"WRITE":
        return None, 0
    major, minor, inode = fields[5].split(b":")
    return (int(major, 16), int(minor, 16)), int(inode)
