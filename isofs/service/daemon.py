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
from collections.abc import Callable, Iterator

import trio

from isofs.control import mounts, server
from isofs.engine import recovery
from isofs.engine.state import Filesystem
from isofs.errors import Busy, IsofsError
from isofs.fuse import loop, mounting
from isofs.fuse.adapter import Adapter
from isofs.fuse.cache import KernelCache
from isofs.service import limiting, reviews, unfinished
from isofs.service.access import Access, identified
from isofs.service.alerts import Alerts
from isofs.service.attic import Attic
from isofs.service.auditing import Auditing
from isofs.service.backup import Backups
from isofs.service.commands import Commands
from isofs.service.deciding import Deciding
from isofs.service.events import Events
from isofs.service.hooks import Hooks
from isofs.service.live import Live
from isofs.service.proposals import Proposals
from isofs.service.suspects import Suspects
from isofs.store.folder import open_store

log = logging.getLogger(__name__)

#: Descriptors that the daemon asks for; the system may give less.
_DESCRIPTORS = 1 << 20


def serve(directory: str, store: str, ready: Callable[[], None]) -> None:
    """Open the store, mount, serve until unmounted, close. `ready` is called when the mount answers."""
    os.umask(0)
    _raise_descriptor_limit()
    session = mounting.prepare(directory)
    fs = recovery.open_filesystem(open_store(store), directory)
    _let_garbage_be_young()
    try:
        waits = unfinished.finish(fs)

        def served() -> None:
            ready()  # from here on there is a log
            for line in waits:
                log.error("%s", line)

        _run(fs, session, served)
    finally:
        recovery.close_filesystem(fs)


def _run(fs: Filesystem, session: mounting.Session, ready: Callable[[], None]) -> None:
    try:
        trio.run(_serve, fs, session, ready)
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
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 10, 1 << 30)


def _raise_descriptor_limit() -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(fs: Filesystem, session: mounting.Session, ready: Callable[[], None]) -> None:
    adapter, cache = Adapter(fs), KernelCache(session.device)
    fs.kernel = cache
    live, events = Live(fs.store), Events()
    auditing = Auditing(fs, adapter, session.directory, live.now.audit)
    live.subscribe(auditing.changed)
    mounting.mount(session)
    unmounted = False
    failed: list[IsofsError] = []

    def unmount() -> None:
        mounting.unmount(session)

    limiting.follow(fs, live, events)
    commands = Commands(fs, adapter, cache, session.directory, unmount, live, events)
    attic = Attic(fs, live)
    backups = Backups(fs, adapter, session.directory, commands.verdicts.lock)
    alerts = Alerts(fs, commands.suspect, live, events)
    hooks = Hooks(session.directory, session.namespace, live, events)
    deciding = Deciding(commands.verdicts, commands.readable, events)
    offered = (commands, attic, backups, alerts, deciding, Suspects(fs))
    fresh = {name: live.fresh(call) for one in offered for name, call in one.handlers().items()}
    socket_path = mounts.socket_for(session.directory)
    access = Access(fs, live, socket_path)
    proposals = Proposals(fs, live, access, fresh)
    commands.verdicts.agreed = proposals.agreed
    handlers = identified(fresh) | proposals.handlers()
    listen = functools.partial(server.serve, admit=access.admit, groups=access.groups.all, record=auditing.control)

    async def published() -> None:
        await _publish(session, fs, ready, failed)
        if not failed:  # and not before: SQLite opens its files by a path that would lead into the mount
            nursery.start_soon(auditing.run)
            nursery.start_soon(reviews.remind, fs, live, events)
            await attic.forget_old()

    try:
        with loop.connected(adapter, session):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cache.run)
                nursery.start_soon(hooks.run)
                nursery.start_soon(_unmount_on_signal, session)
                nursery.start_soon(commands.late_locks.run)
                await nursery.start(listen, socket_path, handlers)
                nursery.start_soon(published)
                await loop.serve(session)
                unmounted = not failed
                nursery.cancel_scope.cancel()
        for error in failed:
            raise error
    finally:
        if not unmounted:
            with contextlib.suppress(IsofsError):
                mounting.unmount(session, lazily=True)
        await auditing.close()


async def _publish(
    session: mounting.Session, fs: Filesystem, ready: Callable[[], None], failed: list[IsofsError]
) -> None:
    """Show the mount, which is being served; stop serving if it cannot be shown."""
    try:
        await trio.to_thread.run_sync(mounting.publish, session)
    except IsofsError as error:
        failed.append(error)
        loop.stop()
        return
    log.info("serving %s, store %s", session.directory, fs.store.path)
    ready()


async def _unmount_on_signal(session: mounting.Session) -> None:
    """SIGTERM and SIGINT unmount; a mount in use is detached and served no longer."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            try:
                await trio.to_thread.run_sync(mounting.unmount, session)
            except Busy:
                log.warning("%s is in use and is detached", session.directory)
                await trio.to_thread.run_sync(lambda: mounting.unmount(session, lazily=True))
                loop.stop()


def log_to_standard_error() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)


@contextlib.contextmanager
def _log_file(store: str) -> Iterator[None]:
    """Let the daemon's log, and whatever is printed, go to the file `log` in the store."""
    path = os.path.join(store, "log")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    log_to_standard_error()
    yield


def _main() -> None:
    """The background daemon's process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("store")
    parser.add_argument("--ready", type=int, required=True)
    args = parser.parse_args()
    with open(args.ready, "w", encoding="utf-8") as answers:

        def ready() -> None:
            with _log_file(args.store):
                answers.write(json.dumps({"pid": os.getpid()}) + "\n")
                answers.close()

        try:
            serve(args.directory, args.store, ready)
        except IsofsError as error:
            if answers.closed:
                log.error("%s", error)
            else:
                answers.write(json.dumps({"error": error.code, "message": str(error)}) + "\n")
            sys.exit(error.exit)


if __name__ == "__main__":
    _main()
