"""Calls that wait leave the daemon free for everybody else, however many they are; what follows an answer is done."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import trio
from pyfuse3 import FUSEError
from trio.testing import wait_all_tasks_blocked

from isofs.engine import recovery, suspicion
from isofs.fuse import waiting
from isofs.fuse.adapter import MOST_WAITING, Adapter
from isofs.fuse.afterwards import Afterwards
from isofs.fuse.loop import MAX_TASKS
from isofs.fuse.turns import Turns
from isofs.store.folder import open_store

ALICE, BOB = 1003, 1001


def _context(uid: int) -> Any:
    return SimpleNamespace(uid=uid, gid=uid, pid=uid, umask=0o022)


def test_what_follows_an_answer_is_done_before_anything_else_runs() -> None:
    """By a task that goes on reading, at its next look; and by one that ends, as another reads already."""
    done = list[str]()

    async def loop(trio_: Any, turns: int) -> None:
        lock = trio_.Lock()
        for _ in range(turns):
            async with lock:
                done.append("looks")
            done.append("answers")
            afterwards.add(done.append, "afterwards")

    async def main() -> None:
        async with trio_.open_nursery() as nursery:
            for turns in (2, 1):
                nursery.start_soon(loop, trio_, turns)

    afterwards = Afterwards()
    afterwards.reading = True
    trio_ = cast(Any, waiting._Trio)(2, None, Turns(), SimpleNamespace(comes=None), afterwards, None)
    trio.run(main)
    assert done == ["looks", "answers", "afterwards"] * 3


def test_more_calls_than_may_wait_are_refused_at_once(place: Path, tree: Path) -> None:
    fs = recovery.open_filesystem(open_store(str(place / "store")), str(tree))
    sid = suspicion.suspect(fs, ALICE, "alice", "", "2026-01-02T03:04:05Z").sid
    answered, refused = list[int](), list[int]()

    async def call(adapter: Adapter, uid: int) -> None:
        try:
            answered.append((await adapter.caller(_context(uid))).uid)
        except FUSEError as error:
            refused.append(cast(Any, error).errno)

    async def main() -> None:
        adapter = Adapter()
        adapter.answer_for(fs)
        async with trio.open_nursery() as nursery:
            with adapter.held(sid):
                for _ in range(MOST_WAITING + 10):
                    nursery.start_soon(call, adapter, ALICE)
                await wait_all_tasks_blocked()
                await call(adapter, BOB)
                assert (answered, refused) == ([BOB], [errno.EBUSY] * 10)

    try:
        trio.run(main)
    finally:
        recovery.close_filesystem(fs)
    assert answered == [BOB] + [ALICE] * MOST_WAITING
    assert MAX_TASKS > MOST_WAITING
