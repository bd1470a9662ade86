"""What the control socket offers: each call of `isoctl` on a running file system."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime

import trio

from isofs.control import mounts, wire
from isofs.engine import changes as changed
from isofs.engine import facts, suspicion, views
from isofs.engine.changes import Against, ChangeLine
from isofs.engine.state import Filesystem, Obj, View
from isofs.errors import HandlesOpen, IsofsError, NoSubject, UsageError
from isofs.fuse.adapter import Adapter
from isofs.fuse.cache import KernelCache
from isofs.merge import apply, resolving
from isofs.merge.partial import Partial
from isofs.merge.preview import preview
from isofs.merge.report import Report
from isofs.merge.resolving import Resolution
from isofs.model import risks
from isofs.model.records import MAIN, Op, Subject, SubjectId, SubjectState
from isofs.service import answers, evidence, partly, processes, resolutions, settling

Result = answers.Result

log = logging.getLogger(__name__)

Args = Mapping[str, object]
Progress = Callable[[int, int], None]

#: Seconds of work at a stretch, before others are served.
SLICE = 0.005


#: Seconds that killed processes may take to let go of their files.
KILL_PATIENCE = 10.0

#: Seconds after which a file that no process is seen to hold is taken to be held by whoever maps it.
MAP_PATIENCE = 1.0


class Commands:
    """The calls on one mounted file system. Each is one method, named as the call."""

    def __init__(
        self, fs: Filesystem, adapter: Adapter, cache: KernelCache, mount: str, unmount: Callable[[], None]
    ) -> None:
        self._fs, self._adapter, self._cache = fs, adapter, cache
        self._mount, self._unmount = mount, unmount
        self._since = wire.moment(datetime.now(UTC).timestamp())
        self._verdict = trio.Lock()
        self._reports: dict[SubjectId, Report] = {}

    def handlers(self) -> dict[str, Callable[[Args, Progress], object]]:
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
        }

    async def suspect(self, args: Args, progress: Progress) -> Result:
        """Isolate a user from now on, and deal with the files that the user has open for reading and writing."""
        uid, name = wire.argument(args, "uid", int), wire.argument(args, "user", str)
        reason = wire.optional(args, "reason", str) or ""
        policy = wire.optional(args, "handles", str) or "kill"
        if policy not in ("kill", "refuse", "leave"):
            raise UsageError(f"handles is kill, refuse or leave, not {policy!r}")
        before = {h.node.id: self._path_of(h.node.obj) for h in suspicion.handles_of(self._fs, uid)}
        lockers = await self._lockers(uid, before)
        writers = suspicion.shared_writers(self._fs, uid)
        if (writers or lockers) and policy == "refuse":
            open_files = sorted({self._path_of(h.node.obj) for h in writers} | {h.path for h in lockers})
            raise HandlesOpen(
                f"{name} has files locked, or open for reading and writing, which cannot be isolated: "
                + ", ".join(open_files[:5])
                + "; nothing was changed"
            )
        since = wire.moment(datetime.now(UTC).timestamp())
        subject = suspicion.suspect(self._fs, uid, name, reason, since)
        log.warning("%s (uid %d) is isolated: %s", name, uid, reason or "no reason given")
        for node in self._fs.channels:
            for directory, entry in node.obj.links:
                for parent in directory.nodes.values():
                    self._cache.forget_entry(parent.id, entry)
        found = await self._holders(uid) if writers else []
        found += await self._lockers(uid, before)  # once more: until now locks could be taken
        if policy == "kill" and (writers or found):
            await self._kill(uid, found, before)
        await self._cache.drained()
        listed = [{"pid": h.pid, "program": h.program, "path": h.path} for h in dict.fromkeys(found)]
        killed = policy == "kill"
        return {
            "user": subject.name,
            "uid": uid,
            "since": since,
            "killed": listed if killed else [],
            "left": [] if killed else listed,
        }

    def _path_of(self, obj: Obj) -> str:
        return wire.path_text(views.path(self._fs, MAIN, obj) or b"(deleted)")

    async def _holders(self, uid: int, *, mapping: bool = False) -> list[processes.Holder]:
        """Who holds what the user has open for reading and writing; the user's processes that map it, if `mapping`.

        Another user's process counts if nothing else explains what it holds: it was given the descriptor, or
        changed its uid.
        """
        inos = {h.node.id: self._path_of(h.node.obj) for h in suspicion.shared_writers(self._fs, uid)}
        if mapping:
            found = await trio.to_thread.run_sync(processes.mappers_of, self._mount, inos)
            return [h for h in found if uid in h.uids]
        found = await trio.to_thread.run_sync(processes.holders_of, self._mount, inos)
        handles = [h for h in self._fs.handles.values() if h.uid != uid and h.flags & os.O_ACCMODE == os.O_RDWR]
        others = {(h.node.id, h.uid) for h in handles}
        return [h for h in found if uid in h.uids or not any((h.inode, one) in others for one in h.uids)]

    async def _lockers(self, uid: int, files: Mapping[int, str]) -> list[processes.Holder]:
        """The user's processes that hold a lock on one of these files of main's: it would hold up trusted users."""
        found = await trio.to_thread.run_sync(processes.lockers_of, self._mount, files) if files else []
        return [h for h in found if uid in h.uids]

    async def _kill(self, uid: int, found: list[processes.Holder], files: Mapping[int, str]) -> None:
        """Kill who holds the user's files open for reading and writing, or locked, until nobody does."""
        began = trio.current_time()
        with trio.move_on_after(KILL_PATIENCE) as scope:
            while suspicion.shared_writers(self._fs, uid) or await self._lockers(uid, files):
                processes.kill({h.pid for h in found})
                await trio.sleep(0.02)
                late = trio.current_time() - began > MAP_PATIENCE
                more = await self._holders(uid, mapping=late)
                found.extend(h for h in more if h not in found)
        if scope.cancelled_caught:
            raise IsofsError(
                f"user {uid} is isolated, but some of the files locked, or open for reading and writing, could "
                "not be closed: what is written through them still reaches main"
            )

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
            found, using = dict[Op, Resolution](), resolutions.rules(self._fs)
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
        async with self._verdict:
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
        return {
            "user": subject.name,
            "counts": report.counts,
            "items": [answers.item(item) for item in report.items],
            "conflicts": report.conflicts,
            **partly.told(part),
        }

    async def _merge_all(self, subject: Subject, report: Report, progress: Progress) -> None:
        view, using = self._view(subject), resolutions.rules(self._fs)
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
        async with self._verdict:
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
        return {
            "user": subject.name,
            "counts": dict(counts),
            "accepted": [answers.item(item) for item in report.items],
            "along": partly.told(part)["along"],
            "evidence": path,
            "readable": self._readable(path) if kept is not None and kept.in_store else path,
        }

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
        async with self._verdict:
            return await settling.resolve(self._fs, self._cache, self._mount, args, progress)

    async def markers(self, args: Args, progress: Progress) -> Result:
        async with self._verdict:
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
