"""Files of lines in pages, for whoever reads them from afar: each page says where the next one begins.

A page is cheap to make: lines are neither looked at nor kept, so that whoever makes it can do other things meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import BinaryIO

import zstandard

from isofs.audit import chain, reading, reads

#: Bytes of a page, about; a line is never longer.
SIZE = chain.LONGEST


@dataclass(frozen=True, slots=True)
class Page:
    """Whole lines without their ends; where the next page begins; and whether it would have something already.

    `file` is the number of a file, and `at` how many bytes of it, as if it were not compressed, lie before.
    """

    lines: list[bytes]
    file: int
    at: int
    more: bool


def of_trail(folder: int, since: str, file: int, at: int) -> Page:
    """A page of the trail from a place on; from the beginning (0, 0), without files that end before `since`."""
    there = [one for one in chain.files(folder) if one.first >= file]
    if not file:
        there = reading.not_before(folder, there, since)
    if not there:
        return Page([], file, at, more=False)
    one, at = there[0], at if there[0].first == file else 0
    text = b""
    with contextlib.suppress(FileNotFoundError, zstandard.ZstdError), chain.opened(folder, one) as reader:
        text = _from(reader, at)
    if not text and len(there) > 1:
        return Page([], there[1].first, 0, more=True)
    return Page(text.split(b"\n")[:-1], one.first, at + len(text), more=bool(text))


def of_reads(folder: int, only: int | None, subject: int, at: int) -> Page:
    """A page of the read sets from a place on, those of suspicions one after another, or of one of them `only`."""
    there = [number for number in reads.subjects(folder) if number >= subject and only in (None, number)]
    if not there:
        return Page([], subject, at, more=False)
    one, at = there[0], at if there[0] == subject else 0
    with reads.opened_set(folder, one) as reader:
        text = b"" if reader is None else _from(reader, at)
    if not text and len(there) > 1:
        return Page([], there[1], 0, more=True)
    return Page(text.split(b"\n")[:-1], one, at + len(text), more=bool(text))


def _from(reader: BinaryIO, at: int) -> bytes:
    """Whole lines from a place in a file on; what is longer than any line is skipped like one."""
    if reader.seekable():
        reader.seek(min(at, os.fstat(reader.fileno()).st_size))
    else:
        while at > 0 and (skipped := len(reader.read(min(at, SIZE)))):
            at -= skipped
    text = reader.read(SIZE)
    return text[: text.rfind(b"\n") + 1] or (text if len(text) == SIZE else b"")
