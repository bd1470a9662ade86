"""Read sets: which objects that others made a suspect opened for reading, and so may have copied out.

A file for each suspicion, `reads/SID.jsonl` in the trail's folder, with a line for each object when it is first opened:
the object, its path and size then, the time, and the program. It stays when the trail's old files go.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from isofs.audit import chain
from isofs.audit.record import Record, moment

_NAME = re.compile(r"([1-9][0-9]{0,18})\.jsonl")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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


class ReadSets:
    """Writes the read sets that records tell of. An object is in each once, but for what a kill lets repeat."""

    def __init__(self, folder: int) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(chain.READS, 0o700, dir_fd=folder)
        self._folder = os.open(chain.READS, _FOLDER, dir_fd=folder)
        self._known: dict[int, set[tuple[int, str]]] = {}

    def note(self, records: list[Record]) -> None:
        """Write down what of these is new: the record of an opening that succeeded has `main` then."""
        new: dict[int, list[Read]] = {}
        for record in records:
            if record.sid and record.more and record.more.get("main") and not record.number:
                read = _read(record)
                known = self._known.get(read.subject)
                if known is None:
                    known = self._known[read.subject] = {_key(one) for one in one_set(self._folder, read.subject)}
                if _key(read) not in known:
                    known.add(_key(read))
                    new.setdefault(read.subject, []).append(read)
        for subject, found in new.items():
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(f"{subject}.jsonl", flags, 0o600, dir_fd=self._folder), "ab") as file:
                # What a power cut tore is ended, so that it takes nothing along.
                torn = file.tell() and not _whole(self._folder, subject)
                text = "".join(json.dumps(asdict(one)) + "\n" for one in found)
                file.write(b"\n" * bool(torn) + text.encode())
                file.flush()
                os.fdatasync(file.fileno())

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


def _whole(folder: int, subject: int) -> bool:
    with open(os.open(f"{subject}.jsonl", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def one_set(folder: int, subject: int) -> Iterator[Read]:
    """What one suspicion's read set holds, in order of time; `folder` is that of the sets."""
    try:
        opened = os.open(f"{subject}.jsonl", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return
    with open(opened, "rb") as file:
        for line in file:
            with contextlib.suppress(ValueError, TypeError):  # torn by a power cut
                yield Read(**json.loads(line))


def all_sets(folder: int) -> Iterator[Read]:
    """Every read set in a trail's folder, in the order of suspicions. Each object is in each once."""
    try:
        sets = os.open(chain.READS, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        for subject in sorted(int(match[1]) for match in map(_NAME.fullmatch, os.listdir(sets)) if match):
            seen = set[tuple[int, str]]()
            for one in one_set(sets, subject):
                if _key(one) not in seen:
                    seen.add(_key(one))
                    yield one
    finally:
        os.close(sets)
