"""Text merges against `git merge-file`, and what must survive byte for byte."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from isofs.merge.resolvers.base import Merged, Unresolved
from isofs.merge.resolvers.lines import EFFORT, TooDifferent, align, split
from support.merging import merge, merged

Line = Callable[[random.Random], bytes]


def _git(place: Path, base: bytes, main: bytes, suspect: bytes) -> bytes | None:
    """What git makes of it; None for a conflict."""
    for name, content in (("base", base), ("main", main), ("suspect", suspect)):
        (place / name).write_bytes(content)
    ran = subprocess.run(["git", "merge-file", "-p", "main", "base", "suspect"], cwd=place, capture_output=True)
    return ran.stdout if ran.returncode == 0 else None


def _edited(rng: random.Random, lines: Sequence[bytes], line: Line) -> list[bytes]:
    out = list(lines)
    for _ in range(rng.randint(1, 3)):
        at, what = rng.randint(0, len(out)), rng.random()
        if what < 0.4:
            out[at:at] = [line(rng) for _ in range(rng.randint(1, 3))]
        elif what < 0.7:
            del out[at : at + rng.randint(1, 3)]
        else:
            out[at : at + 1] = [line(rng)]
    return out


def _distinct(rng: random.Random) -> bytes:
    return b"line %d\n" % rng.randrange(10**9)


def _program(rng: random.Random) -> bytes:
    return rng.choice([b"{\n", b"}\n", b"\n", b"  return x;\n", *(b"  call(%d);\n" % n for n in range(20))])


def _few(rng: random.Random) -> bytes:
    return rng.choice([b"a\n", b"b\n", b"c\n"])


@pytest.mark.parametrize(("line", "clean_at_least"), [(_distinct, 1.0), (_program, 0.85), (_few, 0.5)])
def test_a_clean_merge_is_gits_and_a_conflict_of_gits_is_never_clean(
    line: Line, clean_at_least: float, tmp_path: Path
) -> None:
    rng, seen = random.Random(7), Counter[str]()
    for _ in range(250):
        start = [line(rng) for _ in range(rng.randint(0, 25))]
        base, main, suspect = (b"".join(side) for side in (start, _edited(rng, start, line), _edited(rng, start, line)))
        main, suspect = (side[: -1 if rng.random() < 0.2 else None] for side in (main, suspect))
        ours, gits = merge("text", base, main, suspect), _git(tmp_path, base, main, suspect)
        if isinstance(ours, Merged):
            assert ours.content == gits, (base, main, suspect)
        seen["clean" if gits is not None else "conflict"] += 1
        seen["both clean"] += isinstance(ours, Merged)
    assert seen["conflict"] > 20
    assert seen["both clean"] >= clean_at_least * seen["clean"]


BASE = b"one\ntwo\nthree\nfour\nfive\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda side: side,
        lambda side: side.replace(b"\n", b"\r\n"),
        lambda side: side[:-1],
        lambda side: side.replace(b"o", "ö".encode("latin-1")),
        lambda side: side.replace(b"o", "ö".encode()),
        lambda side: b"\xef\xbb\xbf" + side,
        lambda side: side.decode().encode("utf-16"),
        lambda side: b"\xfe\xff" + side.decode().replace("o", "\u0a0a").encode("utf-16-be"),
        lambda side: side.replace(b"o", b"\r").replace(b"e", b"\x85\x0b\x0c\x1c"),
    ],
)
def test_encodings_and_line_ends_survive(change: Callable[[bytes], bytes]) -> None:
    main, suspect = BASE.replace(b"one", b"1"), BASE.replace(b"five", b"5")
    both = main.replace(b"five", b"5")
    assert merged("text", change(BASE), change(main), change(suspect)) == change(both)


def test_a_last_line_without_an_end_is_a_line_of_its_own() -> None:
    assert merged("text", b"a\nb\nc", b"1\nb\nc", b"a\nb\nc\n") == b"1\nb\nc\n"
    assert isinstance(merge("text", b"a", b"a\n", b"a\nb"), Unresolved)


def test_what_both_changed_is_told_and_marked_but_not_merged() -> None:
    main, suspect = BASE.replace(b"three", b"3"), BASE.replace(b"three", b"III")
    proposal = merge("text", BASE, main, suspect)
    assert isinstance(proposal, Unresolved)
    assert proposal.reasons == ("text: main and alice both changed line 3 (3)",)
    marks = b"<<<<<<< main\n3\n||||||| base\nthree\n=======\nIII\n>>>>>>> alice\n"
    assert proposal.marked == b"one\ntwo\n" + marks + b"four\nfive\n"


def test_touching_changes_are_not_merged() -> None:
    assert isinstance(merge("text", BASE, BASE.replace(b"two", b"2"), BASE.replace(b"three", b"3")), Unresolved)


def test_equal_changes_on_both_sides_are_taken_once() -> None:
    both = BASE.replace(b"one\n", b"zero\none\n")
    assert merged("text", BASE, both, both.replace(b"five", b"5")) == both.replace(b"five", b"5")


def test_what_is_no_text_is_not_merged() -> None:
    for content in (b"a\0b\n", b"\xff\xfea"):
        assert isinstance(merge("text", BASE, content, BASE + b"x"), Unresolved)


def test_an_alignment_is_a_longest_one_early_or_late() -> None:
    for late in (False, True):
        found = align(b"abcabba", b"cbabac", late=late)
        assert sum(at >= 0 for at in found) == 4
        assert [at for at in found if at >= 0] == sorted({at for at in found if at >= 0})
    assert align(b"xa", b"xaa") == [0, 1]
    assert align(b"xa", b"xaa", late=True) == [0, 2]


def test_alignments_are_longest_ones() -> None:
    rng = random.Random(3)
    for _ in range(300):
        first, second = (bytes(rng.choices(b"abcd", k=rng.randint(0, 9))) for _ in range(2))
        best = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
        for i, a in enumerate(first):
            for j, b in enumerate(second):
                best[i + 1][j + 1] = best[i][j] + 1 if a == b else max(best[i][j + 1], best[i + 1][j])
        for late in (False, True):
            found = [(i, j) for i, j in enumerate(align(first, second, late=late)) if j >= 0]
            assert len(found) == best[-1][-1]
            assert all(first[i] == second[j] for i, j in found)
            assert [j for _, j in found] == sorted({j for _, j in found})


def test_effort_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EFFORT > 10**6
    monkeypatch.setattr("isofs.merge.resolvers.lines.EFFORT", 1000)
    rng = random.Random(1)
    base, main, suspect = (b"".join(_few(rng) for _ in range(500)) for _ in range(3))
    assert isinstance(merge("text", base, main, suspect), Unresolved)
    with pytest.raises(TooDifferent):
        align(base.split(), main.split())


def test_lines_joined_are_the_content() -> None:
    for content in (b"", b"\n", b"a", b"a\n\nb\r\n\r", "a\nb".encode("utf-16"), b"\xff\xfe\n\0"):
        lines = split(content)
        assert lines is not None
        assert b"".join(lines) == content
        assert b"" not in lines
