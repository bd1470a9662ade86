"""One contract for every resolver: what a merge may never do, whatever the resolver and whatever the bytes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isofs.merge.resolvers.base import Both, Inputs, Merged, Proposal, Resolver, Unresolved, propose, resolver
from support.merging import RESOLVERS, database, letter, subjects, written

every_resolver = pytest.mark.parametrize("using", RESOLVERS, ids=lambda one: one.name)

WORDS = tuple(b"%s %d" % (word, at) for at, word in enumerate(b"ant bee cat dog eel fox gnu hen ibex jay".split()))


@functools.cache
def _mail(numbers: tuple[int, ...], flags: str, kind: str) -> bytes:
    return written(kind, [letter(n, Status="RO" if f == "r" else "O") for n, f in zip(numbers, flags, strict=False)])


@functools.cache
def _rows(rows: tuple[tuple[int, int], ...]) -> bytes:
    start = _rows(()) if rows else b""
    table = "" if rows else "CREATE TABLE t(id INTEGER PRIMARY KEY, a);"
    return database(table + "".join(f"INSERT INTO t VALUES({key}, {value});" for key, value in rows), start)


def _lines(words: Sequence[bytes], end: bytes) -> bytes:
    return end.join(words)


junk = st.binary(max_size=200) | st.sampled_from(
    [
        b"SQLite format 3\0" + b"\xff" * 600,
        b"From x Thu Jan  1 00:00:00 1970\n",
        b"From x Thu Jan  1 00:00:00 1970\nContent-Length: 99\n\nx",
        b"\1\1\1\1\n\1\1\1\1\n",
        b"\1\1\1\1\n",
        b"BABYL OPTIONS:\n\x1f",
        b"BABYL OPTIONS:\n\x1f\x0c\n1,,\n*** EOOH ***\n\n\x1f",
        b"BABYL OPTIONS:\n\x1f\x0c\n\x1f\x0c\n\x1f",
        b"\xff\xfea\0\n\0b",
        b"\xff\xfe\0",
        b"2024-02-31T10:00:00Z no such day\n",
        b"a\r\nb",
        b"\r",
        b"\n\n\n",
        b"1" * 30 + b"\n",
    ]
)
text = st.builds(
    _lines, st.lists(st.sampled_from(WORDS), max_size=8), st.sampled_from([b"\n", b"\r\n", b"\n2024-05-01 10:00:00 "])
).flatmap(lambda content: st.sampled_from([content, content + b"\n"]))
sets = st.sets(st.sampled_from(WORDS)).map(lambda words: b"".join(word + b"\n" for word in sorted(words)))
mail = st.builds(
    _mail,
    st.sets(st.integers(0, 3)).map(lambda numbers: tuple(sorted(numbers))),
    st.sampled_from(["rrrr", "oooo", "roro"]),
    st.sampled_from(["mbox", "MMDF", "Babyl"]),
)
rows = st.dictionaries(st.integers(0, 3), st.integers(0, 1), max_size=3).map(lambda d: _rows(tuple(sorted(d.items()))))
content = st.one_of(junk, text, sets, mail, rows)
three = st.one_of(
    *(st.tuples(kind, kind, kind) for kind in (junk, text, sets, mail, rows, content)),
    # Both only added.
    st.tuples(text, text, text).map(lambda c: (c[0], c[0] + c[1], c[0] + c[2])),
)


def _kind(proposal: Proposal) -> type:
    return type(proposal)


@every_resolver
@settings(max_examples=60)
@given(three)
def test_a_resolver_answers_for_every_input_always_the_same_and_alike_for_both_sides(
    using: Resolver, contents: tuple[bytes, bytes, bytes]
) -> None:
    base, main, suspect = contents
    first = propose(using, Inputs(b"f", base, main, suspect))
    assert isinstance(first, (Merged, Both, Unresolved))
    assert propose(using, Inputs(b"f", base, main, suspect)) == first
    assert _kind(propose(using, Inputs(b"f", base, suspect, main))) is _kind(first)
    without = propose(using, Inputs(b"f", None, main, suspect))
    assert _kind(propose(using, Inputs(b"f", None, suspect, main))) is _kind(without)
    if using.needs_base and main != suspect:
        assert isinstance(without, Unresolved)
    if isinstance(first, Unresolved):
        assert first.reasons
        assert all(reason.isprintable() for reason in first.reasons)
    for side in contents:
        using.fits(side, using.settings({}))


@every_resolver
@settings(max_examples=40)
@given(three)
def test_equal_sides_change_nothing_and_an_unchanged_side_gives_way(
    using: Resolver, contents: tuple[bytes, bytes, bytes]
) -> None:
    base, side, _ = contents
    for inputs in (
        Inputs(b"f", base, side, side),
        Inputs(b"f", None, side, side),
        Inputs(b"f", base, base, side),
        Inputs(b"f", base, side, base),
    ):
        proposal = propose(using, inputs)
        assert isinstance(proposal, Merged)
        assert proposal.content == side


@pytest.mark.parametrize("name", ["text", "mailbox", "set", "sqlite"])
@settings(max_examples=60)
@given(three)
def test_the_functions_themselves_keep_the_laws(name: str, contents: tuple[bytes, bytes, bytes]) -> None:
    """Without the rules of `propose` before them, which make the laws hold for any function."""
    using, (base, side, _) = resolver(name), contents
    options = using.settings({})
    for main, suspect in ((side, side), (base, side), (side, base)):
        proposal = using.function(Inputs(b"f", base, main, suspect), options)
        if not isinstance(proposal, Merged):
            continue
        if name == "mailbox":
            for kind in ("mbox", "MMDF", "Babyl"):
                if side.startswith({"mbox": b"From ", "MMDF": b"\1", "Babyl": b"BABYL"}[kind]):
                    assert sorted(subjects(kind, proposal.content)) == sorted(subjects(kind, side))
        elif name == "sqlite":
            again = using.function(Inputs(b"f", side, proposal.content, side), options)
            assert isinstance(again, Merged)
            assert "0 rows" in again.reasons[0]
        else:
            assert proposal.content == side


def _elements(base: bytes, main: bytes, suspect: bytes) -> set[bytes]:
    """The lines that must be in a result: what either side added, and what neither deleted."""
    old, mine, theirs = (set(side.replace(b"\r\n", b"\n").split(b"\n")) for side in (base, main, suspect))
    return (mine | theirs) - old | (old & mine & theirs)


@pytest.mark.parametrize("name", ["text", "append", "set", "keep-both"])
@settings(max_examples=150)
@given(
    st.lists(st.sampled_from(WORDS), unique=True, max_size=6),
    st.permutations(WORDS).map(lambda words: words[:4]),
    st.permutations(WORDS).map(lambda words: words[:4]),
    st.data(),
)
def test_no_line_is_lost(
    name: str, start: list[bytes], mine: list[bytes], theirs: list[bytes], data: st.DataObject
) -> None:
    using = resolver(name)
    at, cut = data.draw(st.integers(0, len(start))), data.draw(st.integers(0, 2))
    main = start[:at] + [b"m " + word for word in mine[:cut]] + start[at:]
    suspect = [word for word in start if word not in theirs[:1]] + [b"s " + word for word in theirs[:2]]
    base, main_content, suspect_content = (
        b"".join(word + b"\n" for word in (sorted(words) if name == "set" else words))
        for words in (start, main, suspect)
    )
    proposal = propose(using, Inputs(b"f", base, main_content, suspect_content))
    if isinstance(proposal, Merged):
        left = set(proposal.content.split(b"\n"))
        assert _elements(base, main_content, suspect_content) <= left
        assert left <= {b"", *main, *suspect}


@every_resolver
def test_a_resolver_says_what_it_is(using: Resolver) -> None:
    assert using.description
    assert using.refuses_unread(using.limit + 1, base=True)
    assert using.refuses_unread(1, base=True) is None
    for option in using.options.values():
        assert option.description
        assert option.refusal(option.default) is None
        assert option.refusal(2.5)
        assert option.refusal(None)
