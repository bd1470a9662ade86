"""Who makes a call, beyond its uid: asked of the kernel while the caller still waits for its answer."""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
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


def unpacked(text: bytes) -> Task | None:
    """The task that a record carries; None if it carries none."""
    if not text:
        return None
    pid, thread, login = _PACKED.unpack_from(text)
    return Task(pid, thread, None if login < 0 else login, text[_PACKED.size :])


class Tasks:
    """Tasks by thread id, packed. Only the name of the program is asked for anew.

    A file in /proc belongs to one task for ever: a thread id that was given to another is seen by that it fails.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[int, bytes]] = OrderedDict()
        self._last, self._until, self._answer = -1, 0, b""

    def of(self, thread: int, now: int) -> bytes:
        """What is known of a thread at a time; no more than its number if it is gone, or of another namespace."""
        if thread == self._last and now < self._until:
            return self._answer
        self._last, self._until = thread, now + _LOOK
        known = self._known.get(thread)
        if known is not None:
            try:
                self._answer = known[1] + os.pread(known[0], 64, 0)[:-1]
            except OSError:
                os.close(self._known.pop(thread)[0])
            else:
                return self._answer
        self._answer = self._look(thread)
        return self._answer

    def _look(self, thread: int) -> bytes:
        try:
            name = os.open(b"/proc/%d/comm" % thread, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return packed(Task(max(thread, 0), max(thread, 0), None, b""))
        found = packed(Task(_process(thread), thread, _login(thread), b""))
        self._known[thread] = name, found
        if len(self._known) > _KEPT:
            os.close(self._known.popitem(last=False)[1][0])
        try:
            return found + os.pread(name, 64, 0)[:-1]
        except OSError:
            return found

    def close(self) -> None:
        self._last = -1
        while self._known:
            os.close(self._known.popitem()[1][0])


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
