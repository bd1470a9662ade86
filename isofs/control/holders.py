"""Who keeps a mount busy.

Only what /proc says of each process is read: its links and its table of mappings. No path found
there is opened or followed, so a mount that doesn't answer holds nothing up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from isofs.control.mounts import within


@dataclass(frozen=True, slots=True)
class Holder:
    """A process with something open below a directory.

    `what` is cwd, root, exe, map or fd with its number; `path` is as the kernel names it.
    """

    pid: int
    uid: int
    program: str
    what: str
    path: str


def holders(mount_point: str, besides: Collection[int] = ()) -> list[Holder]:
    """The processes that hold something at or below `mount_point`, each with the first such thing.

    Left out are the processes in `besides`, for the daemon of a mount holds what lies underneath,
    which has the same path; those that end meanwhile; and those that the caller may not see.
    """
    found = []
    for name in sorted(filter(str.isdecimal, os.listdir("/proc")), key=int):
        if int(name) in besides:
            continue
        for what, path in _held(f"/proc/{name}"):
            if within(mount_point, path):
                with contextlib.suppress(OSError):
                    uid, program = _who(f"/proc/{name}")
                    found.append(Holder(int(name), uid, program, what, path))
                break
    return found


def _held(process: str) -> Iterator[tuple[str, str]]:
    for what in ("cwd", "root", "exe"):
        with contextlib.suppress(OSError):
            yield what, os.readlink(f"{process}/{what}")
    with contextlib.suppress(OSError):
        for number in os.listdir(f"{process}/fd"):
            with contextlib.suppress(OSError):
                yield f"fd {number}", os.readlink(f"{process}/fd/{number}")
    with contextlib.suppress(OSError), open(f"{process}/maps", "rb") as mappings:
        for line in mappings:
            fields = line.rstrip(b"\n").split(maxsplit=5)
            if len(fields) == 6:
                # The table writes a newline in a name, and only that, as an escape.
                yield "map", os.fsdecode(fields[5].replace(rb"\012", b"\n"))


def _who(process: str) -> tuple[int, str]:
    """The real uid and the name of the program of a process."""
    with open(f"{process}/comm", "rb") as comm, open(f"{process}/status", "rb") as status:
        program = os.fsdecode(comm.read().removesuffix(b"\n"))
        uids = next(line for line in status if line.startswith(b"Uid:"))
    return int(uids.split()[1]), program
