"""What the audit trail costs trusted users: one mount, with the trail off and on in turn, many times.

What else the machine does changes from second to second, so turns are short: a hundred calls, and a small tree.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
from collections import defaultdict
from pathlib import Path

import assets
from contenders import TRUSTED, directories, isoctl, unmounted
from work import CHAINS, MIB, Context, Scale, Step, timed

from isofs.control import client, mounts

#: What is measured: what changes something, and opening, where every call must be looked at.
_WORK = {
    "small": ("append 100 bytes", "create", "open/close", "rename", "unlink"),
    "tree": ("untar", "remove the tree"),
}
_STATES = ("off", "writes")

#: How much in one turn.
_TURN = Scale(files=120, tree=4 * MIB, calls=100, sources=1)


def table(at: Path, rounds: int) -> str:
    """Medians of the time that calls take, and of the daemon's part of a processor, without the trail and with it."""
    [files, sources] = directories(at, "files", "sources")
    made = assets.make(sources, _TURN)
    used: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    isoctl("mount", str(files))
    try:
        pid = int(str(client.call(mounts.socket_for(str(files)), "status", {})["pid"]))
        for number in range(rounds):
            for state in random.sample(_STATES, len(_STATES)):
                _audit(files, at, state)
                for chain, wanted in _WORK.items():
                    context = Context(files / f"{chain}{number}{state}", _TURN, made)
                    os.mkdir(context.place)
                    os.chown(context.place, TRUSTED, TRUSTED)
                    for step in _steps(chain):
                        before = _processor(pid)
                        took = timed(step, context, TRUSTED)
                        if step.name in wanted:
                            used[step.name, state].append((_processor(pid) - before, took))
                    shutil.rmtree(context.place)
    finally:
        unmounted(files)
    lines = [
        "| work | without | with | more | the daemon's part, without | with |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for chain, wanted in _WORK.items():
        for step in _steps(chain):
            if step.name in wanted:
                calls = step.calls(_TURN) if step.calls else 1
                lines.append(_line(step.name, calls, *(used[step.name, state] for state in _STATES)))
    return "\n".join(lines)


def _steps(chain: str) -> list[Step]:
    """What is measured of a chain, and what that needs to be done before."""
    return [step for step in CHAINS[chain] if not step.name or step.name in _WORK[chain]]


def _line(name: str, calls: int, off: list[tuple[float, float]], on: list[tuple[float, float]]) -> str:
    unit, factor = ("µs", 1e6) if calls > 1 else ("ms", 1e3)
    columns = [
        [statistics.median(column) / calls * factor for column in zip(*state, strict=True)] for state in (off, on)
    ]
    (daemon_off, took_off), (daemon_on, took_on) = columns
    return (
        f"| {name} | {took_off:.1f} {unit} | {took_on:.1f} {unit} | {took_on / took_off - 1:+.1%} "
        f"| {daemon_off:.1f} {unit} | {daemon_on:.1f} {unit} |"
    )


def _audit(files: Path, at: Path, state: str) -> None:
    (at / "config.toml").write_text(f'[audit]\non = "{state}"\n')
    isoctl("--mount", str(files), "config", "edit", "--from", str(at / "config.toml"))


def _processor(pid: int) -> float:
    """Seconds that the daemon's one thread has had of a processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
