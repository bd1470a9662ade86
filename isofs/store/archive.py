"""The evidence archive: what it holds, writing it, and reading one back that may be anybody's.

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
recorded. A reader accepts exactly this and trusts none of it.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import zstandard

from isofs.errors import ArchiveUnusable, EvidenceFailed
from isofs.store import inodes
from isofs.store.frame import Frame, FrameDamaged
from isofs.store.inodes import Place

#: What is written, and what is read: the first knew of no reads, the second of nothing but that they were.
FORMAT = "isofs evidence 3"
_FORMATS = ("isofs evidence 1", "isofs evidence 2", FORMAT)

ABOUT, READS, MANIFEST = "about.json", "reads.jsonl", "manifest.json"

#: Called with the number of bytes that were dealt with since the last call; may raise to stop.
Moved = Callable[[int], None]

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
#: Bytes of the archive that are unpacked at a time: a hostile one may become 32,768 times as many.
_BITE = 4096
_ABOUT_LIMIT = 1 << 20
_MANIFEST_LIMIT, _MANIFEST_FACTOR = 1 << 26, 200
_MEMBER = re.compile(r"versions/(?:0|[1-9][0-9]{0,18})")

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


# Writing


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
        out.write(bytes(2 * _BLOCK))
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
    out.write(bytes(-size % _BLOCK))
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
    pieces = _pieces(opened, at.st_size)
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


def _pieces(opened: int, size: int) -> list[tuple[int, int]]:
    """Where a file has data and not holes: (offset, length) of each piece."""
    found: list[tuple[int, int]] = []
    end = 0
    while end < size:
        try:
            start = os.lseek(opened, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            if error.errno == errno.EINVAL:  # the file system knows nothing of holes
                return [(0, size)]
            raise
        end = min(os.lseek(opened, start, os.SEEK_HOLE), size)
        found.append((start, end - start))
    return found


# Reading


def damaged(what: str) -> ArchiveUnusable:
    return ArchiveUnusable(f"this is no evidence archive, or a damaged one: {what}")


class _Unpacked:
    """The bytes in the frame of a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._frame = Frame(file, _BITE)

    def some(self, most: int) -> memoryview:
        """At least one byte and at most so many; none at the end of the frame, which is that of the file."""
        try:
            return self._frame.some(most)
        except FrameDamaged as why:
            raise damaged(str(why)) from None

    def parts(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes, part by part."""
        while size:
            part = self.some(min(size, _CHUNK))
            if not part:
                raise damaged("it ends too early")
            size -= len(part)
            yield part


def members(file: BinaryIO) -> Iterator[tuple[str, int, Iterator[memoryview]]]:
    """The members of an archive from its beginning: name, size, content. ArchiveUnusable for anything else.

    What is not read of a content is skipped.
    """
    plain = _Unpacked(file)
    last = ""
    while True:
        block = b"".join(plain.parts(_BLOCK))
        if not any(block):
            break
        name, size = _header(block)
        if (last == "") != (name == ABOUT) or last == MANIFEST or (last == READS and name != MANIFEST):
            raise damaged(f"{name} is not where it belongs")
        content = plain.parts(size)
        yield name, size, content
        for _ in content:
            pass
        if any(any(part) for part in plain.parts(-size % _BLOCK)):
            raise damaged(f"something is hidden behind {name}")
        last = name
    if last != MANIFEST:
        raise damaged("it has no manifest")
    while rest := plain.some(_CHUNK):
        if any(rest):
            raise damaged("something follows its end")


def _header(block: bytes) -> tuple[str, int]:
    try:
        header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.TarError, ValueError) as error:
        raise damaged(str(error)) from None
    if header.type != tarfile.REGTYPE or header.size < 0:
        raise damaged(f"{header.name!a} is no plain file")
    if header.name not in (ABOUT, READS, MANIFEST) and not _MEMBER.fullmatch(header.name):
        raise damaged(f"{header.name!a} does not belong in one")
    return header.name, header.size


def read_back(file: BinaryIO, written: Written, moved: Moved = nothing_moved) -> None:
    """Read an archive that was just written, and compare every hash. ArchiveUnusable if one differs."""
    found = []
    for name, size, parts in members(file):
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
            moved(len(part) if name not in (ABOUT, READS, MANIFEST) else 0)
        found.append((name, size, digest.hexdigest()))
    if found != written.members:
        wrong = next((a[0] for a, b in zip(written.members, found, strict=False) if a != b), MANIFEST)
        raise damaged(f"{wrong} is not what was written")


def about(file: BinaryIO) -> dict[str, Any]:
    """What an archive says it is, from its first member."""
    for _, size, parts in members(file):
        return _about(_document(size, parts, _ABOUT_LIMIT))
    raise damaged("it is empty")


def _about(document: object) -> dict[str, Any]:
    if not isinstance(document, dict) or document.get("format") not in _FORMATS:
        raise damaged(f"its format is none of {', '.join(_FORMATS)}")
    return document


def _document(size: int, parts: Iterable[memoryview], limit: int) -> Any:
    if size > limit:
        raise damaged("what it says of itself is too long")
    try:
        return json.loads(b"".join(parts))
    except (ValueError, RecursionError):
        raise damaged("what it says of itself is not JSON") from None


@dataclass(frozen=True, slots=True)
class Checked:
    """An archive of which every hash is right: its manifest, and the contents by the names of their members."""

    manifest: dict[str, Any]
    contents: dict[str, tuple[int, str]]

    @property
    def stored(self) -> int:
        return sum(size for size, _ in self.contents.values())


def check(file: BinaryIO, moved: Moved = nothing_moved) -> Checked:
    """Read an archive and recompute everything. ArchiveUnusable says what is not as its manifest says."""
    limit = max(_MANIFEST_LIMIT, _MANIFEST_FACTOR * os.fstat(file.fileno()).st_size)
    first: object = None
    manifest: object = None
    contents: dict[str, tuple[int, str]] = {}
    for name, size, parts in members(file):
        if name == ABOUT:
            first = _about(_document(size, parts, _ABOUT_LIMIT))
        elif name == MANIFEST:
            manifest = _document(size, parts, limit)
        elif name in contents:
            raise damaged(f"{name} is there twice")
        else:
            digest = hashlib.sha256()
            for part in parts:
                digest.update(part)
                moved(len(part) if name != READS else 0)
            contents[name] = size, digest.hexdigest()
    if not isinstance(manifest, dict) or manifest.get("about") != first:
        raise damaged("its manifest is another's")
    _compare(manifest, contents)
    return Checked(manifest, {name: found for name, found in contents.items() if name != READS})


def read_set(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """What the suspect of an archive, which was checked, read: an object each. ArchiveUnusable for what is none."""
    for name, _, parts in members(file):
        rest = b""
        for part in parts if name == READS else ():
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) > _ABOUT_LIMIT:
                raise damaged("what it says of reads is too long")
            for line in lines:
                yield _object(line)
        if rest:
            raise damaged("what it says of reads is not whole")


def _object(line: bytes) -> dict[str, Any]:
    found = _document(len(line), [memoryview(line)], _ABOUT_LIMIT)
    if not isinstance(found, dict):
        raise damaged("what it says of reads is no object")
    return found


def _compare(manifest: dict[str, Any], contents: dict[str, tuple[int, str]]) -> None:
    listed: dict[str, tuple[int, str]] = {}
    for key in ("versions", "bindings"):
        rows = manifest.get(key)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise damaged(f"its manifest has no {key}")
    for row in manifest["versions"]:
        content = row.get("content")
        if content is None:
            continue
        match content:
            case {"member": str(name), "size": int(size), "stored": int(stored), "sha256": str(digest)}:
                if name in listed or not _fits(content, size, stored):
                    raise damaged(f"its manifest contradicts itself about {name!a}")
                listed[name] = stored, digest
            case _:
                raise damaged("its manifest does not describe every content")
    match manifest.get("reads"):
        case None:
            pass
        case {"member": "reads.jsonl", "size": int(size), "sha256": str(digest)}:
            listed[READS] = size, digest
        case _:
            raise damaged("its manifest does not describe what was read")
    for name in sorted(listed.keys() | contents.keys()):
        if listed.get(name) != contents.get(name):
            raise damaged(f"{name!a} is not what the manifest says")


def _fits(content: Mapping[str, object], size: int, stored: int) -> bool:
    """Whether the pieces of a content lie in it, one after another, and are all that is stored."""
    pieces = content.get("data", [[0, size]])
    end = total = 0
    if not isinstance(pieces, list):
        return False
    for piece in pieces:
        match piece:
            case [int(start), int(length)] if end <= start and length >= 0:
                end, total = start + length, total + length
            case _:
                return False
    return end <= size < 1 << 63 and total == stored
