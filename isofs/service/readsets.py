"""What a suspect read, as the audit trail knows it, for the evidence of a verdict."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict

import trio

from isofs.audit import reads
from isofs.audit.reads import Gap, Read
from isofs.engine.state import Filesystem
from isofs.model.records import Subject
from isofs.store.archive import ReadSet

#: Why a read set is not whole though nothing was lost: it was not all written down in time.
_LATE = "not written"


async def of(fs: Filesystem, subject: Subject, written: Callable[[], Awaitable[bool]]) -> ReadSet:
    """The read set of a subject that reads no more, once it is `written`; it says itself what is missing."""
    late = not await written()
    folder = fs.store.folders.get(b"audit")
    if folder is None:
        return ReadSet({"objects": 0, "bytes": 0, "complete": False, "gaps": [_gap(subject.since, "off")]}, _nothing)
    return await trio.to_thread.run_sync(_found, folder, subject, late)


def _found(folder: int, subject: Subject, late: bool) -> ReadSet:
    objects = size = 0
    for one in reads.read_by(folder, subject.sid):
        objects, size = objects + 1, size + (one.size or 0)
    gaps: list[Mapping[str, object]] = [asdict(gap) for gap in reads.gaps(folder, subject.since.removesuffix("Z"))]
    if late:
        gaps.append(_gap(subject.since, _LATE))
    facts = {"objects": objects, "bytes": size, "complete": not gaps, "gaps": gaps}
    return ReadSet(facts, lambda: (_line(one) for one in reads.read_by(folder, subject.sid)))


def _gap(since: str, why: str) -> Mapping[str, object]:
    return asdict(Gap(since, None, why))


def _line(one: Read) -> bytes:
    return json.dumps(asdict(one), separators=(",", ":")).encode("ascii") + b"\n"


def _nothing() -> Iterator[bytes]:
    return iter(())
