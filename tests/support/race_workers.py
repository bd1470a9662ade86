"""Processes that all run at the same time for a while under their own uids, and what each of them found."""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Seconds that a worker may take to end after its time is up; one that takes longer hangs.
PATIENCE = 30.0

#: Rounds that every worker makes, however slow the machine is, unless it takes longer than that many seconds.
ROUNDS, LONGEST = 300, 60.0

#: Differences that one worker describes; more are only counted.
DESCRIBED = 20


@dataclass
class Found:
    """What one worker did (calls by kind), the errors that it got, and what was not as it must be."""

    calls: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    different: Counter[str] = field(default_factory=Counter)
    facts: dict[str, Any] = field(default_factory=dict)

    def differs(self, kind: str, text: str) -> None:
        """Note that something is not as it must be."""
        self.different[kind] += 1
        if len(self.differences) < DESCRIBED:
            self.differences.append(f"{kind}: {text}")


class Shared:
    """Numbers that all processes see at once: 0 is whether to stop, the others are the test's."""

    def __init__(self, size: int = 64) -> None:
        self._memory = mmap.mmap(-1, 8 * size)

    def __getitem__(self, index: int) -> int:
        return int(struct.unpack_from("q", self._memory, 8 * index)[0])

    def __setitem__(self, index: int, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * index, value)


class Running:
    """Asked by a worker before each round: is there time left, or too little done, and does everyone go on?"""

    def __init__(self, seconds: float, shared: Shared) -> None:
        self._begin, self._seconds = time.monotonic(), seconds
        self._rounds = 0
        self.shared = shared

    def __call__(self) -> bool:
        self._rounds += 1
        ran = time.monotonic() - self._begin
        return not self.shared[0] and (ran < self._seconds or (self._rounds <= ROUNDS and ran < LONGEST))

    def stop_everyone(self) -> None:
        self.shared[0] = 1


#: A worker's work: prepares, before anybody begins, and returns what goes round while `Running` says so.
Work = Callable[[Found], Callable[[Running], None]]


@dataclass(frozen=True)
class Worker:
    """A process to be: its name in reports, its uid, and what it does."""

    name: str
    uid: int
    work: Work


def run(workers: Sequence[Worker], seconds: float, shared: Shared | None = None) -> dict[str, Found]:
    """Let all workers run for some seconds, and at least ROUNDS, at the same time; what each found, by name.

    They start together. AssertionError if one fails with an exception or hangs; that one is killed is a difference.
    """
    shared = Shared() if shared is None else shared
    ready_reader, ready_writer = os.pipe()
    go_reader, go_writer = os.pipe()
    started: dict[int, tuple[Worker, int]] = {}
    try:
        for worker in workers:
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(go_writer)
                os.close(reader)
                _child(worker, seconds, shared, (ready_writer, go_reader), writer)
            os.close(writer)
            started[pid] = worker, reader
        for _ in workers:
            assert select.select([ready_reader], [], [], PATIENCE)[0], "a worker hangs before it begins"
            os.read(ready_reader, 1)
        os.close(go_writer)
        go_writer = -1
        return _results(started, time.monotonic() + max(seconds, LONGEST) + PATIENCE, shared)
    finally:
        for descriptor in (ready_reader, ready_writer, go_reader):
            os.close(descriptor)
        if go_writer >= 0:
            os.close(go_writer)
        for pid, (_, reader) in started.items():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(reader)


def _child(worker: Worker, seconds: float, shared: Shared, start: tuple[int, int], writer: int) -> None:
    found = Found()
    failure = None
    ready, go = start
    try:
        os.setgroups([])
        os.setgid(worker.uid)
        os.setuid(worker.uid)
        os.umask(0o022)
        work = worker.work(found)
        os.write(ready, b".")
        os.read(go, 1)  # until the parent closes its end
        work(Running(seconds, shared))
    except BaseException as error:
        import traceback

        failure = "".join(traceback.format_exception(error))
        os.write(ready, b".")
    finally:
        with os.fdopen(writer, "w") as file:
            json.dump({**vars(found), "failure": failure}, file)
        os._exit(0)


def _results(started: dict[int, tuple[Worker, int]], end: float, shared: Shared) -> dict[str, Found]:
    """What the workers write before they end. One that is killed by a signal has found a difference."""
    texts: dict[int, bytes] = dict.fromkeys(started, b"")
    waiting = {reader: pid for pid, (_, reader) in started.items()}
    while waiting:
        ready = select.select(list(waiting), [], [], max(0.0, end - time.monotonic()))[0]
        assert ready, f"hanging: {[started[pid][0].name for pid in waiting.values()]}"
        for reader in ready:
            part = os.read(reader, 1 << 16)
            texts[waiting[reader]] += part
            if not part and not texts[waiting.pop(reader)]:
                shared[0] = 1
    return {worker.name: _found(worker, pid, texts[pid]) for pid, (worker, _) in started.items()}


def _found(worker: Worker, pid: int, text: bytes) -> Found:
    if not text:
        found = Found()
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        found.differs("killed", f"by signal {ended.si_status}")
        return found
    answer = json.loads(text)
    assert answer["failure"] is None, f"{worker.name} failed: {answer['failure']}"
    return Found(
        Counter(answer["calls"]),
        Counter(answer["errors"]),
        answer["differences"],
        Counter(answer["different"]),
        answer["facts"],
    )


def differences(found: dict[str, Found]) -> list[str]:
    """All differences of all workers, a line each, with how many of each kind there were."""
    lines = []
    for name, one in found.items():
        lines += [f"{name}: {count} x {kind}" for kind, count in one.different.items()]
        lines += [f"{name}: {line}" for line in one.differences]
    return lines


def total(found: dict[str, Found], prefix: str) -> Counter[str]:
    """The calls of all workers whose name begins with `prefix`."""
    calls: Counter[str] = Counter()
    for name, one in found.items():
        if name.startswith(prefix):
            calls.update(one.calls)
    return calls
