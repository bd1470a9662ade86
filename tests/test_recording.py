"""When a call is recorded: a suspect's before its answer, everybody else's between the answer and the next request."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyfuse3 import FUSEError

from isofs.audit import record
from isofs.audit.ring import Ring, open_ring
from isofs.audit.trail import Trail
from isofs.engine import recovery, suspicion
from isofs.engine.state import ROOT_NODE
from isofs.fuse.adapter import Adapter
from isofs.fuse.afterwards import Afterwards
from isofs.fuse.recording import Recorder
from isofs.store.folder import open_store

BOB, ALICE = 1001, 1003

DIRECTORY = stat.S_IFDIR | 0o755


class Recorded:
    """An adapter without a mount whose calls are recorded, as while requests are read."""

    def __init__(self, place: Path, tree: Path) -> None:
        self.fs = recovery.open_filesystem(open_store(str(place / "store")), str(tree))
        self.adapter = Adapter()
        self.adapter.answer_for(self.fs)
        self.adapter.afterwards.reading = True
        self.ring, _ = open_ring(str(place / "ring"), lambda: None)
        self._recorder = Recorder(self.adapter, self.fs, Trail(self.ring, 0), self._room, everyone=True)
        self._recorder.install()
        self.call(0, "getattr", ROOT_NODE)  # as the kernel does before anything else

    async def _room(self) -> None:
        raise AssertionError("there is room")

    def call(self, uid: int, name: str, *arguments: Any) -> Any:
        """What a handler answers, which waits for nothing."""
        context = SimpleNamespace(uid=uid, gid=uid, pid=os.getpid(), umask=0o022)
        handler: Coroutine[Any, Any, Any] = getattr(self.adapter, name)(*arguments, context)
        try:
            handler.send(None)
        except StopIteration as answer:
            return answer.value
        raise AssertionError(f"{name} waits")

    def told(self) -> list[tuple[int, str, bytes | None, int]]:
        """Who called what, on which path, and the error, as it is in the ring."""
        return told(self.ring)

    def close(self) -> None:
        self._recorder.remove()
        self.ring.close()
        recovery.close_filesystem(self.fs)


def told(ring: Ring) -> list[tuple[int, str, bytes | None, int]]:
    found = [record.unpacked(piece) for piece, _ in ring.waiting() if piece is not None]
    return [(one.uid, one.action, one.path, one.number) for one in found]


@pytest.fixture
def recorded(place: Path, tree: Path) -> Iterator[Recorded]:
    made = Recorded(place, tree)
    try:
        yield made
    finally:
        made.close()


def test_a_suspects_call_is_recorded_before_its_answer_and_others_after_it(recorded: Recorded) -> None:
    recorded.call(ALICE, "mkdir", ROOT_NODE, b"before", DIRECTORY)
    recorded.adapter.afterwards.do()
    suspicion.suspect(recorded.fs, ALICE, "alice", "", "2026-01-02T03:04:05Z")
    expected = [(ALICE, "mkdir", b"before", 0)]
    assert recorded.told() == expected
    recorded.call(ALICE, "mkdir", ROOT_NODE, b"hers", DIRECTORY)
    expected += [(ALICE, "mkdir", b"hers", 0)]
    assert recorded.told() == expected
    recorded.call(BOB, "mkdir", ROOT_NODE, b"his", DIRECTORY)
    assert recorded.told() == expected
    recorded.adapter.afterwards.do()
    assert recorded.told() == [*expected, (BOB, "mkdir", b"his", 0)]


def test_what_was_called_is_told_as_it_was_then(recorded: Recorded) -> None:
    """Names are those before the call, though they are looked for after it."""
    at = recorded.call(BOB, "mkdir", ROOT_NODE, b"a", DIRECTORY).st_ino
    recorded.adapter.afterwards.do()
    calls: list[tuple[str, tuple[Any, ...], bytes, int]] = [
        ("mkdir", (at, b"b", DIRECTORY), b"a/b", 0),
        ("mkdir", (at, b"b", DIRECTORY), b"a/b", 17),
        ("symlink", (at, b"s", b"where"), b"a/s", 0),
        ("rename", (at, b"b", ROOT_NODE, b"c", 0), b"c", 0),
        ("rename", (ROOT_NODE, b"a", ROOT_NODE, b"d", 0), b"d", 0),
        ("unlink", (at, b"s"), b"d/s", 0),
        ("unlink", (at, b"s"), b"d/s", 2),
        ("rmdir", (ROOT_NODE, b"d"), b"d", 0),
    ]
    expected = [(BOB, "mkdir", b"a", 0)]
    for name, arguments, path, number in calls:
        if number:
            with pytest.raises(FUSEError):
                recorded.call(BOB, name, *arguments)
        else:
            recorded.call(BOB, name, *arguments)
        recorded.adapter.afterwards.do()
        expected.append((BOB, name, path, number))
        assert recorded.told() == expected


def test_what_lost_its_name_is_told_by_whoever_found_it(recorded: Recorded, tree: Path) -> None:
    for name in ("gone", "kept"):
        (tree / name).write_bytes(b"")
    inode = (tree / "gone").stat().st_ino
    suspicion.suspect(recorded.fs, ALICE, "alice", "", "2026-01-02T03:04:05Z")
    hers = ("rename", ROOT_NODE, b"gone", ROOT_NODE, b"hers", 0)  # what she renames has an origin point
    with pytest.raises(FUSEError, match="Stale"):
        recorded.call(ALICE, *hers)
    for looked_up in (b"gone", b"hers"):  # as the kernel does then
        recorded.call(ALICE, "lookup", ROOT_NODE, looked_up)
    recorded.call(ALICE, *hers)
    recorded.call(BOB, "rename", ROOT_NODE, b"kept", ROOT_NODE, b"his", 0)
    recorded.call(BOB, "unlink", ROOT_NODE, b"gone")
    recorded.adapter.afterwards.do()
    pieces = [record.unpacked(piece) for piece, _ in recorded.ring.waiting() if piece is not None]
    assert [(one.path, one.ino, bool(one.op)) for one in pieces] == [
        (b"hers", inode, True),
        (b"his", (tree / "his").stat().st_ino, False),
        (b"gone", 0, True),  # main has it no more
    ]


def test_what_cannot_be_recorded_is_counted_and_ends_nothing(
    recorded: Recorded, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspicion.suspect(recorded.fs, ALICE, "alice", "", "2026-01-02T03:04:05Z")
    with monkeypatch.context() as broken, caplog.at_level(logging.ERROR):
        broken.setattr("isofs.audit.trail.packed", None)
        for uid in (ALICE, BOB):
            recorded.call(uid, "mkdir", ROOT_NODE, b"%d" % uid, DIRECTORY)
            recorded.adapter.afterwards.do()
    assert [one.message for one in caplog.records] == ["mkdir could not be recorded"] * 2
    assert recorded.told() == []
    recorded.call(ALICE, "mkdir", ROOT_NODE, b"next", DIRECTORY)
    gap, found = [record.unpacked(piece) for piece, _ in recorded.ring.waiting() if piece is not None]
    assert gap.action == record.GAP
    assert gap.more is not None
    assert cast(dict[str, object], gap.more["facts"])["lost"] == 2
    assert found.path == b"next"


def test_what_fails_after_an_answer_keeps_nothing_else_from_being_done(caplog: pytest.LogCaptureFixture) -> None:
    afterwards, done = Afterwards(), list[int]()
    afterwards.reading = True
    for number in range(3):
        afterwards.add(lambda number: done.append(1 // number), number)
    with caplog.at_level(logging.ERROR):
        afterwards.do()
    assert done == [1, 0]
    assert [one.message for one in caplog.records] == ["what follows an answer failed"]


def test_without_requests_nothing_waits(recorded: Recorded) -> None:
    recorded.adapter.afterwards.reading = False
    recorded.call(BOB, "mkdir", ROOT_NODE, b"his", DIRECTORY)
    assert recorded.told() == [(BOB, "mkdir", b"his", 0)]
