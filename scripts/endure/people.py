"""People at work, each in a process of their own under their own uid."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import shared
from acts import PASSING, Act, choose, do, ravage, tree, was_done

#: Seconds that a mount may be gone.
_PATIENCE = 60.0

#: The part of what honest people do that is done in the shared directory.
_TOGETHER = 0.4


class Ground(Protocol):
    """Where somebody works."""

    def at(self, path: str) -> str:
        """Where something is now."""

    def moved(self, path: str, was: str) -> bool:
        """Whether what was there a moment ago is elsewhere, because somebody else moved it."""


@dataclass(frozen=True)
class Own:
    """A directory that nobody else moves anything in."""

    root: str

    def at(self, path: str) -> str:
        return os.path.join(self.root, path)

    def moved(self, path: str, was: str) -> bool:
        return False


@dataclass(frozen=True)
class Worker:
    """Somebody at work: in the tree of the uid's and in what is shared. Who is malicious has no twins."""

    uid: int
    mount: Path
    twins: Path
    rng: random.Random
    malicious: bool
    arranges: bool

    def work(self, seconds: float) -> tuple[int, list[str]]:
        """Work so long; how much was done, and what more than once."""
        until, count, twice = time.monotonic() + seconds, 0, list[str]()
        while time.monotonic() < until:
            if self.malicious:
                count += ravage(self.rng, str(self.mount))
            else:
                act, again = self._act()
                count += 1
                if again:
                    twice.append(str(act)[:200])
        return count, twice

    def _act(self) -> tuple[Act, bool]:
        """Do something; what it was, and whether it was tried more than once."""
        if self.rng.random() > _TOGETHER:
            return self._in(Own(str(self.mount / str(self.uid))), "home")
        if self.arranges and self.rng.random() < 0.3:
            mark, act = shared.arrange(self.rng, self.uid, str(self.twins))
            again = self._persist(act, Own(str(self.mount / "shared")))
            shared.arranged(mark, act, str(self.twins))
            return act, again
        for mark in shared.places(str(self.twins)):
            os.makedirs(self.twins / str(self.uid) / "shared" / mark, exist_ok=True)
        return self._in(shared.Shared(str(self.mount / "shared"), str(self.twins)), "shared")

    def _in(self, ground: Ground, name: str) -> tuple[Act, bool]:
        twin = str(self.twins / str(self.uid) / name)
        within = name == "shared"
        if within and not os.listdir(twin):
            return self._in(Own(str(self.mount / str(self.uid))), "home")
        act = choose(self.rng, twin, f"{self.uid}.", within=within)
        again = self._persist(act, ground)
        do(act, os.path.join(twin, act.path), os.path.join(twin, act.to))
        return act, again

    def _persist(self, act: Act, ground: Ground) -> bool:
        """Do it, however often the daemon is killed or others move it; whether it was tried more than once."""
        again = False
        while True:
            paths = [path and ground.at(path) for path in (act.path, act.to)]
            try:
                do(act, paths[0], paths[1])
            except OSError as error:
                pairs = zip((act.path, act.to), paths, strict=True)
                if isinstance(error, FileNotFoundError) and any(
                    path and ground.moved(path, was) for path, was in pairs
                ):
                    again = True
                elif error.errno in PASSING:
                    again = True
                    _wait_for(str(self.mount))
                elif again and was_done(act, error, paths[1]):
                    return True
                else:
                    raise RuntimeError(f"{act} {'again ' if again else ''}failed: {error}") from error
            else:
                return again


class Person:
    """A worker in a process of its own, under its uid."""

    def __init__(self, worker: Worker) -> None:
        self.uid = worker.uid
        self._end, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(target=_live, args=(theirs, worker), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, *order: Any) -> None:
        """Have something done: ("work", seconds) or ("trees", paths)."""
        self._end.send(order)

    def end(self) -> Any:
        """What came of it."""
        if not self._end.poll(_PATIENCE * 3):
            raise AssertionError(f"user {self.uid} hangs")
        kind, value = self._end.recv()
        if kind != "done":
            raise AssertionError(f"user {self.uid}: {value}")
        return value

    def leave(self) -> None:
        """End the process, at once if it waits for an order (those begun later have this end of the pipe open, too)."""
        with contextlib.suppress(OSError):
            self.begin("leave", None)
        self._process.join(10)
        self._process.kill()
        self._end.close()


def _live(orders: Connection, worker: Worker) -> None:
    os.setgroups([])
    os.setgid(worker.uid)
    os.setuid(worker.uid)
    os.umask(0)
    while True:
        what, value = orders.recv()
        if what == "leave":
            return
        try:
            orders.send(("done", worker.work(value) if what == "work" else [tree(path) for path in value]))
        except Exception:
            orders.send(("failed", traceback.format_exc()))


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
