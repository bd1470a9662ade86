"""Limits of what suspects take up, on a real mount: what programs are answered, and that nobody else notices."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.mount import ALICE, BOB, CAROL, Mounted, Person, as_user, until

MIB = 1 << 20

pytestmark = pytest.mark.mount


@pytest.fixture
def configure(mount: Mounted, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """`configure(text)` gives the mount that configuration until the end of the test."""

    def edit(text: str) -> None:
        path = tmp_path / "config.toml"
        path.write_text(text)
        done = mount.isoctl("config", "edit", "--from", str(path))
        assert done.code == 0, done

    yield edit
    edit("# everything as it is by default\n")


def taken(mount: Mounted, uid: int = ALICE) -> Any:
    return next(s["quota"] for s in mount.ask("status")["subjects"] if s["uid"] == uid)


def told(mount: Mounted) -> list[str]:
    """What the log says of limits."""
    return [line for line in (mount.backing / ".isofs" / "log").read_text().splitlines() if " a limit: " in line]


def filled(path: str, flags: int, piece: int) -> list[int]:
    """What `write` answers until it fails: the numbers of bytes, and the errno, negative."""
    opened = os.open(path, flags | os.O_CREAT, 0o666)
    answers = []
    try:
        while True:
            try:
                answers.append(os.write(opened, b"x" * piece))
            except OSError as error:
                answers.append(-(error.errno or 0))
                return answers
    finally:
        os.close(opened)


@pytest.fixture(scope="module")
def small(base: Path) -> Iterator[Path]:
    """A file system of the host that is full after 1 MiB."""
    path = base / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M,mode=777", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize(
    "flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND], ids=["direct", "cached", "append"]
)
@pytest.mark.parametrize("piece", [100_000, 3 * MIB])
def test_a_full_quota_is_answered_as_a_full_disk(
    mount: Mounted, configure: Callable[[str], None], small: Path, flags: int, piece: int
) -> None:
    """The host's answers, but for the errno; and a trusted user at work at the same time is not held up by it."""
    configure("[quota]\nbytes = '1 MiB'\n")
    mount.ask("suspect", uid=ALICE, user="alice")
    on_host = as_user(ALICE, lambda: filled(str(small / "f"), flags, piece))
    here = as_user(ALICE, lambda: filled(str(mount.path / "f"), flags, piece))
    assert on_host.pop() == -errno.ENOSPC
    assert here.pop() == -errno.EDQUOT
    assert here == on_host
    assert sum(here) == MIB == (small / "f").stat().st_size
    assert as_user(BOB, lambda: os.path.lexists(mount.path / "f")) is False
    done = as_user(BOB, lambda: _written(str(mount.path / "b"), 3 * MIB))
    assert done == 3 * MIB
    (small / "f").unlink()


def _written(path: str, size: int) -> int:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        return os.write(opened, b"y" * size)
    finally:
        os.close(opened)


def test_what_a_suspect_takes_is_shown_and_the_same_after_a_kill(
    mount: Mounted, person: Callable[[int], Person], configure: Callable[[str], None]
) -> None:
    configure("[quota]\nbytes = '1 MiB'\nobjects = 50\nwarn_at = 50\n[quota.users.bob]\nbytes = '2 MiB'\n")
    bob = person(BOB)
    bob.write("main", "m" * 10_000)
    before_all = len(told(mount))
    mount.ask("suspect", uid=ALICE, user="alice")
    mount.ask("suspect", uid=CAROL, user="bob")
    alice = person(ALICE)
    alice.write("a", "x" * 300_000)
    alice.append("main", "more")
    alice.rename("a", "b")
    for number in range(10):
        alice.write(f"file{number}", "x")
    before = taken(mount)
    assert (before["bytes"], before["objects"]) == (303_104 + 12_288 + 10 * 4096, 12)
    assert (before["bytes_limit"], taken(mount, CAROL)["bytes_limit"]) == (MIB, 2 * MIB)
    assert before["near"] == []
    alice.write("b2", "x" * 300_000)
    before = taken(mount)
    assert before["near"] == ["bytes"]
    assert "NEAR A LIMIT: bytes" in mount.isoctl("status").out
    mount.kill()
    mount.mount()
    assert taken(mount) == before
    (line,) = told(mount)[before_all:]
    assert "alice comes near a limit: bytes" in line


def test_a_new_limit_counts_at_once(
    mount: Mounted, person: Callable[[int], Person], configure: Callable[[str], None]
) -> None:
    mount.ask("suspect", uid=ALICE, user="alice")
    alice = person(ALICE)
    alice.write("f", "x" * 100_000)
    configure("[quota]\nbytes = 110_000\n")
    before = len(told(mount))
    assert alice(filled, alice.path("g"), os.O_WRONLY, 100_000) == [110_000 // 4096 * 4096 - 102_400, -errno.EDQUOT]
    for _ in range(3):
        with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
            alice.write("h", "x" * 100_000)
    assert [line.partition("WARNING ")[2].partition(":")[0] for line in told(mount)[before:]] == [
        "alice comes near a limit",
        "alice was refused something for a limit",
    ]
    configure("[quota]\nbytes = 1_000_000\n")
    alice.append("f", "x" * 100_000)
    assert len(alice.read("f")) == 200_000


def test_df_tells_what_is_left_only_when_it_is_little(
    mount: Mounted, person: Callable[[int], Person], configure: Callable[[str], None]
) -> None:
    def free(uid: int) -> tuple[int, int]:
        at = as_user(uid, lambda: list(os.statvfs(mount.path)))
        return at[4] * at[1], at[6]

    free_before = free(ALICE)[0]
    mount.ask("suspect", uid=ALICE, user="alice")
    assert free(ALICE)[0] > free_before // 2
    configure("[quota]\nbytes = '1 MiB'\nobjects = 10\n")
    assert free(ALICE)[0] > free_before // 2
    alice = person(ALICE)
    alice.write("f", "x" * 900_000)
    assert free(ALICE)[0] == MIB - 901_120
    for number in range(7):
        alice.write(f"file{number}", "")
    assert free(ALICE)[1] == 2
    assert free(BOB)[0] > free_before // 2
    assert free(BOB)[1] > 1000


def test_a_suspect_with_all_the_open_files_that_it_gets_holds_up_nobody(
    mount: Mounted, person: Callable[[int], Person], configure: Callable[[str], None]
) -> None:
    configure("[quota]\nhandles = 40\n")
    bob = person(BOB)
    bob.write("f", "main")
    mount.ask("suspect", uid=ALICE, user="alice")
    carol, alice = person(CAROL), Person(ALICE, mount.path)
    assert alice(_hold, str(mount.path)) == (40, errno.ENFILE)
    assert taken(mount)["handles"] == 40
    assert carol(_open_many, str(mount.path / "f"), 200) == 200
    bob.write("g", "more")
    with pytest.raises(OSError, match=os.strerror(errno.ENFILE)):
        alice.read("f")
    alice.close()
    until(lambda: taken(mount)["handles"] == 0)  # nobody waits until isofs has heard of what a dead process had open
    assert person(ALICE).read("f") == "main"


_held: list[int] = []


def _hold(path: str) -> tuple[int, int]:
    """Open files and directories, make and unlink files, until it fails: how many, and the errno."""
    ways = (
        lambda: os.open(f"{path}/f", os.O_RDONLY),
        lambda: os.open(path, os.O_RDONLY | os.O_DIRECTORY),
        lambda: _unlinked(f"{path}/own"),
    )
    for number in range(1000):
        try:
            _held.append(ways[number % 3]())
        except OSError as error:
            return len(_held), error.errno or 0
    return len(_held), 0


def _unlinked(path: str) -> int:
    opened = os.open(path, os.O_RDWR | os.O_CREAT)
    os.unlink(path)
    return opened


def _open_many(path: str, count: int) -> int:
    opened = [os.open(path, os.O_RDONLY) for _ in range(count)]
    for descriptor in opened:
        os.close(descriptor)
    return len(opened)


def test_descriptors_that_open_nothing_cost_the_daemon_none_beyond_the_limit(
    mount: Mounted, person: Callable[[int], Person], configure: Callable[[str], None]
) -> None:
    configure("[quota]\nhandles = 40\n")
    mount.ask("suspect", uid=ALICE, user="alice")
    alice = person(ALICE)
    before = len(os.listdir(f"/proc/{mount.pid}/fd"))
    assert alice(_hold_paths, str(mount.path), 300) == 300
    assert len(os.listdir(f"/proc/{mount.pid}/fd")) < before + 60
    person(BOB).write("f", "main")


def _hold_paths(path: str, count: int) -> int:
    """Descriptors of files that have been unlinked and were never opened."""
    for number in range(count):
        name = f"{path}/{number}"
        os.mknod(name, 0o600)
        _held.append(os.open(name, os.O_PATH))
        os.unlink(name)
    return len(_held)


def test_mapped_pages_that_do_not_fit_are_told_of(
    mount: Mounted, person: Callable[[int], Person], configure: Callable[[str], None]
) -> None:
    configure("[quota]\nbytes = '100 KiB'\n")
    mount.ask("suspect", uid=ALICE, user="alice")
    alice = person(ALICE)
    with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
        alice(_fill_mapped, alice.path("f"), MIB)
    assert taken(mount)["bytes"] <= 100 << 10


def _fill_mapped(path: str, size: int) -> None:
    opened = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.ftruncate(opened, size)
        with mmap.mmap(opened, size) as pages:
            pages[:] = b"x" * size
            pages.flush()
        os.fsync(opened)
    finally:
        os.close(opened)


def test_a_big_copy_that_is_refused_changes_nothing(
    mount: Mounted, person: Callable[[int], Person], configure: Callable[[str], None]
) -> None:
    bob = person(BOB)
    bob.write("big", "m" * (5 * MIB))
    mount.ask("suspect", uid=ALICE, user="alice")
    configure("[quota]\nbytes = '4 MiB'\n")
    alice = person(ALICE)
    for change in (
        lambda: alice.append("big", "x"),
        lambda: alice(os.truncate, alice.path("big"), 100),
    ):
        with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
            change()
    assert alice.read("big") == bob.read("big") == "m" * (5 * MIB)
    assert taken(mount)["bytes"] == 0
    assert os.listdir(mount.backing / ".isofs" / "staging") == []
    alice.write("big", "new")
    assert (alice.read("big"), len(bob.read("big"))) == ("new", 5 * MIB)
