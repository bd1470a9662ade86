"""Who makes a call, beyond its uid: asked of the kernel while the caller still waits for its answer."""

from __future__ import annotations

import functools
import os
import struct
from typing import NamedTuple

#: Tasks whose files in /proc stay open, at most.
_KEPT = 64

#: Nanoseconds after which the name of a program is asked for again: less than it takes to become another program.
_LOOK = 500_000

#: Nanoseconds in which no thread's id is given to another: there are too many ids.
_SURE = 50_000_000

#: A login uid that was never set.
_NOBODY = 0xFFFFFFFF

_PACKED = struct.Struct("=IIq")


class Task(NamedTuple):
    """Process, thread, login uid (None where nobody logged in), and the program's name for itself."""

    pid: int
    thread: int
    login: int | None
    program: bytes


def packed(task: Task) -> bytes:
    """A task as records carry it."""
    return _PACKED.pack(task.pid, task.thread, -1 if task.login is None else task.login) + task.program


@functools.lru_cache(maxsize=256)
def unpacked(text: bytes) -> Task | None:
    """The task that a record carries; None if it carries none."""
    if not text:
        return None
    pid, thread, login = _PACKED.unpack_from(text)
    return Task(pid, thread, None if login < 0 else login, text[_PACKED.size :])


class Seen:
    """A thread that called: its file in /proc with the program's name, the rest packed, and both, as last asked."""

    __slots__ = ("asked", "file", "packed", "rest")

    def __init__(self, file: int, rest: bytes) -> None:
        self.file, self.rest, self.packed, self.asked = file, rest, rest, 0

    def named(self, now: int) -> bytes:
        """The thread with its program's name, packed. If it is gone, with the last that is known."""
        if now - self.asked >= _LOOK:
            self.ask(now)
        return self.packed

    def ask(self, now: int) -> bool:
        """Ask for the name of the program; whether the thread is still there."""
        try:
            self.packed = self.rest + os.pread(self.file, 64, 0)[:-1]
        except OSError:
            return False
        self.asked = now
        return True


class Tasks:
    """Threads that called, by their ids. Only the names of their programs are asked for anew.

    A file in /proc belongs to one thread for ever: an id that was given to another is seen by that it fails.
    """

    def __init__(self) -> None:
        self._seen: dict[int, Seen] = {}

    def seen(self, thread: int, now: int) -> Seen:
        """A thread that waits for an answer; no more than its number if it is of another namespace."""
        seen = self._seen.get(thread)
        if seen is not None and (now - seen.asked < _SURE or seen.ask(now)):
            return seen
        if seen is not None:
            self._forget(thread)
        try:
            file = os.open(b"/proc/%d/comm" % thread, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return Seen(-1, packed(Task(max(thread, 0), max(thread, 0), None, b"")))
        seen = self._seen[thread] = Seen(file, packed(Task(_process(thread), thread, _login(thread), b"")))
        if len(self._seen) > _KEPT:
            self._forget(next(iter(self._seen)))
        seen.ask(now)
        return seen

    def _forget(self, thread: int) -> None:
        seen = self._seen.pop(thread)
        os.close(seen.file)
        seen.file = -1  # a call may still wait for its end

    def close(self) -> None:
        while self._seen:
            self._forget(next(iter(self._seen)))


def _process(thread: int) -> int:
    for line in _read(b"/proc/%d/status" % thread).split(b"\n"):
        if line.startswith(b"Tgid:"):
            return int(line[5:])
    return thread


def _login(thread: int) -> int | None:
    text = _read(b"/proc/%d/loginuid" % thread)
    return int(text) if text.isdigit() and int(text) != _NOBODY else None


def _read(path: bytes) -> bytes:
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(opened, 8192)
    except OSError:
        return b""
    finally:
        os.close(opened)
