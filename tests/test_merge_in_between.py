"""While a merge is carried out, trusted users are served in between: what they do then is not lost either."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isofs.engine import checks, recovery, suspicion
from isofs.engine.slices import at_once
from isofs.engine.state import Caller, Filesystem
from isofs.merge import apply, partial, split
from isofs.merge.parting import wish
from isofs.merge.report import Report
from isofs.store.folder import open_store
from support.engine import Kernel, Walker
from support.host import Host
from support.trees import tree

FILES = (b"a", b"b", b"c", b"d/e")

Act = Callable[[Walker, bytes], None]


@pytest.fixture
def fs(tmp_path: Path) -> Iterator[Filesystem]:
    os.umask(0)
    (tmp_path / "d").mkdir()
    for name in FILES:
        (tmp_path / os.fsdecode(name)).write_bytes(b"main's " + name)
    opened = recovery.open_filesystem(open_store(str(tmp_path / ".isofs")), str(tmp_path))
    yield opened
    recovery.close_filesystem(opened)


def modify(user: Walker, path: bytes) -> None:
    user.write(path, b"%d's " % user.caller.uid + path, os.O_WRONLY | os.O_TRUNC)


def delete(user: Walker, path: bytes) -> None:
    user.unlink(path)


def replace(user: Walker, path: bytes) -> None:
    user.write(b"temporary", b"%d's " % user.caller.uid + path, os.O_WRONLY | os.O_CREAT)
    user.rename(b"temporary", path)


def occupy(user: Walker, path: bytes) -> None:
    """Put something else where it was."""
    user.rename(path, path + b".old")
    user.write(path, b"%d's " % user.caller.uid + path, os.O_WRONLY | os.O_CREAT)


ACTS: list[Act] = [modify, delete, replace, occupy]


def contents(path: Path) -> dict[bytes, bytes]:
    return {name: item.content for name, item in tree(Host(os.fsencode(path))).items() if item.content}


def waiting(fs: Filesystem) -> list[bytes]:
    """What waits for a decision."""
    places = [
        fs.store.content(sid, version.content).path
        for sid, view in fs.waiting.items()
        for version in view.versions.values()
        if version.content is not None
    ]
    return [Path(os.fsdecode(path)).read_bytes() for path in places]


@pytest.mark.parametrize("steps", range(len(FILES) + 3))
@pytest.mark.parametrize("trusted", ACTS)
@pytest.mark.parametrize("suspect", ACTS)
def test_whatever_a_trusted_user_does_meanwhile(
    fs: Filesystem, tmp_path: Path, suspect: Act, trusted: Act, steps: int
) -> None:
    """After each number of steps: what the trusted user and the suspect wrote is in main, or waits."""
    kernel = Kernel(fs)
    main, alice = (Walker(kernel, Caller(uid, 100, uid)) for uid in (1000, 1001))
    sid = suspicion.suspect(fs, 1001, "alice", "", "2026-01-01T00:00:00Z").sid
    for path in FILES:
        suspect(alice, path)
    merge = apply.merge_steps(fs, sid, Report())
    for _ in range(steps):
        next(merge, None)
    merged = contents(tmp_path)
    for path in FILES:
        if main.listdir(os.path.dirname(path)).keys() & {os.path.basename(path)}:
            trusted(main, path)
    written = contents(tmp_path)
    for _ in merge:
        pass
    found = {*contents(tmp_path).values(), *waiting(fs)}
    assert {content for content in written.values() if content.startswith(b"1000's ")} <= found
    if suspect is not delete:
        assert {b"1001's " + path for path in FILES} <= found | set(merged.values())
    assert checks.check(fs) == []


@pytest.mark.parametrize("occupied", [False, True])
def test_what_main_deletes_while_it_waits_comes_back(fs: Filesystem, tmp_path: Path, occupied: bool) -> None:
    """Both modified it; before anyone decides, main has it no more. The next verdict brings the suspect's back."""
    kernel = Kernel(fs)
    main, alice = (Walker(kernel, Caller(uid, 100, uid)) for uid in (1000, 1001))
    sid = suspicion.suspect(fs, 1001, "alice", "", "2026-01-01T00:00:00Z").sid
    for path in FILES:
        modify(alice, path)
        modify(main, path)
    assert apply.innocent(fs, sid).conflicts == len(FILES)
    for path in FILES:
        main.unlink(path)
        if occupied:
            main.write(path, b"another", os.O_WRONLY | os.O_CREAT)
    before = contents(tmp_path)
    items = apply.innocent(fs, sid).items
    assert not waiting(fs)
    names = {path: path + b".isofs-alice" if occupied else path for path in FILES}
    assert {item.path: item.aside or item.path for item in items} == names
    found = contents(tmp_path)
    assert {name: found[name][:7] for name in names.values()} == dict.fromkeys(names.values(), b"1001's ")
    assert before.items() <= found.items()
    assert checks.check(fs) == []


@pytest.mark.parametrize("steps", range(len(FILES) + 3))
@pytest.mark.parametrize("trusted", ACTS)
@pytest.mark.parametrize("suspect", ACTS)
def test_whatever_a_trusted_user_does_while_a_part_is_merged(
    fs: Filesystem, tmp_path: Path, suspect: Act, trusted: Act, steps: int
) -> None:
    """What is not of the part is as it was to the suspect; what is, and what the trusted user wrote, is not lost."""
    kernel = Kernel(fs)
    main, alice = (Walker(kernel, Caller(uid, 100, uid)) for uid in (1000, 1001))
    sid = suspicion.suspect(fs, 1001, "alice", "", "2026-01-01T00:00:00Z").sid
    for path in FILES:
        suspect(alice, path)
    view = fs.views[sid]
    pieces = at_once(partial.pieces(fs, view))
    part = at_once(partial.partial(fs, view, pieces, at_once(wish(pieces, ["b*", "d"], []))))
    left = {name: item for name, item in tree(alice).items() if not name.startswith((b"b", b"d"))}
    merge = split.merge_steps(fs, split.merged(sid, "", "2026-01-01T00:00:00Z"), part, Report())
    for _ in range(steps):
        next(merge, None)
    merged = contents(tmp_path)
    for path in FILES:
        if main.listdir(os.path.dirname(path)).keys() & {os.path.basename(path)}:
            trusted(main, path)
    written = contents(tmp_path)
    for _ in merge:
        pass
    seen = {item.content for item in tree(alice).values()}
    found = {*contents(tmp_path).values(), *waiting(fs), *seen}
    assert {content for content in written.values() if content.startswith(b"1000's ")} <= found
    if suspect is not delete:
        assert {b"1001's " + path for path in FILES} <= found | set(merged.values())
        assert {item.content for item in left.values() if item.content.startswith(b"1001's ")} <= seen
    assert checks.check(fs) == []
    assert fs.suspects == {1001: sid}
