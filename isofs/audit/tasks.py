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


class _Known:
    """What is known of a thread: its file in /proc with the program's name, the rest packed, and both, until when."""

    __slots__ = ("answer", "file", "rest", "until")

    def __init__(self, file: int, rest: bytes) -> None:
        self.file, self.rest, self.answer, self.until = file, rest, b"", 0


class Tasks:
    """Tasks by thread id, packed. Only the name of the program is asked for anew.

    A file in /proc belongs to one task for ever: a thread id that was given to another is seen by that it fails.
    """

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def of(self, thread: int, now: int) -> bytes:
        """What is known of a thread at a time; no more than its number if it is gone, or of another namespace."""
        known = self._known.get(thread)
        if known is not None and now < known.until:
            return known.answer
        if known is None or not _ask(known, now):
            if known is not None:
                self._forget(thread)
            try:
                file = os.open(b"/proc/%d/comm" % thread, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return packed(Task(max(thread, 0), max(thread, 0), None, b""))
            known = self._known[thread] = _Known(file, packed(Task(_process(thread), thread, _login(thread), b"")))
            if len(self._known) > _KEPT:
                self._forget(next(iter(self._known)))
            _ask(known, now)
        return known.answer

    def _forget(self, thread: int) -> None:
        os.close(self._known.pop(thread).file)

    def close(self) -> None:
        while self._known:
            self._forget(next(iter(self._known)))


def _ask(known: _Known, now: int) -> bool:
    """Ask for the name of a program; whether there is still one."""
    try:
        known.answer = known.rest + os.pread(known.file, 64, 0)[:-1]
    except OSError:
        known.answer = known.rest
        return False
    known.until = now + _LOOK
    return True


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
