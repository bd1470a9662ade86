"""The laws of version vectors, and the paper's Example 4 (section 6.2) with its vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isofs.model import vectors
from isofs.model.reconcile import Outcome, reconcile
from isofs.model.vectors import G, Value, Vector, compatible, dominates, value_dominates

S1, S2 = 1, 2


def vector(g: Value, **suspects: Value) -> Vector:
    """The paper's notation: `vector(0, S1=0, S2="m")` is <G:0, S1:0, S2:m>."""
    return Vector.of({G: g, **{int(name[1:]): value for name, value in suspects.items()}})


values = st.one_of(st.integers(0, 4), st.sampled_from(["m", "d"]))
suspect_values = st.sampled_from([0, "m", "d"])
whole_vectors = st.builds(
    lambda g, rest: Vector.of({G: g, **rest}),
    st.one_of(st.integers(0, 3), st.just("d")),
    st.dictionaries(st.integers(1, 3), suspect_values, max_size=3),
)


@given(values)
def test_a_value_dominates_itself(value: Value) -> None:
    assert value_dominates(value, value)


@given(values, values)
def test_two_values_that_dominate_each_other_are_equal(one: Value, other: Value) -> None:
    assert (one == other) == (value_dominates(one, other) and value_dominates(other, one))


@given(values, values, values)
def test_domination_of_values_is_transitive(a: Value, b: Value, c: Value) -> None:
    if value_dominates(a, b) and value_dominates(b, c):
        assert value_dominates(a, c)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (0, 0, True),
        ("m", "m", True),
        ("d", "d", True),
        (2, 1, True),
        (1, 2, False),
        ("m", 0, True),
        (0, "m", False),
        ("m", 1, False),
        (1, "m", False),
        (0, "d", True),
        (3, "d", True),
        ("m", "d", True),
        ("d", 0, False),
        ("d", 3, False),
        ("d", "m", False),
    ],
)
def test_each_rule_of_value_domination(one: Value, other: Value, expected: bool) -> None:
    assert value_dominates(one, other) is expected


@given(whole_vectors)
def test_a_vector_dominates_itself(one: Vector) -> None:
    assert dominates(one, one)


@given(whole_vectors, whole_vectors)
def test_two_vectors_that_dominate_each_other_are_equal_when_padded(one: Vector, other: Vector) -> None:
    both = dominates(one, other) and dominates(other, one)
    assert both == (one.padded(other) == other.padded(one))


@given(whole_vectors, whole_vectors, whole_vectors)
def test_domination_of_vectors_is_transitive(a: Vector, b: Vector, c: Vector) -> None:
    if dominates(a, b) and dominates(b, c):
        assert dominates(a, c)


@given(whole_vectors, whole_vectors)
def test_compatible_is_symmetric_and_is_domination_one_way(one: Vector, other: Vector) -> None:
    assert compatible(one, other) == compatible(other, one)
    assert compatible(one, other) == (dominates(one, other) or dominates(other, one))


@given(whole_vectors, whole_vectors)
def test_padding_inserts_what_is_missing_as_0_and_changes_nothing_else(one: Vector, other: Vector) -> None:
    padded = one.padded(other)
    assert set(padded) == set(one) | set(other)
    assert all(padded[d] == one.get(d, 0) for d in padded)


@given(whole_vectors)
def test_a_vector_is_the_same_after_the_store_had_it(one: Vector) -> None:
    assert vectors.from_json(vectors.to_json(one)) == one


@given(whole_vectors)
def test_equal_vectors_have_equal_hashes_whatever_the_order(one: Vector) -> None:
    again = Vector.of(dict(reversed(list(one.items()))))
    assert again == one
    assert hash(again) == hash(one)


@pytest.mark.parametrize("text", ["[]", "null", '{"0": -1}', '{"0": true}', '{"0": "x"}', '{"a": 1}'])
def test_what_is_no_vector_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        vectors.from_json(text)


def test_the_names_of_the_paper() -> None:
    one = vector(2, S1=0, S2="m")
    assert vectors.named(one) == {"G": 2, "S1": 0, "S2": "m"}
    assert str(one) == "<G:2, S1:0, S2:m>"


def test_example_4_the_suspect_modified_what_main_left_alone() -> None:
    main, suspect = vector(0, S1=0, S2=0), vector(0, S1=0, S2="m")
    decision = reconcile(main, suspect, S2)
    assert dominates(suspect, main)
    assert decision.outcome is Outcome.TAKE
    assert decision.merged == suspect


def test_example_4_the_suspect_deleted_what_main_left_alone() -> None:
    decision = reconcile(vector(0, S1=0, S2=0), vector(0, S1=0, S2="d"), S2)
    assert decision.outcome is Outcome.DELETE
    assert decision.merged == vector("d", S1=0, S2="d")


def test_example_4_main_and_the_suspect_modified_independently() -> None:
    main, suspect = vector(2, S1=0, S2=0), vector(0, S1=0, S2="m")
    decision = reconcile(main, suspect, S2)
    assert not compatible(main, suspect)
    assert decision.outcome is Outcome.CONFLICT
    assert decision.merged == vector(2, S1=0, S2="m")
