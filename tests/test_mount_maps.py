"""Files that several processes have mapped: what each sees is what it sees on the host, trusted and suspect.

Scripts drawn at random, of two processes that write and read through maps, shared and private, and by calls.
"""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.mount import ALICE, BOB, CAROL, Mounted, Person, Worker

pytestmark = pytest.mark.mount

Begin = Callable[[int], Person]

PAGES = 3
SIZE = PAGES * mmap.PAGESIZE

#: What a worker process has open and mapped.
_open: dict[str, int] = {}
_maps: dict[str, mmap.mmap] = {}


def begin(path: str) -> None:
    """Open and map a file in every way."""
    for way, flags in {"both": os.O_RDWR, "read": os.O_RDONLY, "write": os.O_WRONLY}.items():
        _open[way] = os.open(path, flags)
    _maps["shared"] = mmap.mmap(_open["both"], SIZE)
    _maps["private"] = mmap.mmap(_open["both"], SIZE, flags=mmap.MAP_PRIVATE)
    _maps["reading"] = mmap.mmap(_open["read"], SIZE, prot=mmap.PROT_READ)


def do(name: str, how: str, at: int, value: bytes | int) -> bytes | None:
    """One step: write bytes to a map or by a call, or read a number of them; or write a map back to its file."""
    if isinstance(value, int):
        return bytes(_maps[how][at : at + value]) if name == "map" else os.pread(_open[how], value, at)
    if name == "map":
        _maps[how][at : at + len(value)] = value
    elif name == "call":
        os.pwrite(_open[how], value, at)
    else:
        _maps[how].flush()
    return None


def again() -> None:
    """Map anew: a private map forgets what was its own."""
    _maps.pop("private").close()
    _maps["private"] = mmap.mmap(_open["both"], SIZE, flags=mmap.MAP_PRIVATE)


def end() -> None:
    for memory in _maps.values():
        memory.close()
    _maps.clear()
    while _open:
        os.close(_open.popitem()[1])


def steps(seed: int) -> list[tuple[int, Callable[..., Any], tuple[Any, ...]]]:
    """What two processes do in turn."""
    draw = random.Random(seed)
    found: list[tuple[int, Callable[..., Any], tuple[Any, ...]]] = []
    for number in range(80):
        at = draw.choice([0, mmap.PAGESIZE - 2, mmap.PAGESIZE, SIZE - 4, draw.randrange(SIZE - 4)])
        text = b"%04d" % number
        step = draw.choices(
            [
                ("map", draw.choice(["shared", "private"]), at, text),
                ("call", draw.choice(["both", "write"]), at, text),
                ("map", draw.choice(["shared", "private", "reading"]), at, 4),
                ("call", draw.choice(["both", "read"]), at, 4),
                ("flush", "shared", 0, b""),
                None,
            ],
            [4, 2, 3, 2, 1, 0.3],
        )[0]
        who = draw.randrange(2)
        found.append((who, again, ()) if step is None else (who, do, step))
        for one in (0, 1):
            found += [(one, do, ("map", how, 0, SIZE)) for how in ("shared", "private", "reading")]
        found.append((1 - who, do, ("call", "read", 0, SIZE)))
    return found


def play(seed: int, pair: list[Worker], path: str) -> list[bytes | None]:
    """The answers to all steps of a script, and what is in the file at the end."""
    for one in pair:
        one(begin, path)
    answers = [pair[who](function, *args) for who, function, args in steps(seed)]
    for one in pair:
        one(end)
    return [*answers, pair[0](Path(path).read_bytes)]


@pytest.mark.parametrize("whose", ["trusted", "suspect", "suspect's own"])
def test_two_processes(mount: Mounted, person: Begin, place: Path, whose: str) -> None:
    """Every byte that either sees at any moment, of a file of main's and of one that a suspect made."""
    bob = person(BOB)
    uid = BOB if whose == "trusted" else ALICE
    pair: list[Worker] = [person(uid), person(uid)]
    mount.ask("suspect", uid=ALICE, user="alice")
    for seed in range(6):
        name, text = f"f{seed}", "." * SIZE
        (person(uid) if whose == "suspect's own" else bob).write(name, text)
        (place / name).write_text(text)
        (place / name).chmod(0o666)
        expected = play(seed, pair, str(place / name))
        assert play(seed, pair, str(mount.path / name)) == expected, seed
        if whose == "suspect":
            assert bob.read(name) == text
        elif whose == "trusted":
            assert bob.read(name).encode() == expected[-1]
        else:
            assert not bob.exists(name)


def test_a_suspect_and_a_trusted_user_do_not_meet(mount: Mounted, person: Begin) -> None:
    """Each has the file mapped in every way; whatever one writes, in whatever order, the other does not see."""
    bob, other, alice, carol = person(BOB), person(CAROL), person(ALICE), person(ALICE)
    bob.write("f", "." * SIZE)
    mount.ask("suspect", uid=ALICE, user="alice")
    alice.append("f", "!")
    for one in (bob, other, alice, carol):
        one(begin, one.path("f"))
    sides = {"b": (bob, other), "a": (alice, carol)}
    seen = {side: bytearray(b"." * SIZE) for side in sides}
    draw = random.Random(1)
    for number in range(60):
        side, at = draw.choice("ab"), draw.randrange(SIZE - 4)
        text = b"%s%03d" % (side.encode(), number)
        how = draw.choice([("map", "shared"), ("call", "both"), ("call", "write"), ("flush", "shared")])
        sides[side][number % 2](do, *how, at, text)
        if how[0] != "flush":
            seen[side][at : at + 4] = text
        for which, people in sides.items():
            for one in people:
                for way in (("map", "shared"), ("map", "reading"), ("call", "read")):
                    assert one(do, *way, 0, SIZE) == seen[which], (number, which, way)
    for one in (bob, other, alice, carol):
        one(end)
    assert bob.read("f").encode() == seen["b"]
    assert alice.read("f").encode() == seen["a"] + b"!"


def test_a_private_map_from_before_goes_on(mount: Mounted, person: Begin) -> None:
    """Of a file open for reading: it holds nobody up, nobody is killed, and what is written to it is nobody's."""
    bob, alice = person(BOB), person(ALICE)
    bob.write("f", "." * SIZE)
    alice(map_private, alice.path("f"))
    facts = mount.facts("suspect", str(ALICE))
    assert facts["killed"] == facts["left"] == []
    alice(do, "map", "private", 10, b"own")
    assert alice(do, "map", "private", 9, 5) == b".own."
    assert bob.read("f") == alice.read("f") == "." * SIZE
    bob(patch, bob.path("f"), 4096, b"main")
    assert alice(do, "map", "private", 4096, 4) == b"main"
    assert mount.facts("changes", str(ALICE))["changes"] == []
    alice(end)


def map_private(path: str) -> None:
    _open["read"] = os.open(path, os.O_RDONLY)
    _maps["private"] = mmap.mmap(_open["read"], SIZE, flags=mmap.MAP_PRIVATE)


def patch(path: str, at: int, data: bytes) -> None:
    opened = os.open(path, os.O_WRONLY)
    os.pwrite(opened, data, at)
    os.close(opened)


def test_a_suspects_map_of_mains_content_is_told_late(mount: Mounted, person: Begin) -> None:
    """A limit: of a file that the suspect did not change, a map shows main's changes when a call has looked at it."""
    bob, alice = person(BOB), person(ALICE)
    bob.write("f", "." * SIZE)
    mount.ask("suspect", uid=ALICE, user="alice")
    alice(begin, alice.path("f"))
    assert alice(do, "map", "shared", 0, 4) == b"...."
    bob(patch, bob.path("f"), 0, b"main")
    late = alice(do, "map", "shared", 0, 4)
    assert late == b"....", "the limit is gone: take it from docs/conformance.md"
    assert alice(do, "call", "both", 0, 4) == b"main"
    assert alice(do, "map", "shared", 0, 4) == b"main"
    alice(end)
