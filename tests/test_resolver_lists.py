"""Logs to which both sides added, and files whose lines are a set."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isofs.merge.resolvers.base import Both, Unresolved
from isofs.merge.resolvers.times import moment
from support.merging import merge, merged

STAMPS = {
    "iso": "2024-05-01T10:00:{:02}Z x",
    "iso with a zone and a fraction": "2024-05-01 12:00:{:02}.250+02:00 x",
    "python": "2024-05-01 10:00:{:02},123 INFO x",
    "nginx": "2024/05/01 10:00:{:02} [error] x",
    "bracketed": "[2024-05-01 10:00:{:02}] x",
    "rfc 5424": "<34>1 2024-05-01T10:00:{:02}.003Z host su - x",
    "syslog": "May  1 10:00:{:02} host sshd[1]: x",
    "epoch": "17145576{:02} x",
    "squid": "17145576{:02}.123    90 192.0.2.1 x",
    "shell history": "#17145576{:02}\nls",
    "milliseconds": "17145576{:02}000 x",
    "common log": '192.0.2.1 - bob [01/May/2024:10:00:{:02} +0200] "GET /" 200 1',
}


@pytest.mark.parametrize("stamp", STAMPS.values(), ids=STAMPS)
def test_added_lines_are_united_in_order_of_time(stamp: str) -> None:
    lines = [(stamp.format(n) + "\n").encode() for n in range(8)]
    base, main, suspect = lines[:2], lines[2::2], lines[3::2]
    together = merged("append", b"".join(base), b"".join(base + main), b"".join(base + suspect))
    assert together == b"".join(lines)


def test_zones_are_compared_as_what_they_mean() -> None:
    main, suspect = b"2024-05-01T10:00:00+02:00 first\n", b"2024-05-01T09:00:00Z second\n"
    assert merged("append", b"", suspect, main) == main + suspect


def test_a_year_that_is_not_told_goes_on_after_december() -> None:
    base = b"Dec 31 23:59:00 host x\n"
    main, suspect = b"Jan  1 00:00:05 host main\n", b"Dec 31 23:59:58 host suspect\nJan  1 00:00:07 host suspect\n"
    first, second = suspect.splitlines(keepends=True)
    assert merged("append", base, base + main, base + suspect) == base + first + main + second


def test_lines_without_a_time_stay_with_the_one_before() -> None:
    main = b"2024-05-01 10:00:01 oops\nTraceback\n  at x\n2024-05-01 10:00:09 on\n"
    suspect = b"2024-05-01 10:00:05 between\n"
    entries = main.partition(b"2024-05-01 10:00:09")
    assert merged("append", b"", main, suspect) == entries[0] + suspect + entries[1] + entries[2]


@pytest.mark.parametrize(
    ("main", "suspect"),
    [
        (b"plain\n", b"2024-05-01 10:00:05 x\n"),
        (b"2024-05-01 10:00:09 x\n", b"2024-05-01T10:00:05Z zone\n"),
        (b"1714557600 x\n", b"2024-05-01 10:00:05 x\n"),
        (b"2024-13-01 10:00:09 x\n", b"2024-05-01 10:00:05 x\n"),
    ],
)
def test_otherwise_mains_come_first(main: bytes, suspect: bytes) -> None:
    assert merged("append", b"base\n", b"base\n" + main, b"base\n" + suspect) == b"base\n" + main + suspect


def test_the_order_can_be_asked_for() -> None:
    main, suspect = b"1714557605 x\n", b"1714557600 x\n"
    assert merged("append", b"", main, suspect) == suspect + main
    assert merged("append", b"", main, suspect, {"order": "main-first"}) == main + suspect


def test_who_did_more_than_add_is_told() -> None:
    for main, suspect, who in ((b"a\nx\n", b"a\nb\ny\n", "main"), (b"a\nb\nx\n", b"", "alice")):
        proposal = merge("append", b"a\nb\n", main, suspect)
        assert isinstance(proposal, Unresolved)
        assert who in proposal.reasons[0]


def test_last_lines_without_an_end() -> None:
    assert merged("append", b"a\n", b"a\nm", b"a\ns") == b"a\nm\ns"
    assert merged("append", b"a\r\n", b"a\r\nm", b"a\r\ns\r\n") == b"a\r\nm\r\ns\r\n"
    assert merged("append", b"a", b"a\nm\n", b"a\ns\n") == b"a\nm\ns\n"
    assert isinstance(merge("append", b"a", b"abc\n", b"a\ns\n"), Unresolved)


def test_the_same_line_added_on_both_sides_happened_twice() -> None:
    assert merged("append", b"a\n", b"a\nx\n", b"a\nx\ny\n") == b"a\nx\nx\ny\n"


def test_logs_that_a_program_wrote(tmp_path: Path) -> None:
    def log(name: str, start: bytes, *seconds: int) -> bytes:
        path = tmp_path / name
        path.write_bytes(start)
        handler = logging.FileHandler(path)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
        for second in seconds:
            record = logging.LogRecord(name, logging.INFO, "", 0, f"at {second}", None, None)
            record.created, record.msecs = 1714557600.0 + second, 250.0
            handler.emit(record)
        handler.close()
        return path.read_bytes()

    base = log("base", b"", 0, 1)
    together = merged("append", base, log("main", base, 3, 5, 9), log("suspect", base, 4, 9))
    assert [line.split()[2:] for line in together.splitlines()] == [
        [name, b"at", b"%d" % second]
        for name, second in zip(b"base base main suspect main main suspect".split(), (0, 1, 3, 4, 5, 9, 9), strict=True)
    ]


@given(st.lists(st.integers(0, 50)), st.lists(st.integers(0, 50)))
def test_each_side_keeps_its_order(main: list[int], suspect: list[int]) -> None:
    mine, hers = (
        b"".join(b"2024-05-01 10:00:%02d %b%d\n" % (n, who, at) for at, n in enumerate(ns))
        for who, ns in ((b"m", main), (b"s", suspect))
    )
    lines = merged("append", b"", mine, hers).split(b"\n")
    if mine and hers:
        for who, side in ((b" m", mine), (b" s", hers)):
            assert [line for line in lines if who in line] == side.split(b"\n")[:-1]


@given(st.binary(max_size=60))
def test_any_line_has_a_time_or_not(line: bytes) -> None:
    for before in (b"", b"2024-05-01 10:00:00", b"May 31 10:00:0", b"[", b"1" * 10, b"a b c [01/May/2024:10:00:00 +"):
        moment(before + line)


def test_moments_that_are_none() -> None:
    for line in (
        b"2024-02-30T10:00:00",
        b"Feb 31 10:00:00 x",
        b"12345 x",
        b"x 2024-05-01",
        b"",
        b"9999999999999999999",
    ):
        assert moment(line) is None or line.startswith(b"9")


# --- sets


def test_additions_are_united_and_deletions_stand() -> None:
    assert merged("set", b"a\nb\nc\n", b"a\nc\nd\n", b"0\na\nb\n") == b"0\na\nd\n"


def test_a_set_without_a_last_line_end_and_with_cr_lf() -> None:
    assert merged("set", b"b\n", b"a\nb\n", b"b\nc") == b"a\nb\nc"
    assert merged("set", b"b\r\n", b"a\r\nb\r\n", b"b\r\nc\r\n") == b"a\r\nb\r\nc\r\n"
    for suspect in (b"b\nc\n", b"b\r\nc\n", b"b\r\nc\r"):
        assert isinstance(merge("set", b"b\r\n", b"a\r\nb\r\n", suspect), Unresolved)


def test_what_is_no_sorted_set_is_refused() -> None:
    for suspect in (b"c\na\n", b"a\na\n", b"B\na\nB\n"):
        assert isinstance(merge("set", b"a\n", b"a\nb\n", suspect), Unresolved)


def test_orders_of_sets() -> None:
    assert merged("set", b"a\nC\n", b"a\nB\nC\n", b"a\nC\nd\n", {"order": "nocase"}) == b"a\nB\nC\nd\n"
    main, suspect = b"# keys\nz\n\na\n\nq\n", b"# keys\nz\n\n\nb\n"
    assert merged("set", b"# keys\nz\n\na\n\n", main, suspect, {"order": "any"}) == b"# keys\nz\n\n\nq\nb\n"


@given(*(st.sets(st.binary(max_size=3).filter(lambda line: b"\n" not in line and b"\r" not in line)) for _ in range(3)))
def test_a_set_is_what_set_arithmetic_says(base: set[bytes], main: set[bytes], suspect: set[bytes]) -> None:
    def written(lines: set[bytes]) -> bytes:
        return b"".join(line + b"\n" for line in sorted(lines))

    expected = (main & suspect) | (main - base) | (suspect - base)
    assert merged("set", written(base), written(main), written(suspect)) == written(expected)


def test_disjoint_changes_commute_over_the_order_of_suspects() -> None:
    base, sides = b"m\n", [b"a\nm\n", b"m\nz\n", b"b\nm\n"]
    ends = set()
    for first, second, third in itertools.permutations(sides):
        ends.add(merged("set", base, merged("set", base, first, second), third))
    assert ends == {b"a\nb\nm\nz\n"}


def test_the_last_resorts() -> None:
    assert isinstance(merge("same", b"a", b"b", b"c"), Unresolved)
    assert isinstance(merge("keep-both", None, b"b", b"c"), Both)
