"""Ages that no clock makes: never more than the time that was seen to pass, and all of it at last."""

from __future__ import annotations

import random

import pytest

from isofs.model.ages import Ages, from_json, looked, older, to_json


@pytest.mark.parametrize("seed", range(50))
def test_nothing_is_ever_older_than_it_is(seed: int) -> None:
    """Against the true ages of all, with steps of a clock that went back, restarts, and things that go."""
    chance, ages, born = random.Random(seed), Ages(), dict[int, float]()
    now, number = 0.0, 0
    for _ in range(300):
        for _ in range(chance.choice((0, 0, 1, 3))):
            number += 1
            born[number] = now
        for gone in chance.sample(sorted(born), min(len(born), chance.choice((0, 0, 2)))):
            del born[gone]
        passes = chance.uniform(0, 3600)
        now += passes
        unseen = chance.random() < 0.1
        ages = looked(ages, 0 if unseen else chance.choice((passes, passes, -5)), min(born, default=number + 1), number)
        ages = from_json(to_json(ages))
        limit = chance.uniform(1, 40000)
        for old in [one for one in born if one <= older(ages, limit)]:
            assert now - born[old] >= limit - 0.01
            del born[old]
    for _ in range(12):
        ages = looked(ages, 3600, min(born, default=number + 1), number)
    assert older(ages, 40000) == (number if born else 0)


def test_looks_are_kept_only_of_what_is_there() -> None:
    ages = Ages()
    for hour in range(100):
        ages = looked(ages, 3600, max(1, hour - 9), hour)
    assert [number for _, number in ages.looks] == list(range(90, 100))
    assert looked(ages, 3600, 100, 99).looks == ()


@pytest.mark.parametrize("text", [None, "", "{}", "[1]", '["x", []]', "[1, [[2]]]", "[1, 2]", "nothing"])
def test_what_means_nothing_makes_nothing_old(text: str | None) -> None:
    assert from_json(text) == Ages()
