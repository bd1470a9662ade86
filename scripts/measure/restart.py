"""How long a killed daemon's mount answers with errors, and then lets wait, by how much suspects have changed."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import crowd
from contenders import TRUSTED, directories, isoctl, unmounted
from work import Assets, Context, Scale, Step, timed

from isofs.control import client, mounts

T = TypeVar("T")

_SUSPECTS = 10
_LIMIT = 120.0


class Restart(NamedTuple):
    """Seconds until nobody got errors any more, and until a user was answered; processor time and memory of the daemon
    that did it by then."""

    failed: float
    waited: float
    used: float
    memory: int


def table(at: Path, objects: int, rounds: int) -> str:
    """Kill the daemon of a supervised mount, twice in each round: more often, and the supervisor takes its time."""
    lines = [
        "| objects changed | errors for | trusted users wait | suspects wait | its processor time | its memory |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for count in (0, objects // 10, objects):
        [root] = directories(at, str(count))
        (root / "crowd").mkdir()
        crowd.make(root, _SUSPECTS, count)
        (root / "known").write_text("main's\n")
        trusted, suspect = [], []
        for _ in range(rounds):
            isoctl("mount", "--supervised", str(root))
            try:
                trusted.append(_restarted(root, TRUSTED))
                suspect.append(_restarted(root, crowd.FIRST_UID))
            finally:
                unmounted(root)
        all_waited = [statistics.median(one.waited for one in some) for some in (trusted, suspect)]
        failed = statistics.median(one.failed for one in trusted + suspect)
        used = statistics.median(one.used for one in trusted + suspect)
        memory = statistics.median(one.memory for one in trusted + suspect)
        waited = " | ".join(f"{one:.2f} s" for one in all_waited)
        lines.append(f"| {count:,} | {failed:.2f} s | {waited} | {used:.2f} s | {memory / 2**20:.0f} MiB |")
    return "\n".join(lines)


def _restarted(root: Path, uid: int) -> Restart:
    """Kill the daemon while the next one waits, and let a user open a file until that is answered."""
    pid = int(str(client.call(mounts.socket_for(str(root)), "status", {})["pid"]))
    supervisor = int(_stat(pid)[1])
    spare = _until(lambda: _spare(supervisor, pid))
    before, dead = _processor(spare), _mounted(root)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as beside:
        replaced = beside.submit(_replaced, root, dead)
        os.kill(pid, signal.SIGKILL)
        timed(Step("", _open), Context(root, Scale(), Assets(root, root, root)), uid)
        waited = time.monotonic() - began
        failed = replaced.result() - began
    memory = int(_stat(spare)[21]) * os.sysconf("SC_PAGE_SIZE")
    used = _processor(spare) - before
    _until(lambda: client.call(mounts.socket_for(str(root)), "status", {}))
    return Restart(failed, waited, used, memory)


def _mounted(root: Path) -> list[str]:
    """The numbers of the mounts at a directory."""
    lines = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [fields[0] for fields in lines if fields[4] == str(root)]


def _replaced(root: Path, dead: list[str]) -> float:
    """When the dead mount was gone."""
    _until(lambda: not set(dead) & set(_mounted(root)))
    return time.monotonic()


def _open(context: Context) -> None:
    """The file through the new mount: what is left of the dead one answers with errors."""
    os.close(_until(lambda: os.open(context.place / "known", os.O_RDONLY)))


def _until(look: Callable[[], T]) -> T:
    limit = time.monotonic() + _LIMIT
    while time.monotonic() < limit:
        with contextlib.suppress(Exception):
            if found := look():
                return found
        time.sleep(0.002)
    raise RuntimeError("the daemon is not back")


def _spare(supervisor: int, pid: int) -> int:
    """The supervisor's other child, once it has loaded everything and waits; 0 before."""
    children = map(int, Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split())
    waiting = (child for child in children if b"pipe_read" in Path(f"/proc/{child}/wchan").read_bytes())
    return next((child for child in waiting if child != pid), 0)


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _processor(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
