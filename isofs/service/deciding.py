"""A verdict object by object: what is merged, what is discarded, how conflicts are settled; the rest stays isolated."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import trio

from isofs.control import wire
from isofs.engine.slices import Slices
from isofs.engine.state import Filesystem, View
from isofs.errors import UsageError
from isofs.merge import apply, contested, partial, preview, resolving
from isofs.merge.contested import Choice, Given, Waiting
from isofs.merge.partial import Discarded, Partial
from isofs.merge.parting import Piece, Wish
from isofs.merge.report import Report
from isofs.merge.resolving import Resolution
from isofs.model.records import Op, Subject, SubjectId, SubjectState
from isofs.service import answers, evidence, partly, settling
from isofs.service.answers import Result
from isofs.service.events import Event, Events, Kind
from isofs.service.reports import about
from isofs.service.serving import in_slices
from isofs.service.verdicts import Progress, Verdicts, silent, stopped
from isofs.store.inodes import Place

log = logging.getLogger(__name__)

Args = Mapping[str, object]

#: How a part is called in `status`.
_TAKEN, _KEPT = "taken one by one", "main's kept, one by one"


@dataclass(frozen=True)
class Answers:
    """What an operator decided, by the numbers of objects in a plan. What was to `skip` stays, and what was not asked.

    What goes `beside` is taken under another name, as the plan said, because main has given its own to something else.
    `edited` are the contents that were made for files in conflict, and what both sides were then (`settling.seen`).
    """

    take: frozenset[Op]
    beside: frozenset[Op]
    main: frozenset[Op]
    skip: frozenset[Op]
    settled: Mapping[Op, Choice]
    edited: Mapping[Op, tuple[settling.Caller, str]]

    @classmethod
    def of(cls, args: Args) -> Answers:
        """UsageError if an object is decided twice, or a content is missing."""
        names = ("take", "beside", "main", "skip", "suspect", "both", "edited")
        lists = {name: wire.numbers(args, name) for name in names if name in args}
        every = [op for ops in lists.values() for op in ops]
        if len(set(every)) < len(every):
            raise UsageError("each object is decided once")
        edited: dict[Op, tuple[settling.Caller, str]] = {}
        if ops := lists.get("edited"):
            pid, descriptors = wire.argument(args, "pid", int), wire.numbers(args, "descriptors")
            seen = wire.texts(args, "seen")
            if not len(ops) == len(descriptors) == len(seen):
                raise UsageError("what is edited has a descriptor each, and what was seen")
            callers = [settling.Caller(pid, descriptor) for descriptor in descriptors]
            edited = dict(zip(ops, zip(callers, seen, strict=True), strict=True))
        settled = {op: choice for choice in (Choice.SUSPECT, Choice.BOTH) for op in lists.get(choice.value, ())}
        take, beside, main, skip = (frozenset(lists.get(name, ())) for name in ("take", "beside", "main", "skip"))
        return cls(take, beside, main, skip, settled, edited)

    @property
    def merged(self) -> frozenset[Op]:
        return self.take | self.beside | self.settled.keys() | self.edited.keys()


@dataclass(frozen=True)
class Sorted:
    """What the answers come to: what is discarded and merged; everything, if nothing of the suspect's stays."""

    away: Discarded
    there: Partial
    everything: bool


class Deciding:
    """The call `decide` on one mounted file system."""

    def __init__(self, verdicts: Verdicts, readable: Callable[[str | None], str | None], events: Events) -> None:
        self._verdicts, self._readable, self._events = verdicts, readable, events

    def handlers(self) -> dict[str, Callable[[Args, Progress], Awaitable[Result]]]:
        return {"decide": self.decide}

    async def decide(self, args: Args, progress: Progress) -> Result:
        """Carry out what was decided of single objects; with `dry`, only say what comes along and what stays."""
        given, verdicts, report = Answers.of(args), self._verdicts, Report(about(args))
        if wire.optional(args, "dry", bool):
            subject = verdicts.subject(wire.argument(args, "uid", int))
            sorting = await self._sorted(subject, given, None)
            return _told(subject, report, sorting, Counter(), 0) | {"evidence": None, "readable": None}
        async with verdicts.lock:
            subject = verdicts.subject(wire.argument(args, "uid", int))
            await verdicts.finish_parts(subject, report, progress)
            fs, view, found = verdicts.fs, partly.view_of(verdicts.fs, subject), dict[Op, Resolution]()
            first = await self._sorted(subject, given, None)
            await verdicts.let_go(subject, first.there.conflicts, progress)
            await verdicts.forget_pages(subject)
            kept, discarded, sids = None, Counter[str](), {subject.sid}
            with contextlib.ExitStack() as staged:
                contents = await self._received(given, staged)
                try:
                    with verdicts.held(subject):
                        ask = verdicts.asking(subject, found, progress, write=True)
                        sorting = await self._sorted(subject, given, ask)
                        if sorting.away.chosen:
                            kept, discarded = await self._discard(subject, sorting.away, args, progress)
                        sids |= await self._merge(subject, given, sorting, found, report, progress)
                    for sid in sids:
                        await settling.keep_both(fs, verdicts.cache, sid, found, report)
                    await self._settle(sids, given, contents, report)
                except OSError as error:
                    begun = fs.subjects[subject.sid].state is SubjectState.MERGING
                    again = f"isoctl innocent {subject.name}" if begun else "this again"
                    raise stopped(error, subject, again) from error
                finally:
                    resolving.remove_unused(fs, view, found)
            await verdicts.cache.drained()
            await verdicts.forget_pages(subject)
        waiting = sum(one.sid in sids for one in contested.waiting(fs, subject.uid))
        self._tell(subject, args, report, discarded, waiting)
        return _told(subject, report, sorting, discarded, waiting) | {
            "evidence": None if kept is None else kept.path,
            "readable": None if kept is None else self._readable(kept.path),
        }

    async def _sorted(self, subject: Subject, given: Answers, ask: partly.Ask | None) -> Sorted:
        """What the answers come to now. UsageError for what is no change any more, or cannot be settled like that."""
        fs, view = self._verdicts.fs, partly.view_of(self._verdicts.fs, subject)
        pieces: list[Piece] = []
        stays = set(given.skip)

        def choose(known: Mapping[Op, Resolution]) -> Slices[Partial]:
            pieces[:] = yield from partial.pieces(fs, view)
            every = frozenset(piece.op for piece in pieces)
            if not (given.merged | given.main) <= every:
                raise UsageError("some of what was decided is no change any more: look at it anew")
            stays.update((yield from _unasked(fs, view, every - given.merged - given.main - given.skip)))
            settled = frozenset(given.settled.keys() | given.edited.keys())
            wish = Wish(given.merged, given.main | stays, settled, given.beside)
            return (yield from partial.partial(fs, view, pieces, wish, known))

        there = await partly.with_resolvers(choose, ask)
        for op in there.settled:
            _check(fs, view, op, given)
        away = await in_slices(partial.unwanted(fs, view, pieces, given.main))
        return Sorted(away, there, everything=not stays and not away.left)

    async def _received(self, given: Answers, staged: contextlib.ExitStack) -> dict[Op, Place]:
        """The contents that were edited, in the store. Nothing is left of what is not taken from there."""
        contents = {}
        for op, (caller, _) in given.edited.items():
            contents[op] = staged.enter_context(settling.staged(self._verdicts.fs))
            await trio.to_thread.run_sync(settling.receive, caller, contents[op])
        return contents

    async def _discard(
        self, subject: Subject, away: Discarded, args: Args, progress: Progress
    ) -> tuple[evidence.Evidence, Counter[str]]:
        """Write the evidence of what main's is kept of, then discard it."""
        verdicts = self._verdicts
        counts = await verdicts.counts(subject, away.chosen)
        described = {"counts": dict(counts), "accept": [], "isofs": answers.version()}
        by = {"by": wire.optional(args, "by", str)}
        kept = await evidence.keep(verdicts.fs, subject, by, described, verdicts.mount, progress, only=away.chosen)
        report = Report(about(args, counts, kept))
        part = await verdicts.discard_chosen(subject, away, _KEPT, report, silent)
        log.warning("%s: discarded %s of single objects, evidence: %s", subject.name, dict(counts), kept.path)
        await trio.to_thread.run_sync(verdicts.fs.store.remove_discarded, part)
        return kept, counts

    async def _merge(
        self,
        subject: Subject,
        given: Answers,
        sorting: Sorted,
        found: dict[Op, Resolution],
        report: Report,
        progress: Progress,
    ) -> set[SubjectId]:
        """Merge what was taken. The subjects of which conflicts may wait then, beside the suspect."""
        verdicts = self._verdicts
        if sorting.everything:
            await verdicts.merge_held(subject, found, report, progress, list(sorting.there.settled))
            return set()
        part = await verdicts.merge_chosen(subject, sorting.there, _TAKEN, report, progress)
        return {part.sid} - {0}

    async def _settle(self, sids: set[SubjectId], given: Answers, contents: Mapping[Op, Place], report: Report) -> None:
        """Settle the conflicts that wait by now as was decided."""
        fs, cache = self._verdicts.fs, self._verdicts.cache
        for one in [one for one in contested.waiting(fs) if one.sid in sids]:
            choice: Choice | Given | None = given.settled.get(one.op)
            if one.op in contents:
                choice = Given(contents[one.op])
            if choice is not None:
                await settling.settle(fs, cache, [one], choice, report, silent)

    def _tell(self, subject: Subject, args: Args, report: Report, discarded: Counter[str], waiting: int) -> None:
        log.warning("%s, one by one: %s; discarded %s", subject.name, report.counts, dict(discarded))
        facts = {"user": subject.name, "uid": subject.uid, "reason": ""}
        for verdict, part, counts in (("malicious", _KEPT, discarded), ("innocent", _TAKEN, report.counts)):
            if counts:
                told = {**facts, "verdict": verdict, "part": part, "counts": dict(counts)}
                self._events.tell(Event(Kind.VERDICT, told))
        if waiting:
            self._events.tell(Event(Kind.CONFLICT, {"user": subject.name, "uid": subject.uid, "conflicts": waiting}))


def _unasked(fs: Filesystem, view: View, others: frozenset[Op]) -> Slices[set[Op]]:
    """Those of other objects that the plan would have had, if they had been changed by then."""
    if not others:
        return set()
    planned = yield from preview.gather(fs, view, apply.states(fs, view))
    return {one.op for one in planned} & others


def _check(fs: Filesystem, view: View, op: Op, given: Answers) -> None:
    """UsageError for a way to settle a conflict that there isn't, or that main has changed under."""
    version = view.version(op)
    if version is None:
        raise UsageError("only what both sides changed is settled: look at it anew")
    path = partial.path_of(fs, view, op)
    contested.check(fs, Waiting(view.sid, path, version), given.settled.get(op))
    if op in given.edited and given.edited[op][1] != settling.seen(fs, view, op):
        raise UsageError(f"{wire.path_text(path)} has changed since it was edited: look at it anew")


def _told(subject: Subject, report: Report, sorting: Sorted, discarded: Counter[str], waiting: int) -> Result:
    there = partly.told(None if sorting.everything else sorting.there)
    return {
        "user": subject.name,
        "counts": report.counts,
        "items": [answers.item(item) for item in report.items],
        "discarded": dict(discarded),
        "conflicts": waiting,
        "along": there["along"],
        "left": [*map(partly.aside, sorting.away.left), *(there["left"] if isinstance(there["left"], list) else ())],
    }
