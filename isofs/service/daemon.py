"""The daemon: one process per mount, from the first look at the directory to the last closed descriptor."""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection
from typing import TypedDict

import trio

from isofs.control import mounts, results, server
from isofs.engine import usage
from isofs.engine.state import Filesystem
from isofs.errors import IsofsError
from isofs.fuse import loop, mounting
from isofs.fuse.adapter import Adapter
from isofs.fuse.cache import KernelCache
from isofs.service import health, limiting, logs, notify, reviews
from isofs.service.access import Access, identified
from isofs.service.alerts import Alerts
from isofs.service.attic import Attic
from isofs.service.auditing import Auditing
from isofs.service.backup import Backups
from isofs.service.commands import Commands
from isofs.service.deciding import Deciding
from isofs.service.events import Event, Events, Kind
from isofs.service.hooks import Hooks
from isofs.service.live import Live
from isofs.service.loglevel import LogLevel
from isofs.service.opening import Opening
from isofs.service.place import Place, ends_later
from isofs.service.proposals import Proposals
from isofs.service.reports import Reports
from isofs.service.returning import Returning
from isofs.service.serving import in_slices
from isofs.service.starting import check_directory
from isofs.service.suspects import Suspects
from isofs.service.trail import Trail

log = logging.getLogger(__name__)

#: Descriptors that the daemon asks for; the system may give less.
_DESCRIPTORS = 1 << 20


class Served(TypedDict):
    """What is said when the mount answers."""

    pid: int
    degraded: results.Degraded | None


def serve(directory: str, store: str, ready: Callable[[Served], None], *, trust_everybody: bool = False) -> None:
    """Open the store, mount, serve until unmounted, close. `ready` is called when the mount answers.

    Where a dead daemon's mount is, this one takes its place before the store is read: whoever asks meanwhile waits.
    """
    os.umask(0)
    _raise_descriptor_limit()
    with ends_later() as ended:
        session = mounting.prepare(directory)
        check_directory(directory)
        gc.disable()  # nothing that is read is garbage
        opening = Opening(directory, store, trust_everybody=trust_everybody)
        with contextlib.closing(opening):
            try:
                _run(opening, session, ended, ready)
            finally:
                mounting.withdraw(session)  # SQLite opens its files by a path that would lead into it


def _run(opening: Opening, session: mounting.Session, ended: Collection[int], ready: Callable[[Served], None]) -> None:
    try:
        trio.run(_serve, opening, session, Place(session, ended), ready)
    except BaseExceptionGroup as group:
        # A nursery wraps what ends it; whoever started us wants to know what it was.
        expected: BaseException | None = group.subgroup(IsofsError)
        while isinstance(expected, BaseExceptionGroup):
            expected = expected.exceptions[0]
        if expected is None:
            raise
        raise expected from group


def _let_garbage_be_young() -> None:
    """Search for cycles among what was made lately only: nodes are freed without, and a search of a million of them,
    several objects each, would keep everybody waiting for seconds."""
    gc.freeze()
    gc.set_threshold(5000, 10, 1 << 30)
    gc.enable()


def _raise_descriptor_limit() -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(opening: Opening, session: mounting.Session, place: Place, ready: Callable[[Served], None]) -> None:
    adapter = Adapter()
    mounting.mount(session)
    # If this ends by an error, the mount stays and answers nobody: until the next daemon nobody comes to main.
    async with contextlib.AsyncExitStack() as last:
        last.callback(place.close)
        with loop.connected(adapter, session):
            async with trio.open_nursery() as nursery:

                async def begin() -> bool:
                    """Show the mount, at once if people wait for it; let everything begin. Whether to go on."""
                    await place.take_out()
                    if session.replaces:
                        await place.show()
                    await nursery.start(place.leave_on_signal)
                    fs = await _read(opening)
                    if not place.leaving:
                        await _offer(fs, adapter, session, place, nursery, last)
                        await place.show()
                    if not place.leaving:
                        nursery.start_soon(notify.keep_telling, session)
                        _tell_ready(fs, session, ready)
                    return not place.leaving

                await loop.serve(adapter, session, begin)
                notify.tell("STOPPING=1")
                nursery.cancel_scope.cancel()


async def _read(opening: Opening) -> Filesystem:
    """What is in the store; meanwhile nobody can be answered, but this is told to be alive, and can be told to end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notify.keep_telling_by_itself, "STATUS=reading the store")
        fs = await trio.to_thread.run_sync(opening.read)
        nursery.cancel_scope.cancel()
    _let_garbage_be_young()
    return fs


async def _offer(
    fs: Filesystem,
    adapter: Adapter,
    session: mounting.Session,
    place: Place,
    nursery: trio.Nursery,
    last: contextlib.AsyncExitStack,
) -> None:
    """Wire everything together, and begin all that goes on beside the answering of requests."""
    cache = KernelCache(session.device)
    fs.kernel = cache
    adapter.answer_for(fs)
    live, events = Live(fs.store), Events()
    limiting.follow(fs, live, events)
    commands = Commands(fs, adapter, cache, session.directory, place.unmount, live, events)
    attic = Attic(fs, live)
    backups = Backups(fs, adapter, session.directory, commands.verdicts.lock)
    alerts = Alerts(fs, commands.suspect, live, events)
    hooks = Hooks(session.directory, session.namespace, live, events)
    deciding = Deciding(commands.verdicts, commands.readable, events)
    reports = Reports(fs, live, commands.readable)
    returning = Returning(fs, commands.verdicts.lock, session.directory)
    offered = (commands, attic, backups, alerts, deciding, reports)
    besides = (returning, Suspects(fs), LogLevel(live), Trail(fs))
    calls = {name: call for one in (*offered, *besides) for name, call in one.handlers().items()}
    fresh = health.guarded(fs, {name: live.fresh(call) for name, call in calls.items()})
    socket_path = mounts.socket_for(session.directory)
    access = Access(fs, live, socket_path)
    proposals = Proposals(fs, live, access, fresh)
    commands.verdicts.agreed = proposals.agreed
    handlers = identified(fresh) | health.guarded(fs, proposals.handlers())
    auditing = Auditing(fs, adapter, session.directory, live.now.audit)
    last.push_async_callback(auditing.close)
    live.subscribe(auditing.changed)
    commands.isolated, commands.recorded = auditing.isolated, auditing.written

    def told() -> None:
        degraded = health.degraded(fs)
        facts = {"what": "store", "problem": degraded["reason"] if degraded else None}
        events.tell(Event(Kind.FAILURE, {**facts, "suspects": degraded["suspects"] if degraded else None}))
        notify.tell(f"STATUS={health.sentence(degraded)}")

    fs.on_change_of_state = told
    nursery.start_soon(cache.run)
    nursery.start_soon(hooks.run)
    nursery.start_soon(commands.late_locks.run)
    listen = functools.partial(server.serve, admit=access.admit, groups=access.groups.all, record=auditing.control)
    await nursery.start(listen, socket_path, handlers)
    if fs.failure is None:
        nursery.start_soon(auditing.run)
        nursery.start_soon(reviews.remind, fs, live, events)
        nursery.start_soon(in_slices, usage.count_all(fs))
        nursery.start_soon(reports.forget_old)
        nursery.start_soon(attic.forget_old)


def _tell_ready(fs: Filesystem, session: mounting.Session, ready: Callable[[Served], None]) -> None:
    degraded = health.degraded(fs)
    ready({"pid": os.getpid(), "degraded": degraded})
    log.info("serving %s, store %s, %s", session.directory, fs.store.path, health.sentence(degraded))
    notify.tell("READY=1", f"STATUS={health.sentence(degraded)}")


def _reopen_on_hangup(log_file: logs.StoreLog) -> None:
    """SIGHUP: whoever moved the log away wants a new one."""
    signal.signal(signal.SIGHUP, lambda *_: log_file.reopen())


def _main() -> None:
    """The daemon's process: whoever starts it is told by `--ready` how that went. With `--wait` it begins when told to,
    and has loaded everything by then."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("store")
    parser.add_argument("--ready", type=int)
    parser.add_argument("--wait", type=int)
    parser.add_argument("--foreground", action="store_true")
    parser.add_argument("--trust-everybody", action="store_true")
    args = parser.parse_args()
    gc.collect()
    if args.wait is not None and not os.read(args.wait, 1):
        return  # it is not needed
    answers = None if args.ready is None else open(args.ready, "w", encoding="utf-8")  # noqa: SIM115
    if args.foreground:
        logs.to_standard_error()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # there is no file to begin anew
    elif answers is None:
        _reopen_on_hangup(logs.to_store(args.store))
    else:
        logs.until_served()

    def ready(facts: Served) -> None:
        if answers is not None:
            if not args.foreground:
                _reopen_on_hangup(logs.to_store(args.store))
            answers.write(json.dumps(facts) + "\n")
            answers.close()

    try:
        serve(args.directory, args.store, ready, trust_everybody=args.trust_everybody)
    except IsofsError as error:
        if answers is None or answers.closed:
            log.error("%s", error)
        else:
            answers.write(json.dumps({"error": error.code, "message": str(error)}) + "\n")
            answers.close()
        sys.exit(error.exit)


if __name__ == "__main__":
    _main()
