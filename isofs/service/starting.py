"""Starting a daemon: whether the directory can be mounted over, and a process of its own for what serves it.

Imports nothing that the daemon alone needs: whoever types `isoctl mount` waits for one interpreter, not for two.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from isofs.control import endpoint, mounts, results
from isofs.errors import BY_CODE, Already, IsofsError, NoAnswer, NoMount, NotAllowed, UsageError
from isofs.model.records import RESERVED


def store_path(directory: str, store: str | None) -> str:
    """Where the store of a directory is."""
    return store if store is not None else os.path.join(directory, os.fsdecode(RESERVED))


@dataclass(frozen=True, slots=True)
class How:
    """How a daemon is to run: in the `foreground`, `supervised` by a parent that takes it to hang after `watchdog`
    seconds (or as many as the parent thinks right), and whether it is to `trust_everybody` if the store is unusable.
    """

    foreground: bool = False
    supervised: bool = False
    watchdog: float | None = None
    trust_everybody: bool = False


def start(directory: str, store: str | None, how: How, ready: Callable[[results.Mounted], None]) -> int:
    """Mount over a directory (an absolute path without links) and serve it. `ready` is called when the mount answers.

    In the background it returns after that; in the foreground when it has been unmounted. Returns an exit code.
    """
    repaired = _is_repair(directory)
    path = store_path(directory, store)
    _check_store_path(directory, path)

    def answers(pid: int, degraded: results.Degraded | None) -> None:
        ready({"mount": directory, "store": path, "repaired": repaired, "pid": pid, "degraded": degraded})

    if how.foreground and not how.supervised:
        from isofs.service import daemon, logs

        logs.to_standard_error()
        daemon.serve(
            directory, path, lambda facts: answers(facts["pid"], facts["degraded"]), trust_everybody=how.trust_everybody
        )
        return 0
    return _start_process(directory, path, how, answers)


def _is_repair(directory: str) -> bool:
    """Check that the directory can be mounted over; whether a dead daemon's mount is there, which will be replaced."""
    endpoint.sweep(mounts.RUN)
    for other in mounts.points():
        if other != directory and (mounts.within(other, directory) or mounts.within(directory, other)):
            place = "below" if mounts.within(other, directory) else "above"
            raise NotAllowed(f"{directory} lies {place} {other}, where an isofs is mounted: one way in, one mount")
    repaired = any(m.directory == directory for m in mounts.mounted())
    if repaired and not mounts.stale(directory):
        raise Already(f"{directory} is mounted already")
    if not repaired:
        check_directory(directory)
    if os.geteuid() != 0:
        raise NotAllowed("mounting needs root")
    return repaired


def check_directory(directory: str) -> None:
    try:
        found = os.stat(directory)
    except OSError as error:
        raise NoMount(f"{directory} cannot be opened: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise NoMount(f"{directory} is not a directory")
    for point in mounts.binds_below(directory):
        raise NotAllowed(f"{point} is one more way into the file system of {directory}, below it: unmount it first")


def _check_store_path(directory: str, store: str) -> None:
    """A store that people reach through a mount would be theirs to change, and the daemon's to wait for."""
    if mounts.within(directory, store) and store != store_path(directory, None):
        raise UsageError(f"the store {store} would be visible in {directory}: give a --store outside of it, or none")
    for other in mounts.points():
        if mounts.within(other, store) and not mounts.within(directory, other):
            raise UsageError(f"the store {store} would lie in {other}, where an isofs is mounted: give another --store")


def _start_process(
    directory: str, store: str, how: How, answers: Callable[[int, results.Degraded | None], None]
) -> int:
    """Start a daemon process and wait until it serves, or tells why it cannot; in the foreground until its end."""
    module = "supervisor" if how.supervised else "daemon"
    reader, writer = os.pipe()
    words = [sys.executable, "-m", f"isofs.service.{module}", directory, store, "--ready", str(writer)]
    words += ["--watchdog", str(how.watchdog)] if how.watchdog is not None else []
    words += ["--trust-everybody"] if how.trust_everybody else []
    words += ["--foreground"] if how.foreground else []
    with tempfile.TemporaryFile() as early:  # what is printed before the log is open
        output = None if how.foreground else early
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(writer,),
            start_new_session=not how.foreground,
            cwd="/",
        )
        os.close(writer)
        with open(reader, encoding="utf-8") as lines:
            line = lines.readline()
        if line:
            answer = json.loads(line)
            if "error" in answer:
                process.wait()
                raise BY_CODE.get(answer["error"], IsofsError)(answer["message"])
            answers(answer["pid"], answer["degraded"])
            return _ended(process) if how.foreground else 0
        early.seek(0)
        last = early.read().decode(errors="replace").strip().splitlines()[-1:]
        raise NoAnswer(f"the daemon ended before it served: {last[0] if last else process.wait()}")


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Pass on what ends a foreground process, and wait for it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: process.send_signal(number))
    return process.wait()
