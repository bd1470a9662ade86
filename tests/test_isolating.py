"""A suspicion that begins, though what the user has open cannot be closed: it is told of all the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from isofs.engine import recovery
from isofs.engine.state import Caller
from isofs.fuse.adapter import Adapter
from isofs.fuse.cache import KernelCache
from isofs.model.records import SubjectState
from isofs.service import isolating
from isofs.service.commands import Commands
from isofs.service.events import Event, Events, Kind
from isofs.service.live import Live
from isofs.store.folder import open_store
from support.engine import EngineCalls, Kernel
from support.mount import ALICE


class NoCache:
    """A kernel that keeps nothing."""

    def forget_entry(self, parent: int, name: bytes) -> None:
        pass

    async def drained(self) -> None:
        pass


async def still_used(directory: str | None) -> None:
    raise AssertionError("nobody unmounts it")


def test_what_stays_open_is_an_error_and_the_suspicion_is_told(tmp_path: Path) -> None:
    """The handle is one that no process has: nobody can be killed for it."""
    (tmp_path / "tree").mkdir(mode=0o777)
    (tmp_path / "tree").chmod(0o777)
    store = open_store(str(tmp_path / "store"))
    fs = recovery.open_filesystem(store, str(tmp_path / "tree"))
    told: list[Event] = []
    events = Events()
    events.subscribe(told.append)
    commands = Commands(
        fs, cast(Adapter, None), cast(KernelCache, NoCache()), str(tmp_path), still_used, Live(store), events
    )
    alice = EngineCalls(Kernel(fs), Caller(ALICE, ALICE, 1))
    held = alice.create(alice.root(), b"file", 0o666, os.O_RDWR)

    async def suspect() -> Any:
        args = {"uid": ALICE, "user": "alice", "reason": "odd"}
        return await commands.suspect(args, lambda done, total: None)

    with pytest.raises(isolating.StillOpen, match="still reaches main"):
        trio.run(suspect, clock=MockClock(rate=1000))
    assert [(one.kind, one.facts["user"], one.facts["reason"]) for one in told] == [(Kind.SUSPECT, "alice", "odd")]
    assert [one.state for one in fs.subjects.values()] == [SubjectState.SUSPECT]
    held.close()
    alice.kernel.close()
    recovery.close_filesystem(fs)
