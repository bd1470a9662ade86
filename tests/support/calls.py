"""Calls whose outcome is written down, to compare those on one file system with those on another."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

NOREPLACE, EXCHANGE = 1, 2

#: The clock of time stamps, which Python has no name for.
_COARSE = 5

#: Instead of nanoseconds, for `utimens`.
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2


class Calls:
    """Makes calls and writes down how each ended: what it returned, or its errno."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def __call__(self, function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        shown = ", ".join(_short(a) for a in args if not (isinstance(a, int) and a > 1 << 62))
        try:
            result = function(*args, **keywords)
        except OSError as error:
            self.log.append(f"{function.__name__}({shown}): {_failure(function, args, error)}")
            return None
        known = "done" if function in (os.open, os.dup) else result
        self.log.append(f"{function.__name__}({shown}): {known!r}")
        return result

    def note(self, what: str, value: Any) -> None:
        self.log.append(f"{what}: {value!r}")

    def watching(self, paths: str | tuple[str, ...], function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """Make a call and write down as well what it changed in the attributes of some paths."""
        watched = (paths,) if isinstance(paths, str) else paths
        before = [_attributes(path) for path in watched]
        if not _fine_stamps():
            tick()
        result = self(function, *args, **keywords)
        after = [_attributes(path) for path in watched]
        for path, old, new in zip(watched, before, after, strict=True):
            changed = [_difference(field, old.get(field), new.get(field)) for field in sorted(old.keys() | new.keys())]
            self.log.append(f"    {_short(path)}: {' '.join(filter(None, changed))}")
        return result


def _failure(function: Callable[..., Any], args: tuple[Any, ...], error: OSError) -> str:
    """The name of an errno. For a rename over a directory that is not empty XFS has one of its own (rename(2))."""
    plain = function is os.rename or (function.__name__ == "rename2" and not args[-1])
    number = errno.ENOTEMPTY if plain and error.errno == errno.EEXIST else error.errno
    return errno.errorcode[number or 0]


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) < 100 else f"{shown[:40]}...{len(shown)}"


def _attributes(path: str) -> dict[str, Any]:
    try:
        at = os.lstat(path)
    except OSError as error:
        return {"error": errno.errorcode[error.errno or 0]}
    found = {"mode": oct(at.st_mode), "uid": at.st_uid, "gid": at.st_gid, "links": at.st_nlink}
    if not stat.S_ISDIR(at.st_mode):
        found["size"] = at.st_size
    return {**found, "mtime": at.st_mtime_ns, "ctime": at.st_ctime_ns}


def _difference(field: str, old: Any, new: Any) -> str:
    if old == new:
        return ""
    if field.endswith("time") and old is not None and new is not None:
        return field if new > old or field == "mtime" else f"{field} went back"
    return f"{field}={new}" if not field.endswith("time") else ""


@functools.cache
def _fine_stamps() -> bool:
    """Whether changes that somebody looks between never have the same time stamp (multigrain, since Linux 6.13)."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        found = set()
        for number in range(20):
            os.fchmod(file.fileno(), 0o600 | number & 1)
            found.add(os.fstat(file.fileno()).st_ctime_ns)
    return len(found) == 20


def tick() -> None:
    """Return when the clock of time stamps has moved: what changes after has other stamps than what changed before."""
    start = time.clock_gettime_ns(_COARSE)
    while time.clock_gettime_ns(_COARSE) == start:
        os.sched_yield()


def rename2(old: str, new: str, flags: int) -> None:
    _checked(_libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags))


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def utimens(path: str, atime: int, mtime: int, flags: int = 0) -> None:
    """utimensat(2): each time in seconds, or NOW or OMIT."""
    pair = (_Time * 2)(*(_Time(0, t) if t in (NOW, OMIT) else _Time(t, 0) for t in (atime, mtime)))
    _checked(_libc.utimensat(-100, os.fsencode(path), pair, flags))


def become_capable(uid: int) -> None:
    """Let this process go on as a user who has all of root's capabilities."""
    os.setgroups(())
    os.setgid(uid)
    _checked(_libc.prctl(8, 1, 0, 0, 0))  # PR_SET_KEEPCAPS
    os.setuid(uid)
    with open("/proc/self/status") as file:
        low, high = (int(row.split()[1], 16) >> shift for row in file if "CapPrm" in row for shift in (0, 32))
    sets = struct.pack("6I", low & 0xFFFFFFFF, low & 0xFFFFFFFF, 0, high, high, 0)
    _checked(_libc.capset(struct.pack("Ii", 0x20080522, 0), sets))


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def access_list(*entries: tuple[int, int, int]) -> bytes:
    """An access control list as the kernel takes it: entries of (kind, rights, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def lstat(path: str) -> list[Any]:
    at = os.lstat(path)
    size = None if stat.S_ISDIR(at.st_mode) else at.st_size
    return [oct(at.st_mode), at.st_uid, at.st_gid, at.st_nlink, size, at.st_rdev]


def put(path: str, text: str = "text", mode: int = 0o666) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    os.write(opened, os.fsencode(text))
    os.close(opened)


def get(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode("latin-1")


def ls(path: str = ".") -> list[str]:
    return sorted(os.listdir(path))


def times(path: str) -> tuple[int, int]:
    at = os.lstat(path)
    return at.st_atime_ns, at.st_mtime_ns


def run(*words: str) -> str:
    """A program's output; OSError with its exit code if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(errno.EREMOTEIO, done.stderr)
    return done.stdout


#: The types of objects, and how root makes each.
TYPES: dict[str, Callable[[str], None]] = {
    "file": lambda path: put(path),
    "directory": lambda path: os.mkdir(path),
    "fifo": lambda path: os.mkfifo(path),
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o666),
    "symlink": lambda path: os.symlink("target", path),
    "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
}
