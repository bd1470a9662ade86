"""What the directory lies on, and what is mounted in it. `scripts/filesystems` runs this on xfs and btrfs as well."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isofs.engine import recovery, suspicion, tree, xattrs
from isofs.engine.checks import check
from isofs.engine.state import Caller, Filesystem, node_for
from isofs.errors import CallError
from isofs.merge import apply
from isofs.model.records import MAIN
from isofs.store.folder import open_store
from support.engine import Kernel, Walker
from support.mount import isoctl, mounts_below

ALICE, BOB = 1003, 1001
MAKE = os.O_CREAT | os.O_WRONLY


@pytest.fixture
def main(tmp_path: Path) -> Path:
    made = tmp_path / "main"
    for directory in (made, made / "at", made / "above", made / "above" / "at"):
        directory.mkdir()
        directory.chmod(0o777)
    return made


@pytest.fixture
def fs(main: Path) -> Iterator[Filesystem]:
    opened = recovery.open_filesystem(open_store(str(main / ".isofs")), str(main))
    yield opened
    assert check(opened) == []
    recovery.close_filesystem(opened)


@pytest.fixture
def kernel(fs: Filesystem) -> Iterator[Kernel]:
    one = Kernel(fs)
    yield one
    one.close()


def kind_of(path: Path) -> str:
    return subprocess.run(["stat", "-fc", "%T", path], capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def mounted_at(path: Path) -> Iterator[None]:
    """Another file system with a file in it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777", "none", str(path)], check=True)
    try:
        (path / "elsewhere").write_text("of another file system")
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def errno_of(call: Callable[..., object], *args: object) -> int:
    try:
        call(*args)
    except OSError as error:
        return error.errno or 0
    return 0


def test_what_is_mounted_in_the_directory_is_there_for_nobody(main: Path, fs: Filesystem, kernel: Kernel) -> None:
    """Neither seen nor written over nor removed with what it lies in, by trusted users and suspects."""
    sid = suspicion.suspect(fs, ALICE, "alice", "", "2026-01-02T03:04:05Z").sid
    with mounted_at(main / "at"), mounted_at(main / "above" / "at"):
        for uid in (BOB, ALICE):
            user = Walker(kernel, Caller(uid, 100, uid * 10))
            assert set(user.listdir(b"")) - {b"f"} == {b"above"}
            assert user.listdir(b"above") == {}
            assert errno_of(user.read, b"at/elsewhere") == errno.ENOENT
            assert errno_of(user.mkdir, b"at") == errno.EEXIST
            assert errno_of(user.write, b"at", b"x", MAKE) == errno.EEXIST
            assert errno_of(user.rmdir, b"above") == errno.ENOTEMPTY
            user.write(b"f", b"%d" % uid, MAKE)
            assert errno_of(user.link, b"f", b"at") == errno.EEXIST
            assert errno_of(user.rename, b"f", b"at") in (errno.EBUSY, errno.EISDIR)
            assert user.read(b"f") == b"%d" % uid
        kernel.forget()
        apply.innocent(fs, sid)
        assert (main / "f").read_text() == str(ALICE)
        assert (main / "at" / "elsewhere").exists()
        assert (main / "above" / "at" / "elsewhere").exists()


def test_a_merge_puts_beside_what_is_mounted_where_a_suspect_made_something(
    main: Path, fs: Filesystem, kernel: Kernel
) -> None:
    """And a directory that the suspect deleted stays with what is mounted in it."""
    (main / "at").rmdir()
    sid = suspicion.suspect(fs, ALICE, "alice", "", "2026-01-02T03:04:05Z").sid
    alice = Walker(kernel, Caller(ALICE, 100, 10))
    alice.mkdir(b"at")
    alice.write(b"at/hers", b"hers", MAKE)
    alice.rmdir(b"above/at")
    alice.rmdir(b"above")
    kernel.forget()
    (main / "at").mkdir()
    with mounted_at(main / "at"), mounted_at(main / "above" / "at"):
        told = {(item.path, item.action, item.aside) for item in apply.innocent(fs, sid).items if item.review}
        assert (b"at", "renamed", b"at.isofs-alice") in told
        assert (main / "at.isofs-alice" / "hers").read_text() == "hers"
        assert sorted(os.listdir(main / "at")) == ["elsewhere"]
        assert (main / "above" / "at" / "elsewhere").exists()


def test_what_is_discarded_leaves_what_is_mounted_alone(main: Path, fs: Filesystem, kernel: Kernel) -> None:
    sid = suspicion.suspect(fs, ALICE, "alice", "", "2026-01-02T03:04:05Z").sid
    alice = Walker(kernel, Caller(ALICE, 100, 10))
    alice.rename(b"above", b"hers")
    kernel.forget()
    with mounted_at(main / "above" / "at"):
        apply.malicious(fs, sid)
        assert (main / "above" / "at" / "elsewhere").exists()


@pytest.mark.mount
def test_a_part_of_the_file_system_that_is_mounted_below_is_refused(place: Path) -> None:
    """Nothing could be renamed into it from the store."""
    (place / "a").mkdir()
    (place / "b").mkdir()
    subprocess.run(["mount", "--bind", str(place / "a"), str(place / "b")], check=True)
    try:
        done = isoctl("mount", str(place))
        assert done.code == 5, done
        assert str(place / "b") in done.err
        assert mounts_below(place) == [str(place / "b")]
    finally:
        subprocess.run(["umount", str(place / "b")], check=True)


def test_names_of_roots_attributes_are_told_to_root_alone(main: Path, fs: Filesystem) -> None:
    """And what XFS has ACLs under besides to nobody: the kernel would not notice a change there."""
    (main / "f").write_text("f")
    os.setxattr(main / "f", "trusted.t", b"1")
    os.setxattr(main / "f", "user.u", b"1")
    subprocess.run(["setfacl", "-m", "u:1009:r", main / "f"], check=True)
    bob, root = (Caller(uid, uid, uid * 10 + 1) for uid in (BOB, 0))
    found = tree.child(fs, fs.root, b"f")
    assert found is not None
    node = node_for(fs, MAIN, found[0])
    told = [sorted(xattrs.listxattr(fs, caller, node)) for caller in (bob, root)]
    assert told == [[b"system.posix_acl_access", b"user.u"], [b"system.posix_acl_access", b"trusted.t", b"user.u"]]
    with pytest.raises(CallError) as refused:
        xattrs.setxattr(fs, root, node, b"trusted.SGI_ACL_FILE", b"\0" * 16)
    assert refused.value.errno == errno.EOPNOTSUPP


def test_copies_share_their_blocks_where_the_file_system_can(main: Path, fs: Filesystem, kernel: Kernel) -> None:
    if kind_of(main) not in ("xfs", "btrfs"):
        pytest.skip("this file system shares no blocks")
    (main / "f").write_bytes(os.urandom(32 << 20))
    (main / "f").chmod(0o666)
    os.sync()
    before = os.statvfs(main)
    suspicion.suspect(fs, ALICE, "alice", "", "2026-01-02T03:04:05Z")
    alice, bob = Walker(kernel, Caller(ALICE, 100, 10)), Walker(kernel, Caller(BOB, 100, 11))
    alice.write(b"f", b"hers", os.O_WRONLY)
    bob.write(b"f", b"main", os.O_WRONLY)  # a base copy is kept
    os.sync()
    after = os.statvfs(main)
    assert (before.f_bfree - after.f_bfree) * after.f_frsize < 8 << 20


def test_a_subvolume_is_another_file_system(main: Path, fs: Filesystem, kernel: Kernel) -> None:
    if kind_of(main) != "btrfs":
        pytest.skip("only btrfs has them")
    subprocess.run(["btrfs", "-q", "subvolume", "create", str(main / "sub")], check=True)
    (main / "sub" / "f").write_text("inside")
    sid = suspicion.suspect(fs, ALICE, "alice", "", "2026-01-02T03:04:05Z").sid
    for uid in (BOB, ALICE):
        user = Walker(kernel, Caller(uid, 100, uid * 10))
        assert b"sub" not in user.listdir(b"")
        assert errno_of(user.mkdir, b"sub") == errno.EEXIST
    kernel.forget()
    apply.innocent(fs, sid)
    assert (main / "sub" / "f").read_text() == "inside"
