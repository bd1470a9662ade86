"""Backups: a store in one file, of one moment, that is unpacked as it was, and nothing else taken for one."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard

from isofs.audit import reads, record
from isofs.audit.appending import Limits
from isofs.audit.counting import ReadSets
from isofs.errors import BackupUnusable, Exit
from isofs.service import backup as making
from isofs.service import newfile
from isofs.store import backup, copies, inodes
from isofs.store.folder import open_store
from isofs.store.frame import Frame
from isofs.store.inodes import Place
from support.command import refused
from support.mount import ALICE, BOB, Worker, as_user, isoctl, mounted
from support.trails import TASK, checked, folder, written
from test_mount_verdicts import whole

ACL = bytes.fromhex("0200000001000600ffffffff02000600e903000004000400ffffffff10000600ffffffff20000000ffffffff")


def _nothing(count: int) -> None:
    pass


def _every_kind(folder: Path) -> None:
    """One inode of each kind that a version can be."""
    folder.mkdir(parents=True)
    (folder / "1").write_bytes(b"text\n")
    os.setxattr(folder / "1", "user.any", bytes(range(256)))
    os.setxattr(folder / "1", "system.posix_acl_access", ACL)
    with open(folder / "2", "wb") as file:
        file.write(b"begin")
        file.seek(1 << 22)
        file.write(b"middle")
        file.truncate(1 << 24)
    os.truncate(folder / "1", 5)
    (folder / "3").mkdir()
    os.setxattr(folder / "3", "system.posix_acl_default", ACL)
    os.symlink(b"to/\xff\xfe", folder / "4")
    os.mkfifo(folder / "5")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "6"))
    os.mknod(folder / "7", 0o60640, os.makedev(7, 300))
    (folder / "8").touch()
    with open(folder / "9", "wb") as file:
        file.truncate(1 << 20)
    for number, name in enumerate(sorted(os.listdir(folder))):
        os.chown(folder / name, 1000 + number, 2000 + number, follow_symlinks=False)
        if not (folder / name).is_symlink():
            (folder / name).chmod(0o4751)
        os.utime(folder / name, ns=(10**18 + number, 10**18 - number), follow_symlinks=False)


def _packed(root: int) -> io.BytesIO:
    file = io.BytesIO()
    writer = backup.Writer(file, _nothing)
    for name, _ in copies.members(root):
        with copies.place(root, name) as place:
            writer.add(name, place)
    writer.finish({"mount": "/srv", "at": "now"})
    file.seek(0)
    return file


@pytest.fixture
def packed(tmp_path: Path) -> io.BytesIO:
    """A backup of a folder with every kind of inode."""
    _every_kind(tmp_path / "store/versions/1")
    (tmp_path / "store/config.toml").write_text("attic_days = 3\n")
    (tmp_path / "store/lock").touch()
    root = os.open(tmp_path / "store", os.O_RDONLY | os.O_DIRECTORY)
    try:
        return _packed(root)
    finally:
        os.close(root)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "new").mkdir()
    descriptor = os.open(tmp_path / "new", os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def _blocks(folder: Path) -> dict[str, int]:
    return {name: os.lstat(folder / name).st_blocks for name in os.listdir(folder)}


def test_every_inode_is_unpacked_as_it_was(packed: io.BytesIO, root: int, tmp_path: Path) -> None:
    about = backup.unpack(packed, root, _nothing)
    assert (about["members"], about["mount"]) == (10, "/srv")
    before, after = tmp_path / "store", tmp_path / "new"
    assert whole(str(after / "versions/1")) == whole(str(before / "versions/1"))
    assert sorted(os.listdir(after)) == ["config.toml", "versions"]
    assert os.lstat(after / "versions/1/7").st_rdev == os.makedev(7, 300)
    assert os.lstat(after / "versions/1/5").st_mtime_ns == os.lstat(before / "versions/1/5").st_mtime_ns
    assert _blocks(after / "versions/1") == _blocks(before / "versions/1")


def test_tar_reads_a_backup(packed: io.BytesIO, tmp_path: Path) -> None:
    """Whoever has lost isofs still gets at the contents."""
    plain = zstandard.ZstdDecompressor().stream_reader(packed).read()
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        ["tar", "-x", "--xattrs", "--acls", "-C", str(tmp_path / "out")], input=plain, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("1", "2", "9"):
        assert (tmp_path / "out/versions/1" / name).read_bytes() == (tmp_path / "store/versions/1" / name).read_bytes()
    assert os.readlink(os.fsencode(tmp_path / "out/versions/1/4")) == b"to/\xff\xfe"


def test_what_was_cut_or_changed_is_no_backup(packed: io.BytesIO, root: int) -> None:
    whole_file = packed.getvalue()
    plain = Frame(io.BytesIO(whole_file), 4096).read(1 << 30)
    for end in (0, 1, 10, len(whole_file) // 2, len(whole_file) - 5, len(whole_file) - 1):
        with pytest.raises(BackupUnusable):
            backup.verify(io.BytesIO(whole_file[:end]), _nothing)
    for at in range(0, len(whole_file), max(1, len(whole_file) // 60)):
        changed = bytearray(whole_file)
        changed[at] ^= 0x10
        try:
            backup.verify(io.BytesIO(changed), _nothing)
        except BackupUnusable:
            continue
        assert Frame(io.BytesIO(changed), 4096).read(1 << 30) == plain  # a bit of the frame's that says nothing


def _tar(members: list[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE) -> io.BytesIO:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), kind
            info.pax_headers = {"mtime": "1.0", "atime": "1.0"}
            tar.addfile(info, io.BytesIO(content))
    return io.BytesIO(zstandard.ZstdCompressor().compress(plain.getvalue()))


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "versions/../../x",
        "versions/1/..",
        "versions/x/1",
        "bases/a/b",
        "a/b",
        ".",
        "bases/.",
        "x y",
    ],
)
def test_names_that_no_store_has_are_refused(name: str, root: int, tmp_path: Path) -> None:
    with pytest.raises(BackupUnusable):
        backup.unpack(_tar([(name, b"evil")]), root, _nothing)
    assert os.listdir(tmp_path / "new") == []


@pytest.mark.parametrize(
    "about", [b"", b"[]", b"{}", b'{"format": "isofs backup 9"}', b'{"format": "isofs backup 1", "members": 7}']
)
def test_an_end_that_is_none_is_refused(about: bytes, root: int) -> None:
    with pytest.raises(BackupUnusable):
        backup.unpack(_tar([("config.toml", b""), ("backup.json", about)]), root, _nothing)


def test_hard_links_are_refused(root: int) -> None:
    with pytest.raises(BackupUnusable):
        backup.unpack(_tar([("config.toml", b"")], tarfile.LNKTYPE), root, _nothing)


def _append(path: str, stop: str) -> int:
    """Append numbered lines until there is a file `stop`."""
    count = 0
    with open(path, "a", buffering=1) as file:
        while not os.path.exists(stop):
            file.write(f"line {count}\n")
            count += 1
    return count


@pytest.mark.mount
def test_a_restored_store_isolates_as_before(tree: Path, tmp_path: Path) -> None:
    """Made while the suspect writes: mounted again, the suspect sees what there was, and a verdict merges it."""
    file, stop = tmp_path / "backup", tree / "stop"
    with mounted(tree) as mount:
        (tree / "shared").write_text("main's\n")
        (tree / "shared").chmod(0o666)
        mount.facts("suspect", str(ALICE))
        alice = Worker(ALICE, cwd=tree)
        try:
            alice(os.mkdir, "hers")
            for number in range(200):
                alice(_write, f"hers/{number}", b"x" * number)
            alice(_write, "shared", b"hers\n")
            alice.begin(_append, str(tree / "log"), str(stop))
            made = mount.facts("backup", str(file))
            as_user(BOB, lambda: stop.touch())
            lines = alice.end()
        finally:
            alice.close()
        assert made["bytes"] == file.stat().st_size
        seen = as_user(ALICE, lambda: whole(str(tree), skip="log"))
        mount.umount()
        (tree / ".isofs").rename(tmp_path / "old")
        done = isoctl("restore", str(file), str(tree / ".isofs"))
        assert done.code == 0, done
        mount.mount()
        mount.check()
        assert as_user(ALICE, lambda: whole(str(tree), skip="log")) == seen
        log = as_user(ALICE, lambda: (tree / "log").read_text()).splitlines()
        assert log == [f"line {number}" for number in range(len(log))]
        assert len(log) <= lines
        assert (tree / "shared").read_text() == "main's\n"
        assert mount.isoctl("innocent", str(ALICE)).code == 0
        assert (tree / "shared").read_text() == "hers\n"


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


@pytest.mark.mount
def test_what_cannot_be_is_refused_and_changes_nothing(tree: Path, tmp_path: Path) -> None:
    file, store = tmp_path / "backup", tmp_path / "store"
    with mounted(tree) as mount:
        refused(mount.isoctl("backup", str(tree / "backup")), Exit.USAGE, "would be visible")
        assert mount.isoctl("backup", str(file)).code == 0
        refused(mount.isoctl("backup", str(file)), Exit.USAGE, "exists already")
        refused(mount.isoctl("backup", str(tmp_path / "none/backup")), Exit.USAGE, "No such file")
    assert isoctl("--mount", str(tree), "backup", str(tmp_path / "rest")).code == 0
    refused(isoctl("restore", str(tmp_path / "none"), str(store)), Exit.USAGE, "cannot be read")
    refused(isoctl("restore", str(file), str(tmp_path)), Exit.USAGE, "exists already")
    data = file.read_bytes()
    for broken in (data[:-9], b"", b"no backup"):
        (tmp_path / "broken").write_bytes(broken)
        refused(isoctl("restore", str(tmp_path / "broken"), str(store)), Exit.BACKUP, "backup")
        assert not store.exists()
        assert not (tmp_path / "store.partial").exists()
    assert isoctl("restore", str(tmp_path / "rest"), str(store)).code == 0


@pytest.mark.mount
def test_a_full_disk_leaves_no_backup(tree: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    try:
        with mounted(tree) as mount:
            mount.facts("suspect", str(ALICE))
            as_user(ALICE, lambda: _write(str(tree / "big"), os.urandom(1 << 20)))
            refused(mount.isoctl("backup", str(small / "backup")), Exit.BACKUP, "No space left")
            assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_database_that_needs_what_is_not_there_is_found_out(tmp_path: Path) -> None:
    """The moment in which the database is copied and that of the contents must be one."""
    from isofs.model.records import Base, Origin, Put, Subject, SubjectState, Version
    from isofs.model.vectors import Vector
    from isofs.store.folder import open_store
    from isofs.store.inodes import Place

    store = open_store(str(tmp_path / "store"))
    subject = Subject(1, 61001, "alice", "2026-01-01T00:00:00Z", "", SubjectState.SUSPECT)
    origin = Origin(7, 0o100000, None, None, b"x", None, born=1)
    version = Version(1, 7, "m", Vector.of({0: 0, 1: "m"}), "7", None)
    store.write([Put(subject), Put(origin), Put(version), Put(Base(7, 0, 0, "7-0"))])
    copy = Place(os.open(tmp_path, os.O_RDONLY), b"copy.db")
    copies.copy_database(store.path, copy)
    assert copies.missing(copy, {"bases/7-0"}) == ["versions/1/7"]
    assert copies.missing(copy, {"versions/1/7"}) == []
    store.close()
    os.close(copy.directory)


def test_a_backup_has_the_whole_audit_trail_and_read_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though files of it are begun, compressed and removed between two rounds, and while the last of it is copied."""
    store = open_store(str(tmp_path / "store"))
    audit, limits = tmp_path / "store/audit", Limits(size=1500)
    written(audit, 10, limits)
    call = record.Record(1, 1, "open", 1, 7, TASK, b"f", 5, 0, 0, None, {"main": True})
    with folder(audit) as opened, contextlib.closing(ReadSets(opened)) as sets:
        sets.note([call])
    copied = 0

    def copy(source: Place, to: Place) -> None:
        nonlocal copied
        copied += 1
        if copied in (2, 4):
            written(audit, 10, limits, first=checked(audit).sequence + 1)
        inodes.copy(source, to)

    @contextlib.contextmanager
    def quiet() -> Iterator[None]:
        if not copied:
            written(audit, 10, limits, first=11)
        yield

    monkeypatch.setattr(making, "inodes", SimpleNamespace(copy=copy, remove=inodes.remove))
    with newfile.in_file(os.fsencode(tmp_path / "backup"), os.getpid(), "/srv", "another file") as where:
        making.write(store, where, "/srv", quiet, lambda done, total: None)
    store.close()
    assert copied > 4
    making.restore(str(tmp_path / "backup"), str(tmp_path / "new"), lambda done, total: None)
    found = checked(tmp_path / "new/audit")
    assert (found.problem, found.first, found.torn) == (None, 1, 0)
    assert found.sequence >= 30
    written(tmp_path / "new/audit", 3, first=found.sequence + 1)
    assert checked(tmp_path / "new/audit").problem is None
    with folder(tmp_path / "new/audit") as opened:
        assert [one["path"] for one in reads.all_sets(opened)] == ["f"]
