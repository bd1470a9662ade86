"""Read sets: which objects that others made a suspect opened for reading, and so may have copied out.

A file for each suspicion, `reads/SID.jsonl` in the trail's folder, with a row for each object under each path that it
was opened by (`isofs.audit.readset`). It stays when the trail's old files go. In `reads/gaps.jsonl` is when nothing was
recorded, so that no set is taken for whole that is not.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, cast

from isofs.audit import chain
from isofs.audit.readset import Gap, Read

_NAME = re.compile(r"([1-9][0-9]{0,18})\.jsonl")

_GAPS = "gaps.jsonl"

_FILE = os.O_NOFOLLOW | os.O_CLOEXEC

#: What rows of older versions lack.
_NEW = {"last", "opens", "read"}


# The files


def sets_folder(folder: int) -> int:
    """The folder of the sets in a trail's folder, opened. FileNotFoundError if there is none yet."""
    return os.open(chain.READS, os.O_RDONLY | os.O_DIRECTORY | _FILE, dir_fd=folder)


def opened(folder: int, name: str, flags: int = os.O_RDONLY) -> int:
    """A file in the folder of the sets. FileNotFoundError if there is none."""
    return os.open(name, flags | _FILE, 0o600, dir_fd=folder)


def append(folder: int, name: str, rows: list[bytes], block: int = 1) -> list[int]:
    """Add rows that lack their ends to a file, each at a multiple of `block`: there. None is half there after OSError.

    What a power cut tore is ended, so that it takes nothing along.
    """
    file = opened(folder, name, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        size = os.fstat(file).st_size
        text, places = bytearray(), list[int]()
        if size % block or (size and os.pread(file, 1, size - 1) != b"\n"):
            text += _ended(b"", block, size)
        for row in rows:
            places.append(size + len(text))
            text += _ended(row, block, 0)
        try:
            while text:
                del text[: os.write(file, text)]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, size)
            raise
    finally:
        os.close(file)
    return places


def _ended(row: bytes, block: int, at: int) -> bytes:
    """A row at a place with its end, after which comes a multiple of `block`."""
    return row + b" " * (-(at + len(row) + 1) % block) + b"\n"


def rows(folder: int, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file in the folder of the sets, and where each is; those that a power cut tore are left out."""
    try:
        file = opened(folder, name)
    except FileNotFoundError:
        return
    place = 0
    with open(file, "rb") as reader:
        for line in reader:
            if (row := row_of(line)) is not None:
                yield place, row
            place += len(line)


def row_of(line: bytes) -> dict[str, Any] | None:
    """The row in a line; None if there is none: a power cut tore it."""
    with contextlib.suppress(ValueError):
        if isinstance(row := json.loads(line), dict):
            return row
    return None


# Sets


def read_of(row: Mapping[str, Any]) -> Read | None:
    """The object that a row tells of; None if it is no row of a read set."""
    wanted = Read.__annotations__
    if not wanted.keys() - _NEW <= row.keys() or type(row["inode"]) is not int or not isinstance(row["path"], str):
        return None
    return cast(Read, {name: row.get(name) for name in wanted})


def parsed(line: bytes) -> Read | None:
    """The object in a line of a read set; None if a power cut tore it."""
    row = row_of(line)
    return None if row is None else read_of(row)


@contextlib.contextmanager
def opened_sets(folder: int) -> Iterator[int | None]:
    """The folder of the sets in a trail's folder; None if there is none yet."""
    try:
        sets = sets_folder(folder)
    except FileNotFoundError:
        yield None
        return
    try:
        yield sets
    finally:
        os.close(sets)


@contextlib.contextmanager
def opened_set(folder: int, subject: int) -> Iterator[BinaryIO | None]:
    """The lines of a suspicion's read set in a trail's folder, as they are; None if it has none."""
    with opened_sets(folder) as sets:
        if sets is None:
            yield None
            return
        try:
            file = opened(sets, f"{subject}.jsonl")
        except FileNotFoundError:
            yield None
            return
        with open(file, "rb") as reader:
            yield reader


def subjects(folder: int) -> list[int]:
    """The suspicions that have a read set in a trail's folder, in order."""
    with opened_sets(folder) as sets:
        names = [] if sets is None else os.listdir(sets)
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)


def read_by(folder: int, subject: int) -> Iterator[Read]:
    """The read set of a suspicion in a trail's folder, in the order in which objects were first opened."""
    with opened_sets(folder) as sets:
        for _, row in () if sets is None else rows(sets, f"{subject}.jsonl"):
            if (one := read_of(row)) is not None:
                yield one


def all_sets(folder: int) -> Iterator[Read]:
    """Every read set in a trail's folder, in the order of suspicions."""
    for subject in subjects(folder):
        yield from read_by(folder, subject)


# What is missing


def append_gap(sets: int, gap: Gap) -> None:
    """Write down, durably, a time in which what was read was not recorded."""
    _append_durably(sets, dict(gap))


def _append_durably(sets: int, row: Mapping[str, object]) -> None:
    append(sets, _GAPS, [json.dumps(row).encode()])
    file = opened(sets, _GAPS)
    try:
        os.fdatasync(file)
    finally:
        os.close(file)


def switched(folder: int, on: bool, now: str) -> None:
    """Write down that from now on reads are recorded in a trail's folder, or are not, if that is new."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(chain.READS, 0o700, dir_fd=folder)
    with opened_sets(folder) as sets:
        assert sets is not None
        before = [row for _, row in rows(sets, _GAPS) if "on" in row]
        if on != (before[-1]["on"] if before else True):
            _append_durably(sets, {"on": on, "at": now})


def gaps(folder: int, since: str) -> list[Gap]:
    """When reads were not recorded in a trail's folder, after a time as lines have it, as far as given."""
    found, off = list[Gap](), None
    with opened_sets(folder) as sets:
        for _, row in () if sets is None else rows(sets, _GAPS):
            match row:
                case {"on": bool(on), "at": str(at)}:
                    if off is not None:
                        found.append(Gap(since=off, until=at, why="off"))
                    off = None if on else at
                case {"since": str(begin), "until": str(end), "why": str(why)}:
                    if (gap := Gap(since=begin, until=end, why=why)) not in found:  # a kill lets some come twice
                        found.append(gap)
    if off is not None:
        found.append(Gap(since=off, until=None, why="off"))
    return [gap for gap in found if gap["until"] is None or gap["until"] >= since]
