"""Work, suspicions, verdicts and crashes at random, and after each round a comparison with what should be there."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import shared
from acts import Tree, tree
from people import Person, Worker
from world import INNOCENT, MALICIOUS, TRUSTED, Twins, World

#: Seconds of work between two comparisons.
ROUND = 1.5

#: How much more memory the daemon may have at the end of the calm half, and how many descriptors: it keeps 512 of
#: directories, and what people have open.
_MEMORY, _DESCRIPTORS = 1.1, 700


def _settle(world: World) -> None:
    """Begin and end suspicions, while nobody works; a verdict may be cut off by a kill."""
    for uid in (*INNOCENT, *MALICIOUS):
        if uid not in world.suspects:
            if uid in MALICIOUS or world.rng.random() < 0.5:
                world.suspect(uid)
        elif world.rng.random() < 0.3:
            world.decide(uid)


def _work(world: World) -> None:
    working = [one for uid, one in world.people.items() if uid not in MALICIOUS or uid in world.suspects]
    pid = world.pid
    for one in working:
        one.begin("work", ROUND)
    if not world.calm and (world.rng.random() < 0.5 or "kills" not in world.counts):
        time.sleep(world.rng.uniform(0, ROUND))
        world.kill(pid)
    for one in working:
        done, twice = one.end()
        world.count("acts", done)
        world.log += [f"{one.uid} tried again: {act}" for act in twice]


def _compare(world: World) -> None:
    """Main and every innocent suspect's view are what they should be."""
    now = {uid: world.twins_of(uid) for uid in (*TRUSTED, *INNOCENT)}
    main = {**now, **world.frozen}
    seen = {TRUSTED[0]: main, **{uid: {**main, uid: now[uid]} for uid in INNOCENT}}
    homes = {uid: (*now,) if uid in TRUSTED else (uid, world.rng.choice(TRUSTED)) for uid in seen}
    for uid in seen:
        paths = [world.mount / str(of) for of in homes[uid]]
        world.people[uid].begin("trees", [*map(str, paths), str(world.mount / "shared")])
    for uid, expected in seen.items():
        *found, together = world.people[uid].end()
        for of, one in zip(homes[uid], found, strict=True):
            _same(f"what {uid} sees of the tree of {of}", one, expected[of].home)
        _same(f"what {uid} sees of what is shared", together, _together(world, expected))
    check = world.ask("check")
    if not check["ok"]:
        raise AssertionError(f"check: {check['problems']}")
    world.count("comparisons")


def _together(world: World, expected: Mapping[int, Twins]) -> Tree:
    trees = {uid: one.shared for uid, one in expected.items()}
    return shared.together(trees, shared.places(str(world.twins)), tree(str(world.rooms)))


def _same(what: str, found: Tree, expected: Tree) -> None:
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
    world.ask("status")
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
    world = World(base / "tree", base / "twins", base / "rooms", random.Random(seed))
    _furnish(world)
    world.start()
    try:
        for uid in (*TRUSTED, *INNOCENT, *MALICIOUS):
            rng = random.Random(seed + uid)
            world.people[uid] = Person(
                Worker(uid, world.mount, world.twins, rng, malicious=uid in MALICIOUS, arranges=uid in TRUSTED)
            )
        yield world
        for uid in sorted(world.suspects):
            world.decide(uid)
        _compare(world)
    finally:
        for person in world.people.values():
            person.leave()
        subprocess.run(["umount", "-l", str(world.mount)], check=False, capture_output=True)
        shutil.rmtree(base, ignore_errors=True)


def _furnish(world: World) -> None:
    """What is there before anybody comes."""
    for place in (world.rooms, world.mount / "shared"):
        for path in (place, *(place / room for room in shared.ROOMS)):
            _make(path, 0)
    for uid in (*TRUSTED, *INNOCENT, *MALICIOUS):
        _make(world.mount / str(uid), uid)
    for uid in (*TRUSTED, *INNOCENT):
        twin = world.twins / str(uid)
        for path in (twin, twin / "home", twin / "shared", twin / "places"):
            _make(path, uid)


def _make(path: Path, uid: int) -> None:
    path.mkdir(parents=True)
    os.chown(path, uid, uid)
    path.chmod(0o777)


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
