"""Protocol 3 (paper, section 6.2), every cell: what becomes of an object after an innocent verdict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isofs.model.reconcile import Outcome, reconcile
from isofs.model.vectors import G, Value, Vector

S1, S2, S3 = 1, 2, 3

TAKE, KEEP, DELETE = Outcome.TAKE, Outcome.KEEP, Outcome.DELETE
NOTHING, CONFLICT = Outcome.NOTHING, Outcome.CONFLICT

V = dict[int, Value]

#: case: (main's vector, the suspect's, who is merged, the outcome, the merged vector, for review).
CELLS: dict[str, tuple[V, V, int, Outcome, V, bool]] = {
    "both deleted": ({G: "d", S1: 0}, {G: 0, S1: "d"}, S1, NOTHING, {G: "d", S1: "d"}, False),
    "both deleted, main has more dimensions": (
        {G: "d", S1: 0, S2: "m"},
        {G: 0, S1: "d"},
        S1,
        NOTHING,
        {G: "d", S1: "d", S2: "m"},
        False,
    ),
    "main deleted, the suspect modified": (
        {G: "d", S1: 0},
        {G: 3, S1: "m"},
        S1,
        TAKE,
        {G: 3, S1: "m"},
        True,
    ),
    "main deleted, the suspect modified, main has more dimensions": (
        {G: "d", S1: 0, S2: "d"},
        {G: 0, S1: "m"},
        S1,
        TAKE,
        {G: 0, S1: "m", S2: "d"},
        True,
    ),
    "main deleted, the suspect did nothing": (
        {G: "d", S1: 0, S2: 0},
        {G: 0, S1: 0, S2: 0},
        S1,
        KEEP,
        {G: "d", S1: 0, S2: 0},
        False,
    ),
    "the suspect deleted, nothing else": (
        {G: 0, S1: 0},
        {G: 0, S1: "d"},
        S1,
        DELETE,
        {G: "d", S1: "d"},
        False,
    ),
    "the suspect deleted after main's modifications": (
        {G: 2, S1: 0},
        {G: 2, S1: "d"},
        S1,
        DELETE,
        {G: "d", S1: "d"},
        False,
    ),
    "the suspect deleted, first saving condition: G is larger": (
        {G: 1, S1: 0},
        {G: 0, S1: "d"},
        S1,
        KEEP,
        {G: 1, S1: "d"},
        True,
    ),
    "the suspect deleted, second saving condition: merged since, isolated earlier": (
        {G: 0, S1: "m", S2: 0},
        {G: 0, S1: 0, S2: "d"},
        S2,
        KEEP,
        {G: 0, S1: "m", S2: "d"},
        True,
    ),
    "the suspect deleted, second saving condition: merged since, isolated later": (
        {G: 0, S1: 0, S2: "m"},
        {G: 0, S1: "d"},
        S1,
        KEEP,
        {G: 0, S1: "d", S2: "m"},
        True,
    ),
    "the suspect deleted, both saving conditions": (
        {G: 1, S1: 0, S2: "m"},
        {G: 0, S1: "d"},
        S1,
        KEEP,
        {G: 1, S1: "d", S2: "m"},
        True,
    ),
    "the suspect deleted what had been merged before it was isolated": (
        {G: 0, S1: "m", S2: 0},
        {G: 0, S1: "m", S2: "d"},
        S2,
        DELETE,
        {G: "d", S1: "m", S2: "d"},
        False,
    ),
    "the suspect deleted, another's deletion was saved from": (
        {G: 0, S1: 0, S2: "d"},
        {G: 0, S1: "d"},
        S1,
        DELETE,
        {G: "d", S1: "d", S2: "d"},
        False,
    ),
    "the suspect's dominates": ({G: 0, S1: 0}, {G: 0, S1: "m"}, S1, TAKE, {G: 0, S1: "m"}, False),
    "the suspect's dominates, padded": (
        {G: 1, S1: 0, S2: 0, S3: 0},
        {G: 1, S1: "m"},
        S1,
        TAKE,
        {G: 1, S1: "m", S2: 0, S3: 0},
        False,
    ),
    "the suspect's dominates a deleted dimension, padded": (
        {G: 0, S1: 0, S2: "d"},
        {G: 0, S1: "m"},
        S1,
        TAKE,
        {G: 0, S1: "m", S2: 0},
        False,
    ),
    "main's dominates": (
        {G: 2, S1: 0, S2: "m"},
        {G: 0, S1: 0, S2: 0},
        S1,
        KEEP,
        {G: 2, S1: 0, S2: "m"},
        False,
    ),
    "main's dominates, padded": (
        {G: 1, S1: 0, S2: "m"},
        {G: 1, S1: 0},
        S1,
        KEEP,
        {G: 1, S1: 0, S2: "m"},
        False,
    ),
    "equal vectors: main's stays": ({G: 0, S1: 0}, {G: 0, S1: 0}, S1, KEEP, {G: 0, S1: 0}, False),
    "incompatible: main modified": (
        {G: 1, S1: 0},
        {G: 0, S1: "m"},
        S1,
        CONFLICT,
        {G: 1, S1: "m"},
        False,
    ),
    "incompatible: another suspect's was merged, isolated earlier": (
        {G: 0, S1: "m", S2: 0},
        {G: 0, S1: 0, S2: "m"},
        S2,
        CONFLICT,
        {G: 0, S1: "m", S2: "m"},
        False,
    ),
    "incompatible: another suspect's was merged, isolated later": (
        {G: 0, S1: 0, S2: "m"},
        {G: 0, S1: "m"},
        S1,
        CONFLICT,
        {G: 0, S1: "m", S2: "m"},
        False,
    ),
}


@pytest.mark.parametrize("case", CELLS)
def test_each_cell(case: str) -> None:
    main, suspect, subject, outcome, merged, review = CELLS[case]
    decision = reconcile(Vector.of(main), Vector.of(suspect), subject)
    assert decision.outcome is outcome
    assert decision.merged == Vector.of(merged)
    assert decision.review is review
    assert decision.reason


def test_the_table_has_every_outcome_with_and_without_padding() -> None:
    padded = {outcome for m, s, _, outcome, _, _ in CELLS.values() if m.keys() > s.keys()}
    equal = {outcome for m, s, _, outcome, _, _ in CELLS.values() if m.keys() == s.keys()}
    assert padded == set(Outcome)
    assert equal == set(Outcome)


suspect_values = st.sampled_from([0, "m", "d"])
main_vectors = st.builds(
    lambda g, own, rest: Vector.of({G: g, S1: own, **rest}),
    st.one_of(st.integers(0, 3), st.just("d")),
    st.just(0),
    st.dictionaries(st.sampled_from([S2, S3]), suspect_values),
)
suspect_vectors = st.builds(
    lambda g, own, rest: Vector.of({G: g, S1: own, **rest}),
    st.integers(0, 3),
    st.sampled_from(["m", "d"]),
    st.dictionaries(st.sampled_from([S2, S3]), suspect_values),
)


@given(main_vectors, suspect_vectors)
def test_merged_vectors_mean_what_the_paper_says(main: Vector, suspect: Vector) -> None:
    """G:'d' says that the merged version is removed; S:'d' or 'm' what an innocent S had done."""
    decision = reconcile(main, suspect, S1)
    kept_deleted = decision.outcome is Outcome.KEEP and main.deleted
    removed = decision.outcome in (Outcome.NOTHING, Outcome.DELETE) or kept_deleted
    assert decision.merged.deleted is removed
    assert decision.merged[S1] == suspect[S1]
    assert set(decision.merged) >= set(main)


@given(main_vectors, suspect_vectors)
def test_no_modification_is_lost_unseen(main: Vector, suspect: Vector) -> None:
    """Neither what trusted users changed since the suspect's copy nor what the suspect modified."""
    decision = reconcile(main, suspect, S1)
    count, seen = main[G], suspect[G]
    if isinstance(count, int) and isinstance(seen, int) and count > seen:
        assert decision.outcome in (Outcome.KEEP, Outcome.CONFLICT)
    if suspect[S1] == "m":
        assert decision.outcome in (Outcome.TAKE, Outcome.CONFLICT)
