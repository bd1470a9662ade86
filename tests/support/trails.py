"""Trails of the audit for tests, made by what makes real ones."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from isofs.audit import record
from isofs.audit.appending import Appender, Limits
from isofs.audit.tasks import Task
from isofs.audit.verifying import Verified, verify

MOUNT = "/srv/share"
TASK = Task(12, 13, 1000, b"bash")

#: When what the tests record happened, in nanoseconds: not long ago, in whole seconds.
BEGAN = (int(time.time()) - 3600) * 10**9


@contextlib.contextmanager
def folder(path: Path) -> Iterator[int]:
    path.mkdir(exist_ok=True)
    opened = os.open(path, os.O_RDONLY)
    try:
        yield opened
    finally:
        os.close(opened)


def checked(path: Path, known: tuple[int, str] | None = None) -> Verified:
    with folder(path) as opened:
        return verify(opened, known)


def body(number: int, began: int = BEGAN) -> str:
    made = record.Record(number, began + number * 10**9, "create", 0, 7, TASK, b"d/f%d" % number, 5, 0, 0, None, None)
    return record.line(made, MOUNT, str)


def written(path: Path, count: int, limits: Limits = Limits(), first: int = 1, began: int = BEGAN) -> None:  # noqa: B008
    """A trail of so many lines, each in a turn of its own, which is durable."""
    with folder(path) as opened, contextlib.closing(Appender(opened, limits)) as appender:
        for number in range(first, first + count):
            appender.append([(number, body(number, began))])
        appender.sync()
        appender.tidy()
