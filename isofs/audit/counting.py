"""Writing the read sets that records tell of: who opened what, how often, and how much of it was read.

A row has the numbers that still change first, in a block of its own that no sector and no page divides. So they are
changed where they are: whatever ends the writer, a row is as it was before a record or as it is after it, and its
`counted`, the number of the newest record that is in it, says which.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from isofs.audit import chain, reads
from isofs.audit.readset import Gap, Read
from isofs.audit.record import GAP, Record, moment

#: Bytes of the numbers of a row; each row begins at a multiple of them.
_BLOCK = 128

#: Suspicions whose sets are kept in memory.
_KEPT = 16

#: An object, as a suspect knows it: its inode, whose number another may have had before, and its path.
_Key = tuple[int, str]


class ReadSets:
    """Counts what records tell of, each record once, whatever a kill lets repeat."""

    def __init__(self, folder: int) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(chain.READS, 0o700, dir_fd=folder)
        self._folder = reads.sets_folder(folder)
        self._sets: dict[int, _Set] = {}
        self._unsynced = set[str]()

    def note(self, records: Iterable[Record]) -> None:
        """Write down what of these was not. OSError if that cannot be: then it comes once more."""
        touched = dict[int, _Set]()
        for record in records:
            if record.action == GAP:
                self._note_gap(record)
            elif record.sid and not record.number:
                if record.sid not in touched:
                    touched[record.sid] = self._set_of(record.sid)
                touched[record.sid].note(record)
        for subject, found in touched.items():
            try:
                if found.write():
                    self._unsynced.add(found.name)
            except OSError:
                self._sets.clear()  # what is in the files counts, not what was to be
                raise
            self._sets[subject] = found

    def _set_of(self, subject: int) -> _Set:
        found = self._sets.pop(subject, None)
        while len(self._sets) >= _KEPT:
            del self._sets[next(iter(self._sets))]
        return found or _Set(self._folder, subject)

    def _note_gap(self, record: Record) -> None:
        facts = None if record.more is None else record.more.get("facts")
        if isinstance(facts, dict) and facts.keys() & {"lost", "damaged"}:
            at = moment(record.at)
            reads.append_gap(self._folder, Gap(since=facts.get("since", at), until=at, why="lost"))

    def sync(self) -> None:
        """Have on the disk what was noted."""
        while self._unsynced:
            name = next(iter(self._unsynced))
            with contextlib.suppress(FileNotFoundError):
                file = reads.opened(self._folder, name)
                try:
                    os.fdatasync(file)
                finally:
                    os.close(file)
            self._unsynced.discard(name)

    def close(self) -> None:
        os.close(self._folder)


@dataclass(slots=True)
class _Counts:
    """The numbers of a row, where it is, and what else is in it: only of a new one, which has no place yet."""

    last: str
    opens: int
    read: int
    counted: int
    place: int = -1
    rest: Mapping[str, object] | None = None

    def block(self) -> bytes:
        head = f'{{"last":"{self.last}","opens":{self.opens:<10},"read":{self.read:<19},"counted":{self.counted:<19},'
        return head.ljust(_BLOCK).encode("ascii")


class _Set:
    """The read set of one suspicion, and what of it is not written yet."""

    def __init__(self, folder: int, subject: int) -> None:
        self.name = f"{subject}.jsonl"
        self._folder = folder
        self._places: dict[_Key, int] = {}
        #: What has a path now, if that is not the suspect's own: what is closed has the path that it was opened by.
        self._latest: dict[str, _Key] = {}
        self._touched: dict[_Key, _Counts] = {}
        newest = dict[str, int]()
        for place, row in reads.rows(folder, self.name):
            if (one := reads.read_of(row)) is not None:
                key, counts = (one["inode"], one["path"]), _counted(row, place)
                number = -1 if counts is None else counts.counted
                self._places[key] = -1 if counts is None else place
                if number >= newest.get(one["path"], -1):
                    newest[one["path"]], self._latest[one["path"]] = number, key

    def note(self, record: Record) -> None:
        """Count what one record tells, of a call of the suspect's that succeeded."""
        more, path = record.more or {}, (record.path or b"").decode("utf-8", "surrogateescape")
        if more.get("main"):
            key = record.ino, path
            self._latest[path] = key
            self._count(key, record, opens=1)
        elif record.action in ("close", "bytes"):
            read, known = more.get("read"), self._latest.get(path)
            if known is not None and isinstance(read, int) and read:
                self._count(known, record, read=read)
        elif record.action == "create" or (record.action == "open" and more.get("access") != "write"):
            self._latest.pop(path, None)

    def _count(self, key: _Key, record: Record, *, opens: int = 0, read: int = 0) -> None:
        counts = self._touched.get(key) or self._known(key)
        if counts is None:
            if self._places.get(key, 0) < 0:
                return  # an older version wrote it
            counts = _Counts(moment(record.at), 0, 0, -1, rest=_told(record, key))
        self._touched[key] = counts
        if record.sequence > counts.counted:
            counts.opens, counts.read = counts.opens + opens, counts.read + read
            counts.last, counts.counted = moment(record.at), record.sequence

    def _known(self, key: _Key) -> _Counts | None:
        """The numbers that are in the file."""
        place = self._places.get(key, -1)
        if place < 0:
            return None
        file = reads.opened(self._folder, self.name)
        try:
            return _counted(reads.row_of(os.pread(file, _BLOCK, place).rstrip(b" ,") + b"}") or {}, place)
        finally:
            os.close(file)

    def write(self) -> bool:
        """Write what has changed; whether anything has."""
        touched, self._touched = self._touched, {}
        if not touched:
            return False
        new = {key: counts for key, counts in touched.items() if counts.place < 0}
        if len(new) < len(touched):
            file = reads.opened(self._folder, self.name, os.O_RDWR)
            try:
                for counts in touched.values():
                    if counts.place >= 0:
                        os.pwrite(file, counts.block(), counts.place)
            finally:
                os.close(file)
        if new:
            places = reads.append(self._folder, self.name, [_row(counts) for counts in new.values()], _BLOCK)
            self._places.update(zip(new, places, strict=True))
        return True


def _counted(row: Mapping[str, object], place: int) -> _Counts | None:
    """The numbers in a row; None if an older version wrote it, or it is damaged."""
    match row:
        case {"last": str(last), "opens": int(opens), "read": int(read), "counted": int(counted)}:
            return _Counts(last, opens, read, counted, place)
    return None


def _told(record: Record, key: _Key) -> Mapping[str, object]:
    """What of a new row does not change any more."""
    size = None if record.more is None else record.more.get("size")
    one = Read(
        subject=record.sid,
        uid=record.uid,
        at=moment(record.at),
        last=None,
        opens=None,
        read=None,
        path=key[1],
        kind="directory" if record.action == "list" else "file",
        inode=record.ino,
        size=size if isinstance(size, int) else None,
        program="" if record.task is None else record.task.program.decode("utf-8", "replace"),
    )
    return {name: value for name, value in one.items() if name not in ("last", "opens", "read")}


def _row(counts: _Counts) -> bytes:
    return counts.block() + json.dumps(counts.rest)[1:].encode("ascii")
