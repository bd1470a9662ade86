"""Locks that suspects take after the suspicion on what they had open before: the kernel asks nobody for them.

Such a descriptor stays on main's node, which trusted users lock as well. So for as long as there are any, locks are
looked for, and whoever holds one is dealt with as `isoctl suspect --handles` said of who holds one at that moment.

So is who comes by a descriptor that no process was seen to hold when it was revoked: what is written to a map of it
reaches the daemon too late to be refused without a trace.
"""

from __future__ import annotations

import logging
from collections import defaultdict

import trio

from isofs.control import wire
from isofs.engine import views
from isofs.engine.state import Filesystem
from isofs.fuse.cache import KernelCache
from isofs.model.records import MAIN, SubjectId
from isofs.service import locks, processes
from isofs.service.processes import Holder

log = logging.getLogger(__name__)

#: Seconds between two looks, and so about the longest that a suspect's lock holds up a trusted user.
INTERVAL = 1.0


class LateLocks:
    """Looks after the locks of the suspects of one mount."""

    def __init__(self, fs: Filesystem, cache: KernelCache, mount: str) -> None:
        self._fs, self._cache, self._mount = fs, cache, mount
        self._device: tuple[int, int] | None = None
        self._handles: dict[int, str] = {}  # by uid, how to deal with its processes
        self._told: set[tuple[int, int]] = set()  # processes and files that were written of in the log

    def begins(self, uid: int, handles: str) -> None:
        """A user is isolated; `handles` is what `isoctl suspect` was told. Nobody is dealt with before."""
        self._handles[uid] = handles

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            await trio.sleep(INTERVAL)
            try:
                await self._look()
                await self._look_for_revoked()
            except Exception:  # other suspects' locks, and the next look, must not suffer
                log.exception("locks could not be looked after")

    async def _look(self) -> None:
        shared = self._shared()
        if not shared:
            return
        if self._device is None:
            self._device = await trio.to_thread.run_sync(processes.device_of, self._mount)
        files = {number: path for of_one in shared.values() for number, path in of_one.items()}
        locked = await trio.to_thread.run_sync(locks.held, self._device, files)
        if not locked:
            return
        found = await trio.to_thread.run_sync(processes.lockers_of, self._mount, {n: files[n] for n in locked})
        for sid, of_one in shared.items():
            subject = self._fs.subjects.get(sid)
            if subject is not None and sid in self._fs.views and subject.uid in self._handles:
                self._deal(subject.name, subject.uid, [h for h in found if subject.uid in h.uids and h.inode in of_one])

    async def _look_for_revoked(self) -> None:
        revoked = [h for h in self._fs.handles.values() if h.revoked and h.sid in self._fs.views]
        if not revoked:
            return
        files = {h.node.id: wire.path_text(views.path(self._fs, MAIN, h.node.obj) or b"(deleted)") for h in revoked}
        owners = {(h.node.id, h.uid) for h in revoked}
        found = await trio.to_thread.run_sync(processes.holders_of, self._mount, files)
        theirs = [h for h in found if any((h.inode, uid) in owners for uid in h.uids)]
        for holder in theirs:
            log.warning("%r was open where no process showed it: pid %d is killed", holder.path, holder.pid)
        processes.kill({holder.pid for holder in theirs})
        for number in {holder.inode for holder in theirs}:
            await self._cache.forget_data(number)

    def _shared(self) -> dict[SubjectId, dict[int, str]]:
        """By suspect, the nodes of main's that it has open since before the suspicion, and their paths."""
        found: dict[SubjectId, dict[int, str]] = defaultdict(dict)
        for handle in self._fs.handles.values() if self._fs.views else ():
            if handle.before and handle.sid in self._fs.views:
                node = handle.node
                found[handle.sid][node.id] = wire.path_text(views.path(self._fs, MAIN, node.obj) or b"(deleted)")
        return found

    def _deal(self, name: str, uid: int, holders: list[Holder]) -> None:
        kills = self._handles[uid] == "kill"
        for holder in holders:
            if (holder.pid, holder.inode) not in self._told:
                self._told.add((holder.pid, holder.inode))
                what = "is killed" if kills else "is left"
                log.warning("%s locked %r, open since before: pid %d %s", name, holder.path, holder.pid, what)
        if kills:
            processes.kill({holder.pid for holder in holders})
