"""What the control socket offers of the attic, and the daemon's own care for it: an age limit."""

from __future__ import annotations

import contextlib
import logging
import stat
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from isofs.control import wire
from isofs.engine import attic as engine
from isofs.engine.state import Filesystem
from isofs.errors import AtticFailed, CallError, IsofsError, UsageError
from isofs.merge import restore
from isofs.model.ages import Ages, looked, older
from isofs.model.records import MAIN, Stowed
from isofs.service import answers
from isofs.service.live import Live
from isofs.store import attic, inodes

log = logging.getLogger(__name__)

#: Seconds; there is a look for what is too old every hour, so that a daemon that is killed forgets no more than that.
_DAY, _HOUR = 86400, 3600

#: Entries that are answered at once, and that are forgotten at a stretch: some milliseconds each.
_PAGE, _SLICE = 200, 100

Args = Mapping[str, object]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Restoring:
    """What an operator asked for, and what came of it: entries and where they are now, what those replaced, and
    what could not come back, with the reason."""

    operator: str
    replace: bool
    restored: list[tuple[Stowed, bytes]] = field(default_factory=list)
    replaced: list[Stowed] = field(default_factory=list)
    left: list[tuple[Stowed, bytes, str]] = field(default_factory=list)

    def result(self) -> answers.Result:
        return {
            "restored": [{"number": one.number, "path": wire.path_text(path)} for one, path in self.restored],
            "stowed": self.replaced[-1].number if self.replaced else None,
            "replaced": [{"number": one.number, "path": wire.path_text(one.path)} for one in self.replaced],
            "left": [
                {"number": one.number, "path": wire.path_text(path), "reason": reason}
                for one, path, reason in self.left
            ],
        }


class Attic:
    """The calls on the attic of one mounted file system."""

    def __init__(self, fs: Filesystem, live: Live) -> None:
        self._fs, self._live = fs, live
        self._looked = time.monotonic()

    def handlers(self) -> dict[str, Callable[[Args, Progress], Awaitable[answers.Result]]]:
        return {"attic": self.page, "attic_restore": self.restore, "attic_purge": self.purge}

    async def page(self, args: Args, progress: Progress) -> answers.Result:
        """The newest entries, or the newest below a number; at a path and below it, if one is given."""
        path = wire.path_bytes(wire.optional(args, "path", str) or "")
        found = attic.page(self._fs.store.database, wire.optional(args, "before", int), _PAGE + 1, path)
        return {"entries": [answers.stowed(entry) for entry in found[:_PAGE]], "more": len(found) > _PAGE}

    async def restore(self, args: Args, progress: Progress) -> answers.Result:
        """Bring an entry back, after the directories on its way that main lacks and the attic has.

        Of a directory also what was below it and the same merge took: each thing by itself, and what cannot come back
        is left in the attic.
        """
        given, replace = wire.optional(args, "as", str), bool(wire.optional(args, "replace", bool))
        doing = _Restoring(wire.words(args, "by") or "root", replace)
        top, tree = self._chosen(args)
        to = top if given is None else wire.path_bytes(given)
        if len(tree) == 1 and tree[0].path == top:
            await self._restore(tree[0], to, doing)
            return doing.result()
        restore.missing_above(self._fs, to)  # whether there is a way at all
        for done, entry in enumerate(tree, 1):
            path = to + entry.path[len(top) :]
            try:
                if attic.entry(self._fs.store.database, entry.number) is not None:  # else it came back meanwhile
                    await self._restore(entry, path, doing)
            except AtticFailed as error:
                doing.left.append((entry, path, str(error)))
            progress(done, len(tree))
            await trio.lowlevel.checkpoint()
        log.info("restored %d things below %s, %d left", len(doing.restored), wire.path_text(to), len(doing.left))
        return doing.result()

    def _chosen(self, args: Args) -> tuple[bytes, list[Stowed]]:
        """What a call names by number or path: an entry, or a directory with all that its merge took from it.

        The path, too, that the entries were at or below.
        """
        number, path = wire.optional(args, "number", int), wire.optional(args, "path", str)
        if (number is None) == (path is None):
            raise UsageError("give either a number or a path")
        database = self._fs.store.database
        if number is not None:
            found, top, named = attic.entry(database, number), None, f"number {number}"
        else:
            top, named = wire.path_bytes(path or ""), str(path)
            found = attic.newest(database, top)
            if found is None or stat.S_ISDIR(found.kind):
                found = attic.newest_merged(database, top) or found
        if found is None:
            raise AtticFailed(f"the attic does not have {named}: see `isoctl attic list`")
        if top is None:
            top = found.path
        if found.sid == MAIN or (found.path == top and not stat.S_ISDIR(found.kind)):
            return top, [found]
        tree = attic.of_merge(database, found.sid, top)
        return top, [found if one.path == found.path else one for one in tree] or [found]

    async def _restore(self, entry: Stowed, path: bytes, doing: _Restoring) -> None:
        """Bring one entry back, after what it needs."""
        wanted = [(self._directory(above), above) for above in restore.missing_above(self._fs, path)]
        if not wanted:
            restore.check_free(self._fs, path, replace=doing.replace)
        for one, to in [*wanted, (entry, path)]:
            stowed = await self._bring(one, to, doing.replace, doing.operator)
            doing.restored.append((one, to))
            if stowed is not None:
                doing.replaced.append(stowed)

    def _directory(self, path: bytes) -> Stowed:
        found = attic.newest(self._fs.store.database, path)
        if found is None or not stat.S_ISDIR(found.kind):
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
        """Remove what has been in the attic for a number of seconds, or everything."""
        age = wire.optional(args, "older_than", int)
        total = attic.totals(self._fs.store.database)[0]
        entries, size = await self._purge(age, lambda done: progress(done, total))
        return {"entries": entries, "bytes": size}

    async def _purge(self, age: int | None, progress: Callable[[int], None]) -> tuple[int, int]:
        upto = older(self._look(), age) if age else None
        entries = size = 0
        while found := engine.purge(self._fs, upto, _SLICE):
            await trio.to_thread.run_sync(_remove, self._fs, found)  # of a large file it takes long
            entries, size = entries + len(found), size + sum(entry.size for entry in found)
            progress(entries)
        if entries:
            log.info("removed %d entries from the attic", entries)
        return entries, size

    def _look(self) -> Ages:
        """How old entries are now. What the daemon did not see pass does not count."""
        now = time.monotonic()
        database = self._fs.store.database
        ages = looked(attic.ages(database), now - self._looked, *attic.bounds(database))
        attic.set_ages(database, ages)
        self._looked = now
        return ages

    async def forget_old(self) -> None:
        """Keep the age limit, for as long as the daemon runs."""
        try:
            while True:
                self._live.refresh()
                try:
                    await self._purge(self._live.now.attic_days * _DAY, lambda done: None)
                except (OSError, IsofsError) as error:
                    log.error("what is too old could not be removed from the attic: %s", error)
                await trio.sleep(_HOUR)
        finally:
            with contextlib.suppress(OSError, IsofsError):
                self._look()


def _remove(fs: Filesystem, entries: Sequence[Stowed]) -> None:
    for entry in entries:
        inodes.remove(fs.store.stowed(entry.number))
