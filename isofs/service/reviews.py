"""Suspects that are to be looked at again: after a time somebody is reminded. Nobody is released by time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import trio

from isofs.control import wire
from isofs.engine.state import Filesystem
from isofs.model.records import Subject, SubjectId, SubjectState
from isofs.service.events import Event, Events, Kind
from isofs.service.live import Live

#: Seconds after which the clock is looked at again: it may have been set.
_LONGEST = 60.0


def since(subject: Subject, review: int) -> str | None:
    """From when on a suspect is to be looked at again, if periods of `review` seconds are kept."""
    if not review or subject.state is not SubjectState.SUSPECT:
        return None
    return wire.moment(_began(subject) + review)


def due(
    subjects: Iterable[Subject], review: int, now: float, reminded: Mapping[SubjectId, int]
) -> Iterator[tuple[Subject, int]]:
    """The suspects of whom somebody is to be reminded, each with the periods that have passed.

    `reminded` has the periods that had passed when somebody was reminded last.
    """
    for subject in subjects:
        if review and subject.state is SubjectState.SUSPECT:
            passed = _passed(subject, review, now)
            if passed > reminded.get(subject.sid, 0):
                yield subject, passed


def caught_up(
    subjects: Iterable[Subject], review: int, now: float, reminded: Mapping[SubjectId, int]
) -> dict[SubjectId, int]:
    """What somebody was reminded of, without what has not passed: the clock was ahead then, and has been set back."""
    if not review:
        return dict(reminded)
    return {one.sid: min(reminded[one.sid], _passed(one, review, now)) for one in subjects if one.sid in reminded}


def pause(subjects: Iterable[Subject], review: int, now: float) -> float:
    """Seconds until a period of one of them ends; not too many, since others may come."""
    if not review:
        return _LONGEST
    ends = (review - (now - _began(one)) % review for one in subjects if one.state is SubjectState.SUSPECT)
    return min(_LONGEST, math.ceil(min(ends, default=_LONGEST)))


async def remind(fs: Filesystem, live: Live, events: Events) -> None:
    """Tell, once in each period, of every suspect that is to be looked at again, for as long as the daemon runs."""
    reminded: dict[SubjectId, int] = {}
    changed = trio.Event()

    def look_again(_: object) -> None:
        changed.set()

    live.subscribe(look_again)
    while True:
        live.refresh()
        review, now = live.now.alerts.review, time.time()
        reminded = caught_up(fs.subjects.values(), review, now, reminded)
        for subject, passed in due(fs.subjects.values(), review, now, reminded):
            reminded[subject.sid] = passed
            facts = {"user": subject.name, "uid": subject.uid, "since": subject.since, "reason": subject.reason}
            events.tell(Event(Kind.REVIEW, {**facts, "review": since(subject, review), "periods": passed}))
        with trio.move_on_after(pause(fs.subjects.values(), review, now)):
            await changed.wait()
            changed = trio.Event()


def _passed(subject: Subject, review: int, now: float) -> int:
    return int((now - _began(subject)) // review)


def _began(subject: Subject) -> float:
    return datetime.fromisoformat(subject.since).timestamp()
