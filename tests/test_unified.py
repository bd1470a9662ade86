"""Diffs are what `patch` reads, whatever is in the names and in the lines."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isofs.engine.changes import text_of
from isofs.service.unified import header, unified
from isofs.store.inodes import Place


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (b"a/plain", "a/plain"),
        ("a/ü".encode(), "a/ü"),
        (b"a/two words", "a/two words\t"),
        (b"a/x\n+++ b/y", r'"a/x\n+++ b/y"'),
        (b"a/\x1b[2J\x7f\xff", r'"a/\033[2J\177\377"'),
        (b'a/say "\\"', r'"a/say \"\\\""'),
        ("a/\u2028\x85".encode(), r'"a/\342\200\250\302\205"'),
    ],
)
def test_header(path: bytes, shown: str) -> None:
    assert header(path) == shown


@given(st.binary())
def test_a_header_is_one_visible_line(path: bytes) -> None:
    assert header(path).removesuffix("\t").isprintable()


@given(st.binary(), st.binary())
def test_two_names_never_look_the_same(one: bytes, other: bytes) -> None:
    assert (header(one) == header(other)) == (one == other)


def lines_of(path: Path) -> list[str]:
    directory = os.open(path.parent, os.O_PATH)
    try:
        lines = text_of(Place(directory, os.fsencode(path.name)), 1 << 20)
    finally:
        os.close(directory)
    assert lines is not None
    return lines


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("name", ["plain", "two words", "new\nline", "tab\t", '"q" \\', "\x1b[2J", "ü\u2028"])
@pytest.mark.parametrize(("old", "new"), [("a\nb\n", "a\nc\n"), ("a\x0cb\rc\x1c\n", "a\x0cB\rc\x1c")])
def test_patch_makes_the_new_from_the_old(tmp_path: Path, name: str, old: str, new: str) -> None:
    path = tmp_path / name
    sides = []
    for text in (new, old):
        path.write_text(text, newline="")
        sides.append(lines_of(path))
    text = unified(sides[1], sides[0], os.fsencode(name), os.fsencode(name))
    done = subprocess.run(["git", "apply", "-"], input=text.encode(), cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, (done.stderr, text)
    assert path.read_bytes() == new.encode()
