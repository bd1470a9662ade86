"""What the audit trail costs trusted users: one mount, with the trail off and on in turn.

Other work on the machine changes how long calls take, but hardly how much of a processor the daemon needs for them: so
that is what is compared, beside the time that the calls took.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from pathlib import Path

import assets
from contenders import TRUSTED, directories, isoctl, unmounted
from work import CHAINS, Context, Scale, Step, timed

from isofs.control import client, mounts

#: What is measured: what changes something, and opening, where every call must be looked at.
_WORK = {
    "small": ("append 100 bytes", "create", "open/close", "rename", "unlink"),
    "tree": ("untar", "remove the tree"),
}
_STATES = ("off", "writes")


def table(at: Path, scale: Scale, rounds: int) -> str:
    """Processor time of the daemon and of the trail's writer, and elapsed time, without the trail and with it."""
    [files, sources] = directories(at, "files", "sources")
    made = assets.make(sources, scale)
    used: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    isoctl("mount", str(files))
    try:
        pid = int(str(client.call(mounts.socket_for(str(files)), "status", {})["pid"]))
        for number in range(rounds):
            for state in random.sample(_STATES, len(_STATES)):
                _audit(files, at, state)
                for chain, wanted in _WORK.items():
                    context = Context(files / f"{chain}{number}{state}", scale, made)
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
        "| work | daemon, no trail | daemon, trail | more | of the time that the work takes |",
        "|---|---:|---:|---:|---:|",
    ]
    for chain, wanted in _WORK.items():
        for step in _steps(chain):
            if step.name in wanted:
                calls = step.calls(scale) if step.calls else 1
                lines.append(_line(step.name, calls, used[step.name, "off"], used[step.name, "writes"]))
    return "\n".join(lines)


def _steps(chain: str) -> list[Step]:
    """What is measured of a chain, and what that needs to be done before."""
    return [step for step in CHAINS[chain] if not step.name or step.name in _WORK[chain]]


def _line(name: str, calls: int, off: list[tuple[float, float]], on: list[tuple[float, float]]) -> str:
    """One row, of the rounds that needed least: what is more is other work on the machine."""
    without, trail = (min(used for used, _ in found) / calls for found in (off, on))
    took = min(took for _, took in off) / calls
    unit, factor = ("µs", 1e6) if calls > 1 else ("ms", 1e3)
    more = (trail - without) * factor
    return (
        f"| {name} | {without * factor:.1f} {unit} | {trail * factor:.1f} {unit} | {more:+.1f} {unit} | "
        f"{(trail - without) / took:+.1%} |"
    )


def _audit(files: Path, at: Path, state: str) -> None:
    (at / "config.toml").write_text(f'[audit]\non = "{state}"\n')
    isoctl("--mount", str(files), "config", "edit", "--from", str(at / "config.toml"))


def _processor(pid: int) -> float:
    """Seconds that the daemon's one thread has had of a processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
