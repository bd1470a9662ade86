"""How isofs grows: memory and descriptors by nodes that the kernel remembers, and how long `isoctl suspect` takes."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from contenders import SUSPECT, TRUSTED, directories, isoctl, unmounted
from work import Assets, Context, Scale, Step, drop_caches, timed, walk

from isofs.control import client, mounts

_PER_DIRECTORY = 1000
_REPEATS = 7


def table(at: Path, files: int) -> str:
    """Walk a tree of that many files, and tell what it cost the daemon."""
    [root] = directories(at, "files")
    for first in range(0, files, _PER_DIRECTORY):
        folder = root / str(first // _PER_DIRECTORY)
        folder.mkdir()
        for number in range(first, min(first + _PER_DIRECTORY, files)):
            os.mknod(folder / f"a file with a name of some length {number}", stat.S_IFREG | 0o644)
    drop_caches(root)
    isoctl("mount", str(root))
    try:
        socket = mounts.socket_for(str(root))
        pid = int(str(client.call(socket, "status", {})["pid"]))
        small, few = _resident(pid), _suspect_time(root, socket)
        took = timed(Step("", walk), Context(root, Scale(), Assets(root, root, root)), TRUSTED)
        large, descriptors = _resident(pid), len(os.listdir(f"/proc/{pid}/fd"))
        many = _suspect_time(root, socket)
    finally:
        unmounted(root)
    lines = [
        "| what | measured |",
        "|---|---:|",
        f"| files walked | {files:,} in {took:.1f} s |",
        f"| memory per node that the kernel remembers | {(large - small) / files:.0f} bytes |",
        f"| descriptors of the daemon after the walk | {descriptors} |",
        f"| `suspect` until it holds, nothing looked at yet | {few * 1000:.1f} ms |",
        f"| `suspect` until it holds, the whole tree remembered | {many * 1000:.1f} ms |",
    ]
    return "\n".join(lines)


def _resident(pid: int) -> int:
    """The daemon's own memory, in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no such line")


def _suspect_time(root: Path, socket: str) -> float:
    """From the call until isolation holds, at best; the user's verdict follows at once."""
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        client.call(socket, "suspect", {"uid": SUSPECT, "user": str(SUSPECT), "reason": "", "handles": "kill"})
        times.append(time.perf_counter() - began)
        isoctl("--mount", str(root), "malicious", "--yes", str(SUSPECT))
    return min(times)
