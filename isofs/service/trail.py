"""The audit trail as the control socket offers it: for those who may look, and cannot enter the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from isofs.audit import chain, reading
from isofs.audit.reading import Wanted
from isofs.control import results, wire
from isofs.engine.state import Filesystem

Args = Mapping[str, object]
Progress = Callable[[int, int], None]

#: Lines that are answered at once, and bytes of them after which there are no more.
_LINES, _BYTES = 1000, 1 << 20


class Trail:
    """The call `log` on one mounted file system."""

    def __init__(self, fs: Filesystem) -> None:
        self._fs = fs

    def handlers(self) -> dict[str, Callable[[Args, Progress], Awaitable[Mapping[str, object]]]]:
        return {"log": self.log}

    async def log(self, args: Args, progress: Progress) -> Mapping[str, object]:
        """Lines from a time on and until another, about a user, those after the one of a number: a page of them."""
        since, until = wire.optional(args, "since", str) or "", wire.optional(args, "until", str) or "~"
        after = wire.optional(args, "after", int)
        wanted = Wanted(since, until, wire.optional(args, "uid", int))
        page = await trio.to_thread.run_sync(_page, self._fs.store.folders[b"audit"], wanted, after or 0)
        return dict(page)


def _page(folder: int, wanted: Wanted, after: int) -> results.Logged:
    """In a thread: what is compressed takes its time."""
    lines, size, more, since = list[str](), 0, False, wanted.since
    for line, fields in reading.records(folder, wanted):
        number = chain.number(line)
        if number is None or number <= after:
            continue
        if more := len(lines) == _LINES or size > _BYTES:
            break
        after, since, size = number, str(fields.get("@timestamp", since)), size + len(line)
        lines.append(line.decode("utf-8", "surrogateescape"))
    return {"lines": lines, "more": more, "last": after, "since": since}
