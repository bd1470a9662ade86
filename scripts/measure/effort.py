"""How much of the daemon's processor time a call of each kind takes: nearly the same however busy the machine is."""

from __future__ import annotations

import os
import time
from pathlib import Path

from contenders import SUSPECT, TRUSTED, isoctl, isofs
from counting import CALLS, as_user, make_file

from isofs.control import client, mounts

_FILES = 300
#: Less than this in a moment is what the daemon does when nobody calls.
_IDLE_NS, _MOMENT = 2_000_000, 0.15

_CHOSEN = (
    "stat",
    "open, read, close",
    "open, append, close",
    "chmod",
    "create, write, close",
    "symlink",
    "link",
    "rename",
    "rename over",
    "unlink",
    "mkdir",
    "rmdir",
)


def table(at: Path, rounds: int) -> str:
    """Of a trusted user, and of a suspect in a directory of main's and in one of its own; the best of some rounds."""
    with isofs(at) as files:
        daemon = int(str(client.call(mounts.socket_for(str(files)), "status", {})["pid"]))
        isoctl("--mount", str(files), "suspect", str(SUSPECT))
        took = [_round(files, number, daemon) for number in range(rounds)]
    lines = [
        "| call | trusted | suspect, in a directory of main's | | suspect, in one of its own | |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for call in _CHOSEN:
        trusted, shared, own = (min(of[who][call] for of in took) for who in range(3))
        cells = [f"{trusted:.0f} µs", *(f"{one:.0f} µs | {one / trusted:.1f}" for one in (shared, own))]
        lines.append(f"| {call} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _round(files: Path, number: int, daemon: int) -> tuple[dict[str, float], ...]:
    for name, uid in (("trusted", TRUSTED), ("suspect", SUSPECT), ("above", SUSPECT)):
        place = files / f"{name}{number}"
        place.mkdir()
        os.chown(place, uid, uid)
    own = files / f"above{number}" / "own"
    as_user(SUSPECT, os.mkdir, [str(own)])
    return (
        _calls(files / f"trusted{number}", TRUSTED, daemon),
        _calls(files / f"suspect{number}", SUSPECT, daemon),
        _calls(own, SUSPECT, daemon),
    )


def _calls(place: Path, uid: int, daemon: int) -> dict[str, float]:
    """Microseconds per call."""
    paths = [str(place / f"f{number}") for number in range(_FILES)]
    as_user(uid, make_file, paths)
    found = {}
    for name, call in CALLS.items():
        before = _settled(daemon)
        as_user(uid, call, paths)
        found[name] = (_settled(daemon) - before) / _FILES / 1000
    return found


def _settled(daemon: int) -> int:
    """The daemon's processor time, in nanoseconds, when what nobody waits for is done too."""
    now = _spent(daemon)
    while True:
        time.sleep(_MOMENT)
        before, now = now, _spent(daemon)
        if now - before < _IDLE_NS:
            return now


def _spent(daemon: int) -> int:
    tasks = Path(f"/proc/{daemon}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir())
