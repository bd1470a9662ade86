"""What the control socket offers of the attic, and the daemon's own care for it: an age limit."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from isofs.control import wire
from isofs.engine import attic as engine
from isofs.engine.state import Filesystem
from isofs.errors import AtticFailed, CallError, IsofsError, UsageError
from isofs.merge import restore
from isofs.model.records import Stowed
from isofs.service import answers
from isofs.service.live import Live
from isofs.store import attic, inodes

log = logging.getLogger(__name__)

#: Seconds of a day, after which there is another look for what is too old.
_DAY = 86400

#: Entries that are answered at once, and that are forgotten at a stretch: some milliseconds each.
_PAGE, _SLICE = 200, 100

#: Later than every entry.
_EVER = "9999"

Args = Mapping[str, object]
Progress = Callable[[int, int], None]


class Attic:
    """The calls on the attic of one mounted file system."""

    def __init__(self, fs: Filesystem, live: Live) -> None:
        self._fs, self._live = fs, live

    def handlers(self) -> dict[str, Callable[[Args, Progress], Awaitable[answers.Result]]]:
        return {"attic": self.list, "attic_restore": self.restore, "attic_purge": self.purge}

    async def list(self, args: Args, progress: Progress) -> answers.Result:
        """The newest entries, or the newest below a number."""
        found = attic.page(self._fs.store.database, wire.optional(args, "before", int), _PAGE + 1)
        return {"entries": [answers.stowed(entry) for entry in found[:_PAGE]], "more": len(found) > _PAGE}

    async def restore(self, args: Args, progress: Progress) -> answers.Result:
        """Bring an entry back, after the directories on its way that main lacks and the attic has."""
        entry = self._chosen(args)
        given, replace = wire.optional(args, "as", str), bool(wire.optional(args, "replace", bool))
        path = entry.path if given is None else wire.path_bytes(given)
        wanted = [(self._directory(above), above) for above in restore.missing_above(self._fs, path)]
        if not wanted:
            restore.check_free(self._fs, path, replace=replace)
        wanted.append((entry, path))
        operator = wire.optional(args, "by", str) or "root"
        for one, to in wanted:
            stowed = await self._bring(one, to, replace, operator)
        return {
            "restored": [{"number": one.number, "path": wire.path_text(to)} for one, to in wanted],
            "stowed": None if stowed is None else stowed.number,
        }

    def _chosen(self, args: Args) -> Stowed:
        number, path = wire.optional(args, "number", int), wire.optional(args, "path", str)
        if (number is None) == (path is None):
            raise UsageError("give either a number or a path")
        database = self._fs.store.database
        if number is not None:
            found, named = attic.entry(database, number), f"number {number}"
        else:
            found, named = attic.newest(database, wire.path_bytes(path or "")), str(path)
        if found is None:
            raise AtticFailed(f"the attic does not have {named}: see `isoctl attic list`")
        return found

    def _directory(self, path: bytes) -> Stowed:
        found = attic.newest(self._fs.store.database, path)
        if found is None or answers.stowed(found)["kind"] != "directory":
            raise AtticFailed(
                f"the directory {wire.path_text(path)} is not there, nor in the attic: "
                "make it, or give another place with --as"
            )
        return found

    async def _bring(self, entry: Stowed, path: bytes, replace: bool, operator: str) -> Stowed | None:
        copy = None
        try:
            if restore.must_copy(self._fs, entry):
                copy = restore.place_for_copy(self._fs)
                await trio.to_thread.run_sync(inodes.copy, self._fs.store.stowed(entry.number), copy)
                if attic.entry(self._fs.store.database, entry.number) is None:
                    raise AtticFailed(f"number {entry.number} has left the attic meanwhile")
            return restore.restore(self._fs, entry, path, replace=replace, operator=operator, copy=copy)
        except (OSError, CallError) as error:
            problem = error.strerror if isinstance(error, OSError) else str(error)
            raise AtticFailed(f"{wire.path_text(path)} cannot be restored: {problem}") from error
        finally:
            if copy is not None:
                inodes.remove(copy)

    async def purge(self, args: Args, progress: Progress) -> answers.Result:
        """Remove what is older than a number of seconds, or everything."""
        age = wire.optional(args, "older_than", int)
        total = attic.totals(self._fs.store.database)[0]
        entries, size = await self._purge(age, lambda done: progress(done, total))
        return {"entries": entries, "bytes": size}

    async def _purge(self, age: int | None, progress: Callable[[int], None]) -> tuple[int, int]:
        before = wire.moment(max(0, time.time() - age)) if age else _EVER
        entries = size = 0
        while found := engine.purge(self._fs, before, _SLICE):
            await trio.to_thread.run_sync(_remove, self._fs, found)  # of a large file it takes long
            entries, size = entries + len(found), size + sum(entry.size for entry in found)
            progress(entries)
        if entries:
            log.info("removed %d entries from the attic", entries)
        return entries, size

    async def forget_old(self) -> None:
        """Keep the age limit, for as long as the daemon runs."""
        while True:
            self._live.refresh()
            try:
                await self._purge(self._live.now.attic_days * _DAY, lambda done: None)
            except (OSError, IsofsError) as error:
                log.error("what is too old could not be removed from the attic: %s", error)
            await trio.sleep(_DAY)


def _remove(fs: Filesystem, entries: Sequence[Stowed]) -> None:
    for entry in entries:
        inodes.remove(fs.store.stowed(entry.number))
