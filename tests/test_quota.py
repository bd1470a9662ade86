"""Limits of what suspects take up, on the unmounted engine, compared with what the store's files and rows say."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from isofs.engine import accounting, reach, recovery, slices, suspicion, usage, views
from isofs.engine.checks import check
from isofs.engine.quota import Limit, Limits, Notice
from isofs.engine.slices import at_once
from isofs.engine.state import Caller, Filesystem, View
from isofs.errors import StoreUnusable
from isofs.merge import apply, partial, split
from isofs.merge.parting import Wish
from isofs.merge.report import Report
from isofs.model.records import MAIN
from isofs.service import limiting
from isofs.service.events import Event, Events
from isofs.service.live import Live
from isofs.settings.kinds import read_table
from isofs.settings.quota import Quota
from isofs.store.database import Database
from isofs.store.folder import open_store
from support.engine import Kernel, OpenFile, Walker, killed
from support.trees import differences, tree

ALICE, BOB, CAROL = 1003, 1004, 1001
SINCE = "2026-01-02T03:04:05Z"
KIB = 1 << 10
BLOCK = 4096


@dataclass
class World:
    """An engine over a directory, and what it told of limits."""

    directory: Path
    fs: Filesystem
    kernel: Kernel
    notices: list[Notice]

    def user(self, uid: int) -> Walker:
        return Walker(self.kernel, Caller(uid, 100, uid * 10))

    def suspect(self, uid: int, name: str) -> View:
        return self.fs.views[suspicion.suspect(self.fs, uid, name, "", SINCE).sid]

    def limit(self, limits: Limits) -> None:
        accounting.set_limits(self.fs, limits)

    def sound(self) -> None:
        assert check(self.fs) == []

    def killed(self) -> None:
        """Kill the engine and start another one, with the same limits."""
        killed(self.fs)
        limits = self.fs.limits
        self.fs = opened(self.directory, self.notices)
        self.kernel = Kernel(self.fs)
        self.limit(limits)


def opened(directory: Path, notices: list[Notice]) -> Filesystem:
    fs = recovery.open_filesystem(open_store(str(directory / ".isofs")), str(directory))
    fs.notify = notices.append
    return fs


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    directory = tmp_path / "main"
    directory.mkdir()
    directory.chmod(0o777)
    notices: list[Notice] = []
    fs = opened(directory, notices)
    made = World(directory, fs, Kernel(fs), notices)
    yield made
    made.sound()
    made.kernel.close()
    recovery.close_filesystem(made.fs)


def fails(number: int) -> contextlib.AbstractContextManager[object]:
    return pytest.raises(OSError, match=os.strerror(number))


def on_disk(world: World) -> int:
    """What the contents of all suspects take of the disk, also those without a name that are open."""
    found: dict[int, int] = {}
    store = str(world.directory / ".isofs")
    for folder in (world.directory / ".isofs" / "versions").iterdir():
        for content in folder.iterdir():
            at = content.lstat()
            found[at.st_ino] = at.st_blocks * 512
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{name}")
            if path.startswith((f"{store}/versions/", f"{store}/staging/")) and path.endswith(" (deleted)"):
                at = os.fstat(int(name))
                found[at.st_ino] = at.st_blocks * 512
    return sum(found.values())


def counted(world: World) -> int:
    kept = [*world.fs.views.values(), *world.fs.waiting.values()]
    for view in kept:
        usage.settle(world.fs, view)
    return sum(view.account.used for view in kept)


def rows(world: World, sid: int) -> int:
    """The objects of a suspect, by the database's own count of its rows."""
    database = sqlite3.connect(world.directory / ".isofs" / "isofs.db")
    try:
        return max(
            int(database.execute(f"SELECT count(*) FROM {name} WHERE sid = ?", (sid,)).fetchone()[0])
            for name in ("versions", "bindings")
        )
    finally:
        database.close()


def fill(user: Walker, path: bytes, size: int, piece: int = 16 * KIB) -> tuple[int, int]:
    """Write a file from its start as `dd` does: how many bytes could be written, and the errno that ended it or 0."""
    file = user.open(path, os.O_WRONLY | os.O_CREAT)
    done = 0
    try:
        while done < size:
            done += file.write(done, b"x" * min(piece, size - done))
    except OSError as error:
        return done, error.errno or 0
    finally:
        file.close()
    return done, 0


def test_a_suspect_writes_up_to_its_limit_and_not_a_byte_more(world: World) -> None:
    view, alice, carol = world.suspect(ALICE, "alice"), world.user(ALICE), world.user(CAROL)
    world.limit(Limits(each=Limit(bytes=100 * KIB)))
    assert fill(alice, b"big", 1 << 20) == (100 * KIB, errno.EDQUOT)
    assert counted(world) == on_disk(world) == 100 * KIB
    with fails(errno.EDQUOT):
        alice.write(b"other", b"y", os.O_WRONLY | os.O_CREAT)
    assert b"other" not in alice.listdir(b"") or alice.read(b"other") == b""
    assert fill(carol, b"hers", 1 << 20) == (1 << 20, 0)
    assert view.account.used == 100 * KIB


def test_what_has_blocks_already_can_be_written_at_the_limit(world: World) -> None:
    world.suspect(ALICE, "alice")
    alice = world.user(ALICE)
    world.limit(Limits(each=Limit(bytes=64 * KIB)))
    assert fill(alice, b"f", 1 << 20)[0] == 64 * KIB
    file = alice.open(b"f", os.O_RDWR)
    assert file.write(10, b"z" * 50 * KIB) == 50 * KIB
    assert file.write(60 * KIB, b"z" * 8 * KIB) == 4 * KIB  # the end of the file, and no more
    with fails(errno.EDQUOT):
        file.write(64 * KIB, b"z")
    file.truncate(10 * KIB)
    assert file.write(10 * KIB, b"z" * 2 * KIB) == 2 * KIB  # the rest of a block that is there
    assert file.write(62 * KIB, b"z") == 1  # a block of its own, with a hole before it
    file.close()
    assert counted(world) == on_disk(world) == 16 * KIB


def test_holes_take_nothing(world: World) -> None:
    world.suspect(ALICE, "alice")
    alice = world.user(ALICE)
    world.limit(Limits(each=Limit(bytes=64 * KIB)))
    alice.write(b"f", b"x", os.O_WRONLY | os.O_CREAT)
    alice.truncate(b"f", 1 << 40)
    assert alice.stat(b"f").size == 1 << 40
    assert counted(world) == on_disk(world) == BLOCK


def test_a_copy_that_is_too_large_is_not_begun(world: World) -> None:
    carol, alice = world.user(CAROL), world.user(ALICE)
    fill(carol, b"big", 256 * KIB)
    carol.chmod(b"big", 0o666)
    view = world.suspect(ALICE, "alice")
    world.limit(Limits(each=Limit(bytes=100 * KIB)))
    before, seen = tree(carol), tree(alice)
    changes: list[Callable[[], None]] = [
        lambda: alice.write(b"big", b"y", os.O_WRONLY),
        lambda: alice.truncate(b"big", 10),
    ]
    for change in changes:
        with fails(errno.EDQUOT):
            change()
        assert not view.versions
        assert on_disk(world) == 0
    assert (tree(carol), tree(alice)) == (before, seen)
    alice.write(b"big", b"new", os.O_WRONLY | os.O_TRUNC)  # takes no copy
    assert alice.read(b"big") == b"new"
    alice.rename(b"big", b"renamed")
    alice.unlink(b"renamed")
    world.kernel.forget()
    assert counted(world) == on_disk(world) == 0


def test_unlinked_files_count_until_they_are_closed(world: World) -> None:
    world.suspect(ALICE, "alice")
    alice = world.user(ALICE)
    world.limit(Limits(each=Limit(bytes=64 * KIB)))
    file = alice.open(b"f", os.O_RDWR | os.O_CREAT)
    file.write(0, b"x" * 40 * KIB)
    alice.unlink(b"f")
    file.write(40 * KIB, b"x" * 8 * KIB)
    assert counted(world) == on_disk(world) == 48 * KIB
    assert fill(alice, b"g", 1 << 20) == (16 * KIB, errno.EDQUOT)
    file.close()
    world.kernel.forget()
    assert counted(world) == on_disk(world) == 16 * KIB
    assert fill(alice, b"g", 64 * KIB) == (64 * KIB, 0)


def test_a_removal_that_the_store_refuses_counts_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had to lose its last name has it still, and is no file without a name."""
    world.suspect(ALICE, "alice")
    alice = world.user(ALICE)
    fill(alice, b"f", 8 * KIB)

    def full(*_: object) -> None:
        raise StoreUnusable("the database is full", errno.ENOSPC)

    with monkeypatch.context() as patched:
        patched.setattr(Database, "write", full)
        with fails(errno.ENOSPC):
            alice.unlink(b"f")
    world.sound()
    assert counted(world) == on_disk(world) == 8 * KIB


def test_a_file_that_main_deleted_counts_once_it_is_changed(world: World) -> None:
    carol, alice = world.user(CAROL), world.user(ALICE)
    fill(carol, b"f", 32 * KIB)
    world.suspect(ALICE, "alice")
    world.limit(Limits(each=Limit(bytes=40 * KIB)))
    file = alice.open(b"f", os.O_RDWR)
    carol.unlink(b"f")
    assert counted(world) == 0
    file.write(0, b"y")
    assert counted(world) == on_disk(world) == 32 * KIB
    assert fill(alice, b"g", 1 << 20)[0] == 8 * KIB
    file.close()
    world.kernel.forget()
    assert counted(world) == on_disk(world) == 8 * KIB


def test_objects_have_a_limit_and_removing_has_none(world: World) -> None:
    carol, alice = world.user(CAROL), world.user(ALICE)
    for number in range(30):
        carol.write(b"main%d" % number, b"x", os.O_WRONLY | os.O_CREAT)
    view = world.suspect(ALICE, "alice")
    world.limit(Limits(each=Limit(objects=20)))
    made = []
    with fails(errno.EDQUOT):
        for number in range(50):
            alice.mkdir(b"own%d" % number)
            made.append(b"own%d" % number)
    assert len(made) == view.objects == rows(world, view.sid) == 20
    attempts: list[Callable[[], None]] = [
        lambda: alice.write(b"main0", b"y", os.O_WRONLY),
        lambda: alice.link(b"main0", b"another"),
        lambda: alice.symlink(b"a", b"b"),
    ]
    for refused in attempts:
        with fails(errno.EDQUOT):
            refused()
    alice.rename(b"own0", b"own")
    for number in range(18):
        alice.unlink(b"main%d" % number)
    with fails(errno.EDQUOT):  # even rows that make nothing have an end
        for number in range(18, 30):
            alice.unlink(b"main%d" % number)
    for name in [b"own", *made[1:]]:
        alice.rmdir(name)
    assert view.objects == rows(world, view.sid) < 20
    alice.mkdir(b"again")


def test_all_suspects_together_have_a_limit(world: World) -> None:
    world.suspect(ALICE, "alice")
    world.suspect(BOB, "bob")
    alice, bob = world.user(ALICE), world.user(BOB)
    world.limit(Limits(total=100 * KIB))
    assert fill(alice, b"a", 60 * KIB) == (60 * KIB, 0)
    assert fill(bob, b"b", 1 << 20) == (40 * KIB, errno.EDQUOT)
    assert fill(alice, b"a2", 1 << 20) == (0, errno.EDQUOT)
    bob.unlink(b"b")
    world.kernel.forget()
    assert fill(alice, b"a2", 1 << 20) == (40 * KIB, errno.EDQUOT)
    assert counted(world) == on_disk(world) == 100 * KIB


def test_what_a_start_finds_counts_before_anybody_looked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "GRANT", 16 * KIB)
    world.suspect(ALICE, "alice")
    world.suspect(BOB, "bob")
    world.limit(Limits(total=100 * KIB))
    assert fill(world.user(ALICE), b"a", 60 * KIB) == (60 * KIB, 0)
    world.killed()
    assert fill(world.user(BOB), b"b", 1 << 20) == (40 * KIB, errno.EDQUOT)
    world.killed()
    slices.at_once(usage.count_all(world.fs))
    assert [view.account.used for view in world.fs.views.values()] == [60 * KIB, 40 * KIB]


def test_users_may_have_limits_of_their_own(world: World) -> None:
    world.suspect(ALICE, "alice")
    world.suspect(BOB, "bob")
    world.limit(Limits(each=Limit(bytes=20 * KIB), users={"bob": Limit(bytes=40 * KIB)}))
    assert fill(world.user(ALICE), b"a", 1 << 20)[0] == 20 * KIB
    assert fill(world.user(BOB), b"b", 1 << 20)[0] == 40 * KIB


def test_a_reserve_is_for_main_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system says that there are 1000 blocks of 4 KiB, of which 60 are free; 50 are reserved."""
    view, alice, carol = world.suspect(ALICE, "alice"), world.user(ALICE), world.user(CAROL)
    real = os.fstatvfs

    def small(descriptor: int) -> os.statvfs_result:
        used = on_disk(world) // BLOCK
        values = list(real(descriptor))
        values[:8] = [BLOCK, BLOCK, 1000, 60 - used, 60 - used, 10_000, 600 - used, 600 - used]
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "fstatvfs", small)
    world.limit(Limits(reserve=1 << 40))
    assert fill(alice, b"a", 1 << 20) == (10 * BLOCK, errno.ENOSPC)
    assert fill(carol, b"c", 1 << 20) == (1 << 20, 0)
    assert accounting.statfs(world.fs, view.sid)["f_bavail"] == 0
    assert accounting.statfs(world.fs, MAIN)["f_bavail"] == 50
    alice.unlink(b"a")
    world.kernel.forget()
    world.limit(Limits(reserve_inodes=597))
    made = 0
    with fails(errno.ENOSPC):
        for number in range(1000):
            alice.write(b"small%d" % number, b"x", os.O_WRONLY | os.O_CREAT)
            made += 1
    assert made in range(90, 110)  # a twentieth of 10,000 inodes is 500: 100 more, less a block each
    carol.write(b"small", b"x", os.O_WRONLY | os.O_CREAT)


def test_open_files_have_a_limit_of_their_own(world: World) -> None:
    carol, alice = world.user(CAROL), world.user(ALICE)
    carol.write(b"f", b"x", os.O_WRONLY | os.O_CREAT)
    before = alice.open(b"f", os.O_RDONLY)
    view = world.suspect(ALICE, "alice")
    world.limit(Limits(each=Limit(handles=5)))
    held = [alice.open(b"f", os.O_RDONLY) for _ in range(4)]
    for flags, name in ((os.O_RDONLY, b"f"), (os.O_WRONLY | os.O_CREAT, b"g")):
        with fails(errno.ENFILE):
            alice.open(name, flags)
    others = [carol.open(b"f", os.O_RDONLY) for _ in range(10)]
    before.close()
    held.append(alice.open(b"f", os.O_RDONLY))
    for file in (*held, *others):
        file.close()
    assert view.account.handles == 0


def test_somebody_is_told_once(world: World) -> None:
    view, alice = world.suspect(ALICE, "alice"), world.user(ALICE)
    world.limit(Limits(each=Limit(bytes=100 * KIB, objects=10), warn_at=80))

    def told() -> list[tuple[str, bool]]:
        found = [(notice.limit, notice.refused) for notice in world.notices]
        world.notices.clear()
        return found

    fill(alice, b"a", 60 * KIB)
    assert told() == []
    fill(alice, b"b", 30 * KIB, piece=KIB)
    assert told() == [("bytes", False)]
    for _ in range(3):
        fill(alice, b"c", 1 << 20)
    assert told() == [("bytes", True)]
    alice.unlink(b"a")
    world.kernel.forget()
    fill(alice, b"d", 10 * KIB)
    fill(alice, b"d", 1 << 20)
    assert told() == [("bytes", False), ("bytes", True)]
    for number in range(12):
        with contextlib.suppress(OSError):
            alice.symlink(b"x", b"link%d" % number)
    assert told() == [("objects", False), ("objects", True)]
    assert view.objects == 10
    fill(world.user(CAROL), b"big", 1 << 20)
    for name in (b"b", b"c", b"d"):
        alice.unlink(name)
    world.kernel.forget()
    for _ in range(3):
        with fails(errno.EDQUOT):
            alice.write(b"big", b"y", os.O_WRONLY)
    assert told() == [("bytes", False), ("bytes", True)]


def test_directories_lie_no_deeper_than_a_path_can_name(world: World) -> None:
    """Neither by making them, nor by putting trees into one another; a trusted user's may, and can be moved up."""
    view, carol = world.suspect(ALICE, "alice"), world.user(CAROL)
    alice = Deep(world, ALICE)
    names = [b"x" * 200] * 100
    assert alice.make(b"", names) == reach.LONGEST // 201
    assert alice.make(b"other", names) == (reach.LONGEST - 6) // 201
    top, other = names[0], b"other"
    with fails(errno.ENAMETOOLONG):
        alice.rename(other, top + b"/" + other)
    alice.rename(other + b"/" + names[0], b"moved")
    longest = max(views.path(world.fs, view.sid, world.fs.by_op[op]) or b"" for op in view.versions)
    assert os.pathconf("/", "PC_PATH_MAX") < len(longest) <= reach.LONGEST
    alice.write(b"/".join([top] * 20) + b"/file", b"x", os.O_WRONLY | os.O_CREAT)
    Deep(world, CAROL).make(b"main", names)
    carol.chmod(b"main", 0o777)
    alice.rename(b"main/" + names[0] + b"/" + names[0], b"up")


class Deep(Walker):
    """A user whose paths may be of any depth."""

    def __init__(self, world: World, uid: int) -> None:
        super().__init__(world.kernel, Caller(uid, 100, uid * 10))

    def make(self, top: bytes, names: list[bytes]) -> int:
        """Make directories in one another, as far as it goes; how many."""
        if top:
            self.mkdir(top)
        path = top
        for number, name in enumerate(names):
            path = path + b"/" + name if path else name
            try:
                self.mkdir(path)
            except OSError:
                with fails(errno.ENAMETOOLONG):
                    self.mkdir(path)
                return number
        return len(names)


def test_a_limit_that_is_lowered_takes_nothing_away(world: World) -> None:
    world.suspect(ALICE, "alice")
    alice = world.user(ALICE)
    fill(alice, b"a", 64 * KIB)
    world.limit(Limits(each=Limit(bytes=10 * KIB, objects=1)))
    assert len(alice.read(b"a")) == 64 * KIB
    with fails(errno.EDQUOT):
        alice.write(b"a", b"y", os.O_WRONLY, 64 * KIB)
    alice.write(b"a", b"y", os.O_WRONLY, 100)
    alice.rename(b"a", b"b")
    alice.truncate(b"b", 0)
    alice.write(b"b", b"y" * 8 * KIB, os.O_WRONLY)
    alice.unlink(b"b")


def test_nobody_is_kept_from_deleting_what_a_suspect_renamed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    carol, alice = world.user(CAROL), world.user(ALICE)
    for name in (b"one", b"two"):
        fill(carol, name, 64 * KIB)
    view = world.suspect(ALICE, "alice")
    world.limit(Limits(each=Limit(bytes=10 * KIB)))
    alice.rename(b"one", b"mine1")
    alice.rename(b"two", b"mine2")
    carol.unlink(b"one")
    assert len(alice.read(b"mine1")) == 64 * KIB
    assert counted(world) == on_disk(world) == 64 * KIB  # more than allowed: nobody asked the suspect
    world.limit(Limits(reserve=1 << 40))
    monkeypatch.setattr(accounting, "free_bytes", lambda fs: (100, 1000))
    carol.unlink(b"two")
    assert sorted(alice.listdir(b"")) == [b"mine1"]
    carol.write(b"three", b"3", os.O_WRONLY | os.O_CREAT)
    assert views.child(world.fs, view.sid, world.fs.root, b"three") is not None


def test_a_base_copy_is_left_out_where_there_is_no_space(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    carol, alice = world.user(CAROL), world.user(ALICE)
    carol.write(b"f", b"main", os.O_WRONLY | os.O_CREAT)
    carol.chmod(b"f", 0o666)
    world.suspect(ALICE, "alice")
    alice.write(b"f", b"hers", os.O_WRONLY)
    world.limit(Limits(reserve=1 << 40))
    monkeypatch.setattr(accounting, "free_bytes", lambda fs: (100, 1000))
    carol.write(b"f", b"MAIN", os.O_WRONLY)
    assert carol.read(b"f") == b"MAIN"
    assert (world.fs.bases, world.fs.bases_left_out) == ({}, 1)
    assert [(notice.sid, notice.limit) for notice in world.notices] == [(MAIN, "reserve")]


def test_a_write_that_the_disk_cuts_short_tells_how_much(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset >= 8 * KIB:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[: 8 * KIB - offset], offset)

    monkeypatch.setattr(os, "pwrite", full)
    assert fill(world.user(CAROL), b"f", 20 * KIB) == (8 * KIB, errno.ENOSPC)


SUSPECTS = {ALICE: "alice", BOB: "bob"}
NAMES = [b"a", b"b", b"c", b"d", b"e", b"dir/a", b"dir/b"]
LIMITS = Limits(each=Limit(bytes=32 * KIB, objects=6), users={"bob": Limit(bytes=40 * KIB, objects=5)}, total=64 * KIB)


CALLS = [
    *("write", "write", "hold", "use", "use", "close", "unlink", "rename", "link"),
    *("mkdir", "chmod", "truncate", "xattr", "save"),
]


class History:
    """Random calls of two suspects and one trusted user, with limits that they run into all the time."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.draw, self.open = world, random.Random(seed), list[tuple[int, OpenFile]]()
        self.refused = 0
        self.began()

    def began(self) -> None:
        self.world.limit(LIMITS)
        for uid, name in SUSPECTS.items():
            if uid not in self.world.fs.suspects:
                self.world.suspect(uid, name)

    def step(self) -> None:
        draw, world = self.draw, self.world
        chance = draw.random()
        if chance < 0.02:
            self.open.clear()
            world.kernel.opened.clear()
            world.killed()
        elif chance < 0.05:
            sid = world.fs.suspects[draw.choice(list(SUSPECTS))]
            draw.choice([apply.innocent, apply.malicious, self.part])(world.fs, sid)
            for _, file in self.open:
                file.close()
            self.open.clear()
            world.kernel.forget()
            self.began()
        elif chance < 0.15:
            world.kernel.forget()
        else:
            uid = draw.choice([ALICE, ALICE, BOB, BOB, CAROL])
            self.call(uid, world.user(uid))

    def part(self, fs: Filesystem, sid: int) -> None:
        """A verdict on some of what a suspect did, who goes on being one."""
        pieces = at_once(partial.pieces(fs, fs.views[sid]))
        chosen = frozenset(piece.op for piece in pieces if self.draw.random() < 0.5)
        found = at_once(partial.partial(fs, fs.views[sid], pieces, Wish(chosen)))
        for _ in split.merge_steps(fs, split.merged(sid, "some", SINCE), found, Report()):
            pass

    def call(self, uid: int, user: Walker) -> None:
        draw = self.draw
        path, other = draw.choice(NAMES), draw.choice(NAMES)
        data, offset = b"x" * draw.choice([1, 5000, 30_000]), draw.choice([0, 0, 100, 20_000])
        mine = [file for owner, file in self.open if owner == uid]
        name = draw.choice(CALLS)
        before = tree(self.world.user(CAROL))
        try:
            if name == "write":
                flags = os.O_WRONLY | os.O_CREAT | draw.choice([0, os.O_TRUNC])
                user.write(path, data, flags, offset)
            elif name == "hold":
                self.open.append((uid, user.open(path, os.O_RDWR | os.O_CREAT)))
            elif name == "use" and mine:
                draw.choice(mine).write(offset, data)
            elif name == "close" and mine:
                file = draw.choice(mine)
                file.close()
                self.open.remove((uid, file))
            elif name == "unlink":
                user.unlink(path)
            elif name == "rename":
                user.rename(path, other)
            elif name == "link":
                user.link(path, other)
            elif name == "mkdir":
                user.mkdir(b"dir", 0o777)
            elif name == "chmod":
                user.chmod(path, 0o666)
            elif name == "truncate":
                user.truncate(path, draw.choice([0, 10, 100_000]))
            elif name == "xattr":
                user.set_xattr(path, "user.x", data[:100])
            elif name == "save":
                user.write(path + b"~", data, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                user.rename(path + b"~", path)
        except OSError as error:
            if error.errno in (errno.EDQUOT, errno.ENOSPC):
                assert uid in SUSPECTS, f"a trusted user's {name} was refused"
                self.refused += 1
        if uid in SUSPECTS:
            assert not differences(before, tree(self.world.user(CAROL)))

    def agrees(self) -> None:
        """What is counted is what the disk and the database say, and no more than is allowed."""
        world = self.world
        assert counted(world) == on_disk(world)
        for view in world.fs.views.values():
            limit = accounting.limit_of(world.fs, view)
            assert view.objects == rows(world, view.sid)
            assert view.objects <= limit.objects + limit.objects // 8 + 16 + 12  # what main's changes may add
        world.sound()


@pytest.mark.parametrize("seed", range(int(os.environ.get("ISOFS_HISTORIES", "4"))))
def test_history(world: World, seed: int) -> None:
    """Accounts agree with disk and database after each of many calls, kills and verdicts."""
    history = History(world, seed)
    for _ in range(120):
        history.step()
        history.agrees()
    for _, file in history.open:
        file.close()
    assert history.refused


def test_limits_are_each_users(world: World) -> None:
    own = Limit(bytes=1)
    limits = replace(LIMITS, users={"alice": own})
    assert (limits.of("alice"), limits.of("bob")) == (own, LIMITS.each)


def test_what_is_configured_is_what_counts_and_what_happens_is_told(world: World) -> None:
    config = Path(world.fs.store.path) / "config.toml"
    config.write_text("[quota]\nbytes = 4096\n[quota.users.bob]\nobjects = 1\n")
    live, events, told = Live(world.fs.store), Events(), list[Event]()
    events.subscribe(told.append)
    limiting.follow(world.fs, live, events)
    world.suspect(ALICE, "alice")
    world.suspect(BOB, "bob")
    assert fill(world.user(ALICE), b"a", 10_000) == (4096, errno.EDQUOT)
    facts = {"user": "alice", "uid": ALICE, "limit": "bytes", "of": 4096}
    assert [(event.kind, event.facts) for event in told] == [
        ("quota", {**facts, "refused": False, "used": 0}),
        ("quota", {**facts, "refused": True, "used": 4096}),
    ]
    config.write_text("[quota]\nbytes = 8192\n")
    live.refresh()
    assert fill(world.user(ALICE), b"a", 10_000) == (8192, errno.EDQUOT)
    bob = limiting.limits(read_table(Quota, {"users": {"bob": {"objects": 7}}}), 1000).of("bob")
    assert bob == Limit(bytes=10 << 30, objects=7, handles=2000)
