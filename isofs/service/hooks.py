"""The operator's programs that are told what happened, beside the daemon and never in its way.

Each kind of event has a queue of its own and one process at a time. What happened is a JSON object on standard input.
A program runs as root in the machine's mount namespace, where it sees the mount and not what lies below it. It is
brought there by `nsenter`: started by the daemon itself it would have to be read through the mount while the daemon
waits for it to start.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from isofs.control import mounts, wire
from isofs.merge.resolvers.base import shown
from isofs.service.events import Event, Events, Kind
from isofs.service.live import Live
from isofs.settings.document import Document
from isofs.settings.settings import settings

log = logging.getLogger(__name__)

#: Events of a kind that may wait for those before; what comes then is logged, and no program hears of it.
WAITING = 100

#: Bytes of a program's output that are logged.
OUTPUT = 4096

#: Seconds that are left to what waits and what runs when the daemon ends, and to a killed program.
GRACE = 5.0

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Hooks:
    """Runs the programs that the settings name for the events of one mount. Made where trio runs."""

    def __init__(self, mount: str, namespace: int, live: Live, events: Events) -> None:
        self._mount, self._namespace, self._live = mount, namespace, live
        self._trio = trio.lowlevel.current_trio_token()
        self._queues = {kind: trio.open_memory_channel[bytes](WAITING) for kind in Kind}
        self._scopes: list[trio.CancelScope] = []
        self._ended = False
        events.subscribe(self._take)

    def _take(self, event: Event) -> None:
        if self._command(event.kind):
            # Whoever tells may be in a thread.
            self._trio.run_sync_soon(self._put, event.kind, document(event, self._mount))

    def _put(self, kind: Kind, told: bytes) -> None:
        try:
            self._queues[kind][0].send_nowait(told)
        except (trio.WouldBlock, trio.ClosedResourceError):
            log.error("too many events for hook on_%s: it is not told %s", kind, told.decode())

    def _command(self, kind: Kind) -> Sequence[str]:
        command: Sequence[str] = getattr(self._live.now.hooks, f"on_{kind}")
        return command

    async def run(self) -> None:
        """Run programs until cancelled; what waits then has `GRACE` seconds."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hurry_when_cancelled)
            for kind in Kind:
                nursery.start_soon(self._work, kind)

    async def _hurry_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            for into, _ in self._queues.values():
                into.close()
            for scope in self._scopes:
                scope.deadline = trio.current_time() + GRACE

    async def _work(self, kind: Kind) -> None:
        with trio.CancelScope(shield=True) as scope:
            self._scopes.append(scope)
            async for told in self._queues[kind][1]:
                command = self._command(kind)
                if command:
                    await self._tell(kind, command, told)
        if scope.cancelled_caught:
            log.error("the daemon ends before hook on_%s was told everything", kind)

    async def _tell(self, kind: Kind, command: Sequence[str], told: bytes) -> None:
        why = await trio.to_thread.run_sync(refusal, command[0], self._mount)
        if why is not None:
            log.error("hook on_%s is not run: %s; it is not told %s", kind, why, told.decode())
            return
        environment = {"PATH": _PATH, "LANG": "C.UTF-8", "ISOFS_EVENT": str(kind), "ISOFS_MOUNT": self._mount}
        timeout = self._live.now.hooks.timeout
        try:
            ended = await run(command, told, environment, self._namespace, timeout)
        except OSError as error:
            log.error("hook on_%s cannot be run: %s", kind, error)
            return
        how = f"took longer than {timeout} s and was killed" if ended.status is None else f"ended with {ended.status}"
        said = f": {shown(ended.output.strip(), OUTPUT)}" if ended.output.strip() else ""
        log.log(logging.INFO if ended.status == 0 else logging.ERROR, "hook on_%s %s%s", kind, how, said)


def document(event: Event, mount: str) -> bytes:
    """What a program is given: the facts of an event, what and when it was, and of which mount. One line of JSON."""
    about = {"event": str(event.kind), "at": wire.moment(event.at), "mount": mount}
    return json.dumps({**about, **event.facts, **about}).encode("ascii") + b"\n"


def check(of: Document, mount: str | None) -> None:
    """BadConfiguration, with the line, if a program that a configuration names would not be run."""
    found = settings(of).hooks
    for name in (f"on_{kind}" for kind in Kind):
        command: Sequence[str] = getattr(found, name)
        why = refusal(command[0], mount) if command else None
        if why is not None:
            raise of.refusal(["hooks", name], f"{name} cannot be this: {why}")


def refusal(program: str, mount: str | None) -> str | None:
    """Why a program must not be run as root, or None: nobody else may be able to change it, or what leads to it."""
    try:
        real = os.path.realpath(program, strict=True)
        for path in (program, real):
            if mount is not None and mounts.within(mount, os.path.normpath(path)):
                return f"{program} lies in {mount}, where people work"
            for directory in _above(path):
                if _others_change(found := os.stat(directory)) and not _is_sticky(found):
                    return f"{program} could be replaced by others than root: see {directory}"
        found = os.stat(real)
    except OSError as error:
        return f"{program} cannot be run: {error.strerror}"
    if not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o111:
        return f"{program} is not a program that can be executed"
    if _others_change(found):
        return f"{program} could be changed by others than root: it must be root's, and writable for root alone"
    return None


def _above(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _others_change(found: os.stat_result) -> bool:
    return found.st_uid != 0 or bool(found.st_mode & 0o022)


def _is_sticky(found: os.stat_result) -> bool:
    """Whether it is a directory as /tmp: what is root's in it stays, and what is in it is looked at by itself."""
    return found.st_uid == 0 and bool(found.st_mode & stat.S_ISVTX)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, negative for a signal and None if it was too slow; and the beginning of what it said."""

    status: int | None
    output: bytes


async def run(
    command: Sequence[str], given: bytes, environment: Mapping[str, str], namespace: int, timeout: float
) -> Ended:
    """Run a program in a mount namespace, as a session of its own, of which nothing is left when it has ended.

    It has standard input, standard output and standard error, and no other descriptor.
    """
    nsenter = shutil.which("nsenter", path=_PATH)
    if nsenter is None:
        raise FileNotFoundError("nsenter is not installed: it is in the package util-linux")
    # Opened by nsenter, which closes it again.
    words = [nsenter, f"--mount=/proc/{os.getpid()}/fd/{namespace}", "--", *command]
    with contextlib.ExitStack() as stack:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, reader)
        os.set_blocking(reader, False)
        with open(writer, "wb", buffering=0), open(os.memfd_create("isofs-hook"), "w+b") as text:
            text.write(given)
            text.seek(0)
            start = partial(
                subprocess.Popen[bytes],
                words,
                stdin=text,
                stdout=writer,
                stderr=writer,
                cwd="/",
                env=environment,
                start_new_session=True,
            )
            process = await trio.to_thread.run_sync(start)
        watched = os.pidfd_open(process.pid)
        stack.callback(os.close, watched)
        output, ended = bytearray(), False
        try:
            with trio.move_on_after(timeout):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_gather, reader, output)
                    await trio.lowlevel.wait_readable(watched)
                    ended = True
                    nursery.cancel_scope.cancel()
        finally:
            # Before the process is waited for, so that the number of its group is nobody else's yet.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also what it left running
            with trio.move_on_after(GRACE, shield=True):
                await trio.lowlevel.wait_readable(watched)  # it may wait for the mount, and so for this process
                process.wait()
        while _read(reader, output):
            pass
        return Ended(process.returncode if ended else None, bytes(output))


async def _gather(reader: int, output: bytearray) -> None:
    """Take what a program says until it closes its end, and keep the beginning."""
    while True:
        await trio.lowlevel.wait_readable(reader)
        if not _read(reader, output):
            return


def _read(reader: int, output: bytearray) -> bool:
    try:
        found = os.read(reader, 1 << 16)
    except BlockingIOError:
        return False
    output += found[: OUTPUT - len(output)]
    return bool(found)
