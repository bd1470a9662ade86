"""The clock jumps at every look at it, a year ahead and an hour back: only times that are shown depend on it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from isofs.engine import attic, recovery
from isofs.engine.checks import check
from isofs.engine.state import Filesystem
from isofs.merge import apply
from isofs.merge.report import Report
from isofs.service import attic as service
from isofs.service.live import Live
from isofs.store.folder import open_store
from support.attic import entries, kept
from support.mount import ALICE
from test_merge_faults import outcome, to_the_verdict

DAY = 86400

#: Seconds by which the clock is wrong, one look after the other.
STEPS = (0, 365 * 86400, -3600, 30 * 365 * 86400)


def jumping(patch: pytest.MonkeyPatch) -> None:
    """From now on the clock jumps."""
    steps, right = itertools.cycle(STEPS), time.time_ns

    def wrong() -> int:
        return right() + next(steps) * 10**9

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Jumping:
            return cls.fromtimestamp(wrong() / 1e9, tz)

    patch.setattr(time, "time_ns", wrong)
    patch.setattr(time, "time", lambda: wrong() / 1e9)
    patch.setattr(attic, "datetime", Jumping)


def merged(main: Path) -> tuple[object, Sequence[tuple[object, ...]]]:
    """The whole session, its merge, and what is known after a restart."""
    fs, report = to_the_verdict(main), Report()
    for _ in apply.merge_steps(fs, fs.suspects[ALICE], report):
        pass
    recovery.close_filesystem(fs)
    fs = _opened(main)
    assert check(fs) == []
    found = outcome(fs, report), [(e.number, e.path, e.action, kept(fs, e).content) for e in entries(fs)]
    recovery.close_filesystem(fs)
    return found


def _opened(main: Path) -> Filesystem:
    return recovery.open_filesystem(open_store(str(main / ".isofs")), str(main))


def test_isolation_and_merges_go_by_no_clock(tmp_path: Path) -> None:
    expected = merged(tmp_path / "right")
    with pytest.MonkeyPatch.context() as patch:
        jumping(patch)
        assert merged(tmp_path / "wrong") == expected


def test_no_step_of_the_clock_empties_the_attic(tmp_path: Path) -> None:
    """Whatever the time is said to be; and when the time has really passed, it is emptied."""
    main, now = tmp_path / "main", [0.0]
    with pytest.MonkeyPatch.context() as patch:
        jumping(patch)
        merged(main)
        patch.setattr(service, "time", SimpleNamespace(monotonic=lambda: now[0]))
        for _ in range(40):  # days, with a restart each
            fs = _opened(main)
            before = entries(fs)
            trio.run(_a_day_of_care, fs, now)
            left = entries(fs)
            recovery.close_filesystem(fs)
            if before != left:
                break
        assert before
        assert left == []
        assert now[0] >= 30 * DAY


async def _a_day_of_care(fs: Filesystem, now: list[float]) -> None:
    attic = service.Attic(fs, Live(fs.store))
    for _ in range(24):
        with trio.CancelScope() as scope:
            scope.cancel()  # at its first wait; the time passes then
            await attic.forget_old()
        now[0] += DAY / 24
