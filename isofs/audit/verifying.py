"""Whether the trail is what was written: no line changed, taken out or put in, and neither end cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import zstandard

from isofs.audit import chain
from isofs.audit.chain import File, Newest


@dataclass(frozen=True, slots=True)
class Verified:
    """What a look at the whole trail found. `problem` says the first bad place, None if there is none.

    `first` and `sequence` are the numbers of the first and last good line, `hash` is that of the last; `torn` are bytes
    of a line that was being written when the machine went down, or is at this moment.
    """

    lines: int
    files: int
    first: int
    sequence: int
    hash: str
    torn: int
    problem: str | None


#: How often the trail is read anew because its files were moved meanwhile.
_PATIENCE = 5


class _Bad(Exception):
    """The first bad place."""


def verify(
    folder: int, known: tuple[int, str] | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Verified:
    """Read the whole trail, while it is written to or not.

    `known` is a line that was there once, by its number and hash: it must be there still, unless it was removed for its
    age, with all that comes before.
    """
    for _ in range(_PATIENCE):
        walk = _Walk()
        there = chain.files(folder)
        try:
            walk.expect(_newest(folder, there), known)
            for done, file in enumerate(there):
                walk.file(folder, file, last=file is there[-1])
                progress(done + 1, len(there))
            walk.end()
        except _Bad as bad:
            walk.problem = str(bad)
            if chain.files(folder) != there:
                continue  # files were compressed or removed meanwhile
        break
    return Verified(walk.lines, len(there), walk.first, walk.sequence, walk.hash, walk.torn, walk.problem)


def _newest(folder: int, there: list[File]) -> Newest:
    """Read before the files are, which may grow: it must not be ahead of them."""
    try:
        state = chain.newest(folder)
    except ValueError as error:
        raise _Bad(f"{chain.NEWEST} is not what was written: {error}") from None
    if state is None and there:
        raise _Bad(f"{chain.NEWEST} is missing")
    return state or Newest()


class _Walk:
    """From line to line, and what must come next."""

    def __init__(self) -> None:
        self.lines = self.first = self.sequence = self.torn = 0
        self.hash = chain.NOTHING
        self.problem: str | None = None
        self._state = Newest()
        self._known: dict[int, tuple[str, str]] = {}

    def expect(self, state: Newest, known: tuple[int, str] | None) -> None:
        self._state = state
        if known is not None and known[0] >= state.first:
            self._known[known[0]] = (known[1], "it was known with another hash")
        if state.sequence >= state.first:
            self._known.setdefault(state.sequence, (state.hash, f"{chain.NEWEST} has another hash"))

    def file(self, folder: int, file: File, *, last: bool) -> None:
        number = 0
        try:
            with chain.opened(folder, file) as reader:
                for number, raw in enumerate(chain.lines(reader), 1):
                    where = f"{file.name}, line {number}"
                    if not raw.endswith(b"\n") and last and not file.compressed:
                        self.torn = len(raw)
                        break
                    self._line(where, raw, file, number)
        except FileNotFoundError:
            raise _Bad(f"{file.name} is missing") from None
        except zstandard.ZstdError as error:
            raise _Bad(f"{file.name}, after line {number}: it cannot be read: {error}") from None
        if not number and not last:
            raise _Bad(f"{file.name} is empty")

    def _line(self, where: str, raw: bytes, file: File, number: int) -> None:
        line = raw[:-1]
        found, before = chain.number(line), chain.previous(line)
        if not raw.endswith(b"\n") or found is None or before is None:
            raise _Bad(f"{where}: it is no line of the trail")
        if number == 1 and found != file.first:
            raise _Bad(f"{where}: the file is named by another line")
        if not self.lines:
            self._begin(where, found, before)
        elif found != self.sequence + 1:
            if found > self.sequence:
                raise _Bad(f"{where}: {_missing(self.sequence + 1, found - 1)}")
            raise _Bad(f"{where}: line {found} comes after line {self.sequence}")
        if self.lines and before != self.hash:
            raise _Bad(f"{where}: line {self.sequence} before it is not what was written")
        if found == self._state.first and before != self._state.before:
            raise _Bad(f"{where}: what came before it was changed")
        self.hash, self.sequence, self.lines = chain.hashed(line), found, self.lines + 1
        if found in self._known and self._known[found][0] != self.hash:
            raise _Bad(f"{where}: it is not what was written: {self._known[found][1]}")

    def _begin(self, where: str, found: int, before: str) -> None:
        if found > self._state.first:
            raise _Bad(f"{where}: {_missing(self._state.first, found - 1)}")
        if found == 1 and before != chain.NOTHING:
            raise _Bad(f"{where}: it is not what was written")
        self.first = found

    def end(self) -> None:
        last = max(self._known, default=0)
        if self.sequence < last:
            raise _Bad(f"the end is cut off: {_missing(self.sequence + 1, last)}")


def _missing(first: int, last: int) -> str:
    return f"line {first} is missing" if first == last else f"lines {first} to {last} are missing"
