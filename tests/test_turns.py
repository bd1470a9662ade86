"""Suspects' requests that wait for their turn: trusted users keep their share, and every request is answered."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from isofs.fuse import turns
from isofs.fuse.turns import Turns
from support.mount import ALICE, BOB, mounted


class Device:
    """What is readable while there are requests; each is a byte."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self.turns = Turns()
        self.turns.follow(self._read)
        self.answered: list[str] = []

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._read)
        os.close(self._write)

    def comes(self, count: int = 1) -> None:
        os.write(self._write, bytes(count))

    def take(self, count: int = 1) -> None:
        os.read(self._read, count)

    async def suspect(self, name: str) -> None:
        await self.turns.wait()
        self.answered.append(name)


@pytest.fixture
def device() -> Iterator[Device]:
    with Device() as made:
        yield made


def test_they_wait_for_what_else_came_and_follow_one_another(device: Device) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            device.turns.trusted()
            device.comes()
            for name in "abcd":
                nursery.start_soon(device.suspect, name)
                await wait_all_tasks_blocked()
            assert device.answered == ["a"]  # one belongs to each trusted one
            assert await device.turns.others_first()
            device.take()
            assert device.answered == ["a"]
            device.turns.trusted()
            assert not await device.turns.others_first()
            assert device.answered == ["a", "b", "c", "d"]

    trio.run(main)


def test_trusted_requests_without_end_keep_nobody_out(device: Device) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            device.comes(1000)
            for name in ("own", *map(str, range(50))):
                nursery.start_soon(device.suspect, name)
                device.turns.trusted() if name == "own" else None
                await wait_all_tasks_blocked()
            before = len(device.answered)
            for _ in range(2 * turns.READ_FIRST):
                assert await device.turns.others_first()
                device.turns.trusted()
            assert len(device.answered) >= before + 1
            while device.turns.waiting:
                await device.turns.others_first()

    trio.run(main)


def test_nobody_waits_while_nobody_trusted_is_at_work_or_nothing_else_came(device: Device) -> None:
    async def main() -> None:
        device.comes()
        for name in "abc":
            await device.suspect(name)
        device.take()
        device.turns.trusted()
        for name in "def":
            await device.suspect(name)
        assert device.answered == list("abcdef")
        assert not device.turns.waiting

    trio.run(main)


def test_no_more_wait_than_may(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MOST_PARKED", 3)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            device.turns.trusted()
            device.comes()
            for number in range(10):
                nursery.start_soon(device.suspect, str(number))
                await wait_all_tasks_blocked()
            assert len(device.answered) == 7
            device.take()
            await device.turns.others_first()
        assert len(device.answered) == 10

    trio.run(main)


PROCESSES = 24


@pytest.mark.mount
def test_many_processes_of_a_suspects_leave_a_trusted_user_a_share(place: Path, tree: Path) -> None:
    """In calls, not in time, since others use the machine. First come first served would be one in two dozen."""
    file = tree / "file"
    file.write_text("main's")
    os.setxattr(file, "user.mark", b"1")
    with mounted(tree) as mount, mmap.mmap(-1, 8 * (PROCESSES + 1)) as counts:
        mount.facts("suspect", str(ALICE))
        pids = [_begin(ALICE, counts, number, lambda: os.listxattr(file)) for number in range(PROCESSES)]
        try:
            while any(number < 5 for number in _counted(counts)[:PROCESSES]):  # all are at it
                time.sleep(0.01)
            pids.append(_begin(BOB, counts, PROCESSES, lambda: os.listxattr(file)))
            while (before := _counted(counts))[PROCESSES] < 5:  # he is, too
                time.sleep(0.01)
            while (after := _counted(counts))[PROCESSES] < before[PROCESSES] + 200:
                time.sleep(0.01)
            *hers, his = (late - early for late, early in zip(after, before, strict=True))
            assert sum(hers) < PROCESSES * his / 2
            for number in range(PROCESSES):  # and none of hers is left waiting
                while _counted(counts)[number] == after[number]:
                    time.sleep(0.01)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _counted(counts: mmap.mmap) -> tuple[int, ...]:
    return struct.unpack(f"={PROCESSES + 1}Q", counts[:])


def _begin(uid: int, counts: mmap.mmap, at: int, call: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            for number in range(1, 1 << 40):
                call()
                struct.pack_into("=Q", counts, 8 * at, number)
        finally:
            os._exit(1)
    return pid
