"""Large directories read while they change: what is there all the time is told once, however it is read."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import listing
from support.mount import ALICE, BOB, Mounted, Person, mounted

pytestmark = pytest.mark.mount

COUNT = 20_000
SIZES = (300, 4096, 32_768, 1 << 20)
STIRS = 12

#: What is there all the time; some of it is replaced by renaming.
ALWAYS = {f"stays-{n}" for n in range(COUNT)} | {f"saved-{n}" for n in range(STIRS * 10)}


@pytest.fixture
def large(place: Path) -> Iterator[Mounted]:
    """A mount with a directory of many entries, and some more that others will rename, remove or save."""
    tree = place / "tree"
    directory = tree / "d"
    directory.mkdir(parents=True)
    names = [*ALWAYS, *(f"{kind}-{n}" for kind in ("kept", "gone", "moves") for n in range(STIRS * 10))]
    opened = os.open(directory, os.O_RDONLY)
    for name in names:
        os.mknod(name, 0o666 | stat.S_IFREG, dir_fd=opened)
        os.chmod(name, 0o666, dir_fd=opened)
    os.close(opened)
    for path in (tree, directory):
        path.chmod(0o777)
    with mounted(tree) as mount:
        yield mount


def stir(one: Person, number: int, who: str) -> None:
    """Come, go, move and save: what one user does to the directory at a moment."""
    for count in range(number * 10, number * 10 + 10):
        one.write(f"d/new-{who}-{count}", "x")
        one.rename(f"d/moves-{count}", f"d/moved-{who}-{count}")
        one.remove(f"d/gone-{count}")
        one.save(f"d/saved-{count}", who)
        one.append(f"d/stays-{count}", who)


def walk(
    reader: Person, seed: int, stays: Callable[[str], bool], disturb: Callable[[int], None]
) -> tuple[list[str], list[str]]:
    """Read the directory in random portions, going back now and then; what was told, and what that was of staying."""
    draw = random.Random(seed)
    told: list[str] = []
    positions: list[tuple[int, int]] = []
    moments = list(range(STIRS))
    reader(listing.begin, reader.path("d"))
    while True:
        step = draw.random()
        if step < 0.1 and positions:
            position, length = draw.choice(positions)
            reader(listing.seek, position)
            del told[length:]
            positions = [one for one in positions if one[1] <= length]
        elif step < 0.12:
            reader(listing.seek, 0)
            told, positions = [], []
        elif step < 0.4 and moments:
            disturb(moments.pop(0))
        else:
            found = reader(listing.read, draw.choice([1, 7, 900, 4000]), draw.choice(SIZES))
            if not found and not moments:
                break
            told += found
            positions.append((reader(listing.tell), len(told)))
    reader(listing.end)
    return told, [name for name in told if stays(name)]


def test_a_trusted_user_reads(large: Mounted) -> None:
    """While another trusted user and a suspect change it."""
    bob, other, alice = (Person(uid, large.path) for uid in (BOB, BOB, ALICE))
    large.ask("suspect", uid=ALICE, user="alice")

    def disturb(number: int) -> None:
        stir(alice, number, "alice")
        stir(other, number, "bob")

    try:
        told, staying = walk(bob, 1, ALWAYS.__contains__, disturb)
        assert len(staying) == len(set(staying))
        assert set(staying) == ALWAYS
        assert len(told) == len(set(told))
        assert not [name for name in told if "alice" in name]
    finally:
        for one in (bob, other, alice):
            one.close()


@pytest.mark.parametrize(("before", "verdict"), [(False, None), (True, None), (True, "innocent"), (True, "malicious")])
def test_a_suspect_reads(large: Mounted, before: bool, verdict: str | None) -> None:
    """While the same suspect, another process, and a trusted user change it; and a verdict falls in the middle.

    `before`: with entries of its own from the beginning, which stay in an innocent verdict as all else does.
    """
    bob, alice, again = (Person(uid, large.path) for uid in (BOB, ALICE, ALICE))
    large.ask("suspect", uid=ALICE, user="alice")
    always = set(ALWAYS)
    if before:
        own = {f"own-{number}" for number in range(300)}
        for name in own:
            alice.write(f"d/{name}", "x")
        for number in range(STIRS * 10):
            alice.append(f"d/kept-{number}", "x")
        always |= own if verdict != "malicious" else set()
        always |= {f"kept-{number}" for number in range(STIRS * 10)} if verdict is None else set()

    def disturb(number: int) -> None:
        if number == STIRS // 2 and verdict is not None:
            large.ask(verdict, uid=ALICE)
            return
        if verdict is None or number < STIRS // 2:
            stir(again, number, "alice")
            for count in range(number * 10, number * 10 + 10):
                bob.remove(f"d/kept-{count}")
                bob.write(f"d/new-bob-{count}", "x")

    try:
        told, staying = walk(alice, 2, always.__contains__, disturb)
        assert len(staying) == len(set(staying))
        assert set(staying) == always
        assert len(told) == len(set(told))
    finally:
        for one in (bob, alice, again):
            one.close()
