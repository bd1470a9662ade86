"""Protocol 2 (paper, section 6.1), every cell: how vectors come to be and change, in the rules and in the engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from isofs.engine import recovery, suspicion
from isofs.engine.state import Caller, Filesystem
from isofs.merge import apply
from isofs.model import vectors
from isofs.model.vectors import G, Value, Vector
from isofs.store.folder import open_store
from support.engine import Kernel, Walker

S1, S2 = 1, 2
V = dict[int, Value]

ISOLATED: dict[str, tuple[V | None, int, str, V, V]] = {
    # main's vector before, who, state: main's and the suspect's vector after
    "first modified by a suspect": (None, S1, "m", {G: 0, S1: 0}, {G: 0, S1: "m"}),
    "first deleted by a suspect": (None, S1, "d", {G: 0, S1: 0}, {G: 0, S1: "d"}),
    "modified by a second suspect": ({G: 0, S1: 0}, S2, "m", {G: 0, S1: 0, S2: 0}, {G: 0, S1: 0, S2: "m"}),
    "deleted by a second suspect": ({G: 0, S1: 0}, S2, "d", {G: 0, S1: 0, S2: 0}, {G: 0, S1: 0, S2: "d"}),
    "modified after trusted modifications": ({G: 2, S1: 0}, S2, "m", {G: 2, S1: 0, S2: 0}, {G: 2, S1: 0, S2: "m"}),
    "modified after a merge": ({G: 0, S1: "m"}, S2, "m", {G: 0, S1: "m", S2: 0}, {G: 0, S1: "m", S2: "m"}),
    "deleted after a merge": ({G: 0, S1: "m"}, S2, "d", {G: 0, S1: "m", S2: 0}, {G: 0, S1: "m", S2: "d"}),
}


@pytest.mark.parametrize("case", ISOLATED)
def test_a_suspects_first_change_inserts_its_dimension(case: str) -> None:
    before, sid, state, main, own = ISOLATED[case]
    assert state in ("m", "d")
    found = vectors.isolate(None if before is None else Vector.of(before), sid, "m" if state == "m" else "d")
    assert found == (Vector.of(main), Vector.of(own))


@pytest.mark.parametrize(
    ("before", "after"),
    [({G: 0, S1: 0}, {G: 1, S1: 0}), ({G: 7, S1: "m", S2: 0}, {G: 8, S1: "m", S2: 0})],
)
def test_a_trusted_modification_adds_one_to_g_alone(before: V, after: V) -> None:
    assert vectors.trusted_modification(Vector.of(before)) == Vector.of(after)


def test_a_deleted_main_cannot_be_modified() -> None:
    with pytest.raises(ValueError):
        vectors.trusted_modification(Vector.of({G: "d", S1: 0}))


@pytest.mark.parametrize("count", [0, 3])
def test_a_trusted_deletion_sets_g_alone(count: int) -> None:
    assert vectors.trusted_deletion(Vector.of({G: count, S1: 0})) == Vector.of({G: "d", S1: 0})


def test_a_suspects_deletion_of_its_version_sets_its_dimension_alone() -> None:
    assert vectors.delete_isolated(Vector.of({G: 1, S1: 0, S2: "m"}), S2) == Vector.of({G: 1, S1: 0, S2: "d"})


@dataclass
class Share:
    """A file `f` in an engine with a trusted user and two who are suspects from the start."""

    fs: Filesystem
    main: Walker = field(init=False)
    one: Walker = field(init=False)
    two: Walker = field(init=False)

    def __post_init__(self) -> None:
        kernel = Kernel(self.fs)
        self.main, self.one, self.two = (Walker(kernel, Caller(uid, 100, uid)) for uid in (1000, 1001, 1002))
        for sid, uid in ((S1, 1001), (S2, 1002)):
            assert suspicion.suspect(self.fs, uid, f"s{sid}", "", "2026-01-01T00:00:00Z").sid == sid

    def vectors(self) -> tuple[V | None, V | None, V | None]:
        """Main's vector of the file and those of the versions of both suspects."""
        ops = [op for op, origin in self.fs.origins.items() if origin.name == b"f"]
        if not ops:
            return None, None, None
        (op,) = ops
        main = self.fs.origins[op].vector
        own = [self.fs.views[sid].version(op) if sid in self.fs.views else None for sid in (S1, S2)]
        one, two = (None if version is None else dict(version.vector) for version in own)
        return None if main is None else dict(main), one, two

    def answer(self, user: Walker) -> bytes | None:
        """What a user reads, None if the user is told that there is no such file."""
        try:
            return user.read(b"f")
        except FileNotFoundError:
            return None


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Share]:
    os.umask(0)
    (tmp_path / "f").write_bytes(b"main's")
    fs = recovery.open_filesystem(open_store(str(tmp_path / ".isofs")), str(tmp_path))
    yield Share(fs)
    recovery.close_filesystem(fs)


def modify(user: Walker, data: bytes = b"x") -> None:
    user.write(b"f", data, os.O_WRONLY | os.O_TRUNC)


Step = Callable[[Share], None]


def main_modifies(share: Share) -> None:
    modify(share.main, b"new")


def main_deletes(share: Share) -> None:
    share.main.unlink(b"f")


def one_modifies(share: Share) -> None:
    modify(share.one, b"one's")


def one_deletes(share: Share) -> None:
    share.one.unlink(b"f")


def two_modifies(share: Share) -> None:
    modify(share.two, b"two's")


def two_deletes(share: Share) -> None:
    share.two.unlink(b"f")


def one_is_innocent(share: Share) -> None:
    apply.innocent(share.fs, S1)


def one_is_malicious(share: Share) -> None:
    apply.malicious(share.fs, S1)


ENGINE: dict[str, tuple[list[Step], V | None, V | None, V | None, tuple[bytes | None, ...]]] = {
    # steps: vectors of main, S1, S2; what main, S1, S2 read
    "nobody": ([], None, None, None, (b"main's", b"main's", b"main's")),
    "main modifies": ([main_modifies], None, None, None, (b"new", b"new", b"new")),
    "main deletes": ([main_deletes], None, None, None, (None, None, None)),
    "S1 modifies": ([one_modifies], {G: 0, S1: 0}, {G: 0, S1: "m"}, None, (b"main's", b"one's", b"main's")),
    "S1 modifies twice": (
        [one_modifies, one_modifies],
        {G: 0, S1: 0},
        {G: 0, S1: "m"},
        None,
        (b"main's", b"one's", b"main's"),
    ),
    "S1 deletes": ([one_deletes], {G: 0, S1: 0}, {G: 0, S1: "d"}, None, (b"main's", None, b"main's")),
    "S1 modifies and deletes": (
        [one_modifies, one_deletes],
        {G: 0, S1: 0},
        {G: 0, S1: "d"},
        None,
        (b"main's", None, b"main's"),
    ),
    "S1 modifies, main modifies twice": (
        [one_modifies, main_modifies, main_modifies],
        {G: 2, S1: 0},
        {G: 0, S1: "m"},
        None,
        (b"new", b"one's", b"new"),
    ),
    "S1 modifies, main deletes": (
        [one_modifies, main_deletes],
        {G: "d", S1: 0},
        {G: 0, S1: "m"},
        None,
        (None, b"one's", None),
    ),
    "S1 deletes, main modifies": (
        [one_deletes, main_modifies],
        {G: 1, S1: 0},
        {G: 0, S1: "d"},
        None,
        (b"new", None, b"new"),
    ),
    "S1 deletes, main deletes": (
        [one_deletes, main_deletes],
        {G: "d", S1: 0},
        {G: 0, S1: "d"},
        None,
        (None, None, None),
    ),
    "S1 modifies, main deletes, S1 deletes": (
        [one_modifies, main_deletes, one_deletes],
        {G: "d", S1: 0},
        {G: 0, S1: "d"},
        None,
        (None, None, None),
    ),
    "S1 and S2 modify": (
        [one_modifies, two_modifies],
        {G: 0, S1: 0, S2: 0},
        {G: 0, S1: "m"},
        {G: 0, S1: 0, S2: "m"},
        (b"main's", b"one's", b"two's"),
    ),
    "S1 modifies, main modifies, S2 deletes": (
        [one_modifies, main_modifies, two_deletes],
        {G: 1, S1: 0, S2: 0},
        {G: 0, S1: "m"},
        {G: 1, S1: 0, S2: "d"},
        (b"new", b"one's", None),
    ),
    "S1 and S2 modify, main deletes": (
        [one_modifies, two_modifies, main_deletes],
        {G: "d", S1: 0, S2: 0},
        {G: 0, S1: "m"},
        {G: 0, S1: 0, S2: "m"},
        (None, b"one's", b"two's"),
    ),
    "S1 modifies and is innocent: nobody needs the vector": (
        [one_modifies, one_is_innocent],
        None,
        None,
        None,
        (b"one's", b"one's", b"one's"),
    ),
    "S1 is innocent while S2 has a version": (
        [one_modifies, two_modifies, one_is_innocent],
        {G: 0, S1: "m", S2: 0},
        None,
        {G: 0, S1: 0, S2: "m"},
        (b"one's", b"one's", b"two's"),
    ),
    "S1 is malicious while S2 has a version": (
        [one_modifies, two_modifies, one_is_malicious],
        {G: 0, S1: 0, S2: 0},
        None,
        {G: 0, S1: 0, S2: "m"},
        (b"main's", b"main's", b"two's"),
    ),
    "S2 modifies after S1 was merged": (
        [one_modifies, two_deletes, one_is_innocent, main_modifies],
        {G: 1, S1: "m", S2: 0},
        None,
        {G: 0, S1: 0, S2: "d"},
        (b"new", b"new", None),
    ),
    "S1 is innocent of a deletion while S2 has a version": (
        [two_modifies, one_deletes, one_is_innocent],
        {G: "d", S1: "d", S2: 0},
        None,
        {G: 0, S2: "m"},
        (None, None, b"two's"),
    ),
}


@pytest.mark.parametrize("case", ENGINE)
def test_each_cell_in_the_engine(share: Share, case: str) -> None:
    steps, main, one, two, answers = ENGINE[case]
    for step in steps:
        step(share)
    assert share.vectors() == (main, one, two)
    assert tuple(map(share.answer, (share.main, share.one, share.two))) == answers


@pytest.mark.parametrize(
    ("deletes", "call"),
    [
        (main_deletes, main_deletes),
        (main_deletes, main_modifies),
        (main_deletes, two_modifies),
        (one_deletes, one_deletes),
        (one_deletes, one_modifies),
    ],
)
def test_whoever_deleted_it_is_told_that_it_does_not_exist(share: Share, deletes: Step, call: Step) -> None:
    deletes(share)
    before = share.vectors()
    with pytest.raises(FileNotFoundError):
        call(share)
    assert share.vectors() == before


@pytest.mark.parametrize("deletes", [one_deletes, two_deletes])
def test_a_suspect_reads_no_main_version_of_what_it_deleted(share: Share, deletes: Step) -> None:
    deletes(share)
    main_modifies(share)
    user = share.one if deletes is one_deletes else share.two
    assert share.answer(user) is None
    assert share.answer(share.main) == b"new"


def test_reading_makes_no_version(share: Share) -> None:
    assert share.answer(share.one) == b"main's"
    assert share.vectors() == (None, None, None)


def test_what_only_a_suspect_made_has_no_vector_of_main(share: Share) -> None:
    share.one.write(b"new", b"", os.O_WRONLY | os.O_CREAT)
    (version,) = share.fs.views[S1].versions.values()
    assert dict(version.vector) == {G: 0, S1: "m"}
    assert share.fs.origins[version.op].vector is None
