"""The audit trail as the control socket offers it: for those who may look, and cannot enter the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import trio

from isofs.audit import paging, reads
from isofs.audit.paging import Page
from isofs.control import results, wire
from isofs.engine.state import Filesystem
from isofs.errors import UsageError

Args = Mapping[str, object]
Progress = Callable[[int, int], None]

#: Pages that are made at once, whoever asks: a thread and some MiB each.
_AT_ONCE = 2


class Trail:
    """The calls `log` and `reads` on one mounted file system: pages of lines, which whoever asks looks through."""

    def __init__(self, fs: Filesystem) -> None:
        self._fs, self._limit = fs, trio.CapacityLimiter(_AT_ONCE)

    def handlers(self) -> dict[str, Callable[[Args, Progress], Awaitable[Mapping[str, object]]]]:
        return {"log": self.log, "reads": self.reads}

    async def log(self, args: Args, progress: Progress) -> Mapping[str, object]:
        """Lines of the trail from a place on; from the beginning without what is before a time for sure."""
        since = wire.optional(args, "since", str) or ""
        return await self._page(args, lambda folder, file, at: paging.of_trail(folder, since, file, at))

    async def reads(self, args: Args, progress: Progress) -> Mapping[str, object]:
        """Lines of the read sets, or of one suspicion's, from a place on, and when reads were not recorded."""
        only = wire.optional(args, "subject", int)
        page = await self._page(args, lambda folder, file, at: paging.of_reads(folder, only, file, at))
        gaps = await trio.to_thread.run_sync(reads.gaps, self._fs.store.folders[b"audit"], "")
        return {**page, "gaps": gaps}

    async def _page(self, args: Args, make: Callable[[int, int, int], Page]) -> Mapping[str, object]:
        file, at = wire.optional(args, "file", int) or 0, wire.optional(args, "at", int) or 0
        if file < 0 or at < 0:
            raise UsageError("a place in the audit trail is told by a page of it")
        folder = self._fs.store.folders[b"audit"]
        page = await trio.to_thread.run_sync(partial(make, folder, file, at), limiter=self._limit)
        lines = [line.decode("utf-8", "surrogateescape") for line in page.lines]
        facts: results.Lines = {"lines": lines, "file": page.file, "at": page.at, "more": page.more}
        return dict(facts)
