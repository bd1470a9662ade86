"""Looking into an evidence archive, which may be anybody's: what `archive` describes, and nothing else, is accepted."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from isofs.errors import ArchiveUnusable
from isofs.store.archive import ABOUT, BLOCK, FORMAT, MANIFEST, READS, Moved, Written, nothing_moved
from isofs.store.frame import Frame, FrameDamaged

#: What is read: the first knew of no reads, the second of nothing but that they were.
_FORMATS = ("isofs evidence 1", "isofs evidence 2", FORMAT)

_CHUNK = 1 << 20
#: Bytes of the archive that are unpacked at a time: a hostile one may become 32,768 times as many.
_BITE = 4096
_ABOUT_LIMIT = 1 << 20
_MANIFEST_LIMIT, _MANIFEST_FACTOR = 1 << 26, 200
_MEMBER = re.compile(r"versions/(?:0|[1-9][0-9]{0,18})")


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
        block = b"".join(plain.parts(BLOCK))
        if not any(block):
            break
        name, size = _header(block)
        if (last == "") != (name == ABOUT) or last == MANIFEST or (last == READS and name != MANIFEST):
            raise damaged(f"{name} is not where it belongs")
        content = plain.parts(size)
        yield name, size, content
        for _ in content:
            pass
        if any(any(part) for part in plain.parts(-size % BLOCK)):
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
