"""The store fails while people are at work: random histories, in which no change can be written from some moment on.

Trusted users must go on as on a plain directory, errno for errno. A suspect's call is made whole or fails; once main
has changed in a way that could not be followed, every call of a suspect's fails. When the store works again, it is as
if main had been changed behind the mount: nothing is broken, and nothing of a suspect's has come to main.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from isofs.engine import checks, returning
from isofs.errors import StoreUnusable
from isofs.model.records import Change, Subject
from isofs.store import inodes
from isofs.store.database import Database
from support.engine import Kernel, OpenFile, killed
from support.histories import history
from support.host import HostFile
from support.model import ModelFile
from test_engine_machine import PATHS, SUSPICIOUS, TRUSTED, Machine, User, outcome

#: More for a longer look: ISOFS_HISTORIES=5000.
COUNT = int(os.environ.get("ISOFS_HISTORIES", "6"))
BEFORE, AFTER = 40, 40

#: What a suspect's call is answered that the store cannot take.
REFUSED = ("EIO", "ENOSPC")


class Failing(Machine):
    """Users at work on a store that takes `left` more changes from some moment on."""

    broken = False
    taken = 0  # changes that were written since it is broken
    halved = False  # a call failed after its first change was written

    @contextmanager
    def _breaking(self, left: int) -> Iterator[None]:
        """The disk is full after so many changes: for the database, and for new versions."""
        write, new_op, copy = Database.write, Database.new_op, inodes.copy
        remaining = [left]

        def take() -> bool:
            remaining[0] -= 1
            self.taken += remaining[0] >= 0
            return remaining[0] >= 0

        def failing_write(database: Database, changes: Sequence[Change]) -> None:
            assert not any(isinstance(change.record, Subject) for change in changes)
            if not take():
                raise StoreUnusable("the database is full", errno.ENOSPC)
            write(database, changes)

        def failing_new_op(database: Database) -> int:
            if remaining[0] <= 0:
                raise StoreUnusable("the database is full", errno.ENOSPC)
            return new_op(database)

        def failing_copy(*args: Any, **keywords: Any) -> None:
            if not take():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            copy(*args, **keywords)

        Database.write, Database.new_op, inodes.copy = failing_write, failing_new_op, failing_copy  # type: ignore[assignment, method-assign]
        self.broken = True
        try:
            yield
        finally:
            Database.write, Database.new_op, inodes.copy = write, new_op, copy  # type: ignore[method-assign]
            self.broken = False

    def _call(self, uid: int, call: Callable[[User], object]) -> object:
        if self.broken and not self._trusted(uid):
            before = self.taken
            found = outcome(lambda: call(self._walker(uid)))
            self.halved = self.halved or (found in REFUSED and self.taken > before)
            if self.fs.failure is not None:
                assert found == "EIO", f"a suspect is answered {found!r} without the store"
            elif found not in REFUSED:
                assert found == outcome(lambda: call(self._modelled(uid)))
            return "refused"
        return super()._call(uid, call)

    def _call_open(self, index: int, call: Callable[[OpenFile | ModelFile | HostFile], object]) -> None:
        opened = self.opened[index % len(self.opened)]
        if not self.broken or (opened.twin is not None and not opened.model.sid):
            super()._call_open(index, call)
            return
        before = self.taken
        found = outcome(lambda: call(opened.engine))
        self.halved = self.halved or (found in REFUSED and self.taken > before)
        if self.fs.failure is not None:
            assert found in ("EIO", "EBADF", "EINVAL")  # the last two: the kernel does not ask
        elif found not in REFUSED:
            assert found == outcome(lambda: call(opened.model))

    def close_twins(self) -> None:
        """The daemon is gone, and what was open with it."""
        for opened in self.opened:
            if opened.twin is not None:
                opened.twin.close()
        self.opened.clear()

    def leave_to_trusted(self, isolated: set[int]) -> None:
        """Only what trusted users had open is open still, and goes on meaning the same."""
        left = []
        for opened in self.opened:
            if opened.twin is not None and opened.engine.handle.id in self.fs.handles:
                left.append(opened)
            elif opened.twin is not None:
                opened.twin.close()
        self.opened[:] = left
        assert not any(h.sid or h.node.sid or h.uid in isolated for h in self.fs.handles.values())
        self.kernel = Kernel(self.fs)
        for index in range(len(left)):
            super()._call_open(index, lambda file: file.write(0, b"after"))

    def check(self) -> None:
        """What holds of what can be seen while the store is broken."""
        self.disclosure()
        if self.fs.failure is None:
            if not self.halved:
                self.consistency()
            self.store_is_sound()


def play(machine: Failing, steps: list[tuple[str, dict[str, Any]]], check: Callable[[], None]) -> None:
    for name, given in steps:
        if {"use": not machine.opened, "close": not machine.opened, "decide": not machine.world.views}.get(name, False):
            continue
        getattr(machine, name)(**given)
        check()


@pytest.mark.parametrize("seed", range(COUNT))
def test_trusted_users_go_on_and_nothing_of_a_suspects_reaches_main(seed: int) -> None:
    machine = Failing()
    actors = [*TRUSTED, *SUSPICIOUS]
    try:
        play(machine, history(seed, actors, PATHS, BEFORE), lambda: None)
        for index in range(2):
            machine.suspect(index)
        machine.check_all()
        calls = [s for s in history(seed + 1000, actors, PATHS, AFTER) if s[0] not in _OPERATORS]
        with machine._breaking(seed % 4):
            play(machine, calls, machine.check)
        isolated = set(machine.fs.suspects)
        if seed % 2 and machine.fs.failure is not None:  # else it is mounted anew
            assert returning.bring_back(machine.fs, os.fsdecode(machine.main)) == []
            machine.leave_to_trusted(isolated)
        else:
            killed(machine.fs)
            machine.close_twins()
            machine._open_store()
        assert set(machine.fs.suspects) == isolated
        assert not checks.check(machine.fs)
        machine.disclosure()
        for uid in isolated:
            machine._tree(uid)
            machine.written += 1
            walker = machine._walker(uid)
            outcome(lambda at=walker: at.write(b"new", b"hers", os.O_WRONLY | os.O_CREAT))  # type: ignore[misc]
        machine.disclosure()
        assert not checks.check(machine.fs)
    finally:
        machine.teardown()


_OPERATORS = ("suspect", "decide", "settle", "restore", "kill")
