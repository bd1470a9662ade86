"""Unified diffs of two texts, whatever their files are called."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

_LETTERS = {"\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", '"': '"', "\\": "\\"}


def unified(old: Sequence[str], new: Sequence[str], before: bytes | None, after: bytes | None) -> str:
    """The diff of two lists of lines, of files that have these paths; None for a side without a file.

    Lines without a newline at the end are marked the way `diff` marks them.
    """
    one = "/dev/null" if before is None else header(b"a/" + before)
    other = "/dev/null" if after is None else header(b"b/" + after)
    lines = difflib.unified_diff(old, new, one, other)
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


def header(path: bytes) -> str:
    """A path as `git diff` writes it and `patch` reads it: one line, and none of a diff's own.

    Quoted and escaped if something in it can't be seen; with a tab at its end if it has a space in it.
    """
    text = path.decode("utf-8", "surrogateescape")
    if all(c.isprintable() and c not in _LETTERS for c in text):
        return text + "\t" if " " in text else text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in _LETTERS:
        return "\\" + _LETTERS[character]
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
