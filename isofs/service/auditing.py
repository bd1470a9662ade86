"""The audit trail of one mount: what is recorded, the process that writes it, and what the operator decides."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict

import trio

from isofs.audit import reads, record, writer
from isofs.audit.appending import Limits
from isofs.audit.ring import Ring, open_ring
from isofs.audit.tasks import Task
from isofs.audit.trail import Trail, last_number
from isofs.control import endpoint, mounts, wire
from isofs.control.peers import Peer
from isofs.engine.state import Filesystem
from isofs.errors import BY_CODE, IsofsError, NotAllowed
from isofs.fuse.adapter import Adapter
from isofs.fuse.recording import Recorder
from isofs.model.records import MAIN, Subject
from isofs.service import answers
from isofs.service.roles import NEEDS, Role
from isofs.settings.audit import Audit
from isofs.settings.settings import Settings

log = logging.getLogger(__name__)

#: Seconds that the writer is started after the first record, or the share of the ring that is filled before: a mount
#: that is short-lived needs none.
_LATER, _SOON = 1.0, 0.05

#: Seconds between two starts of a writer that ends by itself.
_AGAIN = 1.0

#: Seconds that a suspect's call waits for room, between two looks and in all; and that the end waits for the writer.
_LOOK, _PATIENCE, _LAST = 0.05, 3.0, 15.0

#: Seconds that a verdict waits for what was recorded before it.
_WRITTEN = 5.0

#: Characters of a text, and items of a list, that are recorded of an argument of a control call; and bytes of all.
_LONGEST, _MOST, _ALL = 1000, 100, 1 << 16

#: What a call can be named: else it is none, and could be anything.
_CALL = re.compile(r"[a-z_]{1,40}")


class Auditing:
    """Records what is configured, for as long as the daemon serves.

    Nothing of it ends the daemon: without a place for the trail it is logged, and people go on working.
    """

    def __init__(self, fs: Filesystem, adapter: Adapter, directory: str, settings: Audit) -> None:
        self._fs, self._adapter, self._directory = fs, adapter, directory
        self._settings = settings
        self._ring: Ring | None = None
        self._trail: Trail | None = None
        self._recorder: Recorder | None = None
        self._wanted, self._hurry, self._pipe = trio.Event(), trio.Event(), -1
        self._process: trio.Process | None = None
        self.apply(settings)

    # What is recorded

    def changed(self, settings: Settings) -> None:
        """Go by other settings from now on."""
        if settings.audit != self._settings:
            self.apply(settings.audit)

    def apply(self, settings: Audit) -> None:
        before, self._settings = self._settings, settings
        if settings.on != "off" and self._trail is None:
            self._open()
        trail = self._trail
        self._say_switched()
        if trail is None:
            return
        if before != settings:
            trail.tell("audit-settings", {"on": settings.on, "before": before.on})
        if self._recorder is None or before.on != settings.on:
            self._record(trail, settings.on)
        self._say_limits()

    def _record(self, trail: Trail, on: str) -> None:
        old, self._recorder = self._recorder, None
        if old is not None:
            old.remove()
        if on == "off":
            return
        self._recorder = Recorder(self._adapter, self._fs, trail, self._room, everyone=on == "writes", before=old)
        self._recorder.install()
        if old is None:
            for handle in [handle for handle in self._fs.handles.values() if handle.sid in self._fs.views]:
                self._recorder.held(handle.sid, handle)

    def _say_switched(self) -> None:
        """Keep in mind when what suspects read is not recorded."""
        folder, on = self._fs.store.folders.get(b"audit"), self._settings.on != "off" and self._trail is not None
        try:
            if folder is not None:
                reads.switched(folder, on, record.moment(time.time_ns()))
        except OSError as error:
            log.error("whether what suspects read is recorded cannot be written down: %s", error.strerror)

    def _open(self) -> None:
        folder = self._fs.store.folders.get(b"audit")
        if folder is None:
            log.error("there is no audit trail: the store is not in use")
            return
        try:
            endpoint.make(mounts.RUN)
            ring, found = open_ring(_ring_path(folder), self._wake)
            last, torn = last_number(ring, folder)
        except OSError as error:
            log.error("there is no audit trail: %s: %s", error.filename or mounts.RUN, error.strerror)
            return
        self._ring, self._trail = ring, Trail(ring, last)
        facts = {"on": self._settings.on, "version": answers.version(), "pid": os.getpid(), "killed": found}
        self._trail.tell(record.START, facts if found or not torn else {**facts, "torn": torn})

    def control(self, peer: Peer, request: wire.Request, outcome: wire.Result | wire.Failure) -> None:
        """Record a call of the control socket that decides something: by whom, about whom, and how it ended."""
        if self._trail is None or self._recorder is None or _only_asks(request, outcome):
            return
        facts = _facts(request.args)
        number, uid = 0, request.args.get("uid")
        if isinstance(outcome, wire.Failure):
            facts["error"], number = outcome.code, BY_CODE.get(outcome.code, IsofsError).errno
        elif request.call == "confirm":
            facts |= {"verdict": outcome.result["call"], "proposed_by": outcome.result["by"]}
        sid = max((s.sid for s in self._fs.subjects.values() if s.uid == uid), default=MAIN)
        task = Task(peer.pid, peer.pid, peer.login, os.fsencode(peer.program))
        call = request.call
        if not _CALL.fullmatch(call):
            facts["call"], call = call[:_LONGEST], "unknown"
        self._trail.tell(call, facts, sid=sid, uid=peer.uid, task=task, number=number)

    def isolated(self, subject: Subject) -> None:
        """Record what a new suspect has open."""
        if self._recorder is not None:
            for handle in [h for h in self._fs.handles.values() if h.uid == subject.uid]:
                self._recorder.held(subject.sid, handle)

    async def _room(self) -> None:
        with trio.move_on_after(_PATIENCE):
            while self._trail is not None and self._trail.crowded:  # noqa: ASYNC110
                await trio.sleep(_LOOK)

    async def written(self, subject: Subject) -> bool:
        """Wait until what a subject did before is in the trail's files, for a bounded time; whether it is."""
        if (ring := self._ring) is None:
            return True
        if self._recorder is not None:
            self._recorder.so_far(subject.sid)
        position = ring.head
        self._hurry.set()
        with trio.move_on_after(_WRITTEN):
            while self._ring is ring and not ring.dealt_with(position):  # noqa: ASYNC110
                await trio.sleep(_LOOK / 5)
        return self._ring is ring and ring.dealt_with(position)

    # The process that writes

    def _wake(self) -> None:
        if self._pipe < 0:
            self._wanted.set()
            return
        with contextlib.suppress(OSError):  # full: it is being woken; broken: it is being started again
            os.write(self._pipe, b"\n")

    def _limits(self) -> Limits:
        audit = self._settings
        return Limits(audit.file_size, audit.file_age, audit.keep, audit.total)

    def _say_limits(self) -> None:
        if self._pipe >= 0:
            with contextlib.suppress(OSError):
                os.write(self._pipe, json.dumps(asdict(self._limits())).encode() + b"\n")

    async def run(self) -> None:
        """Have the trail written as long as there is something to write, by a new process if one ends."""
        while True:
            await self._wanted.wait()
            with trio.move_on_after(_LATER):
                while self._ring is not None and self._ring.used() < _SOON:
                    with trio.move_on_after(_LOOK):
                        await self._hurry.wait()
                        break
            while self._trail is not None:
                try:
                    ended = await self._write()
                except OSError as error:
                    ended = str(error)
                self._close_pipe()
                log.error("the writer of the audit trail ended (%s) and is started again", ended)
                self._trail.tell(record.GAP, {"writer": ended})
                await trio.sleep(_AGAIN)

    async def _write(self) -> str:
        """Start the writer, and wait for its end, which comes before ours only if something is wrong."""
        folder = self._fs.store.folders[b"audit"]
        wake, self._pipe = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(self._pipe, False)
            self._say_limits()
            command = [sys.executable, "-m", "isofs.audit.writer", self._directory, _ring_path(folder)]
            self._process = await trio.lowlevel.open_process(
                [*command, str(folder), str(wake)], stdin=subprocess.DEVNULL, pass_fds=(folder, wake), cwd="/"
            )
        finally:
            os.close(wake)
        status = await self._process.wait()
        self._process = None
        return f"status {status}" if status >= 0 else f"signal {-status}"

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    async def close(self) -> None:
        """Write what there is, for a bounded time. What is not written then is when the store is next mounted."""
        if self._recorder is not None:
            self._recorder.remove()
        if self._trail is None or self._ring is None:
            return
        self._trail.tell(record.STOP, {})
        folder = self._fs.store.folders[b"audit"]
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST):
            self._close_pipe()
            if self._process is not None:
                await self._process.wait()
            if self._ring.used():
                try:
                    args = (self._ring, folder, self._directory, self._limits())
                    await trio.to_thread.run_sync(writer.drain_once, *args, abandon_on_cancel=True)
                except OSError as error:
                    log.error("the audit trail could not be written: %s", error.strerror)
        if not self._ring.used():
            with contextlib.suppress(OSError):
                os.unlink(_ring_path(folder))
            endpoint.sweep(mounts.RUN)
        self._ring.close()
        self._ring = self._trail = None


def _only_asks(request: wire.Request, outcome: wire.Result | wire.Failure) -> bool:
    """Whether a call decides nothing, and was not refused to somebody who may not even ask."""
    refused = isinstance(outcome, wire.Failure) and outcome.code == NotAllowed().code
    return NEEDS.get(request.call) is Role.OBSERVE and not request.args.get("repair") and not refused


def _facts(args: Mapping[str, object]) -> dict[str, object]:
    """What is recorded of the arguments of a call, whoever made it: never more than fits into a line."""
    found, size = dict[str, object](), 0
    for key, value in args.items():
        brief = _brief(value)
        size += len(key) + len(str(brief))
        if size > _ALL:
            return {**found, "left_out": len(args) - len(found)}
        found[key] = brief
    return found


def _brief(value: object) -> object:
    """What is recorded of an argument: not all of a long one."""
    if isinstance(value, str):
        return value[:_LONGEST]
    if isinstance(value, list):
        return [_brief(item) for item in value[:_MOST]]
    if isinstance(value, int | None):
        return value
    try:
        return _brief(json.dumps(value))
    except RecursionError:
        return "..."


def _ring_path(folder: int) -> str:
    """Where the ring of a trail's folder is: in memory, and gone after a restart of the machine."""
    at = os.fstat(folder)
    return f"{mounts.RUN}/{at.st_dev:x}-{at.st_ino:x}.ring"
