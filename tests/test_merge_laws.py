"""Laws of merges with resolvers, whatever the edits: equal sides, one side, disjoint changes, and nothing lost."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from isofs.engine import checks
from support.contest import Contest
from support.engine import Walker

NAMES = ("a.txt", "b.log", "c.conf")
BASE = {name: b"".join(b"%s %d\n" % (name.encode(), number) for number in range(12)) for name in NAMES}

#: What somebody does to one file: lines replaced, inserted or removed (None), by number; or the file deleted.
edits = st.dictionaries(
    st.sampled_from(NAMES),
    st.one_of(
        st.just("delete"),
        st.dictionaries(st.integers(0, 11), st.sampled_from([None, b"new\n", b"other\n", b"two\nlines\n"]), max_size=4),
    ),
)
Edits = dict[str, str | dict[int, bytes | None]]


def edited(content: bytes, lines: dict[int, bytes | None]) -> bytes:
    old = content.splitlines(keepends=True)
    return b"".join(line for at, line in ((at, lines.get(at, one)) for at, one in enumerate(old)) if line is not None)


def result(files: dict[str, bytes], changes: Edits) -> dict[str, bytes]:
    """What the files are after the edits."""
    found = dict(files)
    for name, change in changes.items():
        if isinstance(change, str):
            del found[name]
        else:
            found[name] = edited(found[name], change)
    return found


def do(contest: Contest, user: Walker, changes: Edits) -> None:
    for name, change in changes.items():
        if isinstance(change, str):
            user.unlink(name.encode())
        elif edited(BASE[name], change) != BASE[name]:
            contest.write(user, edited(BASE[name], change), name)


@contextmanager
def contest(suspects: tuple[str, ...] = ("alice",)) -> Iterator[Contest]:
    with tempfile.TemporaryDirectory() as folder:
        one = Contest(Path(folder, "main"), BASE, suspects)
        yield one
        assert not checks.check(one.fs)
        one.close()


@settings(max_examples=15, deadline=None)
@given(edits)
def test_merging_equal_sides_changes_nothing(changes: Edits) -> None:
    with contest() as one:
        do(one, one.suspects["alice"], changes)
        do(one, one.bob, changes)
        before = one.main()
        assert before == result(BASE, changes)
        assert one.innocent().conflicts == 0
        assert one.main() == before


@settings(max_examples=15, deadline=None)
@given(edits, st.booleans())
def test_with_one_side_unchanged_the_other_is_the_result(changes: Edits, suspect: bool) -> None:
    with contest() as one:
        do(one, one.suspects["alice"] if suspect else one.bob, changes)
        assert one.innocent().conflicts == 0
        assert one.main() == result(BASE, changes)


@settings(max_examples=15, deadline=None)
@given(edits, edits)
def test_nothing_is_lost_and_main_is_left_alone_where_both_cannot_be_had(hers: Edits, his: Edits) -> None:
    with contest() as one:
        do(one, one.suspects["alice"], hers)
        do(one, one.bob, his)
        planned = one.planned()
        report = one.innocent()
        assert [(item.path, item.action) for item in planned] == sorted((i.path, i.action) for i in report.items)
        main, conflicts = one.main(), [item.path.decode() for item in report.items if item.action == "conflict"]
        assert sorted(one.waiting()) == sorted(result(BASE, hers)[name] for name in conflicts)
        for name in NAMES:
            mine, theirs = (result(BASE, changes).get(name) for changes in (his, hers))
            if name in conflicts or theirs in (None, BASE[name]):
                assert main.get(name) == (mine if theirs is not None or mine != BASE[name] else None)
            elif mine in (None, BASE[name]):
                assert main[name] == theirs  # the paper's rule: what the suspect modified comes back
            else:
                added = {*(mine or b"").splitlines(), *(theirs or b"").splitlines()} - {*BASE[name].splitlines()}
                assert added <= {*main[name].splitlines()}


#: Lines so far apart that no two changes touch: each for one of three users.
apart = st.permutations([0, 4, 8]).map(lambda at: dict(zip(("alice", "carol", "bob"), at, strict=True)))
texts = st.sampled_from([None, b"new\n", b"two\nlines\n"])


@settings(max_examples=6, deadline=None)
@given(apart, st.lists(texts, min_size=3, max_size=3))
def test_disjoint_changes_commute(at: dict[str, int], lines: Sequence[bytes | None]) -> None:
    changes = {who: {name: {at[who]: line} for name in NAMES[::2]} for who, line in zip(at, lines, strict=True)}
    expected = dict(BASE)
    for name in NAMES[::2]:
        expected[name] = edited(BASE[name], {at[who]: line for who, line in zip(at, lines, strict=True)})
    for order in itertools.permutations(("alice", "carol")):
        with contest(order) as one:
            for who, user in (*one.suspects.items(), ("bob", one.bob)):
                do(one, user, changes[who])  # type: ignore[arg-type]
            for who in reversed(order):
                assert one.innocent(name=who).conflicts == 0
            assert one.main() == expected
