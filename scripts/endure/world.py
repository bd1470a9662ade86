"""A mount with people at work on it, and what the control socket says and does."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acts import Tree, tree
from people import Person

from isofs.control import client, mounts
from isofs.errors import IsofsError, NoAnswer

#: Uids: of those whom everybody trusts, of suspects who are innocent, and of those who are not.
TRUSTED, INNOCENT, MALICIOUS = (61101, 61102, 61103), (61111, 61112), (61121, 61122)

#: Seconds that a machine may be too busy to hear of the daemon.
_PATIENCE = 120.0


@dataclass(frozen=True)
class Twins:
    """What should be there of somebody's work: at home, and in the shared directory, there by mark."""

    home: Tree
    shared: Tree


@dataclass
class World:
    """The mount, the people, and what main should be of each innocent suspect's work.

    Beside the mount are twins: a directory for each honest person, and what the rooms of the shared directory are.
    """

    mount: Path
    twins: Path
    rooms: Path
    rng: random.Random
    people: dict[int, Person] = field(default_factory=dict)
    suspects: set[int] = field(default_factory=set)
    frozen: dict[int, Twins] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    calm: bool = False
    log: list[str] = field(default_factory=list)

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def ask(self, call: str, **args: object) -> Any:
        """What the daemon says to a call; an AssertionError if it refuses."""
        try:
            return client.call(mounts.socket_for(str(self.mount)), call, args, timeout=_PATIENCE)
        except IsofsError as error:
            raise AssertionError(f"{call} {args}: {error}") from error

    def start(self) -> None:
        command = [sys.executable, "-m", "isoctl.main", "mount", str(self.mount)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        if done.returncode:
            raise AssertionError(done.stderr)

    @property
    def pid(self) -> int:
        return int(self.ask("status")["pid"])

    def states(self) -> dict[int, str]:
        return {one["uid"]: one["state"] for one in self.ask("status")["subjects"]}

    def kill(self, pid: int) -> None:
        """SIGKILL the daemon and start another one."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.count("kills")
        self.start()

    def cut_off(self, call: str, uid: int) -> None:
        """Kill the daemon somewhere in a verdict."""
        pid, said = self.pid, list[str]()

        def verdict() -> None:
            try:
                client.call(mounts.socket_for(str(self.mount)), call, {"uid": uid}, timeout=_PATIENCE)
                said.append("was done before")
            except NoAnswer:
                said.append("was cut off")

        thread = threading.Thread(target=verdict)
        thread.start()
        time.sleep(self.rng.choice([0.02, 0.1, 0.4]) * self.rng.random())
        self.kill(pid)
        thread.join()
        self.log.append(f"{call} {uid} {' '.join(said) or 'failed'}")

    def suspect(self, uid: int) -> None:
        self.ask("suspect", uid=uid, user=str(uid), reason="", handles="kill")
        self.log.append(f"{uid} suspected")
        self.suspects.add(uid)
        self.count("suspicions")
        if uid in INNOCENT:
            self.frozen[uid] = self.twins_of(uid)

    def decide(self, uid: int) -> None:
        call = "innocent" if uid in INNOCENT else "malicious"
        if not self.calm and self.rng.random() < 0.3:
            self.cut_off(call, uid)
        if self.states().get(uid) == "suspect":
            done = self.ask(call, uid=uid)
            kept = [one for one in done.get("items", []) if one["action"] not in ("took", "deleted")]
            self.log += [f"{uid}: {one['action']} {one['path']}: {one['reason']}" for one in kept]
        if uid in self.states():
            raise AssertionError(f"user {uid} still waits: {self.ask('status')}")
        self.suspects.discard(uid)
        self.frozen.pop(uid, None)
        self.log.append(f"{uid} decided about")
        self.count("verdicts")

    def twins_of(self, uid: int) -> Twins:
        """What somebody should see of the own work, now."""
        at = self.twins / str(uid)
        return Twins(tree(str(at / "home")), tree(str(at / "shared")))
