"""Objects are made when somebody asks for them: in whatever order and way, they are what the store says."""

from __future__ import annotations

import os
import random
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from isofs.engine import calls, reading, recovery, suspicion
from isofs.engine.state import Caller, Filesystem, Obj, node_for
from isofs.errors import StoreUnusable
from isofs.model.records import MAIN, Op, Origin, Put
from isofs.store.folder import open_store
from support.engine import Kernel, Walker

FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR
DEEP = 3000

#: What an object is: origin point, type, inode, and the names that it has in main.
Facts = tuple[Op, int, int, set[tuple[Op, bytes]]]


@pytest.fixture
def main(place: Path) -> Path:
    (place / "main").mkdir()
    return place / "main"


def rows(main: Path) -> list[Origin]:
    """Origins below each other, some of which main has no more or not yet, and two of one inode."""
    root = main.stat().st_ino
    found = [Origin(1, DIRECTORY, root, None, b"", None)]
    for op in range(2, 60):
        parent = random.Random(op).choice([one.op for one in found if one.kind == DIRECTORY and one.ino])
        ino = None if op % 7 == 0 else root + 1000 + op
        found.append(Origin(op, FILE if op % 3 else DIRECTORY, ino, parent, b"%d" % op, None))
    return [*found, Origin(60, FILE, found[1].ino, 1, b"again", None)]


def expected(origins: list[Origin]) -> dict[Op, Facts]:
    """By the rows: one object for an inode, with the last origin point, and the names of all."""
    told = {}
    for origin in origins:
        same = [one for one in origins if one is origin or (one.ino is not None and one.ino == origin.ino)]
        names = {(one.parent, one.name) for one in same if one.parent is not None and one.ino is not None}
        told[origin.op] = (same[-1].op, origin.kind, origin.ino or 0, names)
    return told


def facts(fs: Filesystem, op: Op) -> Facts:
    obj = fs.by_op[op]
    assert not obj.ino or fs.objects[obj.ino] is obj
    return obj.op, obj.kind, obj.ino, {(directory.op, name) for directory, name in obj.links}


def by_op(fs: Filesystem, origin: Origin) -> None:
    assert origin.op in fs.by_op
    assert fs.by_op.get(origin.op) is fs.by_op[origin.op]


def by_inode(fs: Filesystem, origin: Origin) -> None:
    if origin.ino is not None:
        assert origin.ino in fs.objects
        assert fs.objects.get(origin.ino) is fs.objects[origin.ino]


def by_loss(fs: Filesystem, origin: Origin) -> None:
    """Another object gets the inode, and the one that had it gets it back."""
    if origin.ino is not None and origin.parent is not None:
        fs.objects[origin.ino] = Obj(FILE, origin.ino)
        fs.objects[origin.ino] = fs.by_op[origin.op]


@pytest.mark.parametrize("ask", [by_op, by_inode, by_loss])
@pytest.mark.parametrize("seed", range(4))
def test_objects_are_what_the_store_says(
    place: Path, main: Path, ask: Callable[[Filesystem, Origin], None], seed: int
) -> None:
    store, origins = open_store(str(place / "store")), rows(main)
    store.write([Put(origin) for origin in origins])
    fs = reading.load(store, str(main))
    for origin in random.Random(seed).sample(origins, len(origins)):
        ask(fs, origin)
    assert {origin.op: facts(fs, origin.op) for origin in origins} == expected(origins)
    assert len({id(obj) for obj in fs.by_op.values()}) == len(origins) - 1
    assert fs.by_op.get(99) is fs.by_op.get(None) is None
    assert 99 not in fs.by_op
    recovery.close_filesystem(fs)


def test_depth_costs_no_stack(place: Path, main: Path) -> None:
    store, root = open_store(str(place / "store")), main.stat().st_ino
    chain = [Origin(op, DIRECTORY, root + op - 1, op - 1 or None, b"d", None) for op in range(1, DEEP)]
    store.write([Put(origin) for origin in chain])
    fs = reading.load(store, str(main))
    obj, depth = fs.by_op[DEEP - 1], 1
    while obj is not fs.root:
        [(obj, _)] = obj.links
        depth += 1
    assert depth == DEEP - 1
    recovery.close_filesystem(fs)


def test_what_lies_in_no_known_directory_is_refused(place: Path, main: Path) -> None:
    store = open_store(str(place / "store"))
    store.write([Put(origin) for origin in rows(main)])
    with closing(sqlite3.connect(place / "store" / "isofs.db")) as connection, connection:
        connection.execute("UPDATE origins SET parent = 99 WHERE op = 2")
    with pytest.raises(StoreUnusable, match="unknown directory, 99; see isoctl check"):
        reading.load(store, str(main))
    store.close()


def test_a_start_makes_no_object_that_nobody_asks_for(place: Path, main: Path) -> None:
    """And a user who comes to one by its name is at the store's."""
    for number in range(50):
        (main / str(number)).touch()
    fs = recovery.open_filesystem(open_store(str(place / "store")), str(main))
    suspicion.suspect(fs, 62002, "alice", "", "2026-01-01T00:00:00Z")
    alice = Walker(Kernel(fs), Caller(62002, 62002, os.getpid() + 1))
    for number in range(50):
        alice.write(b"%d" % number, b"hers", os.O_WRONLY)
    recovery.close_filesystem(fs)
    fs = recovery.open_filesystem(open_store(str(place / "store")), str(main))
    assert len(fs.origins) == 51
    assert list(fs.by_op.values()) == [fs.root]
    found = calls.lookup(fs, Caller(62001, 62001, os.getpid()), node_for(fs, MAIN, fs.root), b"7")
    assert found is not None
    assert fs.origins[found.node.obj.op].name == b"7"
    recovery.close_filesystem(fs)
