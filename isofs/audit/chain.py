"""The files of the trail: lines that each carry the hash of the one before, so that a change or a gap shows.

NUMBER.jsonl       lines, named by the sequence number of the first; the one with the highest is being written;
                   its time of modification is the latest that one of its lines tells
NUMBER.jsonl.zst   the same, full or old, compressed
newest             what is known to be durable: where the trail begins, the newest line and its hash
ages               how old full files are (isofs.model.ages)
lock               held by whoever writes
reads/             what suspects read (isofs.audit.reads)

The last field of a line is the SHA-256 of the line before it, without its end; of the very first, zeros. `newest` never
is ahead of what the disk has: a file that ends before it was cut, one that ends within a line behind it is torn (the
machine went down), and goes on after the last whole line.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

import zstandard

from isofs.model.ages import Ages, from_json, to_json

LIVE, COMPRESSED, NEWEST, AGES, LOCK, READS = ".jsonl", ".jsonl.zst", "newest", "ages", "lock", "reads"

#: What stands where a hash would, in the first line of all.
NOTHING = "0" * 64

_NAME = re.compile(r"([0-9]{16})\.jsonl(\.zst)?")
_HEAD = re.compile(rb'\{"@timestamp":"[0-9T:.-]{26}Z","event\.sequence":([0-9]{1,19}),')
_TAIL = re.compile(rb',"isofs\.previous":"([0-9a-f]{64})"\}')
_TAIL_LENGTH = len(b',"isofs.previous":""}') + 64

#: Where the time is in a line.
TIME = slice(len('{"@timestamp":"'), len('{"@timestamp":"') + len("2026-01-02T03:04:05.678901Z"))

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

#: More than any line: what is longer is none.
LONGEST = 1 << 20

#: The memory that reading a compressed file may take.
_WINDOW = 1 << 27


@dataclass(frozen=True, slots=True)
class Newest:
    """Where the trail begins (a line's number, and the hash before it) and the newest line (its number and hash)."""

    first: int = 1
    before: str = NOTHING
    sequence: int = 0
    hash: str = NOTHING


@dataclass(frozen=True, slots=True)
class File:
    """A file of the trail: its name, the number of its first line, and whether it is compressed."""

    name: str
    first: int
    compressed: bool


def hashed(line: bytes) -> str:
    """What the line after this one carries."""
    return hashlib.sha256(line).hexdigest()


def ended(body: str, previous: str) -> bytes:
    """A line, without its end, from what `record.line` made."""
    return f'{body},"isofs.previous":"{previous}"}}'.encode()


def number(line: bytes) -> int | None:
    """The sequence number of a line, None if it is no line of the trail."""
    found = _HEAD.match(line)
    return int(found[1]) if found else None


def time_of(line: bytes) -> str:
    """When what a line tells happened, as it says."""
    return line[TIME].decode("ascii", "replace")


def moment(text: str) -> int:
    """A time as lines have it, in nanoseconds since the epoch; 0 if it is none."""
    with contextlib.suppress(ValueError, OverflowError):
        return round(datetime.fromisoformat(text).timestamp() * 10**6) * 1000
    return 0


def previous(line: bytes) -> str | None:
    """The hash that a line carries, None if it carries none."""
    found = _TAIL.fullmatch(line, max(0, len(line) - _TAIL_LENGTH))
    return found[1].decode() if found else None


def name(first: int) -> str:
    return f"{first:016d}{LIVE}"


def files(folder: int) -> list[File]:
    """The files of the trail in order. One that was being compressed counts once, as it was."""
    found: dict[int, File] = {}
    for entry in os.listdir(folder):
        match = _NAME.fullmatch(entry)
        if match is not None:
            first, compressed = int(match[1]), match[2] is not None
            if first not in found or not compressed:
                found[first] = File(entry, first, compressed)
    return [found[first] for first in sorted(found)]


def opened(folder: int, file: File) -> BinaryIO:
    """A file of the trail to read its lines from, also if it was compressed since it was listed.

    The reader of a compressed one raises zstandard.ZstdError.
    """
    name, compressed = file.name, file.compressed
    try:
        opened = os.open(name, _READ, dir_fd=folder)
    except FileNotFoundError:
        if compressed:
            raise
        name, compressed = name.removesuffix(LIVE) + COMPRESSED, True  # by now
        opened = os.open(name, _READ, dir_fd=folder)
    raw = open(opened, "rb")  # noqa: SIM115
    if not compressed:
        return raw
    return io.BufferedReader(zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(raw, closefd=True))


def lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines with their ends; the last may lack it. None is longer than LONGEST: more comes in pieces."""
    while line := file.readline(LONGEST):
        yield line


def newest(folder: int) -> Newest | None:
    """What `newest` says, None if there is none. ValueError if it is not what was written."""
    try:
        with open(os.open(NEWEST, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
            text = file.read(4096)
    except FileNotFoundError:
        return None
    given = json.loads(text)
    if not isinstance(given, dict):
        raise ValueError("not an object")
    try:
        found = Newest(*(given[key] for key in ("first", "before", "sequence", "hash")))
    except KeyError as error:
        raise ValueError("not complete") from error
    if _written(found) != text:
        raise ValueError("not as it was written")
    return found


def _written(state: Newest) -> bytes:
    facts = {"first": state.first, "before": state.before, "sequence": state.sequence, "hash": state.hash}
    check = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return json.dumps({**facts, "check": check}).encode() + b"\n"


def write_newest(folder: int, state: Newest) -> None:
    """Replace what `newest` says, durably."""
    _replace(folder, NEWEST, _written(state))


def ages(folder: int) -> Ages:
    """How old full files are, by the numbers of their lines."""
    try:
        with open(os.open(AGES, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), encoding="ascii") as file:
            return from_json(file.read())
    except (OSError, UnicodeDecodeError):
        return Ages()


def write_ages(folder: int, ages: Ages) -> None:
    _replace(folder, AGES, to_json(ages).encode())


def _replace(folder: int, name: str, data: bytes) -> None:
    scratch = f"{name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(scratch, dir_fd=folder)
    created = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    with open(created, "wb") as file:
        file.write(data)
        file.flush()
        os.fdatasync(file.fileno())
    os.rename(scratch, name, src_dir_fd=folder, dst_dir_fd=folder)


@dataclass(frozen=True, slots=True)
class End:
    """Where a trail ends: its last whole line (number and hash), in which file and at which byte, and what is torn."""

    sequence: int = 0
    hash: str = NOTHING
    name: str | None = None
    size: int = 0
    torn: int = 0


def end(folder: int) -> End:
    """The end of what is there, whether that is right or not."""
    there = files(folder)
    for file in reversed(there):
        last, size, rest = None, 0, 0
        with contextlib.suppress(zstandard.ZstdError), opened(folder, file) as reader:
            if not file.compressed:
                reader.seek(max(0, os.fstat(reader.fileno()).st_size - 2 * LONGEST))
                size = reader.tell()
                if size:
                    size += len(reader.readline())
            for line in lines(reader):
                if line.endswith(b"\n") and number(line) is not None:
                    last, size, rest = line[:-1], size + rest + len(line), 0
                else:
                    rest += len(line)
        live = None if file.compressed else file.name
        if last is not None:
            return End(number(last) or 0, hashed(last), live, size, rest)
        if live is not None and file is there[-1] and len(there) == 1:
            return End(0, NOTHING, live, 0, rest)
    return End()
