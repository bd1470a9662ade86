"""What verdicts on many objects take, beside `cp -al` and `rm -rf` of as many files."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import crowd
from contenders import directories, isoctl, unmounted

from isofs.control import client, mounts


def table(at: Path, objects: int) -> str:
    """Verdicts on a tenth of the objects and on all of them, per object."""
    lines = ["| of each of | " + " | ".join(_HEADS) + " |", "|---:|" + "---:|" * len(_HEADS)]
    for number, count in enumerate((objects // 10, objects)):
        place = at / str(number)
        place.mkdir(parents=True)
        took = [*_plainly(place, count), *_decided(place, count)]
        lines.append(f"| {count:,} | " + " | ".join(f"{seconds / count * 1e6:.0f} µs" for seconds in took) + " |")
    return "\n".join(lines)


#: On one and the same suspect's work: the calls, and what they are given.
_CALLS: tuple[tuple[tuple[str, dict[str, object]], ...], ...] = (
    (("plan", {}), ("innocent", {})),
    (("malicious", {"no_evidence": True}),),
    (("malicious", {}),),
)
_HEADS = ("`cp -al`", "`rm -rf`", "`plan`", "`innocent`", "`malicious --no-evidence`", "`malicious`")


def _plainly(at: Path, count: int) -> tuple[float, float]:
    """Link every file of a tree, and remove the links."""
    [root] = directories(at, "plain")
    crowd.make(root, 1, count)
    copied = _timed(lambda: subprocess.run(["cp", "-al", root / "crowd", root / "copy"], check=True))
    removed = _timed(lambda: subprocess.run(["rm", "-rf", root / "copy"], check=True))
    shutil.rmtree(root)
    return copied, removed


def _decided(at: Path, count: int) -> list[float]:
    """The plan and both verdicts, each on a suspect who changed so many files."""
    took = []
    for number, calls in enumerate(_CALLS):
        [root] = directories(at, f"decided{number}")
        crowd.make(root, 1, count)
        isoctl("mount", str(root))
        try:
            socket = mounts.socket_for(str(root))
            took += [
                _timed(partial(client.call, socket, name, {"uid": crowd.FIRST_UID, **more})) for name, more in calls
            ]
        finally:
            unmounted(root)
        shutil.rmtree(root)
    return took


def _timed(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began
