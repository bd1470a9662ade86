"""What is merged of what globs name: closed sets against plain reachability, globs against git."""

from __future__ import annotations

import functools
import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isofs.engine.slices import at_once
from isofs.errors import UsageError
from isofs.merge.parting import Piece, apart, in_groups, part, wish

OPS = range(1, 9)

ops = st.sets(st.sampled_from(OPS))
graphs = st.fixed_dictionaries(dict.fromkeys(OPS, ops))


def reachable(needs: dict[int, set[int]]) -> dict[int, set[int]]:
    """Everything that each object needs, itself included, step by step until nothing is added (Warshall)."""
    found = {op: {op, *needs[op]} for op in OPS}
    for through, op in itertools.product(OPS, OPS):
        if through in found[op]:
            found[op] |= found[through]
    return found


@given(needs=graphs, wanted=ops, barred=ops)
def test_what_is_merged_is_closed_and_nothing_is_merged_for_no_reason(
    needs: dict[int, set[int]], wanted: set[int], barred: set[int]
) -> None:
    pieces = [Piece(op, (), needs=frozenset(needs[op])) for op in OPS]
    parting, whole = at_once(part(pieces, wanted, barred)), reachable(needs)
    whole = reachable(whole)
    possible = {op for op in wanted if not whole[op] & barred}
    assert parting.chosen == {other for op in possible for other in whole[op]}
    assert parting.along.keys() == parting.chosen - wanted
    assert all(op in needs[by] and by in parting.chosen for op, by in parting.along.items())
    assert parting.left.keys() == wanted - possible
    assert all(by in barred & whole[op] for op, by in parting.left.items())


@given(needs=graphs)
def test_groups_need_what_came_before_and_are_as_small_as_can_be(needs: dict[int, set[int]]) -> None:
    groups, whole = at_once(in_groups(needs)), reachable(reachable(needs))
    assert sorted(op for group in groups for op in group) == list(OPS)
    before: set[int] = set()
    for group in groups:
        before |= set(group)
        assert all(whole[op] <= before for op in group)
        assert all(set(group) <= whole[op] for op in group)


@given(needs=graphs, unwanted=ops)
def test_what_is_discarded_is_needed_by_nothing_that_stays(needs: dict[int, set[int]], unwanted: set[int]) -> None:
    pieces = [Piece(op, (), needs=frozenset(needs[op])) for op in OPS]
    parting, whole = at_once(apart(pieces, unwanted)), reachable(reachable(needs))
    needed = {other for op in OPS if op not in unwanted for other in whole[op]}
    assert parting.chosen == unwanted - needed
    assert parting.left.keys() == unwanted & needed
    assert all(op in whole[by] and by not in unwanted for op, by in parting.left.items())


PATHS = ["a", "b", "docs/a", "docs/b/a", "src/docs/a", "a b", "a.txt", "docs/a.txt", "src/x/y/a.txt", "weiß", "[a]"]

GLOBS = ["a", "*.txt", "/a", "/docs", "docs/", "docs/*", "docs/**", "**/a", "src/**/a.txt", "a*", "[ab]", "\\[a]", "w*"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", path], check=True)
    return path


@functools.cache
def ignored(repository: Path, *globs: str) -> set[str]:
    """The paths that git leaves out if these are the lines of a `.gitignore`."""
    (repository / ".gitignore").write_text("".join(glob + "\n" for glob in globs))
    command: list[str | Path] = ["git", "-C", repository, "check-ignore", "--no-index", "-z", "--stdin"]
    done = subprocess.run(command, input="\0".join(PATHS).encode(), capture_output=True, check=False)
    assert done.returncode in (0, 1), done
    return {path.decode() for path in done.stdout.split(b"\0") if path}


PIECES = [Piece(number, (path.encode(),)) for number, path in enumerate(PATHS, 1)]


def named(wanted: frozenset[int]) -> set[str]:
    return {PATHS[op - 1] for op in wanted}


@pytest.mark.parametrize("globs", [[glob] for glob in GLOBS] + [["*.txt", "!a.txt"], ["a*", "!a.txt", "/docs/b"]])
def test_globs_are_those_of_a_gitignore(repository: Path, globs: list[str]) -> None:
    assert named(at_once(wish(PIECES, globs, [])).wanted) == ignored(repository, *globs)


@pytest.mark.parametrize(("only", "excepted"), list(itertools.product(GLOBS, GLOBS)))
def test_exceptions_win(repository: Path, only: str, excepted: str) -> None:
    found = at_once(wish(PIECES, [only], [excepted]))
    assert named(found.wanted) == ignored(repository, only) - ignored(repository, excepted)
    assert named(found.barred) == ignored(repository, excepted)
    assert named(at_once(wish(PIECES, [], [excepted])).wanted) == set(PATHS) - ignored(repository, excepted)


def test_a_glob_for_directories_names_directories() -> None:
    pieces = [Piece(1, (b"x",), is_dir=True), Piece(2, (b"y/x",)), Piece(3, (b"x/z",))]
    assert at_once(wish(pieces, ["x/"], [])).wanted == {1, 3}
    assert at_once(wish(pieces, ["x/**"], [])).wanted == {3}


def test_any_path_of_an_object_names_it() -> None:
    pieces = [Piece(1, (b"new", b"old")), Piece(2, (b"other",))]
    assert at_once(wish(pieces, ["old"], [])).wanted == {1}
    assert at_once(wish(pieces, ["new"], ["old"])).wanted == set()


def test_names_that_are_no_text() -> None:
    pieces = [Piece(1, (b"docs/\xff\n",)), Piece(2, (b"docs/a",))]
    assert at_once(wish(pieces, ["docs/\udcff*"], [])).wanted == {1}
    assert at_once(wish(pieces, [], ["a"])).wanted == {1}


@pytest.mark.parametrize("glob", ["nothing", "!nothing", "", " ", "#a", "!", "\\", "/", "docs/b/a/"])
@pytest.mark.parametrize("excepted", [False, True])
def test_a_glob_that_names_nothing_is_an_error(glob: str, excepted: bool) -> None:
    globs = ["a", glob]
    with pytest.raises(UsageError):
        at_once(wish(PIECES, [] if excepted else globs, globs if excepted else []))
