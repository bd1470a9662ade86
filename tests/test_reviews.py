"""When somebody is reminded of a suspect."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isofs.control import wire
from isofs.model.records import Subject, SubjectId, SubjectState
from isofs.service import reviews

BEGAN = 1_000_000_000
ALICE = Subject(SubjectId(1), 61001, "alice", wire.moment(BEGAN), "odd", SubjectState.SUSPECT)
DAY = 86400


def test_once_in_each_period() -> None:
    """Told at the end of a period, or as soon after it as there is a look, and not again before the next ends."""
    reminded: dict[SubjectId, int] = {}
    told = []
    for hour in range(100):
        for subject, passed in reviews.due([ALICE], DAY, BEGAN + hour * 3600, reminded):
            reminded[subject.sid] = passed
            told.append((hour, passed))
    assert told == [(24, 1), (48, 2), (72, 3), (96, 4)]


def test_a_clock_that_was_ahead_for_a_while_silences_nothing() -> None:
    year = {ALICE.sid: 365}  # reminded while it was
    reminded = reviews.caught_up([ALICE], DAY, BEGAN + 3 * DAY, year)
    assert list(reviews.due([ALICE], DAY, BEGAN + 3 * DAY, reminded)) == []
    assert list(reviews.due([ALICE], DAY, BEGAN + 4 * DAY, reminded)) == [(ALICE, 4)]
    assert reviews.caught_up([ALICE], 0, BEGAN, year) == year


def test_periods_that_nobody_looked_in_are_told_once() -> None:
    assert list(reviews.due([ALICE], DAY, BEGAN + 10 * DAY, {})) == [(ALICE, 10)]


@pytest.mark.parametrize("state", [state for state in SubjectState if state is not SubjectState.SUSPECT])
def test_not_of_who_is_no_suspect_any_more(state: SubjectState) -> None:
    other = replace(ALICE, state=state)
    assert list(reviews.due([other], DAY, BEGAN + 10 * DAY, {})) == []
    assert reviews.since(other, DAY) is None


def test_not_at_all_if_it_is_off() -> None:
    assert list(reviews.due([ALICE], 0, BEGAN + 10 * DAY, {})) == []
    assert reviews.since(ALICE, 0) is None
    assert reviews.since(ALICE, DAY) == wire.moment(BEGAN + DAY)


@pytest.mark.parametrize(
    ("review", "after", "pause"),
    [(DAY, 0, 60), (DAY, DAY - 30, 30), (DAY, DAY - 0.5, 1), (DAY, DAY, 60), (0, 7, 60), (10, 25, 5), (DAY, -100, 60)],
)
def test_the_next_look_is_at_the_end_of_a_period(review: int, after: float, pause: float) -> None:
    assert reviews.pause([ALICE], review, BEGAN + after) == pause
    assert reviews.pause([], review, BEGAN + after) == 60
