"""Carrying out verdicts, one at a time; whoever is not their subject is served in between."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import trio

from isofs.control import wire
from isofs.engine import changes as changed
from isofs.engine import copying
from isofs.engine.state import Filesystem
from isofs.errors import IsofsError, NoSubject
from isofs.fuse.adapter import Adapter
from isofs.fuse.cache import KernelCache
from isofs.merge import apply, resolving, split
from isofs.merge.partial import Discarded, Partial
from isofs.merge.report import Report
from isofs.merge.resolving import Resolution
from isofs.model.records import Op, Subject, SubjectId, SubjectState
from isofs.service import partly, processes, resolutions, settling, unfinished
from isofs.service.live import Live
from isofs.service.partly import Asked
from isofs.service.serving import each, in_slices, looked

Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """For steps of which nobody is told."""


def stopped(error: OSError, subject: Subject, again: str) -> IsofsError:
    """What is said of a merge that the host stopped."""
    return IsofsError(
        f"merging stopped half way: {error.strerror}; nothing is lost, {subject.name} waits: "
        f"make it possible and run {again}"
    )


class Verdicts:
    """The verdicts on one mounted file system. Whoever carries one out, or needs that none is, has the `lock`."""

    def __init__(self, fs: Filesystem, adapter: Adapter, cache: KernelCache, mount: str, live: Live) -> None:
        self.fs, self.cache, self.mount = fs, cache, mount
        self._adapter, self._live = adapter, live
        self.lock = trio.Lock()
        #: Raises if what a verdict is about to be carried out on is not what was agreed on.
        self.agreed: Callable[[Subject], None] = lambda subject: None

    def subject(self, uid: int) -> Subject:
        """The subject with work to decide about of a user: who is isolated before who waits."""
        for sids in (self.fs.views, self.fs.waiting):
            subjects = [self.fs.subjects[sid] for sid in sids]
            for subject in sorted(subjects, key=lambda one: one.part_of is not None):
                if subject.uid == uid:
                    return subject
        raise NoSubject(f"user {uid} is not a suspect; isoctl status shows who is")

    @contextlib.contextmanager
    def held(self, subject: Subject) -> Iterator[None]:
        """Let a subject's calls wait, if a verdict on what it has changed until then is `agreed`."""
        with self._adapter.held(subject.sid):
            self.agreed(subject)
            yield

    def stopped(self, subject: Subject) -> bool:
        """Whether a verdict on a subject was stopped half way, and waits to be gone on with."""
        return unfinished.under_way(self.fs, subject) and not self._adapter.holds(subject.part_of or subject.sid)

    async def merge_all(self, subject: Subject, report: Report, progress: Progress) -> None:
        """Merge all that a subject did, and end the suspicion, but for what is in conflict."""
        view, found = self.fs.view_of(subject.sid), dict[Op, Resolution]()
        assert view is not None
        # Before the subject's calls wait: they do so for seconds only, and its pages are written back by calls.
        await self.let_go(subject, await looked(lambda: resolutions.contested(self.fs, view)), progress)
        await self.forget_pages(subject)
        try:
            with self.held(subject):
                await self.merge_held(subject, found, report, progress)
            await settling.keep_both(self.fs, self.cache, subject.sid, found, report)
        finally:
            resolving.remove_unused(self.fs, view, found)
        await self.cache.drained()
        await self.forget_pages(subject)

    async def merge_held(
        self,
        subject: Subject,
        found: dict[Op, Resolution],
        report: Report,
        progress: Progress,
        settled: Sequence[Op] = (),
    ) -> None:
        """The same while the subject's calls wait. Nobody is asked about what is `settled`."""
        view = self.fs.view_of(subject.sid)
        assert view is not None
        await copying.give_data(self.fs, view)
        await self.write_back()
        contested = await in_slices(resolutions.contested(self.fs, view))
        await self.asking(subject, found, progress, write=True)([op for op in contested if op not in settled])
        mapped = await self.mapped(subject)
        await self.carry_out(apply.merge_steps(self.fs, subject.sid, report, mapped, found), progress)

    async def write_back(self) -> None:
        """Write in a thread what a merge will have on the disk before it begins, so that it need not wait for long."""
        with contextlib.suppress(OSError):  # the merge tries it itself, and says so
            await trio.to_thread.run_sync(self.fs.store.sync_contents)

    def asking(
        self, subject: Subject, found: dict[Op, Resolution], progress: Progress, *, write: bool = False
    ) -> partly.Ask:
        """Asks resolvers about what a subject and main changed; what they answer is in `found`."""
        view = self.fs.view_of(subject.sid)
        assert view is not None

        async def ask(contested: Sequence[Op]) -> Mapping[Op, Resolution]:
            using = self._live.rules()
            await resolutions.ask(self.fs, self.cache, view, contested, using, self.mount, found, progress, write=write)
            return found

        return ask

    async def let_go(self, subject: Subject, contested: Sequence[Op], progress: Progress) -> None:
        """Wait for programs that have contested files locked."""
        view = self.fs.view_of(subject.sid)
        assert view is not None
        await resolutions.let_go(self.fs, view, contested, self._live.rules(), self.mount, progress)

    async def merge_part(self, subject: Subject, asked: Asked, report: Report, progress: Progress) -> Partial:
        """Merge a part of what a suspect did, who goes on being one and whose calls wait meanwhile."""
        view, found = partly.view_of(self.fs, subject), dict[Op, Resolution]()
        await self.let_go(subject, (await partly.found(self.fs, subject, asked)).conflicts, progress)
        await self.forget_pages(subject)
        try:
            with self.held(subject):
                there = await partly.found(self.fs, subject, asked, self.asking(subject, found, progress, write=True))
                part = await self.merge_chosen(subject, there, asked.words, report, progress)
            if part.sid:
                await settling.keep_both(self.fs, self.cache, part.sid, found, report)
        finally:
            resolving.remove_unused(self.fs, view, found)
        await self.cache.drained()
        await self.forget_pages(subject)
        return there

    async def merge_chosen(
        self, subject: Subject, there: Partial, words: str, report: Report, progress: Progress
    ) -> split.Part:
        """Merge what was chosen; what stays after all is among what is left."""
        await copying.give_data(self.fs, self.fs.views[subject.sid], there.chosen)
        await self.write_back()
        part = split.merged(subject.sid, words, wire.moment(time.time()))
        await self.carry_out(split.merge_steps(self.fs, part, there, report), progress)
        there.left.extend(part.left)
        return part

    async def discard_chosen(
        self, subject: Subject, there: Discarded, words: str, report: Report, progress: Progress
    ) -> SubjectId:
        """Discard what was chosen, of which the evidence is safe. `Store.remove_discarded` is due after it."""
        part = split.discarded(subject.sid, words, wire.moment(time.time()))
        await self.carry_out(split.discard_steps(self.fs, part, there, report), progress)
        return part.sid

    async def finish_parts(self, subject: Subject, report: Report, progress: Progress) -> bool:
        """Finish the verdicts on parts of a subject's work that the host stopped half way. Whether there were any."""
        parts = [s for s in self.fs.subjects.values() if s.part_of == subject.sid and s.sid in self.fs.views]
        for part in parts:
            with self.held(subject):
                await self.carry_out(split.finish_steps(self.fs, part.sid, report), progress)
            await trio.to_thread.run_sync(self.fs.store.remove_discarded, part.sid)
        return bool(parts)

    async def counts(self, subject: Subject, ops: Collection[Op] | None = None) -> Counter[str]:
        """How much a subject changed, or of these objects, by kind of change; nothing if its discarding has begun."""
        view = self.fs.view_of(subject.sid)
        assert view is not None
        if subject.state is SubjectState.DISCARDING:
            return Counter()
        lines = await looked(lambda: changed.gather(self.fs, view))
        return Counter(line.change for line in lines if ops is None or line.op in ops)

    async def mapped(self, subject: Subject) -> frozenset[int]:
        """The subject's nodes that processes have mapped writable: what is in their pages may not reach main."""
        nodes = [n for n in self.fs.nodes.values() if n.sid == subject.sid and n.handles]
        if not nodes:
            return frozenset()
        inos = {number for n in nodes for number in (n.id, n.obj.ino)}
        found = await trio.to_thread.run_sync(processes.mapped, self.mount, inos)
        return frozenset(n.id for n in nodes if n.id in found or n.obj.ino in found)

    async def carry_out(self, steps: Iterator[tuple[int, int]], progress: Progress) -> None:
        """Go through the steps of a verdict, then let go on whoever waited for its end."""
        try:
            async for done, total in each(steps):
                progress(done, total)
        finally:
            self._adapter.verdict_ended()

    async def forget_pages(self, subject: Subject) -> None:
        """Have the pages of the subject's open files written back and dropped."""
        for node in list(self.fs.nodes.values()):
            if node.sid == subject.sid and node.handles:
                await self.cache.forget_data(node.id)
