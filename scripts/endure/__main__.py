"""Work, suspicions, verdicts and crashes at random, and after each round a comparison with what should be there."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acts import tree
from people import Person

#: Uids: of those whom everybody trusts, of suspects who are innocent, and of those who are not.
TRUSTED, INNOCENT, MALICIOUS = (61101, 61102, 61103), (61111, 61112), (61121, 61122)

#: Seconds of work between two comparisons.
ROUND = 1.5

#: How much more memory the daemon may have at the end of the calm half, and how many descriptors: it keeps 512 of
#: directories, and what people have open.
_MEMORY, _DESCRIPTORS = 1.1, 700


@dataclass
class World:
    """The mount, the people, and what main should be of each honest person's tree."""

    mount: Path
    twins: Path
    rng: random.Random
    people: dict[int, Person] = field(default_factory=dict)
    suspects: set[int] = field(default_factory=set)
    frozen: dict[int, dict[str, tuple[object, ...]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    calm: bool = False
    log: list[str] = field(default_factory=list)

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def isoctl(self, *words: str, check: bool = True) -> Any:
        command = [sys.executable, "-m", "isoctl.main", "--mount", str(self.mount), *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if check and done.returncode:
            raise AssertionError(f"isoctl {' '.join(words)}: {done.stderr}{done.stdout}")
        return json.loads(done.stdout or "{}")

    def start(self) -> None:
        command = [sys.executable, "-m", "isoctl.main", "mount", str(self.mount)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise AssertionError(done.stderr)

    @property
    def pid(self) -> int:
        return int(self.isoctl("status")["pid"])

    def states(self) -> dict[int, str]:
        return {one["uid"]: one["state"] for one in self.isoctl("status")["subjects"]}


def _settle(world: World) -> None:
    """Begin and end suspicions, while nobody works; a verdict may be cut off by a kill."""
    for uid in (*INNOCENT, *MALICIOUS):
        if uid not in world.suspects:
            if uid in MALICIOUS or world.rng.random() < 0.5:
                world.isoctl("suspect", str(uid))
                world.log.append(f"{uid} suspected")
                world.suspects.add(uid)
                world.count("suspicions")
                twin = world.people[uid].twin
                world.frozen[uid] = {} if twin is None else tree(twin)
        elif world.rng.random() < 0.3:
            _decide(world, uid)


def _decide(world: World, uid: int) -> None:
    words = ["innocent", str(uid)] if uid in INNOCENT else ["malicious", str(uid), "--yes"]
    if not world.calm and world.rng.random() < 0.3:
        _cut_off(world, words)
    if world.states().get(uid) == "suspect":
        done = world.isoctl(*words)
        kept = [one for one in done.get("items", []) if one["action"] not in ("took", "deleted")]
        world.log += [f"{uid}: {one['action']} {one['path']}: {one['reason']}" for one in kept]
    if uid in world.states():
        raise AssertionError(f"user {uid} still waits: {world.isoctl('status')}")
    world.suspects.discard(uid)
    world.log.append(f"{uid} decided about")
    world.count("verdicts")


def _cut_off(world: World, words: list[str]) -> None:
    """Kill the daemon somewhere in a verdict."""
    pid = world.pid
    command = [sys.executable, "-m", "isoctl.main", "--mount", str(world.mount), *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as verdict:
        time.sleep(world.rng.uniform(0.15, 0.6))
        _kill(world, pid)
        world.log.append(f"{words} cut off: {verdict.wait(60)}")


def _kill(world: World, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    world.count("kills")
    world.start()


def _work(world: World) -> None:
    working = [one for uid, one in world.people.items() if uid not in MALICIOUS or uid in world.suspects]
    pid = world.pid
    for one in working:
        one.begin("work", ROUND)
    if not world.calm and world.rng.random() < 0.5:
        time.sleep(world.rng.uniform(0, ROUND))
        _kill(world, pid)
    for one in working:
        done, twice = one.end()
        world.count("acts", done)
        world.log += [f"{one.uid} tried again: {act}" for act in twice]


def _compare(world: World) -> None:
    """Main and every innocent suspect's view are what they should be."""
    expected = {uid: tree(str(world.people[uid].twin)) for uid in (*TRUSTED, *INNOCENT)}
    main = {**expected, **{uid: world.frozen[uid] for uid in world.suspects & set(INNOCENT)}}
    for observer in TRUSTED[:1]:
        for uid, there in main.items():
            _same(f"main, tree of {uid}", world.people[observer].ask("tree", world.people[uid].home), there)
    for uid in INNOCENT:
        for of in (uid, world.rng.choice(TRUSTED)):
            seen = world.people[uid].ask("tree", world.people[of].home)
            _same(f"what {uid} sees of the tree of {of}", seen, expected[of])
    found = world.isoctl("check")
    if not found["ok"]:
        raise AssertionError(f"check: {found['problems']}")
    world.count("comparisons")


def _same(what: str, found: dict[str, tuple[object, ...]], expected: dict[str, tuple[object, ...]]) -> None:
    if found != expected:
        lines = [
            f"  {path}: is {found.get(path)}, should be {expected.get(path)}"
            for path in sorted(found.keys() | expected.keys())
            if found.get(path) != expected.get(path)
        ]
        raise AssertionError(f"{what}:\n" + "\n".join(lines[:10]))


def _burden(world: World) -> tuple[int, int]:
    """The daemon's memory in bytes and its descriptors, once the kernel has forgotten what it need not know."""
    pid = world.pid
    Path("/proc/sys/vm/drop_caches").write_text("2")
    world.isoctl("status")
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) << 10, len(os.listdir(f"/proc/{pid}/fd"))


def _flat(burdens: list[tuple[int, int]]) -> str:
    """Compares the begin of the calm half with its end."""
    quarter = max(1, len(burdens) // 4)
    first, last = burdens[:quarter], burdens[-quarter:]
    memory = [statistics.median(one[0] for one in part) for part in (first, last)]
    descriptors = [statistics.median(one[1] for one in part) for part in (first, last)]
    if memory[1] > memory[0] * _MEMORY + (4 << 20):
        raise AssertionError(f"the daemon's memory grew from {memory[0]:.0f} to {memory[1]:.0f} bytes")
    if descriptors[1] > _DESCRIPTORS:
        raise AssertionError(f"the daemon's descriptors grew from {descriptors[0]} to {descriptors[1]}")
    grown = [f"{size / 2**20:.1f} MiB" for size in memory]
    return f"memory {' -> '.join(grown)}, descriptors {descriptors[0]:.0f} -> {descriptors[1]:.0f}"


@contextlib.contextmanager
def _world(seed: int) -> Iterator[World]:
    base = Path(tempfile.mkdtemp(prefix="isofs-soak-", dir="/var/tmp"))
    base.chmod(0o755)
    world = World(base / "tree", base / "twins", random.Random(seed))
    for place in (world.mount, world.twins):
        place.mkdir()
    world.start()
    try:
        for uid in (*TRUSTED, *INNOCENT, *MALICIOUS):
            twin = None if uid in MALICIOUS else world.twins / str(uid)
            for path in (world.mount / str(uid), *([] if twin is None else [twin])):
                path.mkdir()
                os.chown(path, uid, uid)
                path.chmod(0o777)
            home = str(world.mount / str(uid))
            world.people[uid] = Person(uid, str(world.mount), home, None if twin is None else str(twin), seed + uid)
        yield world
        for uid in sorted(world.suspects):
            _decide(world, uid)
        _compare(world)
    finally:
        for person in world.people.values():
            person.leave()
        subprocess.run(["umount", "-l", str(world.mount)], check=False, capture_output=True)
        shutil.rmtree(base, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak")
    parser.add_argument("--seconds", type=float, default=3600, help="how long; an hour")
    parser.add_argument(
        "--seed", type=int, default=None, help="what is random is the same with the same seed, but for time"
    )
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else int(time.time())
    print(f"seed {seed}", flush=True)
    began, burdens, worlds = time.monotonic(), list[tuple[int, int]](), list[World]()
    try:
        with _world(seed) as world:
            worlds.append(world)
            told = began
            while (passed := time.monotonic() - began) < args.seconds:
                world.calm = passed > args.seconds / 2
                world.log.append(f"round at {passed:.1f} s")
                _settle(world)
                _work(world)
                _compare(world)
                if world.calm:
                    burdens.append(_burden(world))
                if time.monotonic() - told > 60:
                    told = time.monotonic()
                    print(f"{passed:6.0f} s  {_told(world)}", flush=True)
            world.calm = True
            flat = _flat(burdens)
    except AssertionError as error:
        print(f"soak: {error}\nsoak: seed {seed}", file=sys.stderr)
        if worlds:
            print("\n".join(["the last that happened:", *worlds[0].log[-30:]]), file=sys.stderr)
        sys.exit(1)
    print(f"{time.monotonic() - began:6.0f} s  {_told(world)}; {flat}")


def _told(world: World) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(world.counts.items()))


if __name__ == "__main__":
    main()
