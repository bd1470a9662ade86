"""The merge matrix: every kind of object, changed in every way on both sides, and what an innocent verdict makes of it.

Each cell is played on the engine, on the model of the protocols (`support.model`) and on the host, which all must come
to the same tree, and the plan must be what the merge then does (`test_engine_machine`). What that is for files is
written down here, to be read.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from isofs.merge import apply
from isofs.merge.preview import preview
from test_engine_machine import Machine

BOB, CAROL = 1001, 1003

#: Each kind, and the type that replaces it where it is replaced by another one.
KINDS = {"file": "directory", "directory": "file", "symlink": "file", "special": "file", "hard-linked": "directory"}

#: What is no change of its own: a link is replaced or has its attributes changed, a FIFO has no content.
IMPOSSIBLE = {("symlink", "modified"), ("special", "modified")}

Change = Callable[[Machine, int, str], None]


def make(machine: Machine, uid: int, kind: str, path: bytes = b"x") -> None:
    if kind in ("file", "hard-linked"):
        machine._write(uid, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    if kind == "hard-linked":
        machine._call(uid, lambda user: user.link(path, path + b".link"))
    if kind == "directory":
        machine._mkdir(uid, path)
    if kind == "symlink":
        machine._call(uid, lambda user: user.symlink(b"%d" % uid, path))
    if kind == "special":
        machine._call(uid, lambda user: user.mkfifo(path))


def rename(machine: Machine, uid: int, to: bytes, path: bytes = b"x") -> None:
    machine._call(uid, lambda user: user.rename(path, to))


def unchanged(machine: Machine, uid: int, kind: str) -> None:
    """Nothing."""


def modified(machine: Machine, uid: int, kind: str) -> None:
    if kind == "directory":
        machine._write(uid, b"x/%d" % uid, os.O_WRONLY | os.O_CREAT)
    else:
        machine._write(uid, b"x", os.O_WRONLY)


def attributes(machine: Machine, uid: int, kind: str) -> None:
    if kind == "symlink":
        machine._call(uid, lambda user: user.utime(b"x", 10**18 + uid))
    else:
        machine._call(uid, lambda user: user.chmod(b"x", 0o600 if uid == BOB else 0o640))


def deleted(machine: Machine, uid: int, kind: str) -> None:
    machine._call(uid, lambda user: user.rmdir(b"x") if kind == "directory" else user.unlink(b"x"))


def renamed(machine: Machine, uid: int, kind: str) -> None:
    rename(machine, uid, b"x.%d" % uid)


def moved(machine: Machine, uid: int, kind: str) -> None:
    rename(machine, uid, b"a/x")


def saved(machine: Machine, uid: int, kind: str) -> None:
    """Replaced by another object of its type, as editors save."""
    make(machine, uid, "file" if kind == "hard-linked" else kind, b"t")
    rename(machine, uid, b"x", b"t")


def replaced(machine: Machine, uid: int, kind: str) -> None:
    deleted(machine, uid, kind)
    make(machine, uid, KINDS[kind])


CHANGES: dict[str, Change] = {
    change.__name__: change for change in (unchanged, modified, attributes, deleted, renamed, moved, saved, replaced)
}

Cell = tuple[str, str, str]

CELLS: list[Cell] = [
    (kind, suspect, main)
    for kind, suspect, main in itertools.product(KINDS, CHANGES, CHANGES)
    if (kind, suspect) not in IMPOSSIBLE and (kind, main) not in IMPOSSIBLE
]

#: What the paper's Protocol 3 decides, and LOCUS's rules for directories: rows and columns of the matrix.
PAPER = ("unchanged", "modified", "deleted")
LOCUS = ("unchanged", "deleted", "renamed")

#: Of a file: what becomes of it, by what the suspect did and what main did, both to x. "x!" is the suspect's x put
#: beside main's; x.carol and x.bob are the names that each of them gave.
BESIDE = {"modified": "kept:x,renamed:x!", "attributes": "kept:x,renamed:x!", "saved": "kept:x,renamed:x!"}
CHANGED = {
    "unchanged": "took:x",
    "modified": "conflict:x",
    "attributes": "conflict:x",
    "deleted": "restored:x",
    "renamed": "conflict:x.bob",
    "moved": "conflict:x",
    "saved": "conflict:x",
    "replaced": "renamed:x!",
}
FILE: dict[str, dict[str, str]] = {
    "unchanged": dict.fromkeys(CHANGES, "-"),
    "modified": CHANGED,
    "attributes": {**CHANGED, "modified": "took:x", "renamed": "took:x.bob", "moved": "took:x", "saved": "took:x"},
    "saved": CHANGED,
    "deleted": {
        **dict.fromkeys(("modified", "attributes", "moved", "saved"), "kept:x"),
        "unchanged": "deleted:x",
        "deleted": "-",
        "renamed": "kept:x.bob",
        "replaced": "-",
    },
    "renamed": {
        **dict.fromkeys(("unchanged", "modified", "attributes", "saved"), "renamed:x.carol"),
        **dict.fromkeys(("deleted", "replaced"), "restored:x.carol"),
        "renamed": "kept:x.bob",
        "moved": "kept:x",
    },
    "moved": {
        **dict.fromkeys(("unchanged", "modified", "attributes", "saved"), "renamed:x"),
        **dict.fromkeys(("deleted", "replaced"), "restored:x"),
        "renamed": "kept:x.bob",
        "moved": "-",
    },
    "replaced": {
        **BESIDE,
        "unchanged": "deleted:x,took:x",
        "deleted": "took:x",
        "renamed": "kept:x.bob,took:x",
        "moved": "kept:x,took:x",
        "replaced": "united:x",
    },
}


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.teardown()


def play(machine: Machine, kind: str, suspect: Change, main: Change) -> str:
    """Both change x, then the verdict; what was done, as `FILE` has it. Everything is compared on the way."""
    if kind != "never there":
        make(machine, BOB, kind)
    machine._suspect(CAROL)
    suspect(machine, CAROL, kind)
    machine.check_all()
    main(machine, BOB, kind)
    machine.check_all()
    view = machine.fs.views[1]
    planned = preview(machine.fs, view, apply.states(machine.fs, view))
    machine._find_innocent(machine.world.views[1])
    machine.check_all()
    words = {b"x.1001": "x.bob", b"x.1003": "x.carol"}
    done = []
    for item in (one.item for one in planned):
        name = os.path.basename(item.path)
        done.append(f"{item.action}:{words.get(name, name.decode())}" + ("!" if item.aside else ""))
    return ",".join(sorted(done)) or "-"


@pytest.mark.parametrize(("kind", "suspect", "main"), CELLS)
def test_a_cell(machine: Machine, kind: str, suspect: str, main: str) -> None:
    done = play(machine, kind, CHANGES[suspect], CHANGES[main])
    if kind == "file":
        assert done == FILE[suspect][main]


#: Who makes something where nothing was. "nothing" is nobody.
MADE = ("nothing", "file", "directory", "symlink", "special", "hard-linked")


@pytest.mark.parametrize("suspect", MADE)
@pytest.mark.parametrize("main", MADE)
def test_what_was_never_there(machine: Machine, suspect: str, main: str) -> None:
    done = play(machine, "never there", lambda m, uid, _: make(m, uid, suspect), lambda m, uid, _: make(m, uid, main))
    if suspect == "nothing":
        assert done == "-"
    elif main == "nothing":
        assert set(done.split(",")) == {"took:x"} | ({"took:x.link"} if suspect == "hard-linked" else set())
    elif suspect == main == "directory":
        assert done == "united:x"
    else:
        assert "renamed:x!" in done


def test_every_cell_is_there() -> None:
    """No kind and no change is left out of any combination, and the tables of others are parts of this one."""
    whole = set(itertools.product(KINDS, CHANGES, CHANGES))
    left_out = {cell for cell in whole if {(cell[0], cell[1]), (cell[0], cell[2])} & IMPOSSIBLE}
    assert set(CELLS) == whole - left_out
    assert len(CHANGES) == 8
    assert {("file", *cell) for cell in itertools.product(PAPER, PAPER)} <= set(CELLS)
    assert {("directory", *cell) for cell in itertools.product(LOCUS, LOCUS)} <= set(CELLS)
