"""Another process writes to the database, or no descriptors are left: nobody waits for long, and nothing leaks."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from isofs.engine import recovery, suspicion
from isofs.engine.checks import check
from isofs.engine.state import Caller
from isofs.errors import IsofsError, StoreUnusable
from isofs.merge import apply
from isofs.store import database
from isofs.store.folder import open_store
from support.engine import Kernel, Walker
from support.mount import ALICE, BOB

NAMES = [b"f%d" % number for number in range(20)]


class World:
    """An engine with a suspect and a trusted user."""

    def __init__(self, main: Path) -> None:
        main.mkdir()
        for name in NAMES:
            (main / os.fsdecode(name)).write_text("main")
        self.main, self.fs = main, recovery.open_filesystem(open_store(str(main / ".isofs")), str(main))
        self.kernel = Kernel(self.fs)
        self.alice, self.bob = (Walker(self.kernel, Caller(uid, uid, uid)) for uid in (ALICE, BOB))
        suspicion.suspect(self.fs, ALICE, "alice", "", "2026-01-01T00:00:00Z")
        self.alice.write(b"f0", b"alice", os.O_WRONLY)

    @property
    def sid(self) -> int:
        return self.fs.suspects[ALICE]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "main")
    yield world
    world.kernel.close()
    recovery.close_filesystem(world.fs)


@contextmanager
def writing(world: World) -> Iterator[None]:
    """Somebody else has begun to write to the database."""
    with closing(sqlite3.connect(world.main / ".isofs/isofs.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_nobody_waits_long_for_who_writes_to_the_database(world: World) -> None:
    with writing(world):
        start = time.monotonic()
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            world.alice.write(b"f1", b"alice", os.O_WRONLY)
        assert time.monotonic() - start < 2 * database.BUSY
        assert world.alice.read(b"f1") == b"main"
        world.bob.write(b"f2", b"bob!", os.O_WRONLY)  # has to do with no suspect: needs no row
        assert world.fs.failure is None
        start = time.monotonic()
        world.bob.write(b"f0", b"bob!", os.O_WRONLY)  # counts: without the store, if it must be
        assert time.monotonic() - start < 2 * database.BUSY
        assert (world.main / "f0").read_bytes() == b"bob!"
        assert world.fs.failure is not None


def test_a_suspect_goes_on_when_the_database_is_free_again(world: World) -> None:
    with writing(world), pytest.raises(OSError, match=os.strerror(errno.EIO)):
        world.alice.write(b"f1", b"alice", os.O_WRONLY)
    world.alice.write(b"f1", b"alice", os.O_WRONLY)
    assert world.fs.trouble is None
    assert check(world.fs) == []
    with writing(world), pytest.raises(StoreUnusable, match="locked"):
        apply.innocent(world.fs, world.sid)
    apply.innocent(world.fs, world.sid)
    assert (world.main / "f1").read_bytes() == b"alice"
    assert check(world.fs) == []


def test_another_process_that_ends_takes_no_row_along(world: World) -> None:
    """Who closes a database last folds its log into it: nobody else while we have it open."""
    world.fs.store.sync()
    _in_a_process(world.main)
    world.alice.write(b"f1", b"alice", os.O_WRONLY)
    world.fs.store.sync()
    with closing(sqlite3.connect(world.main / ".isofs/isofs.db")) as other:
        assert other.execute("SELECT count(*) FROM versions").fetchall() == [(2,)]


def _in_a_process(main: Path) -> None:
    """Look into the database from a process that ends then."""
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM subjects'); c.close()"
    subprocess.run([sys.executable, "-c", code, str(main / ".isofs/isofs.db")], check=True, capture_output=True)
    assert (main / ".isofs/isofs.db-wal").exists()


@contextmanager
def without_descriptors() -> Iterator[None]:
    """This process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_lowest_free(), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _lowest_free() -> int:
    free = os.dup(0)
    os.close(free)
    return free


def test_without_descriptors_calls_fail_cleanly_and_go_on_after(world: World) -> None:
    before = {name: (world.main / os.fsdecode(name)).read_bytes() for name in NAMES}
    with without_descriptors():
        for user in (world.alice, world.bob):
            for name in (b"f0", b"f3"):
                with pytest.raises(OSError) as caught:
                    user.write(name, b"lost", os.O_WRONLY)
                assert caught.value.errno in (errno.EMFILE, errno.EIO)
        with pytest.raises((OSError, IsofsError)):
            apply.innocent(world.fs, world.sid)
        assert world.fs.failure is None
    assert {name: (world.main / os.fsdecode(name)).read_bytes() for name in NAMES} == before
    assert check(world.fs) == []
    world.bob.write(b"f3", b"bob!", os.O_WRONLY)
    apply.innocent(world.fs, world.sid)
    assert (world.main / "f0").read_bytes() == b"alice"
    assert (world.main / "f3").read_bytes() == b"bob!"
    assert check(world.fs) == []
