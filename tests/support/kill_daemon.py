"""Processes that kill themselves (SIGKILL) right before or right after a certain commit of the database.

Nothing of this is in the product: the method that commits is replaced, in this process only. Run as a program,
`kill_daemon.py DIRECTORY COMMIT before|after`, it serves a mount and prints a line when the mount answers; commits
are counted from then on. COMMIT 0 kills never.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from isofs.model.records import Change
from isofs.service import daemon, starting
from isofs.store.database import Database


class Deadly:
    """Counts the commits, and kills this process at one of them."""

    def __init__(self, at: int, when: str) -> None:
        self.at, self.when, self.commits = at, when, 0
        self._write: Callable[[Database, Sequence[Change]], None] = Database.write

    def arm(self) -> None:
        """From now on commits count."""
        deadly = self

        def write(database: Database, changes: Sequence[Change]) -> None:
            deadly.commits += 1
            if deadly.commits == deadly.at and deadly.when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            deadly._write(database, changes)
            if deadly.commits == deadly.at and deadly.when == "after":
                os.kill(os.getpid(), signal.SIGKILL)

        Database.write = write  # type: ignore[assignment, method-assign]

    def disarm(self) -> None:
        """As if it had never been."""
        Database.write = self._write  # type: ignore[assignment, method-assign]


def start(directory: Path, commit: int, when: str) -> subprocess.Popen[str]:
    """A daemon that serves the directory until that commit; returns when the mount answers."""
    command = [sys.executable, "-m", "support.kill_daemon", str(directory), str(commit), when]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[1]
    )
    assert process.stdout is not None
    if process.stdout.readline() != "serving\n":
        process.kill()
        raise AssertionError(f"the daemon ended before it served: {process.wait()}")
    return process


def _main() -> None:
    directory, commit, when = sys.argv[1:]
    deadly = Deadly(int(commit), when)

    def ready(_: object) -> None:
        deadly.arm()
        print("serving", flush=True)

    daemon.serve(directory, starting.store_path(directory, None), ready)
    print(deadly.commits, flush=True)


if __name__ == "__main__":
    _main()
