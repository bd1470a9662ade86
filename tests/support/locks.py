"""The locks that Linux has on files: `flock`, POSIX (of a process), and OFD (of an open file description)."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable

_F_OFD_SETLK = 37

#: Sets a lock of a kind (`fcntl.LOCK_EX`, `LOCK_SH`, `LOCK_UN`) on a descriptor; BlockingIOError if somebody has it.
Lock = Callable[[int, int], None]


def flock(descriptor: int, kind: int) -> None:
    fcntl.flock(descriptor, kind | fcntl.LOCK_NB)


def posix(descriptor: int, kind: int) -> None:
    fcntl.lockf(descriptor, kind if kind == fcntl.LOCK_UN else kind | fcntl.LOCK_NB)


def ofd(descriptor: int, kind: int) -> None:
    kinds = {fcntl.LOCK_EX: fcntl.F_WRLCK, fcntl.LOCK_SH: fcntl.F_RDLCK, fcntl.LOCK_UN: fcntl.F_UNLCK}
    fcntl.fcntl(descriptor, _F_OFD_SETLK, struct.pack("hhqqi4x", kinds[kind], os.SEEK_SET, 0, 0, 0))


LOCKS: tuple[Lock, ...] = (flock, posix, ofd)
