"""The daemon: one process per mount, from the first look at the directory to the last closed descriptor."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import trio

from isofs.control import endpoint, mounts, results, server
from isofs.engine import recovery
from isofs.engine.state import Filesystem
from isofs.errors import BY_CODE, Already, Busy, IsofsError, NoAnswer, NoMount, NotAllowed, UsageError
from isofs.fuse import loop, mounting
from isofs.fuse.adapter import Adapter
from isofs.fuse.cache import KernelCache
from isofs.merge import apply
from isofs.service.commands import Commands, checked
from isofs.store.folder import RESERVED, open_store

log = logging.getLogger(__name__)

#: Descriptors that the daemon asks for; the system may give less.
_DESCRIPTORS = 1 << 20


def store_path(directory: str, store: str | None) -> str:
    """Where the store of a directory is."""
    return store if store is not None else os.path.join(directory, os.fsdecode(RESERVED))


def start(directory: str, store: str | None, foreground: bool, ready: Callable[[results.Mounted], None]) -> None:
    """Mount over a directory (an absolute path without links) and serve it. `ready` is called when the mount answers.

    In the background it returns after that; in the foreground when it has been unmounted.
    """
    repaired = _make_way(directory)
    path = store_path(directory, store)
    _check_store_path(directory, path)

    def answers(pid: int) -> None:
        ready({"mount": directory, "store": path, "repaired": repaired, "pid": pid})

    if foreground:
        _log_to_standard_error()
        serve(directory, path, lambda: answers(os.getpid()))
    else:
        answers(_start_in_background(directory, path))


def _make_way(directory: str) -> bool:
    """Check that the directory can be mounted over; take away a dead daemon's mount. Whether there was one."""
    endpoint.sweep(mounts.RUN)
    for other in mounts.points():
        if other != directory and (mounts.within(other, directory) or mounts.within(directory, other)):
            place = "below" if mounts.within(other, directory) else "above"
            raise NotAllowed(f"{directory} lies {place} {other}, where an isofs is mounted: one way in, one mount")
    repaired = False
    while any(m.directory == directory for m in mounts.mounted()):
        if not mounts.stale(directory):
            raise Already(f"{directory} is mounted already")
        mounts.detach(directory)
        repaired = True
    _check_directory(directory)
    if os.geteuid() != 0:
        raise NotAllowed("mounting needs root")
    return repaired


def _check_directory(directory: str) -> None:
    try:
        found = os.stat(directory)
    except OSError as error:
        raise NoMount(f"{directory} cannot be opened: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise NoMount(f"{directory} is not a directory")


def _check_store_path(directory: str, store: str) -> None:
    """A store that people reach through a mount would be theirs to change, and the daemon's to wait for."""
    if mounts.within(directory, store) and store != store_path(directory, None):
        raise UsageError(f"the store {store} would be visible in {directory}: give a --store outside of it, or none")
    for other in mounts.points():
        if mounts.within(other, store) and not mounts.within(directory, other):
            raise UsageError(f"the store {store} would lie in {other}, where an isofs is mounted: give another --store")


def _start_in_background(directory: str, store: str) -> int:
    """Start a daemon process and wait until it serves, or tells why it cannot."""
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as early:  # what is printed before the log is open
        process = subprocess.Popen(
            [sys.executable, "-m", "isofs.service.daemon", directory, store, "--ready", str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=early,
            stderr=early,
            pass_fds=(writer,),
            start_new_session=True,
            cwd="/",
        )
        os.close(writer)
        with open(reader, encoding="utf-8") as answers:
            line = answers.readline()
        if line:
            answer = json.loads(line)
            if "error" in answer:
                process.wait()
                raise BY_CODE.get(answer["error"], IsofsError)(answer["message"])
            return process.pid
        early.seek(0)
        last = early.read().decode(errors="replace").strip().splitlines()[-1:]
        raise NoAnswer(f"the daemon ended before it served: {last[0] if last else process.wait()}")


def serve(directory: str, store: str, ready: Callable[[], None]) -> None:
    """Open the store, mount, serve until unmounted, close. `ready` is called when the mount answers."""
    os.umask(0)
    _raise_descriptor_limit()
    session = mounting.prepare(directory)
    fs = recovery.open_filesystem(open_store(store), directory)
    try:
        for sid in recovery.unfinished(fs):
            log.warning("finishing the verdict on %s, which was cut off", fs.subjects[sid].name)
            apply.resume(fs, sid)
        _run(fs, session, ready)
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


def _raise_descriptor_limit() -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(fs: Filesystem, session: mounting.Session, ready: Callable[[], None]) -> None:
    adapter, cache = Adapter(fs), KernelCache(session.device)
    fs.kernel = cache
    mounting.mount(session)
    unmounted = False

    def unmount() -> None:
        mounting.unmount(session)

    commands = Commands(fs, adapter, cache, session.directory, unmount)
    try:
        with loop.connected(adapter, session):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cache.run)
                nursery.start_soon(_unmount_on_signal, session)
                await nursery.start(server.serve, mounts.socket_for(session.directory), commands.handlers())
                log.info("serving %s, store %s", session.directory, fs.store.path)
                ready()
                await loop.serve()
                unmounted = True
                nursery.cancel_scope.cancel()
    finally:
        if not unmounted:
            with contextlib.suppress(IsofsError):
                mounting.unmount(session, lazily=True)


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


def check(directory: str, store: str | None) -> results.Checked:
    """Run the invariants on a store whose directory is not mounted. Changes nothing but what recovery must."""
    _check_directory(directory)
    opened = open_store(store_path(directory, store), create=False)
    os.umask(0)
    try:
        fs = recovery.load(opened, directory)
    except BaseException:
        opened.close()
        raise
    try:
        return checked(fs)
    finally:
        recovery.close_filesystem(fs)


def _log_to_standard_error() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)


@contextlib.contextmanager
def _log_file(store: str) -> Iterator[None]:
    """Let the daemon's log, and whatever is printed, go to the file `log` in the store."""
    path = os.path.join(store, "log")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    _log_to_standard_error()
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
