"""Random histories of five users on the unmounted engine, checked after every step as in `test_engine_machine`."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from support.histories import Step, cut, episodes, history
from test_engine_machine import PATHS, SUSPICIOUS, TRUSTED, Machine

#: More for a longer look: ISOFS_HISTORIES=5000.
COUNT = int(os.environ.get("ISOFS_HISTORIES", "12"))
STEPS = 60


def failure(steps: list[Step], make: Callable[[], Machine] = Machine) -> Exception | None:
    """What goes wrong in a history, None if nothing does."""
    machine = make()
    try:
        for name, given in steps:
            impossible = {"use": not machine.opened, "close": not machine.opened, "decide": not machine.world.views}
            if impossible.get(name, False):
                continue
            getattr(machine, name)(**given)
            machine.check_all()
    except Exception as error:
        return error
    finally:
        machine.teardown()
    return None


@pytest.mark.parametrize("seed", range(COUNT))
def test_history(seed: int) -> None:
    draw = episodes if seed % 2 else history
    steps = draw(seed, [*TRUSTED, *SUSPICIOUS], PATHS, STEPS)
    error = failure(steps)
    if error is not None:
        needed = cut(steps, lambda some: type(failure(some)) is type(error))
        pytest.fail("\n".join(map(repr, needed)) + f"\n{failure(needed)!r}")
