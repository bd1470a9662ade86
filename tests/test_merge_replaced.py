"""One thing takes another's name: whatever a suspect replaced by what, an innocent verdict makes main what she saw."""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from isofs.engine import checks, recovery, suspicion
from isofs.engine.state import Caller, Filesystem
from isofs.merge import apply
from isofs.store.folder import open_store
from support.cuts import cut_off
from support.engine import Kernel, Walker, killed
from support.host import Host
from support.trees import Tree, differences, tree, without_times

ALICE, BOB = Caller(1001, 100, 1, 0o022), Caller(1002, 100, 2, 0o022)

FOLDERS = (b"empty", b"full", b"full/sub", b"full/sub/deep", b"other")
FILES = (b"file", b"full/f", b"full/sub/g", b"full/sub/deep/h", b"other/o")

Act = Callable[[Walker], None]


def new(user: Walker, path: bytes) -> None:
    user.write(path, b"%d" % user.caller.uid, os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def clear(user: Walker, path: bytes) -> None:
    """rm -r"""
    for name in user.listdir(path):
        below = path + b"/" + name
        if stat.S_ISDIR(user.stat(below).kind):
            clear(user, below)
        else:
            user.unlink(below)
    user.rmdir(path)


def run(*steps: tuple[str, bytes] | tuple[str, bytes, bytes]) -> Act:
    def act(user: Walker) -> None:
        for what, *paths in steps:
            if what == "new":
                new(user, *paths)
            elif what == "clear":
                clear(user, *paths)
            else:
                getattr(user, what)(*paths)

    return act


CASES: dict[str, Act] = {
    "an empty directory by a file": run(("rmdir", b"empty"), ("new", b"empty")),
    "an empty directory by a symlink": run(("rmdir", b"empty"), ("symlink", b"full", b"empty")),
    "an empty directory by a fifo": run(("rmdir", b"empty"), ("mkfifo", b"empty")),
    "an empty directory by a directory": run(("rmdir", b"empty"), ("mkdir", b"empty"), ("new", b"empty/n")),
    "an empty directory by main's file": run(("rmdir", b"empty"), ("rename", b"file", b"empty")),
    "an empty directory by main's directory": run(("rmdir", b"empty"), ("rename", b"full", b"empty")),
    "a directory renamed over an empty one": run(("rename", b"full", b"empty")),
    "a full directory by a file": run(("clear", b"full"), ("new", b"full")),
    "a full directory by a symlink": run(("clear", b"full"), ("symlink", b"other", b"full")),
    "a full directory by a directory": run(("clear", b"full"), ("mkdir", b"full"), ("new", b"full/f")),
    "a full directory by main's file": run(("clear", b"full"), ("rename", b"file", b"full")),
    "a full directory by main's directory": run(("clear", b"full"), ("rename", b"other", b"full")),
    "a file by a directory": run(("unlink", b"file"), ("mkdir", b"file"), ("new", b"file/n")),
    "a file by a symlink": run(("unlink", b"file"), ("symlink", b"full", b"file")),
    "a file by main's directory": run(("unlink", b"file"), ("rename", b"full", b"file")),
    "a directory by a file that was in it": run(
        ("rename", b"full/f", b"t"), ("clear", b"full"), ("rename", b"t", b"full")
    ),
    "a directory by a directory that was in it": run(
        ("rename", b"full/sub", b"t"), ("clear", b"full"), ("rename", b"t", b"full")
    ),
    "a directory by a file, what was in it by another name": run(
        ("rename", b"full/f", b"kept"), ("clear", b"full"), ("new", b"full")
    ),
    "a directory by a file, what was below it by another name": run(
        ("rename", b"full/sub/deep", b"kept"), ("clear", b"full"), ("new", b"full")
    ),
    "round in a circle": run(
        ("rename", b"full/f", b"t"), ("clear", b"full"), ("rename", b"file", b"full"), ("rename", b"t", b"file")
    ),
    "round in a circle of directories": run(
        ("rename", b"full/sub", b"t"), ("clear", b"full"), ("rename", b"other", b"full"), ("rename", b"t", b"other")
    ),
    "a directory changes places with what was in it": run(
        ("rename", b"full/sub", b"t"), ("rename", b"full", b"t/sub"), ("rename", b"t", b"full")
    ),
    "a file by one that has two other names": run(
        ("rename", b"full/f", b"full/new"), ("unlink", b"file"), ("link", b"full/new", b"file")
    ),
    "a file by one that has other names, and its own by another": run(
        ("rename", b"full/f", b"t"), ("link", b"t", b"u"), ("rename", b"file", b"full/f"), ("new", b"file")
    ),
    "a file and a directory change places": run(
        ("rename", b"full", b"t"), ("rename", b"file", b"full"), ("rename", b"t", b"file")
    ),
}


def build(directory: Path) -> None:
    directory.mkdir(mode=0o777)
    for name in FOLDERS:
        (directory / os.fsdecode(name)).mkdir(mode=0o777)
    for name in FILES:
        (directory / os.fsdecode(name)).write_bytes(b"main's " + name)


def opened(directory: Path) -> tuple[Filesystem, list[Walker]]:
    """An engine on which alice is isolated, alice, and bob."""
    os.umask(0)
    build(directory)
    fs = recovery.open_filesystem(open_store(str(directory / ".isofs")), str(directory))
    suspicion.suspect(fs, ALICE.uid, "alice", "", "2026-01-02T03:04:05Z")
    kernel = Kernel(fs)
    return fs, [Walker(kernel, caller) for caller in (ALICE, BOB)]


def isolated(directory: Path, case: str) -> tuple[Filesystem, Tree]:
    """An engine on which alice did what the case says and nobody else sees it; and what she sees."""
    fs, (alice, bob) = opened(directory)
    before = tree(bob)
    CASES[case](alice)
    assert not differences(tree(bob), before)
    return fs, without_times(tree(alice))


def on_disk(directory: Path) -> Tree:
    return without_times(tree(Host(os.fsencode(directory))))


@pytest.mark.parametrize("case", CASES)
def test_main_becomes_what_the_suspect_saw(tmp_path: Path, case: str) -> None:
    fs, seen = isolated(tmp_path / "main", case)
    report = apply.innocent(fs, 1)
    assert not differences(on_disk(tmp_path / "main"), seen)
    assert not report.conflicts
    assert not [item for item in report.items if item.review]
    told = [os.fsdecode(item.path + (item.aside or b"")) + item.reason for item in report.items]
    assert not [line for line in told if ".isofs-moving" in line]
    assert not checks.check(fs)
    recovery.close_filesystem(fs)


#: Those whose merge takes the most steps of different kinds; the others are made of the same.
EVERY = 1 if "ISOFS_HISTORIES" in os.environ else 6
#: Each is cut off at every step; every sixth in CI, by three modules in turn. All of them: ISOFS_HISTORIES=5000.
INTRICATE = [case for case in CASES if re.search("full directory|circle|places|was in it|below it", case)]


@pytest.mark.parametrize("case", INTRICATE[2::EVERY])
def test_a_merge_cut_off_anywhere_is_finished(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right before and right after each write of the store."""
    for stop in itertools.count():
        directory = tmp_path / str(stop)
        fs, seen = isolated(directory, case)
        if not cut_off(stop, monkeypatch, lambda fs=fs: apply.innocent(fs, 1)):  # type: ignore[misc]
            recovery.close_filesystem(fs)
            assert stop > 4
            return
        killed(fs)
        fs = recovery.open_filesystem(open_store(str(directory / ".isofs")), str(directory))
        for sid in list(fs.views):
            apply.resume(fs, sid)
        assert not differences(on_disk(directory), seen), f"after {stop}"
        assert not checks.check(fs), f"after {stop}"
        recovery.close_filesystem(fs)


#: Where hers is when main has something else of its name.
ASIDE = {b"full.isofs-alice", b"empty.isofs-alice"}

#: What both do, and which names of those in question main has then: what trusted users made or kept always stays.
BOTH: list[tuple[Act, Act, set[bytes]]] = [
    (run(("clear", b"full"), ("new", b"full")), run(("new", b"full/his")), {b"full/his", b"full.isofs-alice"}),
    (run(("rmdir", b"empty"), ("new", b"empty")), run(("new", b"empty/his")), {b"empty/his", b"empty.isofs-alice"}),
    (run(("clear", b"full"), ("new", b"full")), run(("clear", b"full")), {b"full"}),
    (run(("rmdir", b"empty"), ("new", b"empty")), run(("rmdir", b"empty"), ("new", b"empty")), {b"empty.isofs-alice"}),
    (
        run(("clear", b"full"), ("new", b"full")),
        run(("rename", b"full/sub", b"full/his")),
        {b"full", b"full/his", b"full.isofs-alice"},
    ),
]


@pytest.mark.parametrize(("hers", "his", "names"), BOTH)
def test_what_trusted_users_have_there_stays(tmp_path: Path, hers: Act, his: Act, names: set[bytes]) -> None:
    fs, (alice, bob) = opened(tmp_path / "main")
    hers(alice)
    his(bob)
    files = {path: item.content for path, item in tree(bob).items() if path.endswith(b"/his") and item.content}
    apply.innocent(fs, 1)
    main = on_disk(tmp_path / "main")
    assert names <= main.keys()
    assert files.items() <= {path: item.content for path, item in main.items()}.items()
    assert [path for path, item in main.items() if item.content == b"1001"] == [max(names & {b"full", *ASIDE})]
    assert not checks.check(fs)
    recovery.close_filesystem(fs)
