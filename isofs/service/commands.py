"""What the control socket offers: each call of `isoctl` on a running file system."""

from __future__ import annotations

import functools
import logging
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime

import trio

from isofs.control import mounts, results, wire
from isofs.engine import changes as changed
from isofs.engine import facts
from isofs.engine.changes import Against, ChangeLine
from isofs.engine.slices import Slices
from isofs.engine.state import Filesystem, View
from isofs.errors import Busy, UsageError
from isofs.fuse.adapter import Adapter
from isofs.fuse.cache import KernelCache
from isofs.merge import apply, preview, resolving
from isofs.merge.report import Report
from isofs.merge.resolving import Resolution
from isofs.model import risks
from isofs.model.records import Op, Subject, SubjectState
from isofs.service import (
    answers,
    evidence,
    health,
    isolating,
    limiting,
    never,
    partly,
    readsets,
    resolutions,
    settling,
    unfinished,
)
from isofs.service.events import Event, Events, Kind
from isofs.service.latelocks import LateLocks
from isofs.service.live import Live
from isofs.service.reports import about
from isofs.service.serving import each, in_slices, looked
from isofs.service.verdicts import Verdicts, silent, stopped

Result = answers.Result

log = logging.getLogger(__name__)

Args = Mapping[str, object]
Progress = Callable[[int, int], None]

#: Seconds between two looks whether nobody uses the mount any more.
UNMOUNT_AGAIN = 0.1


class Commands:
    """The calls on one mounted file system. Each is one method, named as the call."""

    def __init__(
        self,
        fs: Filesystem,
        adapter: Adapter,
        cache: KernelCache,
        mount: str,
        unmount: Callable[[str | None], Awaitable[object]],
        live: Live,
        events: Events,
    ) -> None:
        self._fs, self._adapter, self._cache = fs, adapter, cache
        self._mount, self._unmount = mount, unmount
        self._live, self._events = live, events
        self._since = wire.moment(datetime.now(UTC).timestamp())
        self.verdicts = Verdicts(fs, adapter, cache, mount, live)
        self.late_locks = LateLocks(fs, cache, mount)
        #: Hears of a new suspect at once; and waits until what was recorded is written down, if that is possible.
        self.isolated: Callable[[Subject], None] = lambda subject: None
        self.recorded: Callable[[Subject], Awaitable[bool]] = _nothing_recorded

    def handlers(self) -> dict[str, Callable[[Args, Progress], Awaitable[Result]]]:
        names = (
            "status",
            "suspect",
            "changes",
            "diff",
            "plan",
            "innocent",
            "malicious",
            "conflicts",
            "resolve",
            "markers",
            "check",
            "umount",
        )
        return {name: getattr(self, name) for name in names}

    def _subject(self, args: Args) -> Subject:
        """The subject with work to decide about that a call names by uid."""
        return self.verdicts.subject(wire.argument(args, "uid", int))

    def _view(self, subject: Subject) -> View:
        view = self._fs.view_of(subject.sid)
        assert view is not None
        return view

    async def status(self, args: Args, progress: Progress) -> Result:
        """The mount, its store, and every subject that is not settled."""
        degraded = health.degraded(self._fs)
        return {
            "state": "degraded" if degraded else "ok",
            "degraded": degraded,
            "mount": self._mount,
            "store": self._fs.store.path,
            "pid": os.getpid(),
            "version": answers.version(),
            "since": self._since,
            "subjects": [
                await looked(functools.partial(self._described, subject))
                for subject in list(self._fs.subjects.values())
                if self._fs.view_of(subject.sid) is not None
            ],
            "attic": {"entries": 0, "bytes": 0} if self._fs.failure else answers.attic_totals(self._fs),
            "configuration": None if self._live.error is None else str(self._live.error),
            "quota": limiting.together(self._fs),
        }

    def _described(self, subject: Subject) -> Slices[Result]:
        stopped, review = self.verdicts.stopped(subject), self._live.now.alerts.review
        return answers.described(self._fs, subject, review, stopped=stopped)

    async def suspect(self, args: Args, progress: Progress) -> Result:
        """Isolate a user from now on, unless that is one who never is."""
        uid = wire.argument(args, "uid", int)
        await trio.to_thread.run_sync(never.check, uid, self._live.now.access)  # names may be another machine's
        try:
            done = await isolating.suspect(self._fs, self._cache, self._mount, args, self.isolated)
        except isolating.StillOpen as error:
            self._isolated(error.done, args)
            raise
        self._isolated(done, args)
        return dict(done)

    def _isolated(self, done: results.Suspected, args: Args) -> None:
        self.late_locks.begins(done["uid"], wire.optional(args, "handles", str) or "kill")
        self._events.tell(Event(Kind.SUSPECT, {**done, "reason": wire.optional(args, "reason", str) or ""}))

    async def changes(self, args: Args, progress: Progress) -> Result:
        subject = self._subject(args)
        totals, found = risks.Totals(), []
        async for line, marks in self._marked(self._view(subject), progress):
            totals.add(line.change, marks)
            found.append({**answers.change(line), "risks": list(marks)})
        return {
            "user": subject.name,
            "subject": subject.sid,
            "since": subject.since,
            "changes": found,
            "risks": list(risks.whole(totals)),
        }

    async def _marked(self, view: View, progress: Progress) -> AsyncIterator[tuple[ChangeLine, tuple[str, ...]]]:
        """All changes with their risks; whoever calls the file system is served in between."""
        lines, done = await looked(lambda: changed.gather(self._fs, view)), 0
        async for found in each(facts.marked(self._fs, view, lines)):
            yield found
            done += 1
            progress(done, len(lines))

    async def diff(self, args: Args, progress: Progress) -> Result:
        subject = self._subject(args)
        view = self._view(subject)
        wanted, against = [wire.path_bytes(p) for p in wire.texts(args, "paths")], _against(args)
        only = wire.optional(args, "object", int)
        totals, chosen, entries = risks.Totals(), [], []
        async for line, marks in self._marked(view, lambda done, total: None):
            totals.add(line.change, marks)
            if _selected(line, wanted) and only in (None, line.op):
                chosen.append((line, marks))
        for number, (line, marks) in enumerate(chosen):
            entries.append({**answers.difference(self._fs, view, line, against), "risks": list(marks)})
            progress(number + 1, len(chosen))
            await trio.lowlevel.checkpoint()
        return {"user": subject.name, "entries": entries, "risks": list(risks.whole(totals))}

    async def plan(self, args: Args, progress: Progress) -> Result:
        """What `innocent` would do now, with the same globs. Changes nothing."""
        subject, asked = self._subject(args), partly.asked(args)
        view, part, found = self._view(subject), None, dict[Op, Resolution]()
        ask = self.verdicts.asking(subject, found, progress)
        if asked is not None:
            part = await partly.found(self._fs, subject, asked, ask)
            planned = part.planned
        else:
            await ask(await looked(lambda: resolutions.contested(self._fs, view)))
            planned = await looked(lambda: preview.gather(self._fs, view, apply.states(self._fs, view), found))
        totals, marked = risks.Totals(), defaultdict[Op, set[str]](set)
        async for line, marks in self._marked(view, progress):
            totals.add(line.change, marks)
            marked[line.op].update(marks)
        return {
            "user": subject.name,
            "counts": dict(sorted(Counter(one.item.action for one in planned).items())),
            "items": [one async for one in each(answers.planned(self._fs, one, marked[one.op]) for one in planned)],
            "risks": list(risks.whole(totals)),
            **partly.told(part),
        }

    async def innocent(self, args: Args, progress: Progress) -> Result:
        """Merge, object by object; whoever is not the subject is served in between. With globs, what they name."""
        asked, part, verdicts = partly.asked(args), None, self.verdicts
        async with verdicts.lock:
            subject = self._subject(args)
            unfinished.check_innocent(subject)
            report = Report(about(args))
            try:
                finished = await verdicts.finish_parts(subject, report, progress)
                if asked is None:
                    await verdicts.merge_all(subject, report, progress)
                else:
                    part = await verdicts.merge_part(subject, asked, report, progress)
            except UsageError:
                if not finished:  # else nothing that the globs name may be left
                    raise
            except OSError as error:
                again = f"isoctl innocent {subject.name} again" + (", with the same globs" if asked else "")
                raise stopped(error, subject, again) from error
        log.warning("%s is innocent%s: %s", subject.name, f", {asked.words}" if asked else "", report.counts)
        self._tell_verdict(subject, args, "innocent", asked.words if asked else "", report.counts)
        if report.conflicts:
            facts = {"user": subject.name, "uid": subject.uid, "conflicts": report.conflicts}
            self._events.tell(Event(Kind.CONFLICT, facts))
        return {
            "user": subject.name,
            "counts": report.counts,
            "items": await in_slices(answers.items(report.items)),
            "conflicts": report.conflicts,
            **partly.told(part),
        }

    async def malicious(self, args: Args, progress: Progress) -> Result:
        """Write the evidence unless `no_evidence`, merge what is accepted, then discard."""
        asked, part, report, verdicts = partly.accepted(args), None, Report(about(args)), self.verdicts
        async with verdicts.lock:
            subject = self._subject(args)
            await verdicts.finish_parts(subject, report, progress)
            kept: evidence.Evidence | None = None
            view, found = self._view(subject), dict[Op, Resolution]()
            ask = verdicts.asking(subject, found, progress, write=True)
            await verdicts.forget_pages(subject)  # before its calls wait: its pages are written back by calls
            try:
                with verdicts.held(subject):
                    part = None if asked is None else await partly.whole(self._fs, subject, asked, ask)
                    counts, goes_on = await verdicts.counts(subject), subject.state is SubjectState.DISCARDING
                    if not goes_on and not wire.optional(args, "no_evidence", bool):
                        described = {
                            "counts": dict(counts),
                            "accept": [] if asked is None else asked.only,
                            "isofs": answers.version(),
                        }
                        chosen = frozenset() if part is None else part.chosen
                        read = await readsets.of(self._fs, subject, self.recorded)
                        kept = await evidence.keep(
                            self._fs, subject, args, described, self._mount, progress, chosen, read=read
                        )
                    before = 0 if kept is None else 2 * kept.weight
                    if asked is not None:
                        part = await partly.whole(self._fs, subject, asked, ask)  # main may have changed meanwhile
                        merged = await verdicts.merge_chosen(subject, part, asked.words, report, silent)
                        await settling.keep_both(self._fs, self._cache, merged.sid, found, report)
                        partly.check_accepted(part, report)
                        counts = await verdicts.counts(subject)
                    mapped = await verdicts.mapped(subject)
                    discarded = Report(about(args, counts, kept))
                    steps = apply.discard_steps(self._fs, subject.sid, discarded, mapped)
                    await verdicts.carry_out(steps, lambda done, total: progress(before + done, before + total))
            finally:
                resolving.remove_unused(self._fs, view, found)
            # Not before the subject's calls go on: the kernel holds locks for them.
            await self._cache.drained()
            await verdicts.forget_pages(subject)
            await trio.to_thread.run_sync(self._fs.store.remove_discarded, subject.sid)
        path = None if kept is None else kept.path
        log.warning("%s is malicious: discarded %s, evidence: %s", subject.name, dict(counts), path or "none")
        self._tell_verdict(subject, args, "malicious", asked.words if asked else "", counts)
        return {
            "user": subject.name,
            "counts": dict(counts),
            "accepted": await in_slices(answers.items(report.items)),
            "along": partly.told(part)["along"],
            "evidence": path,
            "readable": self.readable(path) if kept is not None and kept.in_store else path,
        }

    def _tell_verdict(self, subject: Subject, args: Args, verdict: str, part: str, counts: Mapping[str, int]) -> None:
        reason = wire.optional(args, "reason", str) or ""
        facts = {"user": subject.name, "uid": subject.uid, "verdict": verdict, "part": part, "reason": reason}
        self._events.tell(Event(Kind.VERDICT, {**facts, "counts": dict(counts)}))

    def readable(self, kept: str | None) -> str | None:
        """Where root finds now what the store keeps: a mount hides the store that lies under it from all but us."""
        if kept is None or not mounts.within(self._mount, kept):
            return kept
        return f"/proc/{os.getpid()}/root{kept}"

    async def conflicts(self, args: Args, progress: Progress) -> Result:
        return settling.conflicts(self._fs, wire.optional(args, "uid", int), self.readable)

    async def resolve(self, args: Args, progress: Progress) -> Result:
        async with self.verdicts.lock:
            return await settling.resolve(self._fs, self._cache, self._mount, args, progress)

    async def markers(self, args: Args, progress: Progress) -> Result:
        async with self.verdicts.lock:
            return await settling.markers(self._fs, self._cache, args, progress)

    async def check(self, args: Args, progress: Progress) -> Result:
        return dict(answers.checked(self._fs))

    async def umount(self, args: Args, progress: Progress) -> Result:
        timeout, how = wire.optional(args, "timeout", int) or 0, wire.optional(args, "how", str)
        deadline = trio.current_time() + timeout
        while True:
            try:
                await self._unmount(how)
                break
            except Busy:  # everybody is served meanwhile
                if trio.current_time() >= deadline:
                    raise
            await trio.sleep(UNMOUNT_AGAIN)
        return {"pid": os.getpid()}


async def _nothing_recorded(subject: Subject) -> bool:
    return True


def _against(args: Args) -> Against | None:
    word = wire.optional(args, "against", str)
    if word is not None and word not in tuple(Against):
        raise UsageError(f"a suspect's work is compared with {' or '.join(Against)}, not {word!r}")
    return None if word is None else Against(word)


def _selected(line: ChangeLine, wanted: list[bytes]) -> bool:
    return not wanted or any(not path or line.path == path or line.path.startswith(path + b"/") for path in wanted)
