"""How old things are, by time that was seen to pass: clocks that are set make nothing older.

Things have numbers that only grow. Whoever cares for them looks now and then, says how many seconds have passed on a
clock that nobody sets, and which numbers there are: what has a number by then is as old as that look, at least.
"""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ages:
    """The seconds that have been seen to pass, and looks: how many there were, and the greatest number then."""

    passed: float = 0.0
    looks: tuple[tuple[float, int], ...] = ()


def looked(ages: Ages, seconds: float, lowest: int, highest: int) -> Ages:
    """After another look, so many seconds after the last, at things from the number `lowest` on.

    `highest` is the greatest number that was ever given. Numbers beyond were given by something else, or lost.
    """
    passed = ages.passed + max(0.0, seconds)
    looks = [(at, number) for at, number in ages.looks if lowest <= number <= highest]
    if lowest <= highest and (not looks or looks[-1][1] < highest):
        looks.append((passed, highest))
    return Ages(passed, tuple(looks))


def older(ages: Ages, seconds: float) -> int:
    """The greatest number of what is surely that old; 0 if nothing is."""
    return max((number for at, number in ages.looks if ages.passed - at >= seconds), default=0)


def to_json(ages: Ages) -> str:
    return json.dumps([round(ages.passed, 3), [[round(at, 3), number] for at, number in ages.looks]])


def from_json(text: str | None) -> Ages:
    """What `to_json` wrote; of anything else nothing is known, and everything is as young as can be."""
    try:
        passed, looks = json.loads(text or "")
        return Ages(float(passed), tuple((float(at), int(number)) for at, number in looks))
    except (ValueError, TypeError):
        return Ages()
