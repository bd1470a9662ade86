"""Partial verdicts as the control socket offers them: what calls ask for, and what they answer of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from isofs.control import wire
from isofs.engine.state import Filesystem
from isofs.errors import ConflictsRemain, NoSubject, UsageError
from isofs.merge import partial, split
from isofs.merge.partial import Aside, Partial
from isofs.merge.parting import Wish, wish
from isofs.merge.report import Report
from isofs.model.records import Op, Subject, SubjectState
from isofs.service.answers import Result

#: So many are told of in an error.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """What a partial verdict is about: globs, and how an operator would type them; or single objects."""

    only: list[str]
    excepted: list[str]
    words: str
    objects: frozenset[Op] | None = None


def asked(args: Mapping[str, object]) -> Asked | None:
    """What `only` and `except` ask for, or `objects` by their numbers in a plan; None for all that the subject did."""
    if args.get("objects") is not None:
        chosen = frozenset(wire.numbers(args, "objects"))
        return Asked([], [], f"{len(chosen)} chosen by hand", chosen)
    only, excepted = (wire.texts(args, name) if name in args else [] for name in ("only", "except"))
    words = [*(f"--only {glob}" for glob in only), *(f"--except {glob}" for glob in excepted)]
    return Asked(only, excepted, " ".join(words)) if words else None


def accepted(args: Mapping[str, object]) -> Asked | None:
    """What a malicious verdict accepts; None for nothing."""
    only = wire.texts(args, "accept") if "accept" in args else []
    return Asked(only, [], " ".join(f"--accept {glob}" for glob in only)) if only else None


def found(fs: Filesystem, subject: Subject, asked: Asked) -> Partial:
    """What a partial verdict would do now. NoSubject for who is not isolated, UsageError for a glob of nothing."""
    if subject.state is not SubjectState.SUSPECT:
        raise NoSubject(f"{subject.name} is isolated no more: what waits is decided as a whole")
    view = fs.views[subject.sid]
    pieces = partial.pieces(fs, view)
    if asked.objects is None:
        return partial.partial(fs, view, pieces, wish(pieces, asked.only, asked.excepted))
    there = frozenset(piece.op for piece in pieces)
    if not asked.objects <= there:
        raise UsageError("some of what was chosen is no change any more: look at it anew")
    return partial.partial(fs, view, pieces, Wish(asked.objects, there - asked.objects))


def whole(fs: Filesystem, subject: Subject, asked: Asked) -> Partial:
    """The same where everything that is asked for has to be merged: ConflictsRemain if it cannot be."""
    there = found(fs, subject, asked)
    if there.refused:
        shown = "; ".join(f"{wire.path_text(one.path)}: {one.reason}" for one in there.refused[:_SHOWN])
        more = len(there.refused) - _SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        raise ConflictsRemain(f"not everything can be accepted, so nothing was discarded: {shown}{rest}")
    return there


def steps(fs: Filesystem, subject: Subject, asked: Asked, there: Partial, report: Report) -> Iterator[tuple[int, int]]:
    """Carry it out; nothing if nothing would be merged."""
    if there.chosen:
        now = wire.moment(time.time())
        yield from split.partial_steps(fs, subject.sid, there.chosen, asked.words, now, report)


def check_accepted(report: Report) -> None:
    """ConflictsRemain if main changed what was accepted in the very moment in which it was merged."""
    if report.conflicts:
        raise ConflictsRemain("main changed what was accepted while it was merged: nothing was discarded")


def told(there: Partial | None) -> Result:
    """What comes along and what stays; nothing does in a whole verdict."""
    along, left = ([], []) if there is None else (there.along, there.left)
    return {"along": [_aside(one) for one in along], "left": [_aside(one) for one in left]}


def _aside(one: Aside) -> Result:
    return {"path": wire.path_text(one.path), "reason": one.reason, "asked": one.asked}
