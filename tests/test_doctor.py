"""`isoctl doctor`: what each rule says of what is wrong, and that looking finds what is there and changes nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isofs.errors import Exit
from isofs.service import machine, volumes
from isofs.service.doctor import RULES, Level, diagnose
from isofs.service.machine import Machine, Stored
from isofs.service.volumes import Mounted as Line
from isofs.service.volumes import Volume
from isofs.store import heading
from isofs.store.folder import open_store
from isofs.store.schema import VERSION
from support.command import as_it_is
from support.mount import ALICE, Mounted, isoctl

GB = 1 << 30
VOLUME = Volume(
    directory="/srv/a b",
    kind="xfs",
    device=1,
    size=100 * GB,
    free=50 * GB,
    inodes=10**6,
    free_inodes=10**6,
    names=255,
    read_only=False,
    folds=False,
    writes="",
    xattrs=True,
    acls=True,
    reflink=True,
    tmpfile=True,
)
STORE = Stored("/srv/a b/.isofs", True, 2, 2, True, None, ())
GOOD = Machine(
    uid=0,
    device="",
    module=True,
    kernel="6.1.0-18-amd64",
    protocol=(7, 38),
    unmounted="",
    libfuse="3.14.0",
    binding="",
    lacking=(),
    descriptors=-1,
    all_uids=True,
    confined=None,
    systemd=True,
    tools=(),
    directory="/srv/a b",
    volume=VOLUME,
    store=STORE,
    store_volume=VOLUME,
)


def with_volume(**changed: Any) -> dict[str, Any]:
    volume = replace(VOLUME, **changed)
    return {"volume": volume, "store_volume": volume}


def with_store(**changed: Any) -> dict[str, Any]:
    return {"store": replace(STORE, **changed)}


def with_other(**changed: Any) -> dict[str, Any]:
    return {"store_volume": replace(VOLUME, directory="/other", **changed)}


#: What is wrong, the rule that must say so, how bad it is, and words of what is said and of the command.
WRONG: list[tuple[dict[str, Any], str, Level, str, str | None]] = [
    ({"uid": 1000}, "root", Level.PROBLEM, "needs root", "sudo isoctl doctor"),
    ({"lacking": ("CAP_MKNOD",)}, "capabilities", Level.PROBLEM, "CAP_MKNOD", "--cap-add=MKNOD"),
    ({"device": "No such file", "module": False}, "device", Level.PROBLEM, "No such file", "modprobe fuse"),
    ({"device": "No such file"}, "device", Level.PROBLEM, "No such file", "mknod"),
    ({"unmounted": "Permission denied", "protocol": None}, "mounting", Level.PROBLEM, "Permission denied", "SYS_ADMIN"),
    ({"kernel": "4.19.0-21-amd64"}, "kernel", Level.PROBLEM, "too old", "apt-get install linux-image"),
    ({"kernel": "odd"}, "kernel", Level.PROBLEM, "too old", "apt-get install linux-image"),
    ({"kernel": "5.10.0"}, "kernel", Level.WARNING, "older than Debian 12's", None),
    ({"protocol": (8, 0)}, "protocol", Level.PROBLEM, "8.0 is another", "linux-image"),
    ({"protocol": (7, 32)}, "protocol", Level.WARNING, "7.32", None),
    ({"libfuse": None}, "libfuse", Level.PROBLEM, "not there", "apt-get install libfuse3-3"),
    ({"binding": "no module"}, "libfuse", Level.PROBLEM, "no module", "pip install"),
    ({"tools": ("nsenter",)}, "tools", Level.PROBLEM, "nsenter", "apt-get install util-linux"),
    ({"descriptors": 1024}, "descriptors", Level.WARNING, "1024 files", "prlimit"),
    ({"all_uids": False}, "users", Level.PROBLEM, "user namespace", "nsenter --target 1"),
    ({"confined": "box (enforce)"}, "confinement", Level.WARNING, "box (enforce)", "aa-complain box"),
    ({"unreachable": "No such file", "volume": None, "store_volume": None, "store": None}, "directory", Level.PROBLEM,
     "No such file", "mkdir '/srv/a b'"),
    (with_volume(read_only=True), "directory", Level.PROBLEM, "read-only", "remount,rw"),
    (with_volume(kind="vfat"), "directory", Level.PROBLEM, "no owners", "'/srv/a b'"),
    (with_volume(kind="nfs4"), "directory", Level.WARNING, "nfs4", None),
    (with_volume(kind="fuse.sshfs"), "directory", Level.WARNING, "fuse.sshfs", None),
    (with_volume(writes="No space left"), "writing", Level.PROBLEM, "No space left", "findmnt"),
    (with_other(writes="Read-only"), "writing", Level.PROBLEM, "/other: Read-only", "findmnt --target /other"),
    (with_volume(folds=True), "names", Level.PROBLEM, "by case", "chattr -F '/srv/a b'"),
    (with_volume(names=143), "names", Level.WARNING, "143 bytes", None),
    (with_other(xattrs=False), "attributes", Level.PROBLEM, "extended attributes", "isoctl mount '/srv/a b'"),
    (with_other(acls=False), "attributes", Level.PROBLEM, "has ACLs", "isoctl mount '/srv/a b'"),
    (with_volume(xattrs=False, acls=False), "attributes", Level.WARNING, "no extended attributes and no ACLs", None),
    (with_other(device=2), "sharing", Level.WARNING, "another file system (xfs)", None),
    (with_volume(reflink=False), "sharing", Level.WARNING, "cannot share blocks", None),
    (with_volume(tmpfile=False), "unnamed", Level.WARNING, "without a name", None),
    (with_volume(free=1 << 20), "room", Level.PROBLEM, "1 MiB left", "df -h '/srv/a b'"),
    (with_volume(free_inodes=5), "room", Level.PROBLEM, "5 inodes left", "df -i"),
    (with_volume(free=4 * GB), "room", Level.WARNING, "less than 5 %", "df -h"),
    (with_volume(free_inodes=20_000), "room", Level.WARNING, "less than 5 % of the inodes", "df -i"),
    (with_other(free=1 << 20), "room", Level.PROBLEM, "/other", "df -h /other"),
    (with_store(version=None), "store", Level.PROBLEM, "no store's", "isoctl restore BACKUP"),
    (with_store(version=9), "store", Level.PROBLEM, "version 9", "pip install --upgrade isofs"),
    ({"running": "a row is lost"}, "store", Level.PROBLEM, "a row is lost", "isoctl check"),
    (with_store(configuration="line 3: no"), "settings", Level.PROBLEM, "line 3: no", "isoctl config edit"),
    (with_store(hooks=("/x is not a program",)), "settings", Level.PROBLEM, "/x is not", "isoctl config edit"),
    ({"other": "/srv/a b/c"}, "neighbours", Level.PROBLEM, "/srv/a b/c", "isoctl umount '/srv/a b/c'"),
    ({"below": ("/srv/a b/m",)}, "neighbours", Level.WARNING, "/srv/a b/m", None),
]  # fmt: skip


def test_nothing_is_said_of_a_good_machine_but_that_it_is_good() -> None:
    assert {one.level for one in diagnose(GOOD)} == {Level.OK}
    assert [one.check for one in diagnose(GOOD)] == list(RULES)
    assert {one.level for one in diagnose(replace(GOOD, running=""))} == {Level.OK}


@pytest.mark.parametrize(("changed", "check", "level", "words", "fix"), WRONG)
def test_each_rule_says_what_is_wrong(
    changed: dict[str, Any], check: str, level: Level, words: str, fix: str | None
) -> None:
    """And no other rule does; a problem never comes without a command."""
    bad = [one for one in diagnose(replace(GOOD, **changed)) if one.level is not Level.OK]
    assert [(one.check, one.level) for one in bad] == [(check, level)]
    assert words in bad[0].text
    assert (fix is None) == (bad[0].fix is None)
    assert (fix or "") in (bad[0].fix or "")


def test_what_only_root_could_is_not_held_against_others() -> None:
    found = replace(GOOD, uid=1000, lacking=("CAP_MKNOD",), device="denied", unmounted="denied", unreachable="denied")
    assert [one.check for one in diagnose(found) if one.level is not Level.OK] == ["root"]


def test_every_rule_but_what_is_only_told_can_fail() -> None:
    assert {check for _, check, _, _, _ in WRONG} == set(RULES) - {"systemd"}


def test_what_was_not_tried_or_asked_is_not_told_of() -> None:
    untried = with_volume(writes=None, xattrs=None, acls=None, reflink=None, tmpfile=None)
    told = {one.check for one in diagnose(replace(GOOD, **untried))}
    assert set(RULES) - told == {"writing", "attributes", "sharing", "unnamed"}
    alone = replace(GOOD, directory=None, volume=None, store=None, store_volume=None)
    assert list(RULES)[:12] == [one.check for one in diagnose(alone)]
    for store in (replace(STORE, there=False, version=None), replace(STORE, version=None, closed=False)):
        assert {one.level for one in diagnose(replace(GOOD, store=store))} == {Level.OK}


# What is found out


@contextlib.contextmanager
def mounted_volume(at: Path, kind: str, options: str) -> Iterator[Volume]:
    """What is found of a file system of a type; skips where it cannot be mounted."""
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", kind, "-o", options, "none", str(at)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"{kind} with {options} cannot be mounted here")
    try:
        (at / "Name").write_text("")
        table = volumes.table(Path("/proc/self/mountinfo").read_bytes())
        yield volumes.look(str(at), str(at), table, write=True)
    finally:
        subprocess.run(["umount", str(at)], check=True)


def test_file_systems_are_seen_as_they_are(place: Path) -> None:
    with mounted_volume(place / "a b", "tmpfs", "size=8m,nr_inodes=500") as found:
        assert (found.kind, found.size, found.inodes) == ("tmpfs", 8 << 20, 500)
        assert (found.writes, found.acls, found.reflink, found.folds) == ("", True, False, False)
        assert os.listdir(place / "a b") == ["Name"]
    with mounted_volume(place / "a b", "ramfs", "mode=755") as found:
        assert (found.kind, found.xattrs, found.acls) == ("ramfs", False, False)


def test_two_names_of_one_file_are_two_names(place: Path) -> None:
    (place / "Name").write_text("")
    os.link(place / "Name", place / "nAME")
    table = volumes.table(Path("/proc/self/mountinfo").read_bytes())
    assert not volumes.look(str(place), str(place), table, write=False).folds


def test_nothing_is_written_where_nothing_may_be(place: Path) -> None:
    with mounted_volume(place / "full", "tmpfs", "size=64k") as found:
        assert found.writes == ""
        (place / "full" / "Name").write_bytes(b"x" * (60 << 10))
        with contextlib.suppress(OSError):
            (place / "full" / "more").write_bytes(b"x" * (60 << 10))
        table = [Line(str(place / "full"), "tmpfs")]
        again = volumes.look(str(place / "full"), str(place / "full"), table, write=True)
        assert again.writes == os.strerror(errno.ENOSPC)
        assert volumes.look(str(place / "full"), str(place / "full"), table, write=False).writes is None


def test_the_deepest_and_last_mount_counts() -> None:
    table = volumes.table(
        b"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 8:2 / /srv rw shared:1 - xfs /dev/sdb rw\n"
        b"3 2 8:3 / /srv/a\\040b rw - nfs4 x rw\n4 2 8:3 / /srv/a\\040b rw - tmpfs x rw\n"
    )
    kinds = [volumes.kind_of(path, table) for path in ("/", "/srvx", "/srv/x", "/srv/a b/c")]
    assert kinds == ["ext4", "ext4", "xfs", "tmpfs"]


def test_a_store_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    assert heading.read(store.path) == (None, False)  # it is all in the log yet
    store.close()
    before = as_it_is(tmp_path)
    assert heading.read(store.path) == (VERSION, True)
    assert as_it_is(tmp_path) == before
    for content in (b"", b"SQLite format 3\0" + b"\0" * 84, b"x" * 200):
        (tmp_path / "isofs.db").write_bytes(content)
        assert heading.read(str(tmp_path)) == (None, True)
    (tmp_path / "isofs.db-wal").write_bytes(b"x")
    assert heading.read(str(tmp_path)) == (None, False)


def test_the_machine_is_seen_as_it_is(tmp_path: Path) -> None:
    found = machine.look(None, None, write=True, daemon=None)
    assert found.uid == os.geteuid()
    assert found.kernel == os.uname().release
    assert found.protocol is not None
    assert found.protocol > (7, 20)
    assert (found.device, found.unmounted, found.binding) == ("", "", "")
    assert found.directory is None


# The command


def test_of_a_directory_it_changes_nothing(tree: Path) -> None:
    (tree / "file").write_text("x")
    before = as_it_is(tree), os.stat(tree).st_mtime_ns
    for words in ([], ["--no-write"]):
        done = isoctl("doctor", str(tree), "--json", *words)
        assert (done.code, done.json["ok"], done.json["directory"]) == (0, True, str(tree))
        assert {one["check"] for one in done.json["findings"]} >= {"directory", "names", "room", "store"}
        assert ("writing" in {one["check"] for one in done.json["findings"]}) == (not words)
    assert (as_it_is(tree), os.stat(tree).st_mtime_ns) == before
    done = isoctl("doctor", str(tree))
    assert all(line.split()[0] in (*Level,) or line.startswith(" ") for line in done.out.splitlines())


def test_problems_have_their_exit_code_and_a_command(place: Path) -> None:
    done = isoctl("doctor", str(place / "none"))
    assert done.code == Exit.PROBLEMS
    assert f"problem  directory: {place}/none cannot be looked at: No such file or directory" in done.out
    assert f"         mkdir {place}/none" in done.out
    assert done.err == "isoctl: 1 problem found\n"
    done = isoctl("doctor", str(place / "none"), "--json")
    assert (done.code, done.json["ok"]) == (Exit.PROBLEMS, False)


@pytest.mark.mount
def test_of_a_mount(mount: Mounted) -> None:
    """The file system below the mount, the store in it, and what the daemon says of it; a part of it is no place."""
    mount.facts("suspect", str(ALICE))
    mount.check()  # it makes the suspect's folder
    before = as_it_is(mount.backing, mounted=True)
    done = mount.isoctl("doctor", "--json")
    assert done.code == 0, done
    said = {one["check"]: one["text"] for one in done.json["findings"]}
    assert done.json["directory"] == str(mount.path)
    assert said["store"] == "the store is sound"
    assert "isofs" not in said["directory"].removeprefix(str(mount.path))
    assert as_it_is(mount.backing, mounted=True) == before
    (mount.path / "sub").mkdir()
    done = isoctl("doctor", str(mount.path / "sub"))
    assert done.code == Exit.PROBLEMS
    assert f"isoctl umount {mount.path}" in done.out
    done = isoctl("doctor", str(mount.path), "--store", "/x")
    assert done.code == Exit.USAGE
