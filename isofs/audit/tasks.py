"""Who makes a call, beyond its uid: asked of the kernel while the caller still waits for its answer."""

from __future__ import annotations

import os
from collections import OrderedDict

#: Tasks whose files in /proc stay open, at most.
_KEPT = 64

#: A login uid that was never set.
_NOBODY = 0xFFFFFFFF

#: Process, thread, login uid, and the program's name for itself: what a record has of a task.
Task = tuple[int, int, int | None, bytes]


class Tasks:
    """Processes and programs by thread id. Only the name of the program is asked for anew at each call.

    A file in /proc belongs to one task for ever: a thread id that was given to another is seen by that it fails.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[int, int, int | None]] = OrderedDict()

    def of(self, thread: int) -> Task:
        """What is known of a thread; one that this namespace has no number for, or that is gone, is its number only."""
        known = self._known.get(thread)
        if known is not None:
            try:
                return known[1], thread, known[2], os.pread(known[0], 64, 0)[:-1]
            except OSError:
                os.close(self._known.pop(thread)[0])
        if thread <= 0:
            return 0, 0, None, b""
        try:
            name = os.open(b"/proc/%d/comm" % thread, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return thread, thread, None, b""
        self._known[thread] = (name, _process(thread), _login(thread))
        if len(self._known) > _KEPT:
            os.close(self._known.popitem(last=False)[1][0])
        try:
            return self._known[thread][1], thread, self._known[thread][2], os.pread(name, 64, 0)[:-1]
        except OSError:
            os.close(self._known.pop(thread)[0])
            return thread, thread, None, b""

    def close(self) -> None:
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
