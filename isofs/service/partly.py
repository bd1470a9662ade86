"""Partial verdicts as the control socket offers them: what calls ask for, and what they answer of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from isofs.control import wire
from isofs.engine.slices import Slices
from isofs.engine.state import Filesystem, View
from isofs.errors import ConflictsRemain, NoSubject
from isofs.merge import partial
from isofs.merge.partial import Aside, Partial
from isofs.merge.parting import wish
from isofs.merge.report import Report
from isofs.merge.resolving import UNRESOLVED, Resolution
from isofs.model.records import Op, Subject, SubjectState
from isofs.service.answers import Result
from isofs.service.serving import looked

#: So many are told of in an error.
_SHOWN = 5

#: Has resolvers asked about conflicts, and answers with what they made of them and of others before.
Ask = Callable[[Sequence[Op]], Awaitable[Mapping[Op, Resolution]]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a partial verdict is about: globs, and how an operator would type them."""

    only: list[str]
    excepted: list[str]
    words: str


def asked(args: Mapping[str, object]) -> Asked | None:
    """What `only` and `except` ask for; None for all that the subject did."""
    only, excepted = (wire.texts(args, name) if name in args else [] for name in ("only", "except"))
    words = [*(f"--only {glob}" for glob in only), *(f"--except {glob}" for glob in excepted)]
    return Asked(only, excepted, wire.plain(" ".join(words))) if words else None


def accepted(args: Mapping[str, object]) -> Asked | None:
    """What a malicious verdict accepts; None for nothing."""
    only = wire.texts(args, "accept") if "accept" in args else []
    return Asked(only, [], wire.plain(" ".join(f"--accept {glob}" for glob in only))) if only else None


def view_of(fs: Filesystem, subject: Subject) -> View:
    """The view of a suspect. NoSubject for who is not isolated."""
    if subject.state is not SubjectState.SUSPECT:
        raise NoSubject(
            f"{subject.name} is isolated no more: what waits is decided as a whole, or see isoctl conflicts"
        )
    return fs.views[subject.sid]


async def found(fs: Filesystem, subject: Subject, asked: Asked, ask: Ask | None = None) -> Partial:
    """What a partial verdict would do now. NoSubject for who is not isolated, UsageError for a glob of nothing.

    Resolvers are asked about what is in conflict.
    """
    view = view_of(fs, subject)
    return await with_resolvers(lambda known: _found(fs, view, asked, known), ask)


async def with_resolvers(choose: Callable[[Mapping[Op, Resolution]], Slices[Partial]], ask: Ask | None) -> Partial:
    """What would be merged, once resolvers were asked about what of that is in conflict."""
    there = await looked(lambda: choose(UNRESOLVED))
    if not there.conflicts or ask is None:
        return there
    known = await ask(there.conflicts)
    return await looked(lambda: choose(known))


def _found(fs: Filesystem, view: View, asked: Asked, known: Mapping[Op, Resolution]) -> Slices[Partial]:
    pieces = yield from partial.pieces(fs, view)
    wanted = yield from wish(pieces, asked.only, asked.excepted)
    return (yield from partial.partial(fs, view, pieces, wanted, known))


async def whole(fs: Filesystem, subject: Subject, asked: Asked, ask: Ask) -> Partial:
    """The same where everything that is asked for has to be merged: ConflictsRemain if it cannot be."""
    there = await found(fs, subject, asked, ask)
    if there.refused:
        shown = "; ".join(f"{wire.path_text(one.path)}: {one.reason}" for one in there.refused[:_SHOWN])
        more = len(there.refused) - _SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        raise ConflictsRemain(f"not everything can be accepted, so nothing was discarded: {shown}{rest}")
    return there


def check_accepted(there: Partial, report: Report) -> None:
    """ConflictsRemain if main changed what was accepted in the very moment in which it was merged."""
    if report.conflicts or there.refused:
        raise ConflictsRemain("main changed what was accepted while it was merged: nothing was discarded")


def told(there: Partial | None) -> Result:
    """What comes along and what stays; nothing does in a whole verdict."""
    along, left = ([], []) if there is None else (there.along, there.left)
    return {"along": [aside(one) for one in along], "left": [aside(one) for one in left]}


def aside(one: Aside) -> Result:
    return {"path": wire.path_text(one.path), "reason": one.reason, "asked": one.asked}
