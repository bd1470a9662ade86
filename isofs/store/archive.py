"""The evidence archive: what it holds, and writing one.

A tar file in one zstandard frame, with regular files alone:

    about.json      whose work, since when, who gave the verdict, when and why, and how much there is
    versions/OP     the content of a version that is a file, named by its origin point
    reads.jsonl     what the suspect read of what others made: a JSON object in each line (since format 2), with when
                    it was first and last read, how often it was opened and how much of it was read (since format 3)
    manifest.json   every version and binding, with vectors, times, owners, extended attributes, and the SHA-256 of
                    each member: {"about": {...}, "versions": [...], "bindings": [...], "reads": {...}}

Everything but contents is in the manifest, so no name, link or device of a suspect's is ever a tar member. Of a file
with holes only the data is stored, one piece after another; the manifest says where each piece was (`data`), and
`sha256` is of what is stored. `reads` is null if the archive is about single objects, and says when reads were not
recorded. Whoever reads one (`inspection`) accepts exactly this and trusts none of it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import zstandard

from isofs.errors import EvidenceFailed
from isofs.store import inodes
from isofs.store.inodes import Place

#: What is written; `inspection` reads older ones too.
FORMAT = "isofs evidence 3"

ABOUT, READS, MANIFEST = "about.json", "reads.jsonl", "manifest.json"

#: Called with the number of bytes that were dealt with since the last call; may raise to stop.
Moved = Callable[[int], None]

#: Members, and what follows the last one, are filled up to blocks of so many bytes.
BLOCK = tarfile.BLOCKSIZE

_CHUNK = 1 << 20

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}


def nothing_moved(count: int) -> None:
    """A `Moved` for whoever shows no progress."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A version to be archived: what is known of it (as JSON), and where its inode lies, None for a deleted one."""

    op: int
    facts: Mapping[str, object]
    place: Place | None


@dataclass(frozen=True, slots=True)
class ReadSet:
    """What a suspect read: what is known of that as a whole (as JSON), and its lines, which are the same each time."""

    facts: Mapping[str, object]
    lines: Callable[[], Iterator[bytes]]


@dataclass(slots=True)
class Written:
    """What an archive must turn out to hold when it is read back: the SHA-256 of each member, in order."""

    members: list[tuple[str, int, str]] = field(default_factory=list)


def weigh(kept: Iterable[Kept]) -> int:
    """Bytes of content that an archive of these will hold, but for holes; for progress."""
    total = 0
    for one in kept:
        if one.place is not None:
            with contextlib.suppress(FileNotFoundError):
                at = inodes.lstat(one.place)
                total += min(at.st_size, at.st_blocks * 512) if stat.S_ISREG(at.st_mode) else 0
    return total


def write(
    file: BinaryIO,
    about: Mapping[str, object],
    kept: Iterable[Kept],
    bindings: Iterable[Mapping[str, object]],
    moved: Moved = nothing_moved,
    read: ReadSet | None = None,
) -> Written:
    """Write an archive. Nobody may change the versions meanwhile; EvidenceFailed if somebody did."""
    written = Written()
    with zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(file, closefd=False) as out:
        head = _json({"format": FORMAT, **about})
        _member(out, written, ABOUT, len(head), [head])
        rows = [_json(_version(out, written, one, moved)) for one in kept]
        parts = [b'{"about":', head, b',\n"versions":[\n', b",\n".join(rows), b'\n],\n"bindings":[\n']
        parts += [b",\n".join(_json(binding) for binding in bindings), b'\n],\n"reads":']
        parts += [_json(None if read is None else _read_set(out, written, read, moved)), b"}\n"]
        _member(out, written, MANIFEST, sum(map(len, parts)), parts)
        out.write(bytes(2 * BLOCK))
    return written


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _member(out: Any, written: Written, name: str, size: int, parts: Iterable[bytes], at: float = 0) -> str:
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.mtime = size, 0o600, max(int(at), 0)
    out.write(header.tobuf(tarfile.GNU_FORMAT))
    digest, left = hashlib.sha256(), size
    for part in parts:
        out.write(part)
        digest.update(part)
        left -= len(part)
    if left:
        raise EvidenceFailed(f"{name} changed while it was archived; nothing was discarded: try again")
    out.write(bytes(-size % BLOCK))
    written.members.append((name, size, digest.hexdigest()))
    return digest.hexdigest()


def _version(out: Any, written: Written, one: Kept, moved: Moved) -> dict[str, object]:
    """Archive one version; returns its row of the manifest."""
    moved(0)
    row: dict[str, object] = {"object": one.op, **one.facts, "attributes": None, "target": None, "content": None}
    if one.place is None:
        return row
    at = inodes.lstat(one.place)
    row["attributes"] = {
        "kind": _KINDS[stat.S_IFMT(at.st_mode)],
        "mode": stat.S_IMODE(at.st_mode),
        "uid": at.st_uid,
        "gid": at.st_gid,
        "rdev": at.st_rdev,
        "atime_ns": at.st_atime_ns,
        "mtime_ns": at.st_mtime_ns,
        "ctime_ns": at.st_ctime_ns,
        "xattrs": {name: base64.b64encode(v).decode() for name, v in sorted(inodes.xattrs(one.place).items())},
    }
    if stat.S_ISLNK(at.st_mode):
        row["target"] = os.readlink(one.place.name, dir_fd=one.place.directory).decode("utf-8", "surrogateescape")
    if stat.S_ISREG(at.st_mode):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC
        opened = os.open(one.place.name, flags, dir_fd=one.place.directory)
        try:
            row["content"] = _content(out, written, one.op, opened, moved)
        finally:
            os.close(opened)
    return row


def _read_set(out: Any, written: Written, read: ReadSet, moved: Moved) -> dict[str, object]:
    size = 0
    for line in read.lines():
        size += len(line)
        moved(0)
    digest = _member(out, written, READS, size, read.lines())
    return {**read.facts, "member": READS, "size": size, "sha256": digest}


def _content(out: Any, written: Written, op: int, opened: int, moved: Moved) -> dict[str, object]:
    at = os.fstat(opened)
    pieces = [(start, end - start) for start, end in inodes.data_ranges(opened, at.st_size)]
    stored = sum(length for _, length in pieces)

    def data() -> Iterator[bytes]:
        for start, length in pieces:
            end = start + length
            while start < end and (part := os.pread(opened, min(_CHUNK, end - start), start)):
                yield part
                moved(len(part))
                start += len(part)

    name = f"versions/{op}"
    digest = _member(out, written, name, stored, data(), at.st_mtime)
    result: dict[str, object] = {"member": name, "size": at.st_size, "stored": stored, "sha256": digest}
    if stored != at.st_size:
        result["data"] = [list(piece) for piece in pieces]
    return result
