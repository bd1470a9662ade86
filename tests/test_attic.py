"""The attic: what main had before a merge and has no more is there, as it was, and comes back as it was."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import stat
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from isofs.engine import attic, checks, recovery, suspicion
from isofs.engine.state import Filesystem
from isofs.errors import AtticFailed
from isofs.merge import apply, restore
from isofs.merge.preview import preview
from isofs.merge.report import Report
from isofs.model.records import MAIN
from isofs.store import inodes
from isofs.store.folder import Store, open_store
from support.attic import bring_back, check_complete, entries, kept, main_of, thing
from support.contest import Contest
from support.cuts import cut_off
from support.engine import killed
from test_merge_replaced import ALICE, BOB, CASES, EVERY, INTRICATE, new, opened

SINCE = "2026-01-02T03:04:05Z"


def by_path(fs: Filesystem) -> dict[bytes, tuple[str, bytes]]:
    return {entry.path: (entry.action, kept(fs, entry).content) for entry in entries(fs)}


@pytest.mark.parametrize("case", CASES)
def test_whatever_a_merge_takes_from_main_is_in_the_attic_and_comes_back(tmp_path: Path, case: str) -> None:
    fs, (alice, bob) = opened(tmp_path / "main")
    new(bob, b"attributes")
    bob.mkdir(b"attributes.d")
    before = main_of(tmp_path / "main")
    CASES[case](alice)
    alice.chmod(b"attributes", 0o4711)
    alice.chmod(b"attributes.d", 0o711)
    apply.innocent(fs, 1)
    check_complete(fs, before, main_of(tmp_path / "main"))
    assert not checks.check(fs)
    for number, entry in enumerate(sorted(entries(fs), key=lambda e: e.path.count(b"/"))):
        was = kept(fs, entry)
        bring_back(fs, entry.number, b"back-%d" % number)
        assert thing(tmp_path / "main" / f"back-{number}") == was
    assert not entries(fs)
    assert not os.listdir(tmp_path / "main" / ".isofs" / "attic")
    assert not checks.check(fs)
    recovery.close_filesystem(fs)


def test_every_type_comes_back_with_all_its_attributes(tmp_path: Path) -> None:
    """A sparse file, a link to nowhere, a FIFO, a socket, a device, a directory with a default ACL."""
    main = tmp_path / "main"
    fs, (alice, _) = opened(main)
    with open(main / "sparse", "wb") as file:
        file.write(b"x")
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"y")
    os.symlink("nowhere", main / "link")
    os.mkfifo(main / "fifo", 0o640)
    os.mknod(main / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    socket.socket(socket.AF_UNIX).bind(str(main / "socket"))
    (main / "folder").mkdir(0o2750)
    acl = bytes.fromhex("0200000001000700ffffffff04000500ffffffff20000000ffffffff")
    os.setxattr(main / "folder", "system.posix_acl_default", acl)
    names = ["sparse", "link", "fifo", "device", "socket", "folder"]
    for number, name in enumerate(names):
        os.chown(main / name, 4000 + number, 5000, follow_symlinks=False)
        os.utime(main / name, ns=(10**18, 10**18 + number), follow_symlinks=False)
    os.chmod(main / "sparse", 0o4755)
    os.setxattr(main / "sparse", "user.x", b"1")
    before = {name: thing(main / name) for name in names if name != "sparse"}
    blocks = (main / "sparse").stat().st_blocks
    for name in names:
        alice.rmdir(b"folder") if name == "folder" else alice.unlink(name.encode())
    apply.innocent(fs, 1)
    assert not [name for name in names if os.path.lexists(main / name)]
    for entry in entries(fs):
        bring_back(fs, entry.number)
    assert {name: thing(main / name) for name in before} == before
    sparse = (main / "sparse").stat()
    assert (sparse.st_size, sparse.st_blocks, stat.S_IMODE(sparse.st_mode)) == (1 << 30, blocks, 0o4755)
    assert os.getxattr(main / "sparse", "user.x") == b"1"
    assert (main / "folder").stat().st_mtime_ns == 10**18 + 5
    assert not checks.check(fs)
    recovery.close_filesystem(fs)


def test_a_file_with_several_names_is_kept_when_its_content_goes(tmp_path: Path) -> None:
    fs, (alice, bob) = opened(tmp_path / "main")
    bob.link(b"file", b"second")
    alice.write(b"second", b"hers", os.O_WRONLY | os.O_TRUNC)
    alice.unlink(b"full/f")
    bob.link(b"full/sub/g", b"third")
    alice.unlink(b"third")
    apply.innocent(fs, 1)
    found = by_path(fs)
    assert found.pop(b"full/f") == ("deleted", b"main's full/f")
    assert list(found.values()) == [("replaced", b"main's file")]  # and that one name of another went loses nothing
    assert not checks.check(fs)
    recovery.close_filesystem(fs)


@pytest.mark.parametrize("case", INTRICATE[::EVERY])
def test_a_merge_cut_off_anywhere_keeps_everything_once(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right before and right after each write of the store; at no moment is anything nowhere."""
    for stop in itertools.count():
        main = tmp_path / str(stop)
        fs, (alice, bob) = opened(main)
        new(bob, b"one")
        bob.link(b"one", b"two")
        bob.mkdir(b"attributes")
        before = main_of(main)
        CASES[case](alice)
        alice.write(b"two", b"hers", os.O_WRONLY | os.O_TRUNC)
        alice.chmod(b"attributes", 0o711)
        if not cut_off(stop, monkeypatch, lambda fs=fs: apply.innocent(fs, 1)):  # type: ignore[misc]
            recovery.close_filesystem(fs)
            assert stop > 4
            return
        now = Counter(was.thing.content for was in main_of(main).values())
        saved = {thing(path).content for path in (main / ".isofs" / "attic").iterdir()}
        assert {was.thing.content for was in before.values()} <= now.keys() | saved, f"lost at {stop}"
        killed(fs)
        fs = recovery.open_filesystem(open_store(str(main / ".isofs")), str(main))
        assert not [problem for problem in checks.check(fs) if problem.invariant == "I8"], f"after {stop}"
        for sid in list(fs.views):
            apply.resume(fs, sid)
        check_complete(fs, before, main_of(main))
        assert not checks.check(fs), f"after {stop}"
        recovery.close_filesystem(fs)


@pytest.mark.parametrize("there", ["nothing", "a file", "a followed file", "a directory", "a file with names"])
@pytest.mark.parametrize("cutting", ["link", "rename", "unlink", "write"])
def test_a_restoring_cut_off_anywhere_loses_nothing(
    tmp_path: Path, there: str, cutting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stop in itertools.count():
        main = tmp_path / str(stop)
        fs, (alice, bob) = opened(main)
        alice.unlink(b"file")
        apply.innocent(fs, 1)
        suspicion.suspect(fs, ALICE.uid, "alice", "", SINCE)
        if there == "a directory":
            bob.mkdir(b"file")
        elif there != "nothing":
            new(bob, b"file")
        if there == "a followed file":
            alice.write(b"file", b"hers", os.O_WRONLY | os.O_TRUNC)
        if there == "a file with names":
            bob.link(b"file", b"other/file")
        number = entries(fs)[0].number
        of = (Store, cutting) if cutting == "write" else (os, cutting)
        bring = partial(bring_back, fs, number, replace=True)
        if not cut_off(stop, monkeypatch, bring, *of):
            assert (main / "file").read_bytes() == b"main's file"
            recovery.close_filesystem(fs)
            return
        killed(fs)
        fs = recovery.open_filesystem(open_store(str(main / ".isofs")), str(main))
        assert not checks.check(fs)
        expected = {b"main's file"} | (
            {b"1002"} if there in ("a file", "a followed file", "a file with names") else set()
        )
        saved = {thing(path).content for path in (main / ".isofs" / "attic").iterdir()}
        assert expected <= {was.thing.content for was in main_of(main).values()} | saved
        recovery.close_filesystem(fs)


def test_what_is_renamed_and_changed_is_kept_under_the_name_that_main_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the merge has renamed by then; and the report tells of each what the plan did."""
    for stop in itertools.count(0, 3):
        main = tmp_path / str(stop)
        fs, (alice, _) = opened(main)
        before = main_of(main)
        for path in (b"full/sub/g", b"file"):
            alice.write(path, b"hers", os.O_WRONLY | os.O_TRUNC)
        alice.chmod(b"full/sub", 0o711)
        alice.unlink(b"full/f")
        alice.rename(b"file", b"full/sub/new")
        alice.rename(b"full", b"moved")
        alice.rename(b"other", b"full")
        alice.unlink(b"full/o")
        planned = {(one.item.path, one.item.action) for one in preview(fs, fs.views[1], apply.states(fs, fs.views[1]))}
        report = Report()
        if not cut_off(stop, monkeypatch, partial(list, apply.merge_steps(fs, 1, report))):
            assert {(item.path, item.action) for item in report.items} == planned
            recovery.close_filesystem(fs)
            return
        killed(fs)
        fs = recovery.open_filesystem(open_store(str(main / ".isofs")), str(main))
        for sid in list(fs.views):
            apply.resume(fs, sid)
        check_complete(fs, before, main_of(main))
        assert sorted((entry.action, entry.path) for entry in entries(fs)) == [
            ("deleted", b"full/f"),
            ("deleted", b"other/o"),
            ("replaced", b"file"),
            ("replaced", b"full/sub"),
            ("replaced", b"full/sub/g"),
        ], f"after {stop}"
        assert not checks.check(fs)
        recovery.close_filesystem(fs)


def _fail_in_main(patch: pytest.MonkeyPatch, main: Path) -> None:
    """No attributes can be given to what main has, the first time; in the store they can."""
    give, store, failed = inodes.copy_attributes, str(main / ".isofs"), itertools.count()

    def cut(source: inodes.Place, to: inodes.Place) -> None:
        if not os.readlink(f"/proc/self/fd/{to.directory}").startswith(store) and not next(failed):
            raise FULL
        give(source, to)

    patch.setattr(inodes, "copy_attributes", cut)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("what", ["deleted", "replaced", "several names", "directory"])
@pytest.mark.parametrize("broken", ["attic", "main"])
def test_a_full_disk_stops_the_merge_before_anything_is_gone(
    tmp_path: Path, what: str, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attic cannot keep something, or main cannot be changed: main has it, and the merge goes on later."""
    main = tmp_path / "main"
    fs, (alice, bob) = opened(main)
    if what == "several names":
        bob.link(b"file", b"second")
    before = main_of(main)
    if what == "deleted":
        alice.unlink(b"file")
    elif what == "directory":
        alice.chmod(b"empty", 0o700)
    else:
        alice.write(b"file", b"hers", os.O_WRONLY | os.O_TRUNC)
    assert main_of(main) == before

    def full(*args: object, **kwargs: object) -> None:
        raise FULL

    with monkeypatch.context() as patch:
        targets = ["link", "mkdir"] if broken == "attic" else ["unlink", "rename"]
        if broken == "attic":
            patch.setattr(inodes, "copy", full)
        elif what in ("several names", "directory"):
            targets = []
            _fail_in_main(patch, main)
        for name in targets:
            patch.setattr(os, name, full)
        with pytest.raises(AtticFailed if broken == "attic" else OSError):
            apply.innocent(fs, 1)
    assert main_of(main) == before
    apply.innocent(fs, 1)
    check_complete(fs, before, main_of(main))
    assert len(entries(fs)) == 1
    assert not checks.check(fs)
    recovery.close_filesystem(fs)


@pytest.mark.parametrize("large", [False, True])
def test_what_somebody_writes_to_is_kept_as_it_was_or_marked(
    tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trusted user goes on writing to the file that he has open: he loses nothing, and the attic does not lie."""
    if large:
        monkeypatch.setattr(attic, "COPY_LIMIT", 4)
    fs, (alice, bob) = opened(tmp_path / "main")
    held = bob.open(b"file", os.O_RDWR)
    alice.write(b"file", b"hers", os.O_WRONLY | os.O_TRUNC)
    apply.innocent(fs, 1)
    held.write(0, b"BOB")
    assert held.read() == b"BOBn's file"
    entry = entries(fs)[0]
    assert entry.live is large
    assert kept(fs, entry).content == (b"BOBn's file" if large else b"main's file")
    bring_back(fs, entry.number, b"back")
    held.write(0, b"not")
    assert bob.read(b"back") == (b"BOBn's file" if large else b"main's file")  # it is a file of its own
    assert not checks.check(fs)
    recovery.close_filesystem(fs)


def test_who_has_it_open_sees_that_it_is_gone(tmp_path: Path) -> None:
    fs, (alice, bob) = opened(tmp_path / "main")
    held = bob.open(b"file", os.O_RDONLY)
    alice.unlink(b"file")
    apply.innocent(fs, 1)
    from isofs.engine import calls

    assert calls.getattr(fs, BOB, held.handle.node)[0].nlink == 0
    assert held.read() == b"main's file"
    recovery.close_filesystem(fs)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    fs, (alice, bob) = opened(tmp_path / "main")
    alice.unlink(b"file")
    alice.rmdir(b"empty")
    apply.innocent(fs, 1)
    numbers = {entry.path: entry.number for entry in entries(fs)}
    new(bob, b"file")
    with pytest.raises(AtticFailed, match="--replace"):
        bring_back(fs, numbers[b"file"])
    with pytest.raises(AtticFailed, match="something in it"):
        bring_back(fs, numbers[b"file"], b"full", replace=True)
    with pytest.raises(AtticFailed, match="make it"):
        bring_back(fs, numbers[b"file"], b"no/where")
    for path in (b"../x", b"/x", b"", b".isofs/x", b"a//b"):
        with pytest.raises((AtticFailed, Exception)):
            restore.missing_above(fs, path)
    assert bob.read(b"file") == b"1002"
    stowed = bring_back(fs, numbers[b"file"], replace=True)
    assert stowed is not None
    assert by_path(fs)[b"file"] == ("replaced", b"1002")
    assert bob.read(b"file") == b"main's file"
    assert (stowed.sid, stowed.user) == (MAIN, "root")
    assert not checks.check(fs)
    recovery.close_filesystem(fs)


def test_only_what_is_older_is_purged(tmp_path: Path) -> None:
    fs, (alice, _) = opened(tmp_path / "main")
    for path in (b"file", b"full/f", b"other/o"):
        alice.unlink(path)
    apply.innocent(fs, 1)
    first, *_ = found = entries(fs)
    assert [e.number for e in attic.purge(fs, first.number, 10)] == [first.number]
    assert entries(fs) == found[1:]
    recovery.close_filesystem(fs)
    fs = recovery.open_filesystem(open_store(str(tmp_path / "main" / ".isofs")), str(tmp_path / "main"))
    assert sorted(os.listdir(tmp_path / "main" / ".isofs" / "attic")) == sorted(str(e.number) for e in found[1:])
    assert fs.store.new_number() > found[-1].number
    recovery.close_filesystem(fs)


@pytest.mark.parametrize("anew", ["nothing", "file", "directory"])
def test_a_file_of_which_main_lost_the_directory_that_a_name_was_in(tmp_path: Path, anew: str) -> None:
    """The suspect took that name, main took it too and then the directory: the other name is where it was."""
    contest = Contest(tmp_path / "main", {"d/f": b"main's"}, suspects=())
    os.link(contest.path / "d/f", contest.path / "b")
    alice = contest.join("alice")
    alice.unlink(b"d/f")
    contest.write(alice, b"hers", "b")
    if anew == "file":
        contest.write(alice, b"another", "d/f")
    elif anew == "directory":
        alice.mkdir(b"d/f")
    contest.bob.unlink(b"d/f")
    contest.bob.rmdir(b"d")
    contest.innocent()
    assert contest.main()["b"] == b"hers"
    assert [(entry.path, entry.action) for entry in entries(contest.fs)] == [(b"b", "replaced")]
    contest.close()
