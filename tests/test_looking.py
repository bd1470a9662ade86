"""A start looks for what main has no more: by lists of names where that is faster, with the same result."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isofs.engine import looking, reading, recovery
from isofs.model.records import Op, Origin, Put
from isofs.store.folder import open_store

NAMES = [os.fsencode(name) for name in ("plain", "ümläut", "a\nb", "\udcff", "fifo", "link", "folder")]


@pytest.fixture
def main(place: Path) -> Iterator[Path]:
    """A tree in which the store follows all of `full`, a few of `crowded`, and a covered file."""
    root = place / "main"
    for folder in ("full", "crowded"):
        (root / folder).mkdir(parents=True)
    for name in NAMES[:4]:
        Path(os.fsdecode(os.fsencode(root / "full") + b"/" + name)).touch()
    os.mkfifo(root / "full" / "fifo")
    (root / "full" / "link").symlink_to("plain")
    (root / "full" / "folder").mkdir()
    for number in range(200):
        (root / "crowded" / str(number)).touch()
    yield root
    subprocess.run(["umount", root / "full" / "plain"], check=False, capture_output=True)


def followed(main: Path) -> list[Origin]:
    found = [Origin(1, stat.S_IFDIR, main.stat().st_ino, None, b"", None)]

    def follow(path: Path, parent: Op) -> Op:
        at = path.lstat()
        name = os.fsencode(path.name)
        found.append(Origin(len(found) + 1, stat.S_IFMT(at.st_mode), at.st_ino, parent, name, None))
        return found[-1].op

    full, crowded = follow(main / "full", 1), follow(main / "crowded", 1)
    for path in (main / "full").iterdir():
        follow(path, full)
    for number in random.Random(1).sample(range(200), 5):
        follow(main / "crowded" / str(number), crowded)
    return found


def nothing(main: Path) -> None:
    pass


def renamed(main: Path) -> None:
    (main / "full" / "ümläut").rename(main / "full" / "other")


def exchanged(main: Path) -> None:
    first, second, aside = (main / "full" / name for name in ("plain", "ümläut", "aside"))
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def replaced(main: Path) -> None:
    (main / "new").touch()
    (main / "new").rename(main / "full" / "a\nb")


def another_type(main: Path) -> None:
    (main / "full" / "fifo").unlink()
    (main / "full" / "fifo").touch()


def in_the_crowd(main: Path) -> None:
    for path in (main / "crowded").iterdir():
        path.rename(path.with_suffix(".old"))


def directory_moved(main: Path) -> None:
    (main / "full").rename(main / "moved")


def directory_gone(main: Path) -> None:
    shutil.rmtree(main / "crowded")


def covered(main: Path) -> None:
    (main / "over").touch()
    subprocess.run(["mount", "--bind", main / "over", main / "full" / "plain"], check=True)


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        (nothing, 0),
        (renamed, 1),
        (exchanged, 2),
        (replaced, 1),
        (another_type, 1),
        (in_the_crowd, 5),
        (directory_moved, 8),
        (directory_gone, 6),
        (covered, 1),
    ],
)
def test_what_is_missing_is_what_a_look_at_each_object_misses(
    place: Path, main: Path, change: Callable[[Path], None], gone: int
) -> None:
    origins = followed(main)
    store = open_store(str(place / "store"))
    store.write([Put(origin) for origin in origins])
    change(main)
    fs = reading.load(store, str(main))
    assert sorted(one.op for one in looking.missing(fs)) == looked(main, origins)
    assert len(looked(main, origins)) == gone
    recovery.close_filesystem(fs)


def looked(main: Path, origins: list[Origin]) -> list[Op]:
    """Whom a look by its path does not find, with its inode and type."""
    paths, lost = {1: os.fsencode(main)}, []
    for origin in origins[1:]:
        assert origin.parent is not None
        path = paths[origin.op] = paths[origin.parent] + b"/" + origin.name
        at = os.lstat(path) if os.path.lexists(path) else None
        if at is None or (at.st_ino, stat.S_IFMT(at.st_mode)) != (origin.ino, origin.kind):
            lost.append(origin.op)
    return lost


def test_a_start_leaves_no_trace_in_directories(place: Path, main: Path) -> None:
    store = open_store(str(place / "store"))
    store.write([Put(origin) for origin in followed(main)])
    for path in (main, main / "full", main / "crowded"):
        os.utime(path, (1, 1))
    fs = reading.load(store, str(main))
    assert looking.missing(fs) == []
    assert [path.stat().st_atime for path in (main, main / "full", main / "crowded")] == [1, 1, 1]
    recovery.close_filesystem(fs)
