"""What the control socket offers: each call of `isoctl` on a running file system."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime

import trio

from isofs.control import mounts, wire
from isofs.engine import changes as changed
from isofs.engine import facts
from isofs.engine.changes import Against, ChangeLine
from isofs.engine.state import Filesystem, View
from isofs.errors import IsofsError, NoSubject, UsageError
from isofs.fuse.adapter import Adapter
from isofs.fuse.cache import KernelCache
from isofs.merge import apply, resolving
from isofs.merge.partial import Partial
from isofs.merge.preview import preview
from isofs.merge.report import Report
from isofs.merge.resolving import Resolution
from isofs.model import risks
from isofs.model.records import Op, Subject, SubjectId, SubjectState
from isofs.service import answers, evidence, isolating, partly, processes, resolutions, settling
from isofs.service.events import Event, Events, Kind
from isofs.service.live import Live

Result = answers.Result

log = logging.getLogger(__name__)

Args = Mapping[str, object]
Progress = Callable[[int, int], None]

#: Seconds of work at a stretch, before others are served.
SLICE = 0.005


class Commands:
    """The calls on one mounted file system. Each is one method, named as the call."""

    def __init__(
        self,
        fs: Filesystem,
        adapter: Adapter,
        cache: KernelCache,
        mount: str,
        unmount: Callable[[], None],
        live: Live,
        events: Events,
    ) -> None:
        self._fs, self._adapter, self._cache = fs, adapter, cache
        self._mount, self._unmount = mount, unmount
        self._live, self._events = live, events
        self._since = wire.moment(datetime.now(UTC).timestamp())
        self.verdict = trio.Lock()  # whoever has it carries out a verdict, or needs that none is
        self._reports: dict[SubjectId, Report] = {}

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
        """The subject with work to decide about that a call names by uid: who is isolated before who waits."""
        uid = wire.argument(args, "uid", int)
        for sids in (self._fs.views, self._fs.waiting):
            for subject in (self._fs.subjects[sid] for sid in sids):
                if subject.uid == uid:
                    return subject
        raise NoSubject(f"user {uid} is not a suspect; isoctl status shows who is")

    def _view(self, subject: Subject) -> View:
        view = self._fs.view_of(subject.sid)
        assert view is not None
        return view

    async def status(self, args: Args, progress: Progress) -> Result:
        """The mount, its store, and every subject that is not settled."""
        return {
            "mount": self._mount,
            "store": self._fs.store.path,
            "pid": os.getpid(),
            "version": answers.version(),
            "since": self._since,
            "subjects": [
                answers.described(self._fs, s) for s in self._fs.subjects.values() if s.state is not SubjectState.ENDED
            ],
            "attic": answers.attic_totals(self._fs),
            "configuration": None if self._live.error is None else str(self._live.error),
        }

    async def suspect(self, args: Args, progress: Progress) -> Result:
        """Isolate a user from now on."""
        done = await isolating.suspect(self._fs, self._cache, self._mount, args)
        self._events.tell(Event(Kind.SUSPECT, {**done, "reason": wire.optional(args, "reason", str) or ""}))
        return dict(done)

    async def changes(self, args: Args, progress: Progress) -> Result:
        subject = self._subject(args)
        totals, found = risks.Totals(), []
        async for line, marks in self._marked(self._view(subject), progress):
            totals.add(line.change, marks)
            found.append({**answers.change(line), "risks": list(marks)})
        return {"user": subject.name, "changes": found, "risks": list(risks.whole(totals))}

    async def _marked(self, view: View, progress: Progress) -> AsyncIterator[tuple[ChangeLine, tuple[str, ...]]]:
        """All changes with their risks; whoever calls the file system is served in between."""
        lines = changed.changes(self._fs, view)
        last = trio.current_time()
        for done, found in enumerate(facts.marked(self._fs, view, lines), 1):
            yield found
            progress(done, len(lines))
            if trio.current_time() - last > SLICE:
                await trio.lowlevel.checkpoint()
                last = trio.current_time()

    async def diff(self, args: Args, progress: Progress) -> Result:
        subject = self._subject(args)
        view = self._view(subject)
        wanted, against = [wire.path_bytes(p) for p in wire.texts(args, "paths")], _against(args)
        totals, chosen, entries = risks.Totals(), [], []
        async for line, marks in self._marked(view, lambda done, total: None):
            totals.add(line.change, marks)
            if _selected(line, wanted):
                chosen.append((line, marks))
        for number, (line, marks) in enumerate(chosen):
            entries.append({**answers.difference(self._fs, view, line, against), "risks": list(marks)})
            progress(number + 1, len(chosen))
            await trio.lowlevel.checkpoint()
        return {"user": subject.name, "entries": entries, "risks": list(risks.whole(totals))}

    async def plan(self, args: Args, progress: Progress) -> Result:
        """What `innocent` would do now, with the same globs. Changes nothing."""
        subject, asked = self._subject(args), partly.asked(args)
        view, part = self._view(subject), None
        if asked is not None:
            part = partly.found(self._fs, subject, asked)
            planned = part.planned
        else:
            found, using = dict[Op, Resolution](), self._live.rules()
            await resolutions.ask(self._fs, self._cache, view, using, self._mount, found, progress)
            planned = preview(self._fs, view, apply.states(self._fs, view), found)
        totals, marked = risks.Totals(), defaultdict[Op, set[str]](set)
        async for line, marks in self._marked(view, progress):
            totals.add(line.change, marks)
            marked[line.op].update(marks)
        return {
            "user": subject.name,
            "counts": dict(sorted(Counter(one.item.action for one in planned).items())),
            "items": [answers.planned(one, marked[one.op]) for one in planned],
            "risks": list(risks.whole(totals)),
            **partly.told(part),
        }

    async def innocent(self, args: Args, progress: Progress) -> Result:
        """Merge, object by object; whoever is not the subject is served in between. With globs, what they name."""
        asked, part, report = partly.asked(args), None, Report()
        async with self.verdict:
            subject = self._subject(args)
            try:
                if asked is None:
                    report = self._reports.setdefault(subject.sid, report)  # one that was cut off is gone on with
                    await self._merge_all(subject, report, progress)
                    del self._reports[subject.sid]
                else:
                    part = await self._merge_part(subject, asked, report, progress)
            except OSError as error:
                raise IsofsError(
                    f"merging stopped half way: {error.strerror}; nothing is lost, {subject.name} waits: "
                    f"make it possible and run isoctl innocent {subject.name} again"
                ) from error
        log.warning("%s is innocent%s: %s", subject.name, f", {asked.words}" if asked else "", report.counts)
        self._tell_verdict(subject, args, "innocent", asked.words if asked else "", report.counts)
        if report.conflicts:
            facts = {"user": subject.name, "uid": subject.uid, "conflicts": report.conflicts}
            self._events.tell(Event(Kind.CONFLICT, facts))
        return {
            "user": subject.name,
            "counts": report.counts,
            "items": [answers.item(item) for item in report.items],
            "conflicts": report.conflicts,
            **partly.told(part),
        }

    async def _merge_all(self, subject: Subject, report: Report, progress: Progress) -> None:
        view, using = self._view(subject), self._live.rules()
        found = dict[Op, Resolution]()
        # Before the subject's calls wait: they do so for seconds only, and its pages are written back by calls.
        await resolutions.let_go(self._fs, view, using, self._mount, progress)
        await self._forget_pages(subject)
        try:
            with self._adapter.held(subject.sid):
                await resolutions.ask(self._fs, self._cache, view, using, self._mount, found, progress, write=True)
                mapped = await self._mapped(subject)
                steps = apply.merge_steps(self._fs, subject.sid, report, mapped, found)
                await self._step(steps, progress)
            await settling.keep_both(self._fs, self._cache, subject.sid, found, report)
        finally:
            resolving.remove_unused(self._fs, view, found)
        await self._cache.drained()
        await self._forget_pages(subject)

    async def _merge_part(self, subject: Subject, asked: partly.Asked, report: Report, progress: Progress) -> Partial:
        """Merge a part of what a suspect did, who goes on being one and whose calls wait meanwhile."""
        await self._forget_pages(subject)
        with self._adapter.held(subject.sid):
            part = partly.found(self._fs, subject, asked)
            await self._step(partly.steps(self._fs, subject, asked, part, report), progress)
        await self._cache.drained()
        await self._forget_pages(subject)
        return part

    async def malicious(self, args: Args, progress: Progress) -> Result:
        """Write the evidence unless `no_evidence`, merge what is accepted, then discard."""
        asked, part, report = partly.accepted(args), None, Report()
        async with self.verdict:
            subject = self._subject(args)
            kept: evidence.Evidence | None = None
            await self._forget_pages(subject)  # before the subject's calls wait: its pages are written back by calls
            with self._adapter.held(subject.sid):
                part = None if asked is None else partly.whole(self._fs, subject, asked)
                counts = self._counts(subject)
                if not wire.optional(args, "no_evidence", bool):
                    about = {
                        "counts": dict(counts),
                        "accept": [] if asked is None else asked.only,
                        "isofs": answers.version(),
                    }
                    chosen = frozenset() if part is None else part.chosen
                    kept = await evidence.keep(self._fs, subject, args, about, self._mount, progress, chosen)
                before = 0 if kept is None else 2 * kept.weight
                if asked is not None:
                    part = partly.whole(self._fs, subject, asked)  # main may have changed meanwhile
                    await self._step(partly.steps(self._fs, subject, asked, part, report), lambda done, total: None)
                    partly.check_accepted(report)
                    counts = self._counts(subject)
                mapped = await self._mapped(subject)
                steps = apply.discard_steps(self._fs, subject.sid, mapped)
                await self._step(steps, lambda done, total: progress(before + done, before + total))
            # Not before the subject's calls go on: the kernel holds locks for them.
            await self._cache.drained()
            await self._forget_pages(subject)
            await trio.to_thread.run_sync(self._fs.store.remove_discarded, subject.sid)
        path = None if kept is None else kept.path
        log.warning("%s is malicious: discarded %s, evidence: %s", subject.name, dict(counts), path or "none")
        self._tell_verdict(subject, args, "malicious", asked.words if asked else "", counts)
        return {
            "user": subject.name,
            "counts": dict(counts),
            "accepted": [answers.item(item) for item in report.items],
            "along": partly.told(part)["along"],
            "evidence": path,
            "readable": self._readable(path) if kept is not None and kept.in_store else path,
        }

    def _tell_verdict(self, subject: Subject, args: Args, verdict: str, part: str, counts: Mapping[str, int]) -> None:
        reason = wire.optional(args, "reason", str) or ""
        facts = {"user": subject.name, "uid": subject.uid, "verdict": verdict, "part": part, "reason": reason}
        self._events.tell(Event(Kind.VERDICT, {**facts, "counts": dict(counts)}))

    def _counts(self, subject: Subject) -> Counter[str]:
        return Counter(line.change for line in changed.changes(self._fs, self._view(subject)))

    def _readable(self, kept: str | None) -> str | None:
        """Where root finds now what the store keeps: a mount hides the store that lies under it from all but us."""
        if kept is None or not mounts.within(self._mount, kept):
            return kept
        return f"/proc/{os.getpid()}/root{kept}"

    async def _mapped(self, subject: Subject) -> frozenset[int]:
        """The subject's nodes that processes have mapped writable: what is in their pages may not reach main."""
        nodes = [n for n in self._fs.nodes.values() if n.sid == subject.sid and n.handles]
        if not nodes:
            return frozenset()
        inos = {number for n in nodes for number in (n.id, n.obj.ino)}
        found = await trio.to_thread.run_sync(processes.mapped, self._mount, inos)
        return frozenset(n.id for n in nodes if n.id in found or n.obj.ino in found)

    async def _step(self, steps: Iterator[tuple[int, int]], progress: Progress) -> None:
        try:
            last = trio.current_time()
            for done, total in steps:
                progress(done, total)
                if trio.current_time() - last > SLICE:
                    await trio.lowlevel.checkpoint()
                    last = trio.current_time()
        finally:
            self._adapter.verdict_ended()

    async def _forget_pages(self, subject: Subject) -> None:
        """Have the pages of the subject's open files written back and dropped."""
        for node in list(self._fs.nodes.values()):
            if node.sid == subject.sid and node.handles:
                await self._cache.forget_data(node.id)

    async def conflicts(self, args: Args, progress: Progress) -> Result:
        return settling.conflicts(self._fs, wire.optional(args, "uid", int), self._readable)

    async def resolve(self, args: Args, progress: Progress) -> Result:
        async with self.verdict:
            return await settling.resolve(self._fs, self._cache, self._mount, args, progress)

    async def markers(self, args: Args, progress: Progress) -> Result:
        async with self.verdict:
            return await settling.markers(self._fs, self._cache, args, progress)

    async def check(self, args: Args, progress: Progress) -> Result:
        return dict(answers.checked(self._fs))

    async def umount(self, args: Args, progress: Progress) -> Result:
        await trio.to_thread.run_sync(self._unmount)
        return {"pid": os.getpid()}


def _against(args: Args) -> Against | None:
    word = wire.optional(args, "against", str)
    if word is not None and word not in tuple(Against):
        raise UsageError(f"a suspect's work is compared with {' or '.join(Against)}, not {word!r}")
    return None if word is None else Against(word)


def _selected(line: ChangeLine, wanted: list[bytes]) -> bool:
    return not wanted or any(not path or line.path == path or line.path.startswith(path + b"/") for path in wanted)
