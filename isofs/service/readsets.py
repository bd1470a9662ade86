"""What a suspect read, as the audit trail knows it, for the evidence of a verdict."""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable, Iterator

import trio
import zstandard

from isofs.audit import reads
from isofs.audit.readset import Gap
from isofs.engine.state import Filesystem
from isofs.model.records import Subject
from isofs.store.archive import ReadSet

#: Why a read set is not whole though nothing was lost: it was not all written down in time.
_LATE = "not written"


async def of(fs: Filesystem, subject: Subject, written: Callable[[Subject], Awaitable[bool]]) -> ReadSet:
    """The read set of a subject that reads no more, once it is `written`; it says itself what is missing."""
    late = not await written(subject)
    folder = fs.store.folders.get(b"audit")
    if folder is None:
        gap = Gap(since=subject.since, until=None, why="off")
        return ReadSet({"objects": 0, "bytes": 0, "complete": False, "gaps": [gap]}, lambda: iter(()))
    return await trio.to_thread.run_sync(_found, folder, subject, late)


def _found(folder: int, subject: Subject, late: bool) -> ReadSet:
    objects = size = opens = read = 0
    first, last = list[str](), ""
    # As it is now: what the suspect had open may be closed while the evidence is written, and counted.
    kept = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(kept, closefd=False) as writer:
        for one in reads.read_by(folder, subject.sid):
            writer.write(json.dumps(one, separators=(",", ":")).encode("ascii") + b"\n")
            objects, size = objects + 1, size + (one["size"] or 0)
            opens, read = opens + (one["opens"] or 0), read + (one["read"] or 0)
            first, last = first or [one["at"]], max(last, one["last"] or one["at"])
    gaps = reads.gaps(folder, subject.since.removesuffix("Z"))
    if late:
        gaps.append(Gap(since=subject.since, until=None, why=_LATE))
    facts = {
        "objects": objects,
        "bytes": size,
        "opens": opens,
        "read": read,
        "first": first[0] if first else None,
        "last": last or None,
        "complete": not gaps,
        "gaps": gaps,
    }
    return ReadSet(facts, lambda: _lines(kept.getvalue()))


def _lines(kept: bytes) -> Iterator[bytes]:
    with io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(kept)) as reader:
        yield from reader
