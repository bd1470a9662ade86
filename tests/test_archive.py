"""The evidence archive by itself: what goes in comes out, damage is found, and a hostile one does no harm."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from isofs.errors import ArchiveUnusable, EvidenceFailed, UsageError
from isofs.store import archive, inspection
from isofs.store.archive import FORMAT, READS, Kept, ReadSet
from isofs.store.extract import extract
from isofs.store.inodes import Place
from support.archives import contents, unpacked
from support.mount import isoctl

HOLE = 1 << 30


@pytest.fixture
def versions(tmp_path: Path) -> Iterator[list[Kept]]:
    """A version of every type, in a folder as the store has it."""
    folder = tmp_path / "versions"
    folder.mkdir()
    (folder / "1").write_bytes(b"text\n" * 1000)
    (folder / "1").chmod(0o4750)
    os.setxattr(folder / "1", "user.note", b"\0\xff")
    os.chown(folder / "1", 61001, 61002)
    os.chmod(folder / "1", 0o4750)
    os.utime(folder / "1", ns=(10**18 + 1, 10**18 + 2))
    with (folder / "2").open("wb") as file:
        file.write(b"begin")
        file.seek(HOLE)
        file.write(b"end")
        file.truncate(2 * HOLE)
    (folder / "3").symlink_to("/etc/passwd")
    (folder / "4").mkdir(mode=0o750)
    os.mkfifo(folder / "5")
    (folder / "6").write_bytes(b"")
    (folder / "8").write_bytes(b"no name\n")
    paths: list[str | None] = ["d/f", "holes", "d/link", "d", "fifo", "d/e/\udcff\n", None, None]
    opened = os.open(folder, os.O_RDONLY)
    yield [
        Kept(op, {"path": path, "kind": "?", "state": "m"}, None if op == 7 else Place(opened, b"%d" % op))
        for op, path in enumerate(paths, 1)
    ]
    os.close(opened)


def written(path: Path, kept: list[Kept]) -> Path:
    with path.open("w+b") as file:
        told = archive.write(file, {"user": "alice"}, kept, [{"name": "gone", "object": None}])
        file.seek(0)
        inspection.read_back(file, told)
    return path


def checked(path: Path) -> inspection.Checked:
    with path.open("rb") as file:
        return inspection.check(file)


def test_what_goes_in_comes_out(versions: list[Kept], tmp_path: Path) -> None:
    path = written(tmp_path / "a", versions)
    assert path.stat().st_size < 1 << 16, "a hole was stored"
    found = checked(path)
    assert found.manifest["bindings"] == [{"name": "gone", "object": None}]
    first = found.manifest["versions"][0]
    assert first["content"]["sha256"] == hashlib.sha256(b"text\n" * 1000).hexdigest()
    told = first["attributes"]
    assert (told["mode"], told["uid"], told["gid"], told["mtime_ns"]) == (0o4750, 61001, 61002, 10**18 + 2)
    assert told["xattrs"] == {"user.note": "AP8="}
    assert found.manifest["versions"][2]["target"] == "/etc/passwd"
    assert contents(path)["d/f"] == b"text\n" * 1000
    with path.open("rb") as file:
        assert inspection.about(file) == {"format": FORMAT, "user": "alice"}


def read_set(*lines: bytes) -> ReadSet:
    return ReadSet({"objects": len(lines), "complete": True, "gaps": []}, lambda: iter(lines))


READ = b'{"subject":1,"path":"f\\udcff\\n","size":3}\n'


def test_what_was_read_comes_out_and_every_change_of_it_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("w+b") as file:
        told = archive.write(file, {"user": "alice"}, [], [], read=read_set(READ, READ))
        file.seek(0)
        inspection.read_back(file, told)
        file.seek(0)
        assert list(inspection.read_set(file)) == [{"subject": 1, "path": "f\udcff\n", "size": 3}] * 2
        file.seek(0)
        extract(file, str(tmp_path / "into"))
    digest = hashlib.sha256(READ * 2).hexdigest()
    told_of = {"objects": 2, "complete": True, "gaps": [], "member": READS, "size": 2 * len(READ), "sha256": digest}
    assert checked(path).manifest["reads"] == told_of
    assert (tmp_path / "into" / READS).read_bytes() == READ * 2
    members = unpacked(path)
    assert list(members) == ["about.json", READS, "manifest.json"]
    for wrong in (b"", READ, READ * 3, READ + READ.replace(b"3", b"4")):
        inner = [member(name, wrong if name == READS else data) for name, data in members.items()]
        path.write_bytes(packed(*inner))
        with pytest.raises(ArchiveUnusable, match=READS):
            checked(path)


def test_a_read_set_that_grows_meanwhile_is_no_evidence(tmp_path: Path) -> None:
    sizes = itertools.count(1)
    growing = ReadSet({}, lambda: iter([READ] * next(sizes)))
    with (tmp_path / "a").open("w+b") as file, pytest.raises(EvidenceFailed, match="changed while"):
        archive.write(file, {}, [], [], read=growing)


@pytest.mark.parametrize("number", [1, 2])
def test_an_archive_of_an_older_format_is_read(number: int, tmp_path: Path) -> None:
    """As isofs wrote it then: before there were read sets, and before they were counted."""
    stored = Path(__file__).parent / f"archives/{number}.tar.zst"
    found = checked(stored)
    assert found.manifest["about"]["format"] == f"isofs evidence {number}"
    assert {name: size for name, (size, _) in found.contents.items()} == {"versions/1": 14, "versions/4": 5}
    with stored.open("rb") as file:
        read = [(one["path"], one["size"]) for one in inspection.read_set(file)]
        file.seek(0)
        extract(file, str(tmp_path / "into"))
    assert read == ([] if number == 1 else [("plan.txt", 9), ("shared/list", 8), ("shared", None)])
    assert (tmp_path / "into/tree/shared/list").read_bytes() == b"one\ntwo\nthree\n"
    shown = isoctl("evidence", "show", str(stored))
    assert (shown.code, "9 B  plan.txt" in shown.out) == (0, number == 2), shown
    assert ("not in this archive" in shown.out) == (number == 1)
    assert isoctl("evidence", "verify", str(stored)).code == 0
    (tmp_path / "tree/.isofs/evidence").mkdir(parents=True)
    shutil.copy(stored, tmp_path / "tree/.isofs/evidence")
    [listed] = isoctl("evidence", "list", "--store", str(tmp_path / "tree/.isofs"), "--json").json["evidence"]
    assert (listed["user"], listed["versions"], listed["error"]) == ("61001", 3, None)


def test_other_programs_read_it(versions: list[Kept], tmp_path: Path) -> None:
    path = written(tmp_path / "a", versions)
    plain = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
    listed = subprocess.run(["tar", "-tf", "-"], input=plain, capture_output=True, check=True).stdout.split()
    assert listed == [b"about.json", *(b"versions/%d" % n for n in (1, 2, 6, 8)), b"manifest.json"]


@pytest.mark.parametrize("attributes", [False, True])
def test_extract(versions: list[Kept], tmp_path: Path, attributes: bool) -> None:
    path, into = written(tmp_path / "a", versions), tmp_path / "into"
    with path.open("rb") as file:
        done = extract(file, str(into), attributes=attributes)
    assert (done.files, done.directories, done.links, done.left_out) == (4, 1, 1, ["fifo"])
    assert sorted(os.listdir(into)) == ["manifest.json", "nameless", "tree"]
    assert stat.S_IMODE(into.stat().st_mode) == 0o700
    assert (into / "tree/d/f").read_bytes() == b"text\n" * 1000
    at = (into / "tree/d/f").stat()
    assert at.st_mtime_ns == 10**18 + 2
    assert (stat.S_IMODE(at.st_mode), at.st_uid) == ((0o750, 61001) if attributes else (0o600, os.geteuid()))
    assert os.listxattr(into / "tree/d/f") == (["user.note"] if attributes else [])
    holes = into / "tree/holes"
    assert (holes.stat().st_size, holes.stat().st_blocks < 1000) == (2 * HOLE, True)
    with holes.open("rb") as file:
        assert file.read(8) == b"begin\0\0\0"
        file.seek(HOLE)
        assert file.read(4) == b"end\0"
    assert os.readlink(into / "tree/d/link") == "/etc/passwd"
    assert os.listdir(os.fsencode(into / "tree/d/e")) == [b"\xff\n"]
    assert (into / "nameless/8").read_bytes() == b"no name\n"
    with path.open("rb") as file, pytest.raises(UsageError, match="File exists"):
        extract(file, str(into))
    with path.open("rb") as file, pytest.raises(UsageError, match="No such file"):
        extract(file, str(tmp_path / "not/there"))


def test_a_version_that_changes_meanwhile_is_no_evidence(versions: list[Kept], tmp_path: Path) -> None:
    place = versions[0].place
    assert place is not None

    def shorten(count: int) -> None:
        if count:
            os.truncate(f"/proc/self/fd/{place.directory}/1", 5)

    (tmp_path / "versions/1").write_bytes(b"x" * (3 << 20))
    with (tmp_path / "a").open("w+b") as file, pytest.raises(EvidenceFailed, match="changed while"):
        archive.write(file, {}, versions[:1], [], shorten)


def test_a_changed_bit_is_found_or_harmless_and_a_missing_byte_is_found(versions: list[Kept], tmp_path: Path) -> None:
    """Some bits of the packing mean nothing: with another there, all is unpacked as it was."""
    good = written(tmp_path / "a", versions).read_bytes()
    bad = tmp_path / "bad"
    harmless = []
    for at in range(len(good)):
        bad.write_bytes(good[:at])
        with pytest.raises(ArchiveUnusable):
            checked(bad)
        bad.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with contextlib.suppress(ArchiveUnusable):
            assert checked(bad) == checked(tmp_path / "a")
            harmless.append(at)
    assert len(harmless) < 10
    for data in (good + b"\0", good + good):
        bad.write_bytes(data)
        with pytest.raises(ArchiveUnusable, match="something follows"):
            checked(bad)


def test_what_did_not_reach_the_disk_is_found(versions: list[Kept], tmp_path: Path) -> None:
    """Another archive, sound in itself, is not what was written."""
    with (tmp_path / "a").open("w+b") as file:
        told = archive.write(file, {}, versions, [])
    other = written(tmp_path / "b", versions[:1])
    with other.open("rb") as file, pytest.raises(ArchiveUnusable, match="is not what was written"):
        inspection.read_back(file, told)


# Hostile archives


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    header = tarfile.TarInfo(name)
    header.size, header.type, header.linkname = len(data), kind, link
    return header.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


ABOUT: dict[str, Any] = {"format": FORMAT}


def version(op: int, path: object, data: bytes | None = None, **more: object) -> dict[str, Any]:
    told = {"kind": "file", "mode": 0o6777, "uid": 0, "gid": 0, "atime_ns": 0, "mtime_ns": 0}
    content = None
    if data is not None:
        digest = hashlib.sha256(data).hexdigest()
        content = {"member": f"versions/{op}", "size": len(data), "stored": len(data), "sha256": digest}
    return {"object": op, "path": path, "attributes": told, "content": content, **more}


def link(op: int, path: str, target: str) -> dict[str, Any]:
    found = version(op, path, target=target)
    return {**found, "attributes": {**found["attributes"], "kind": "symlink"}}


def packed(*members: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(b"".join(members) + bytes(1024))


def of_manifest(*versions: dict[str, Any], data: dict[int, bytes] | None = None, **more: object) -> bytes:
    told = {"about": ABOUT, "versions": list(versions), "bindings": [], **more}
    about, rows = json.dumps(ABOUT).encode(), json.dumps(told).encode()
    inner = [member(f"versions/{op}", content) for op, content in (data or {}).items()]
    return packed(member("about.json", about), *inner, member("manifest.json", rows))


X = b"evil"
HOSTILE = {
    "empty": b"",
    "not zstandard": b"PK\3\4" + bytes(100),
    "an empty frame": packed()[:0] + zstandard.ZstdCompressor().compress(b""),
    "no members": packed(),
    "no manifest": packed(member("about.json", json.dumps(ABOUT).encode())),
    "absolute member": packed(member("about.json", b"{}"), member("/etc/evil", X)),
    "member above": packed(member("about.json", b"{}"), member("versions/../../evil", X)),
    "link member": packed(member("about.json", b"{}"), member("versions/1", b"", tarfile.SYMTYPE, "/etc")),
    "hard link member": packed(member("about.json", b"{}"), member("versions/1", b"", tarfile.LNKTYPE, "/etc/passwd")),
    "device member": packed(member("about.json", b"{}"), member("versions/1", b"", tarfile.CHRTYPE)),
    "pax member": packed(member("about.json", b"{}"), member("x", b"20 path=/etc/evil\n\n", tarfile.XHDTYPE)),
    "long name": packed(member("about.json", b"{}"), member("x", b"/etc/" + b"e" * 200, tarfile.GNUTYPE_LONGNAME)),
    "another format": packed(member("about.json", b'{"format": "x"}'), member("manifest.json", b"{}")),
    "not JSON": packed(member("about.json", b"{"), member("manifest.json", b"{}")),
    "deep JSON": packed(member("about.json", b"[" * 100_000), member("manifest.json", b"{}")),
    "much JSON": packed(member("about.json", b" " * (1 << 24)), member("manifest.json", b"{}")),
    "another's manifest": of_manifest(about={"format": FORMAT, "user": "bob"}),
    "no versions": of_manifest(versions=None),
    "reads of nothing": of_manifest(reads={"member": "reads.jsonl", "size": 1, "sha256": "0"}),
    "reads of another member": of_manifest(reads={"member": "versions/1", "size": 0, "sha256": "0"}),
    "reads that nothing describes": packed(
        member("about.json", json.dumps(ABOUT).encode()),
        member("reads.jsonl", b"{}\n"),
        member("manifest.json", json.dumps({"about": ABOUT, "versions": [], "bindings": []}).encode()),
    ),
    "versions are no rows": of_manifest(versions=[1]),
    "unlisted content": of_manifest(data={1: X}),
    "missing content": of_manifest(version(1, "f", X)),
    "another content": of_manifest(version(1, "f", X), data={1: b"lame"}),
    "content twice": of_manifest(version(1, "f", X), version(1, "g", X), data={1: X}),
    "absolute path": of_manifest(version(1, "/etc/evil", X), data={1: X}),
    "path above": of_manifest(version(1, "../evil", X), data={1: X}),
    "path above later": of_manifest(version(1, "a/../../evil", X), data={1: X}),
    "dot": of_manifest(version(1, "./evil", X), data={1: X}),
    "NUL": of_manifest(version(1, "a\0b", X), data={1: X}),
    "surrogate": of_manifest(version(1, "\ud800", X), data={1: X}),
    "path is a number": of_manifest(version(1, 5, X), data={1: X}),
    "no attributes": of_manifest(version(1, "f", X, attributes=None), data={1: X}),
    "attributes are text": of_manifest(version(1, "f", X, attributes={"kind": "file", "mode": "7"}), data={1: X}),
    "link to nothing": of_manifest(link(1, "l", "")),
    "pieces outside": of_manifest(
        version(1, "f", content={"member": "versions/1", "size": 4, "stored": 4, "sha256": "", "data": [[1, 4]]}),
        data={1: X},
    ),
    "pieces backwards": of_manifest(
        version(
            1, "f", content={"member": "versions/1", "size": 9, "stored": 4, "sha256": "", "data": [[5, 2], [0, 2]]}
        ),
        data={1: X},
    ),
    "huge size": of_manifest(
        version(1, "f", content={"member": "versions/1", "size": 1 << 70, "stored": 4, "sha256": "", "data": [[0, 4]]}),
        data={1: X},
    ),
}


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Where archives try to get at: must stay as it is."""
    place = tmp_path / "outside"
    place.mkdir()
    yield place
    assert os.listdir(place) == []
    assert not os.path.exists("/etc/evil")


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_archive_is_refused_whole(data: bytes, tmp_path: Path, outside: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ArchiveUnusable), (tmp_path / "a").open("rb") as file:
        extract(file, str(outside / "into"), attributes=True)
    (tmp_path / "a").unlink()
    assert os.listdir(tmp_path) == ["outside"]


def test_links_lead_nowhere(tmp_path: Path, outside: Path) -> None:
    """What lies below or at a link of the archive's own is made elsewhere; set-id bits are never given."""
    rows = [
        link(1, "a", str(outside)),
        version(2, "a/f", X),
        version(3, "a", X),
        link(4, "d", ".."),
        version(5, "d/d/f", X),
        version(6, "plain", X),
    ]
    (tmp_path / "a").write_bytes(of_manifest(*rows, data={2: X, 3: X, 5: X, 6: X}))
    with (tmp_path / "a").open("rb") as file:
        extract(file, str(tmp_path / "into"), attributes=True)
    assert sorted(os.listdir(tmp_path / "into/nameless")) == ["2", "3", "5"]
    assert sorted(os.listdir(tmp_path / "into/tree")) == ["a", "d", "plain"]
    assert stat.S_IMODE((tmp_path / "into/tree/plain").stat().st_mode) == 0o777


class Scratch(io.BytesIO):
    """Bytes that pass for a file."""

    def fileno(self) -> int:
        return 0


@given(st.binary(max_size=2000), st.booleans())
def test_any_bytes_are_refused(data: bytes, framed: bool) -> None:
    with pytest.raises(ArchiveUnusable):
        inspection.check(Scratch(zstandard.ZstdCompressor().compress(data) if framed else data))


@given(st.data())
def test_any_damage_inside_the_frame_is_refused_or_harmless(data: st.DataObject) -> None:
    """The frame's checksum is right, as a forger would make it; what is inside was cut, doubled or overwritten."""
    good = zstandard.ZstdDecompressor().decompress(of_manifest(version(1, "f", X), data={1: X}))
    at, end = sorted((data.draw(st.integers(0, len(good))), data.draw(st.integers(0, len(good)))))
    bad = good[:at] + data.draw(st.binary(max_size=600)) + good[end:]
    with contextlib.suppress(ArchiveUnusable):
        inspection.check(Scratch(zstandard.ZstdCompressor().compress(bad)))
