"""Files with several names are overwritten in place: wholly or not at all, whatever fails and whenever it is killed."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isofs.engine import checks, recovery, suspicion
from isofs.engine.state import Caller, Filesystem
from isofs.errors import HalfWritten, IsofsError
from isofs.merge import apply
from isofs.store import inodes, overwriting
from isofs.store.folder import open_store
from isofs.store.inodes import Place
from support.attic import Thing, entries, kept, main_of, thing
from support.cuts import cut_off
from support.engine import Kernel, Walker, killed

K = 4096


def sparse(path: Path, size: int, *data: tuple[int, bytes]) -> None:
    with open(path, "wb") as file:
        file.truncate(size)
        for at, content in data:
            file.seek(at)
            file.write(content)


CONTENTS: dict[str, tuple[int, list[tuple[int, bytes]]]] = {
    "empty": (0, []),
    "short": (5, [(0, b"short")]),
    "long": (40 * K + 7, [(0, b"l" * (40 * K + 7))]),
    "all hole": (64 * K, []),
    "holes": (100 * K, [(0, b"a" * K), (32 * K, b"b" * 10 * K), (99 * K, b"c")]),
    "large": (300 * K, [(0, b"L" * 300 * K)]),
    "other holes": (80 * K + 1, [(16 * K, b"d" * 20 * K), (80 * K, b"e")]),
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield opened
    os.close(opened)


@pytest.mark.parametrize("old", CONTENTS)
@pytest.mark.parametrize("new", CONTENTS)
def test_any_content_takes_the_place_of_any(tmp_path: Path, folder: int, old: str, new: str) -> None:
    """The same bytes and no more blocks than a copy of it has, under the same inode."""
    for name, which in (("to", old), ("kept", old), ("content", new)):
        sparse(tmp_path / name, CONTENTS[which][0], *CONTENTS[which][1])
    os.chmod(tmp_path / "content", 0o4640)
    places = {name: Place(folder, name.encode()) for name in ("content", "to", "kept", "copy")}
    inode = (tmp_path / "to").stat().st_ino
    inodes.copy(places["content"], places["copy"])
    overwriting.overwrite(places["content"], places["to"], places["kept"])
    assert thing(tmp_path / "to") == thing(tmp_path / "content")
    found = (tmp_path / "to").stat()
    assert found.st_ino == inode
    assert found.st_blocks <= (tmp_path / "copy").stat().st_blocks + K // 512  # one that lists the others


def test_what_was_allocated_in_vain_is_given_back(tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside the file and beyond its end; it has been read, so that its holes are in the page cache."""
    allocate, calls = overwriting._reserved, itertools.count()

    def last_fails(writer: int, start: int, length: int) -> bool:
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, "full")
        return allocate(writer, start, length)

    monkeypatch.setattr(overwriting, "_reserved", last_fails)
    sparse(tmp_path / "content", 200 * K, (2 * K, b"x" * 180 * K), (199 * K, b"y"))
    for name in ("to", "kept"):
        sparse(tmp_path / name, CONTENTS["holes"][0], *CONTENTS["holes"][1])
    os.utime(tmp_path / "to", ns=(10**18, 10**18 + 1))
    before, blocks = thing(tmp_path / "to"), (tmp_path / "to").stat().st_blocks
    with pytest.raises(OSError, match="full"):
        overwriting.overwrite(*(Place(folder, name) for name in (b"content", b"to", b"kept")))
    assert thing(tmp_path / "to") == before
    assert (tmp_path / "to").stat().st_blocks <= blocks + K // 512  # one that lists the others


@pytest.mark.parametrize("old", CONTENTS)
def test_without_fallocate_zeros_are_written(
    tmp_path: Path, folder: int, old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no fallocate")

    monkeypatch.setattr(overwriting, "fallocate", unknown)
    for name, which in (("to", old), ("kept", old), ("content", "holes")):
        sparse(tmp_path / name, CONTENTS[which][0], *CONTENTS[which][1])
    overwriting.overwrite(*(Place(folder, name) for name in (b"content", b"to", b"kept")))
    assert (tmp_path / "to").read_bytes() == (tmp_path / "content").read_bytes()


OLD, NEW = "holes", "other holes"


def opened(main: Path, new: str = NEW) -> Filesystem:
    """Alice has changed the content and the mode of a file of two names."""
    os.umask(0)
    main.mkdir()
    sparse(main / "one", CONTENTS[OLD][0], *CONTENTS[OLD][1])
    os.utime(main / "one", ns=(10**18, 10**18 + 1))
    os.setxattr(main / "one", "user.old", b"1")
    os.link(main / "one", main / "two")
    fs = recovery.open_filesystem(open_store(str(main / ".isofs")), str(main))
    suspicion.suspect(fs, 1001, "alice", "", "2026-01-02T03:04:05Z")
    alice = Walker(Kernel(fs), Caller(1001, 100, 1, 0o022))
    file = alice.open(b"two", os.O_WRONLY | os.O_TRUNC, 0)
    file.truncate(CONTENTS[new][0])
    for at, content in CONTENTS[new][1]:
        file.write(at, content)
    file.close()
    os.removexattr(hers(main), "user.old")
    os.utime(hers(main), ns=(10**18, 10**18 + 2))
    return fs


def hers(main: Path) -> Path:
    """Alice's one version."""
    (version,) = (main / ".isofs" / "versions" / "1").iterdir()
    return version


def states(main: Path) -> dict[bytes, Thing]:
    return {path: was.thing for was in main_of(main).values() for path in was.paths}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[bytes, Thing], dict[bytes, Thing]]:
    """Main before and after a merge that nothing disturbed."""
    main = tmp_path_factory.mktemp("undisturbed") / "main"
    fs = opened(main)
    before = states(main)
    apply.innocent(fs, 1)
    after = states(main)
    recovery.close_filesystem(fs)
    assert before[b"one"].content != after[b"one"].content
    return before, after


#: What an overwriting calls, in the order in which it does.
CALLS: list[tuple[Any, str]] = [
    (overwriting, "_reserved"),
    (os, "copy_file_range"),
    (overwriting, "_clear"),
    (os, "ftruncate"),
    (os, "chmod"),
]


@pytest.mark.parametrize(("of", "name"), CALLS, ids=lambda one: getattr(one, "__name__", one))
def test_a_kill_anywhere_is_made_good_at_the_next_start(
    tmp_path: Path, of: Any, name: str, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = expected
    for stop in itertools.count():
        main = tmp_path / str(stop)
        fs = opened(main)
        if not cut_off(stop, monkeypatch, lambda fs=fs: apply.innocent(fs, 1), of, name):  # type: ignore[misc]
            recovery.close_filesystem(fs)
            assert stop > 1
            return
        killed(fs)
        fs = recovery.open_filesystem(open_store(str(main / ".isofs")), str(main))
        apply.resume(fs, 1)
        assert states(main) == after
        assert [kept(fs, entry) for entry in entries(fs)] == [before[b"one"]]
        assert not checks.check(fs)
        recovery.close_filesystem(fs)


def failing(stop: int, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], of: Any, name: str) -> bool:
    """Act while the call of number `stop` finds no space. Whether that came."""
    call, calls, failed = getattr(of, name), itertools.count(), list[int]()

    def full(*args: Any, **keywords: Any) -> Any:
        if (number := next(calls)) == stop:
            failed.append(number)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return call(*args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(of, name, full)
        try:
            act()
        except (OSError, IsofsError):
            if not failed:
                raise
    return bool(failed)


@pytest.mark.parametrize(("of", "name"), CALLS, ids=lambda one: getattr(one, "__name__", one))
def test_no_space_at_any_call_leaves_it_as_it_was(
    tmp_path: Path, of: Any, name: str, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or as it will be; nothing is in the attic then; and the merge goes on when there is space."""
    before, after = expected
    for stop in itertools.count():
        main = tmp_path / str(stop)
        fs = opened(main)
        came = failing(stop, monkeypatch, lambda fs=fs: apply.innocent(fs, 1), of, name)  # type: ignore[misc]
        found = states(main)
        assert found in (before, after), stop
        assert [kept(fs, entry) for entry in entries(fs)] == ([] if found == before else [before[b"one"]])
        if found == before:
            apply.innocent(fs, 1)
        assert states(main) == after
        assert not checks.check(fs)
        recovery.close_filesystem(fs)
        if not came:
            assert stop > 0
            return


def test_what_cannot_be_put_back_is_finished_when_it_is_repeated(
    tmp_path: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = expected
    give = inodes.copy_attributes

    def broken(source: Place, to: Place) -> None:
        if to.name in (b"one", b"two"):
            raise OSError(errno.EIO, "broken")
        give(source, to)

    for restarted in (False, True):
        main = tmp_path / str(restarted)
        fs = opened(main)
        with monkeypatch.context() as patch:
            patch.setattr(inodes, "copy_attributes", broken)
            with pytest.raises(HalfWritten, match="was overwritten in part only"):
                apply.innocent(fs, 1)
        assert states(main) not in (before, after)
        if restarted:
            killed(fs)
            fs = recovery.open_filesystem(open_store(str(main / ".isofs")), str(main))
        apply.resume(fs, 1)
        assert states(main) == after
        assert [kept(fs, entry) for entry in entries(fs)] == [before[b"one"]]
        assert not checks.check(fs)
        recovery.close_filesystem(fs)


def test_a_disk_that_is_full_is_as_full_after_it(tmp_path: Path) -> None:
    """A real one: lack of space shows before anything is changed, and what was allocated is given back."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(small)], check=True)
    try:
        fs = opened(small / "main", "large")
        before, after = states(small / "main"), thing(hers(small / "main"))
        (small / "filler").write_bytes(bytes((os.statvfs(small).f_bavail - 200) * K))
        free = 200
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                apply.innocent(fs, 1)
            assert states(small / "main") == before
            free, had = os.statvfs(small).f_bavail, free
            assert had - free < 40, "more than the database took"
        (small / "filler").unlink()
        apply.innocent(fs, 1)
        assert set(states(small / "main").values()) == {after}
        recovery.close_filesystem(fs)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
