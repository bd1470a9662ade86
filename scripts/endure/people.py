"""People at work, each in a process of their own under their own uid."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from acts import PASSING, Act, choose, do, ravage, tree

#: Seconds that a mount may be gone.
_PATIENCE = 60.0


class Person:
    """Somebody with a uid, a tree in the mount, and for who works honestly a twin of it outside."""

    def __init__(self, uid: int, mount: str, home: str, twin: str | None, seed: int) -> None:
        self.uid, self.home, self.twin = uid, home, twin
        self._end, theirs = multiprocessing.Pipe()
        arguments = (theirs, uid, mount, home, twin, seed)
        self._process = multiprocessing.get_context("fork").Process(target=_live, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, *order: Any) -> None:
        """Have something done: ("work", seconds) or ("tree", path)."""
        self._end.send(order)

    def end(self) -> Any:
        """What came of it."""
        if not self._end.poll(_PATIENCE * 3):
            raise AssertionError(f"user {self.uid} hangs")
        kind, value = self._end.recv()
        if kind != "done":
            raise AssertionError(f"user {self.uid}: {value}")
        return value

    def ask(self, *order: Any) -> Any:
        self.begin(*order)
        return self.end()

    def leave(self) -> None:
        self._end.close()
        self._process.join(10)
        self._process.kill()


def _live(orders: Connection, uid: int, mount: str, home: str, twin: str | None, seed: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    os.umask(0)
    rng = random.Random(seed)
    while True:
        try:
            what, value = orders.recv()
        except EOFError:
            return
        try:
            orders.send(("done", _work(rng, mount, home, twin, value) if what == "work" else _seen(value)))
        except Exception:
            orders.send(("failed", traceback.format_exc()))


def _work(rng: random.Random, mount: str, home: str, twin: str | None, seconds: float) -> tuple[int, list[str]]:
    """Work so long; how much was done, and what more than once."""
    until, count, twice = time.monotonic() + seconds, 0, list[str]()
    while time.monotonic() < until:
        if twin is None:
            ravage(rng, mount)
        else:
            act = choose(rng, twin)
            if _persist(act, mount, home):
                twice.append(str(act)[:200])
            do(act, twin)
        count += 1
    return count, twice


def _persist(act: Act, mount: str, home: str) -> bool:
    """Do it, however often the daemon is killed meanwhile; whether it was tried more than once."""
    again = False
    while True:
        try:
            do(act, home, again=again)
        except OSError as error:
            if error.errno not in PASSING:
                raise RuntimeError(f"{act} {'again ' if again else ''}failed: {error}") from error
            again = True
            _wait_for(mount)
        else:
            return again


def _wait_for(mount: str) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            os.listdir(mount)
        except OSError as error:
            if time.monotonic() > until:
                raise RuntimeError(f"{mount} does not come back: {error}") from error
            time.sleep(0.01)
        else:
            return


def _seen(path: str) -> dict[str, tuple[object, ...]]:
    return tree(path)
