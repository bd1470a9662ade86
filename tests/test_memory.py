"""What the engine keeps of each object while the kernel remembers it."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from isofs.engine import calls, recovery
from isofs.engine.state import Caller, Filesystem, node_for
from isofs.model.records import MAIN
from isofs.store.folder import open_store

FILES = 4000
CALLER = Caller(62001, 62001, os.getpid())


@pytest.fixture
def fs(place: Path) -> Iterator[Filesystem]:
    tree = place / "tree"
    tree.mkdir()
    found = recovery.open_filesystem(open_store(str(place / "store")), str(tree))
    yield found
    recovery.close_filesystem(found)


def test_a_remembered_node_takes_less_than_a_kibibyte(place: Path, fs: Filesystem) -> None:
    names = [b"a file with a name of some length %d" % number for number in range(FILES)]
    for name in names:
        os.mknod(os.fsencode(place / "tree") + b"/" + name)
    root = node_for(fs, MAIN, fs.root)
    nodes = []
    tracemalloc.start()
    try:
        for name in names:
            found = calls.lookup(fs, CALLER, root, bytes(bytearray(name)))  # a copy, as every request brings one
            assert found is not None
            nodes.append(found.node)
        took = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert took / FILES < 850
    while nodes:
        calls.forget(fs, nodes.pop(), 1)
    del found
    assert list(fs.nodes.values()) == [root]
    assert list(fs.objects.values()) == [fs.root]


def test_names_are_known_one_by_one(place: Path, fs: Filesystem) -> None:
    """An object is reached by each name that it has, and forgets those that it has no more, however many there are."""
    tree = place / "tree"
    (tree / "a").touch()
    os.link(tree / "a", tree / "b")
    os.link(tree / "a", tree / "c")
    root = node_for(fs, MAIN, fs.root)
    found = [calls.lookup(fs, CALLER, root, name) for name in (b"a", b"b", b"c")]
    obj = fs.objects[(tree / "a").stat().st_ino]
    assert [entry and entry.node.obj for entry in found] == [obj, obj, obj]
    assert set(obj.links) == {(fs.root, b"a"), (fs.root, b"b"), (fs.root, b"c")}
    calls.unlink(fs, CALLER, root, b"a")
    assert set(obj.links) == {(fs.root, b"b"), (fs.root, b"c")}
    calls.rename(fs, CALLER, root, b"b", root, b"d")
    calls.unlink(fs, CALLER, root, b"c")
    assert list(obj.links) == [(fs.root, b"d")]
    calls.link(fs, CALLER, obj.nodes[0], root, b"e")
    calls.unlink(fs, CALLER, root, b"d")
    assert list(obj.links) == [(fs.root, b"e")]
    calls.unlink(fs, CALLER, root, b"e")
    assert not obj.links
