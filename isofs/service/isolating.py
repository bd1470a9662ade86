"""Isolating a user: from one moment on, with the files that the user holds open."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import trio

from isofs.control import results, wire
from isofs.engine import suspicion, views
from isofs.engine.state import Filesystem, Obj
from isofs.errors import HandlesOpen, IsofsError, UsageError
from isofs.fuse.cache import KernelCache
from isofs.model.records import MAIN, Subject
from isofs.service import processes

log = logging.getLogger(__name__)

Args = Mapping[str, object]

#: Seconds that killed processes may take to let go of their files.
KILL_PATIENCE = 10.0

#: Seconds after which a file that no process is seen to hold is taken to be held by whoever maps it.
MAP_PATIENCE = 1.0


class StillOpen(IsofsError):
    """A user is isolated, but what was open could not be closed; `done` is what there is to answer all the same."""

    def __init__(self, done: results.Suspected) -> None:
        super().__init__(
            f"user {done['uid']} is isolated, but some of the files locked, or open for reading and writing, could "
            "not be closed: what is written through them still reaches main"
        )
        self.done = done


async def suspect(
    fs: Filesystem, cache: KernelCache, mount: str, args: Args, isolated: Callable[[Subject], None]
) -> results.Suspected:
    """Isolate a user from now on, and deal with the files that the user has open for reading and writing.

    `isolated` hears of it while everything that was open still is.
    """
    uid, name = wire.argument(args, "uid", int), wire.plain(wire.argument(args, "user", str))
    reason = wire.words(args, "reason")
    policy = wire.optional(args, "handles", str) or "kill"
    if policy not in ("kill", "refuse", "leave"):
        raise UsageError(f"handles is kill, refuse or leave, not {policy!r}")
    before = {h.node.id: _path_of(fs, h.node.obj) for h in suspicion.handles_of(fs, uid)}
    held = await _lockers(mount, uid, before) + await _given(fs, mount, uid)
    writers = suspicion.shared_writers(fs, uid)
    if (writers or held) and policy == "refuse":
        open_files = sorted({_path_of(fs, h.node.obj) for h in writers} | {h.path for h in held})
        raise HandlesOpen(
            f"{name} has files locked, or open for reading and writing, which cannot be isolated: "
            + ", ".join(open_files[:5])
            + "; nothing was changed"
        )
    since = wire.moment(datetime.now(UTC).timestamp())
    subject = suspicion.suspect(fs, uid, name, reason, since)
    isolated(subject)
    log.warning("%s (uid %d) is isolated: %s", name, uid, reason or "no reason given")
    for node in fs.channels:
        for directory, entry in node.obj.links:
            for parent in directory.nodes:
                cache.forget_entry(parent.id, entry)
    found = await _holders(fs, mount, uid) if writers else []
    found += await _lockers(mount, uid, before)  # once more: until now locks could be taken
    found += await _given(fs, mount, uid)
    killed = policy == "kill"
    closed = not killed or not (writers or found) or await _kill(fs, mount, uid, found, before)
    await cache.drained()
    listed: list[results.OpenFile] = [
        {"pid": h.pid, "program": h.program, "path": h.path} for h in dict.fromkeys(found)
    ]
    done: results.Suspected = {
        "user": subject.name,
        "uid": uid,
        "since": since,
        "killed": listed if killed and closed else [],
        "left": [] if killed and closed else listed,
    }
    if not closed:
        raise StillOpen(done)
    return done


def _path_of(fs: Filesystem, obj: Obj) -> str:
    return wire.path_text(views.path(fs, MAIN, obj) or b"(deleted)")


async def _holders(fs: Filesystem, mount: str, uid: int, *, mapping: bool = False) -> list[processes.Holder]:
    """Who holds what the user has open for reading and writing; the user's processes that map it, if `mapping`.

    Another user's process counts if nothing else explains what it holds: it was given the descriptor, or
    changed its uid.
    """
    inos = {h.node.id: _path_of(fs, h.node.obj) for h in suspicion.shared_writers(fs, uid)}
    if mapping:
        found = await trio.to_thread.run_sync(processes.mappers_of, mount, inos)
        return [h for h in found if uid in h.uids]
    found = await trio.to_thread.run_sync(processes.holders_of, mount, inos)
    handles = [h for h in fs.handles.values() if h.uid != uid and h.flags & os.O_ACCMODE == os.O_RDWR]
    others = {(h.node.id, h.uid) for h in handles}
    return [h for h in found if uid in h.uids or not any((h.inode, one) in others for one in h.uids)]


async def _lockers(mount: str, uid: int, files: Mapping[int, str]) -> list[processes.Holder]:
    """The user's processes that hold a lock on one of these files of main's: it would hold up trusted users."""
    found = await trio.to_thread.run_sync(processes.lockers_of, mount, files) if files else []
    return [h for h in found if uid in h.uids]


async def _given(fs: Filesystem, mount: str, uid: int) -> list[processes.Holder]:
    """The user's processes that could write through what another user opened and handed on: it stays that user's."""
    explained = {(h.node.id, h.flags & os.O_ACCMODE) for h in fs.handles.values() if h.uid == uid}
    others = {(h.node.id, h.flags & os.O_ACCMODE): h.node.obj for h in fs.handles.values() if h.uid != uid}
    if not any(way != os.O_RDONLY for _, way in others):
        return []
    found = await trio.to_thread.run_sync(processes.writing, mount, uid)
    return [
        replace(holder, path=_path_of(fs, others[holder.inode, way]))
        for holder, way in found
        if (holder.inode, way) in others and (holder.inode, way) not in explained
    ]


async def _kill(fs: Filesystem, mount: str, uid: int, found: list[processes.Holder], files: Mapping[int, str]) -> bool:
    """Kill who holds the user's files open for reading and writing, or locked. Whether nobody does any more.

    What no process is seen to hold is on its way from one to another, or kept by the kernel: it is made useless.
    """
    began = seen = trio.current_time()
    with trio.move_on_after(KILL_PATIENCE) as scope:
        while suspicion.shared_writers(fs, uid) or await _held(fs, mount, uid, files):
            processes.kill({h.pid for h in found})
            await trio.sleep(0.02)
            now = trio.current_time()
            late = now - began > MAP_PATIENCE
            more = await _holders(fs, mount, uid, mapping=late) + await _given(fs, mount, uid)
            found.extend(h for h in more if h not in found)
            if more or await _lockers(mount, uid, files):
                seen = now
            elif late and now - seen > MAP_PATIENCE:
                for handle in suspicion.revoke(fs, uid):
                    log.warning(
                        "%s is open where no process shows it: nothing can be written to it any more",
                        _path_of(fs, handle.node.obj),
                    )
                break
    return not scope.cancelled_caught


async def _held(fs: Filesystem, mount: str, uid: int, files: Mapping[int, str]) -> list[processes.Holder]:
    return await _lockers(mount, uid, files) or await _given(fs, mount, uid)
