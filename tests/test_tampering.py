"""Tampering with the files of the audit trail: it is noticed each time, and said what and where."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from isofs.audit import chain
from isofs.audit.appending import Limits
from support.trails import body, checked, written

Lines = list[bytes]


def of_lines(name: int, change: Callable[[Lines], Lines]) -> Callable[[Path], None]:
    """Change the lines of a file of the trail, the first or the last and so on, and compress it again if it was."""

    def tamper(audit: Path) -> None:
        path = files_of(audit)[name]
        raw = path.read_bytes()
        compressed = path.name.endswith(chain.COMPRESSED)
        if compressed:
            raw = zstandard.ZstdDecompressor().stream_reader(raw).read()
        raw = b"".join(change(raw.splitlines(keepends=True)))
        path.write_bytes(zstandard.ZstdCompressor().compress(raw) if compressed else raw)

    return tamper


def of_file(name: int, change: Callable[[Path], object]) -> Callable[[Path], None]:
    return lambda audit: void(change(files_of(audit)[name]))


def void(_: object) -> None:
    pass


def files_of(audit: Path) -> list[Path]:
    return sorted(audit.glob("0*"))


def forged(lines: Lines) -> Lines:
    """Lines with another path, and right hashes from the first on."""
    found, before = Lines(), chain.previous(lines[0].rstrip(b"\n")) or ""
    for line in lines:
        text = line.decode().partition(',"isofs.previous"')[0].replace("d/f", "d/g")
        found.append(chain.ended(text, before) + b"\n")
        before = chain.hashed(found[-1][:-1])
    return found


#: Ways to tamper with twelve lines in files of three, all but the last of them compressed, and what is said of it.
TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a changed record": (
        of_lines(1, lambda ls: [ls[0].replace(b"d/f4", b"d/g4"), *ls[1:]]),
        "0004.*, line 2: line 4 before it is not what was written",
    ),
    "a changed last record": (
        of_lines(-1, lambda ls: [*ls[:-1], ls[-1].replace(b"d/f12", b"d/g12")]),
        "line 3: it is not what was written: newest has another hash",
    ),
    "a changed last record of a file": (
        of_lines(1, lambda ls: [*ls[:-1], ls[-1].replace(b"d/f6", b"d/g6")]),
        "0007.*, line 1: line 6 before it is not what was written",
    ),
    "a removed record": (of_lines(1, lambda ls: [ls[0], ls[2]]), "0004.*, line 2: line 5 is missing"),
    "a removed first record": (of_lines(1, lambda ls: ls[1:]), "0004.*, line 1: the file is named by another line"),
    "a removed last record": (of_lines(-1, lambda ls: ls[:-1]), "the end is cut off: line 12 is missing"),
    "removed records": (of_lines(-1, lambda ls: ls[:1]), "the end is cut off: lines 11 to 12 are missing"),
    "reordered records": (of_lines(1, lambda ls: [ls[0], ls[2], ls[1]]), "0004.*, line 2: line 5 is missing"),
    "reordered last records": (of_lines(-1, lambda ls: [ls[0], ls[2], ls[1]]), "0010.*, line 2: line 11 is missing"),
    "a duplicated record": (of_lines(1, lambda ls: [ls[0], *ls]), "0004.*, line 2: line 4 comes after line 4"),
    "a duplicated last record": (of_lines(-1, lambda ls: [*ls, ls[-1]]), "0010.*, line 4: line 12 comes after line 12"),
    "an old record again": (
        of_lines(-1, lambda ls: [ls[0], ls[1], ls[0]]),
        "0010.*, line 3: line 10 comes after line 11",
    ),
    "a record put in": (
        of_lines(-1, lambda ls: [ls[0], b"{}\n", *ls[1:]]),
        "0010.*, line 2: it is no line of the trail",
    ),
    "a truncated record": (
        of_lines(1, lambda ls: [ls[0], ls[1][:-20] + b"\n", ls[2]]),
        "0004.*, line 2: it is no line of the trail",
    ),
    "a truncated last record": (
        of_lines(-1, lambda ls: [*ls[:-1], ls[-1][:-20]]),
        "the end is cut off: line 12 is missing",
    ),
    "a truncated last record of a file": (
        of_lines(1, lambda ls: [*ls[:-1], ls[-1][:-20]]),
        "0004.*, line 3: it is no line of the trail",
    ),
    "a removed first file": (of_file(0, Path.unlink), "0004.*, line 1: lines 1 to 3 are missing"),
    "a removed middle file": (of_file(1, Path.unlink), "0007.*, line 1: lines 4 to 6 are missing"),
    "a removed last file": (of_file(-1, Path.unlink), "the end is cut off: lines 10 to 12 are missing"),
    "an empty last file": (
        of_file(-1, lambda path: path.write_bytes(b"")),
        "the end is cut off: lines 10 to 12 are missing",
    ),
    "an empty middle file": (of_lines(1, lambda ls: []), "0004.* is empty"),
    "a file under another name": (
        of_file(1, lambda path: path.rename(path.with_name(chain.name(5) + ".zst"))),
        "0005.*, line 1: the file is named by another line",
    ),
    "a replaced middle file": (of_lines(1, forged), "0007.*, line 1: line 6 before it is not what was written"),
    "a replaced last file": (
        of_lines(-1, forged),
        "0010.*, line 3: it is not what was written: newest has another hash",
    ),
    "all files removed": (
        lambda audit: void(list(map(Path.unlink, files_of(audit)))),
        "the end is cut off: lines 1 to 12 are missing",
    ),
    "a removed newest": (lambda audit: (audit / chain.NEWEST).unlink(), "newest is missing"),
    "a changed newest": (
        lambda audit: void(
            (audit / chain.NEWEST).write_bytes((audit / chain.NEWEST).read_bytes().replace(b"12", b"11"))
        ),
        "newest is not what was written",
    ),
}


@pytest.fixture(scope="module")
def untampered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trail") / "audit"
    written(path, 12, Limits(size=3 * len(body(10)) + 200))
    assert [path.name[:16] for path in files_of(path)] == [chain.name(n)[:16] for n in (1, 4, 7, 10)]
    return path


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_tampered_with_is_named(name: str, untampered: Path, tmp_path: Path) -> None:
    tamper, said = TAMPERED[name]
    copy = Path(shutil.copytree(untampered, tmp_path / "audit"))
    assert checked(copy).problem is None
    tamper(copy)
    found = checked(copy)
    assert found.problem is not None
    assert re.search(said, found.problem), found.problem


def test_a_trail_that_was_put_back_is_not_the_one_that_was_known(untampered: Path, tmp_path: Path) -> None:
    """To how it was before: all of it is right, but not all of it is there."""
    goes_on = Path(shutil.copytree(untampered, tmp_path / "audit"))
    written(goes_on, 2, Limits(size=600), first=13)
    last = checked(goes_on)
    assert (last.problem, last.sequence) == (None, 14)
    assert checked(untampered).problem is None
    assert checked(untampered, (14, last.hash)).problem == "the end is cut off: lines 13 to 14 are missing"
