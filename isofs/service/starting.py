"""Starting a daemon: whether the directory can be mounted over, and a process of its own for what serves it.

Imports nothing that the daemon alone needs: whoever types `isoctl mount` waits for one interpreter, not for two.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable

from isofs.control import endpoint, mounts, results
from isofs.errors import BY_CODE, Already, IsofsError, NoAnswer, NoMount, NotAllowed, UsageError
from isofs.model.records import RESERVED


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
        from isofs.service import daemon

        daemon.log_to_standard_error()
        daemon.serve(directory, path, lambda: answers(os.getpid()))
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
