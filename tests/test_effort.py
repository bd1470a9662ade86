"""What the engine keeps of each object, and how much it looks at for one call: not more the more there is."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isofs.engine import calls, recovery, suspicion
from isofs.engine.state import Caller, Filesystem, node_for
from isofs.model.records import MAIN
from isofs.store.folder import open_store
from support.engine import Kernel, Walker

FILES = 4000
CALLER = Caller(62001, 62001, os.getpid())
SUSPECT = Caller(62002, 62002, os.getpid() + 1)


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


@pytest.fixture
def people(fs: Filesystem) -> Iterator[tuple[Walker, Walker]]:
    """Root, and a suspect, in one engine."""
    os.umask(0)
    kernel = Kernel(fs)
    yield Walker(kernel, Caller(0, 0, os.getpid())), Walker(kernel, SUSPECT)
    kernel.close()


def _looks(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> int:
    """How many times a call asks the file system below for attributes."""
    asked = 0
    real = os.stat

    def counted(*args: Any, **more: Any) -> os.stat_result:
        nonlocal asked
        asked += 1
        return real(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", counted)
        call()
    return asked


def test_removing_one_of_several_names_looks_at_these_only(
    fs: Filesystem, people: tuple[Walker, Walker], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, suspect = people
    for number in range(3):
        root.write(b"f%d" % number, b"main's", os.O_WRONLY | os.O_CREAT)
        root.link(b"f%d" % number, b"g%d" % number)
    suspicion.suspect(fs, SUSPECT.uid, "suspect", "", "2026-01-01T00:00:00")
    few = _looks(monkeypatch, lambda: suspect.unlink(b"f0"))
    for number in range(200):
        suspect.write(b"own%d" % number, b"x", os.O_WRONLY | os.O_CREAT)
    assert _looks(monkeypatch, lambda: suspect.unlink(b"f1")) <= few + 4
    assert {b"g0", b"g1", b"f2", b"g2"} < suspect.listdir(b"").keys()
    assert suspect.stat(b"g1").nlink == 1


@pytest.mark.parametrize("known", [True, False])
def test_a_name_of_mains_behind_a_suspects_own_is_no_name_that_is_left(
    place: Path, fs: Filesystem, people: tuple[Walker, Walker], known: bool
) -> None:
    """The suspect removes the one name that it sees: the file is deleted in its view, whoever knows main's other."""
    root, suspect = people
    root.write(b"f", b"main's", os.O_WRONLY | os.O_CREAT)
    suspicion.suspect(fs, SUSPECT.uid, "suspect", "", "2026-01-01T00:00:00")
    suspect.write(b"x", b"own", os.O_WRONLY | os.O_CREAT)
    suspect.write(b"y", b"own", os.O_WRONLY | os.O_CREAT)
    if known:
        root.link(b"f", b"x")
    else:
        os.link(place / "tree" / "f", place / "tree" / "x")
    suspect.unlink(b"f")
    [subject] = fs.views
    deleted = [version for version in fs.views[subject].versions.values() if version.state == "d"]
    assert [fs.by_op[version.op].ino for version in deleted] == [(place / "tree" / "f").stat().st_ino]
    assert suspect.read(b"x") == b"own"
