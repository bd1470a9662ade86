"""The lines of the control protocol: everything sent is understood, everything else is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isofs.control import wire
from isofs.errors import UsageError

text = st.text(st.characters(exclude_categories=()), max_size=20)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
json_object = st.dictionaries(text, json_value, max_size=4)
path = st.binary(max_size=30).filter(lambda name: b"\0" not in name)


def line(**fields: object) -> bytes:
    return json.dumps({"v": 1, **fields}).encode() + b"\n"


@given(path)
def test_a_path_comes_back_as_the_same_bytes(name: bytes) -> None:
    request = wire.Request("diff", {"paths": [wire.path_text(name)]})
    paths = wire.texts(wire.parse_request(wire.encode(request)).args, "paths")
    assert [wire.path_bytes(text) for text in paths] == [name]


@given(json_object)
def test_replies_are_one_line_of_ascii_and_come_back(facts: dict[str, object]) -> None:
    for reply in (wire.Progress(1, 2), wire.Result(facts), wire.Failure("busy", "a\nb")):
        encoded = wire.encode(reply)
        assert encoded.isascii()
        assert encoded.endswith(b"\n")
        assert encoded.count(b"\n") == 1
        # Through JSON once more: two surrogates that stand side by side become one character.
        again = wire.encode(wire.parse_reply(encoded))
        assert wire.parse_reply(again) == wire.parse_reply(encoded)


@given(json_object, st.integers(0, 120))
def test_a_result_in_pieces_is_the_same_line(facts: dict[str, object], length: int) -> None:
    result = wire.Result({**facts, "list": [facts, None] * length})
    assert b"".join(wire.pieces(result)) == wire.encode(result)
    assert b"".join(wire.pieces(wire.Result({}))) == wire.encode(wire.Result({}))


@given(st.binary(max_size=200) | json_value.map(lambda value: json.dumps(value).encode()))
def test_a_line_is_understood_or_refused_but_never_a_crash(garbage: bytes) -> None:
    for parse in (wire.parse_request, wire.parse_reply):
        with pytest.raises(UsageError):
            parse(garbage)


@given(json_object)
def test_a_request_of_another_shape_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        wire.parse_request(json.dumps({"v": 1, "call": "status", **fields}).encode())


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\n",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"v":1,"call":"status","args":{"a":NaN}}',
        b'{"v":1,"call":"status","args":{"a":-Infinity}}',
        b'{"v":1,"call":"status","args":{"a":' + b"9" * 10_000 + b"}}",
        line(call="status"),
        line(args={}),
        line(call=1, args={}),
        line(call="status", args=[]),
        line(call="status", args=None),
        line(call="status", args={}, more=1),
    ],
)
def test_what_is_not_a_request_is_refused(bad: bytes) -> None:
    with pytest.raises(UsageError):
        wire.parse_request(bad)


@pytest.mark.parametrize("version", [None, 0, 2, 1.0, True, "1", [1]])
def test_other_versions_are_refused_by_name(version: object) -> None:
    with pytest.raises(UsageError, match="version 1"):
        wire.parse_request(line(v=version, call="status", args={}))


def test_a_request_may_be_as_long_as_the_limit_and_no_longer() -> None:
    frame = len(wire.encode(wire.Request("c", {"a": ""})))
    longest = wire.encode(wire.Request("c", {"a": "x" * (wire.REQUEST_LIMIT - frame)}))
    assert len(longest) == wire.REQUEST_LIMIT
    assert wire.parse_request(longest).call == "c"
    with pytest.raises(UsageError, match="longer"):
        wire.encode(wire.Request("c", {"a": "x" * (wire.REQUEST_LIMIT - frame + 1)}))
    with pytest.raises(UsageError, match="longer"):
        wire.parse_request(longest + b" ")


@pytest.mark.parametrize(("kind", "value"), [(int, True), (int, 1.0), (int, "1"), (str, 1), (bool, 1), (int, None)])
def test_an_argument_is_of_its_kind_exactly(kind: type, value: object) -> None:
    with pytest.raises(UsageError, match="'it'"):
        wire.argument({"it": value}, "it", kind)
    with pytest.raises(UsageError, match="'it'"):
        wire.argument({}, "it", kind)


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1, 10**40])
def test_a_number_is_one_that_a_database_keeps(value: int) -> None:
    for ask in (lambda: wire.argument({"it": value}, "it", int), lambda: wire.numbers({"it": [value]}, "it")):
        with pytest.raises(UsageError, match="'it'"):
            ask()
    assert wire.argument({"it": (1 << 63) - 1}, "it", int) == (1 << 63) - 1


@given(st.text(st.characters(exclude_categories=())))
def test_words_can_be_kept_and_are_what_they_were_where_they_could(text: str) -> None:
    kept = wire.words({"it": text}, "it")
    assert kept.encode("utf-8").decode("utf-8") == kept
    assert wire.words({"it": kept}, "it") == kept
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert kept == text


def test_bytes_that_are_no_text_are_escapes() -> None:
    assert wire.words({"it": "caf\udce9 \ud800"}, "it") == r"caf\xe9 \ud800"
    assert wire.words({}, "it") == ""


def test_arguments_are_handed_over() -> None:
    args = {"uid": 7, "user": "a", "yes": False, "none": None, "paths": ["a", "b"]}
    assert wire.argument(args, "uid", int) == 7
    assert wire.argument(args, "user", str) == "a"
    assert wire.argument(args, "yes", bool) is False
    assert wire.optional(args, "uid", int) == 7
    assert wire.optional(args, "none", int) is None
    assert wire.optional(args, "absent", int) is None
    assert wire.texts(args, "paths") == ["a", "b"]


@pytest.mark.parametrize("value", [None, "a", [1], ["a", None], {"a": "b"}])
def test_a_list_of_texts_is_nothing_else(value: object) -> None:
    with pytest.raises(UsageError, match="'paths'"):
        wire.texts({"paths": value}, "paths")


@pytest.mark.parametrize("bad", ["\ud800", "a\0b"])
def test_a_text_that_no_path_has_is_refused(bad: str) -> None:
    with pytest.raises(UsageError, match="not a path"):
        wire.path_bytes(bad)


def test_a_moment_is_utc() -> None:
    assert wire.moment(0) == "1970-01-01T00:00:00Z"
    assert wire.moment(1_700_000_000.9) == "2023-11-14T22:13:20Z"
