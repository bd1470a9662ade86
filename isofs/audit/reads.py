"""Read sets: which objects that others made a suspect opened for reading, and so may have copied out.

A file for each suspicion, `reads/SID.jsonl` in the trail's folder, with a line for each object when it is first opened:
the object, its path and size then, the time, and the program. It stays when the trail's old files go. In
`reads/gaps.jsonl` is when nothing was recorded, so that no set is taken for whole that is not.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from isofs.audit import chain
from isofs.audit.record import GAP, Record, moment

_NAME = re.compile(r"([1-9][0-9]{0,18})\.jsonl")

_GAPS = "gaps.jsonl"

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = _FILE | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class Read:
    """An object that a suspect opened: who, when first, which, how large it was, and by which program.

    `path` is relative to the mount, text with the bytes that are not UTF-8 as surrogates. A directory was listed.
    """

    subject: int
    uid: int
    at: str
    path: str
    kind: str
    inode: int
    size: int | None
    program: str


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which a suspect may have read something that is in no set; `until` is None if it goes on.

    `why` is `off` (nothing was to be recorded, or could be) or `lost` (there was no room for records).
    """

    since: str
    until: str | None
    why: str


class ReadSets:
    """Writes the read sets that records tell of. An object is in each once, but for what a kill lets repeat."""

    def __init__(self, folder: int) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(chain.READS, 0o700, dir_fd=folder)
        self._folder = os.open(chain.READS, _FOLDER, dir_fd=folder)
        self._known: dict[int, set[tuple[int, str]]] = {}

    def note(self, records: list[Record]) -> None:
        """Write down what of these is new: the record of an opening that succeeded has `main` then."""
        new: dict[int, dict[tuple[int, str], Read]] = {}
        for record in records:
            if record.action == GAP:
                self._note_gap(record)
            if record.sid and record.more and record.more.get("main") and not record.number:
                read = _read(record)
                if _key(read) not in self._known_of(read.subject):
                    new.setdefault(read.subject, {}).setdefault(_key(read), read)
        for subject, found in new.items():
            _append(self._folder, f"{subject}.jsonl", [asdict(one) for one in found.values()])
            self._known[subject].update(found)  # not before: what could not be written comes once more

    def _known_of(self, subject: int) -> set[tuple[int, str]]:
        if subject not in self._known:
            self._known[subject] = {_key(one) for one in one_set(self._folder, subject)}
        return self._known[subject]

    def _note_gap(self, record: Record) -> None:
        facts = None if record.more is None else record.more.get("facts")
        if isinstance(facts, dict) and facts.keys() & {"lost", "damaged"}:
            at = moment(record.at)
            _append(self._folder, _GAPS, [asdict(Gap(facts.get("since", at), at, "lost"))])

    def close(self) -> None:
        os.close(self._folder)


def _read(record: Record) -> Read:
    program = b"" if record.task is None else record.task.program
    path = (record.path or b"").decode("utf-8", "surrogateescape")
    kind = "directory" if record.action == "list" else "file"
    size = None if record.more is None else record.more.get("size")
    return Read(
        record.sid,
        record.uid,
        moment(record.at),
        path,
        kind,
        record.ino,
        size if isinstance(size, int) else None,
        program.decode("utf-8", "replace"),
    )


def _key(read: Read) -> tuple[int, str]:
    """What an object is known by: its inode. One without has only its path."""
    return read.inode, "" if read.inode else read.path


def _append(folder: int, name: str, rows: list[dict[str, object]]) -> None:
    """Add lines to a file, durably. What a power cut tore is ended, so that it takes nothing along."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        size = os.fstat(opened).st_size
        torn = size and os.pread(opened, 1, size - 1) != b"\n"
        text = b"\n" * bool(torn) + "".join(json.dumps(row) + "\n" for row in rows).encode()
        try:
            while text:
                text = text[os.write(opened, text) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(opened, size)
            raise
        os.fdatasync(opened)
    finally:
        os.close(opened)


def _rows(folder: int, name: str) -> Iterator[dict[str, Any]]:
    try:
        opened = os.open(name, _FILE, dir_fd=folder)
    except FileNotFoundError:
        return
    with open(opened, "rb") as file:
        for line in file:
            if (row := _row(line)) is not None:
                yield row


def _row(line: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):  # torn by a power cut
        if isinstance(row := json.loads(line), dict):
            return row
    return None


def parsed(line: bytes) -> Read | None:
    """The object in a line of a read set; None if a power cut tore it."""
    row = _row(line)
    with contextlib.suppress(TypeError):
        return None if row is None else Read(**row)
    return None


def one_set(folder: int, subject: int) -> Iterator[Read]:
    """What one suspicion's read set holds, in order of time; `folder` is that of the sets."""
    for row in _rows(folder, f"{subject}.jsonl"):
        with contextlib.suppress(TypeError):
            yield Read(**row)


@contextlib.contextmanager
def opened_sets(folder: int) -> Iterator[int | None]:
    """The folder of the sets in a trail's folder; None if there is none yet."""
    try:
        sets = os.open(chain.READS, _FOLDER, dir_fd=folder)
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
            opened = os.open(f"{subject}.jsonl", _FILE, dir_fd=sets)
        except FileNotFoundError:
            yield None
            return
        with open(opened, "rb") as file:
            yield file


def subjects(folder: int) -> list[int]:
    """The suspicions that have a read set in a trail's folder, in order."""
    with opened_sets(folder) as sets:
        names = [] if sets is None else os.listdir(sets)
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)


def read_by(folder: int, subject: int) -> Iterator[Read]:
    """The read set of a suspicion in a trail's folder, each object once."""
    with opened_sets(folder) as sets:
        if sets is not None:
            yield from once(one_set(sets, subject))


def once(found: Iterable[Read]) -> Iterator[Read]:
    """Each object of each suspicion once: a kill lets some be written twice."""
    seen = set[tuple[int, int, str]]()
    for one in found:
        key = (one.subject, *_key(one))
        if key not in seen:
            seen.add(key)
            yield one


def all_sets(folder: int) -> Iterator[Read]:
    """Every read set in a trail's folder, in the order of suspicions."""
    for subject in subjects(folder):
        yield from read_by(folder, subject)


# What is missing


def switched(folder: int, on: bool, now: str) -> None:
    """Write down that from now on reads are recorded in a trail's folder, or are not, if that is new."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(chain.READS, 0o700, dir_fd=folder)
    with opened_sets(folder) as sets:
        assert sets is not None
        before = [row for row in _rows(sets, _GAPS) if "on" in row]
        if on != (before[-1]["on"] if before else True):
            _append(sets, _GAPS, [{"on": on, "at": now}])


def gaps(folder: int, since: str) -> list[Gap]:
    """When reads were not recorded in a trail's folder, after a time as lines have it, as far as given."""
    found, off = list[Gap](), None
    with opened_sets(folder) as sets:
        for row in () if sets is None else _rows(sets, _GAPS):
            match row:
                case {"on": bool(on), "at": str(at)}:
                    if off is not None:
                        found.append(Gap(off, at, "off"))
                    off = None if on else at
                case {"since": str(begin), "until": str(end), "why": str(why)}:
                    found.append(Gap(begin, end, why))
    if off is not None:
        found.append(Gap(off, None, "off"))
    return [gap for gap in found if gap.until is None or gap.until >= since]
