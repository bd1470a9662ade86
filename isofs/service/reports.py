"""What the control socket offers of reports: what verdicts did, while they go on and for as long as they are kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

import trio

from isofs.control import wire
from isofs.engine.slices import Slices, in_order
from isofs.engine.state import Filesystem
from isofs.errors import IsofsError, NoSubject
from isofs.merge.report import About, item
from isofs.model.records import Drop, Told, Verdict
from isofs.service import answers
from isofs.service.evidence import Evidence
from isofs.service.live import Live
from isofs.service.serving import in_slices
from isofs.store import reports

log = logging.getLogger(__name__)

#: Seconds of a day, after which there is another look for what is too old.
_DAY = 86400

#: Verdicts that are answered at once, and things told that are read or forgotten at a stretch: some milliseconds each.
_PAGE, _SLICE = 200, 200

Args = Mapping[str, object]
Progress = Callable[[int, int], None]


def about(args: Args, counts: Mapping[str, int] | None = None, kept: Evidence | None = None) -> About:
    """What a report says of the call that it is of; of a discarding also how much, and the evidence of it."""
    by, reason = wire.optional(args, "by", str) or "root", wire.optional(args, "reason", str) or ""
    return About(by, reason, counts or {}, None if kept is None else kept.path)


class Reports:
    """The calls on reports of one mounted file system. `readable` says where root finds now what the store keeps."""

    def __init__(self, fs: Filesystem, live: Live, readable: Callable[[str | None], str | None]) -> None:
        self._fs, self._live, self._readable = fs, live, readable

    def handlers(self) -> dict[str, Callable[[Args, Progress], Awaitable[answers.Result]]]:
        return {"reports": self.page, "report": self.report}

    async def page(self, args: Args, progress: Progress) -> answers.Result:
        """The newest verdicts, or the newest below a number; of one user or of all."""
        database, uid, before = self._fs.store.database, *(wire.optional(args, key, int) for key in ("uid", "before"))
        found, told = reports.verdicts(database, uid, before, _PAGE + 1), []
        for one in found[:_PAGE]:
            told.append(self._verdict(one))
            await trio.lowlevel.checkpoint()
        return {"verdicts": told, "more": len(found) > _PAGE}

    async def report(self, args: Args, progress: Progress) -> answers.Result:
        """Everything that a verdict did: that of a number, or the newest on a user's work. So far, if it goes on."""
        database, number = self._fs.store.database, wire.optional(args, "number", int)
        if number is not None:
            found = reports.verdict(database, number)
        else:
            found = next(iter(reports.verdicts(database, wire.argument(args, "uid", int), limit=1)), None)
        if found is None:
            raise NoSubject("there is no report of that: see `isoctl report`")
        told = await in_slices(_told(self._fs, found, progress))
        items = await in_slices(answers.items(item(one) for one in told))
        return {**self._verdict(found), "items": items}

    def _verdict(self, one: Verdict) -> answers.Result:
        counts = one.counts or reports.counted(self._fs.store.database, one.number)
        return {
            "number": one.number,
            "at": one.at,
            "ended": one.ended,
            "user": one.user,
            "uid": one.uid,
            "verdict": one.verdict,
            "part": one.part,
            "by": one.by,
            "reason": one.reason,
            "counts": dict(counts),
            "evidence": one.evidence,
            "readable": self._readable(one.evidence),
        }

    async def forget_old(self) -> None:
        """Keep the age limit, for as long as the daemon runs."""
        while True:
            try:
                await self.purge(wire.moment(max(0, time.time() - self._live.now.report_days * _DAY)))
            except (OSError, IsofsError) as error:
                log.error("reports that are too old could not be removed: %s", error)
            await trio.sleep(_DAY)

    async def purge(self, before: str) -> None:
        """Remove what is told of verdicts that ended before a time; a verdict goes when nothing is told of it."""
        database = self._fs.store.database
        while found := reports.older(database, before, 1):
            while told := reports.told(database, found[0].number, None, _SLICE):
                self._fs.store.write([Drop(one) for one in told])
                await trio.lowlevel.checkpoint()
            self._fs.store.write([Drop(found[0])])
            await trio.lowlevel.checkpoint()


def _told(fs: Filesystem, verdict: Verdict, progress: Progress) -> Slices[list[Told]]:
    """What is told of a verdict, in the order in which it was done."""
    found, after, total = list[Told](), None, sum(verdict.counts.values())
    while page := reports.told(fs.store.database, verdict.number, after, _SLICE):
        found, after = found + page, page[-1]
        progress(min(len(found), total), total)
        yield
    return (yield from in_order(found, lambda one: one.place))
