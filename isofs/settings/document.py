"""A configuration as text: its values, and the line that an error is about."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isofs.errors import BadConfiguration


@dataclass(frozen=True)
class Document:
    """A text in TOML that could be read; `name` is what errors call it."""

    text: str
    name: str
    values: Mapping[str, object]

    def refusal(self, keys: Sequence[str], why: str) -> BadConfiguration:
        """The error about what the keys lead to, from the outermost table on; it names the line."""
        return self.refusal_at(self._line_of(keys), why)

    def refusal_at(self, line: int, why: str) -> BadConfiguration:
        return BadConfiguration(f"{self.name}, line {line}: {why}")

    def _line_of(self, keys: Sequence[str]) -> int:
        """The line that sets the last key: in the innermost table of them that has a header, else in the text."""
        for depth in range(len(keys), 0, -1):
            dotted = r"[ \t]*\.[ \t]*".join(f"[\"']?{re.escape(key)}[\"']?" for key in keys[:depth])
            header = re.search(rf"^[ \t]*\[\[?[ \t]*{dotted}[ \t]*\]", self.text, re.MULTILINE)
            if header is not None:
                line = self.text.count("\n", 0, header.start() + len(header[0])) + 1
                return line if depth == len(keys) else self.line_from(keys[-1], header.end(), line)
        return self.line_from(keys[-1], 0, 1) if keys else 1

    def line_from(self, key: str, start: int, otherwise: int) -> int:
        """The first line from the position `start` on that sets `key`; `otherwise` if none is found."""
        sets = re.compile(rf"(?:^|[{{,.\[])[ \t]*[\"']?{re.escape(key)}[\"']?[ \t]*(?:[=.]|\]\]?)", re.MULTILINE)
        match = sets.search(self.text, start)
        return otherwise if match is None else self.text.count("\n", 0, match.start(0) + match[0].index(key)) + 1


def read(text: str, name: str = "the configuration") -> Document:
    """The document that a text is. BadConfiguration names the line and the reason where it is none."""
    try:
        return Document(text, name, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        # "... (at line 3, column 5)", or "(at end of document)"
        message = re.sub(r" \(at .*\)$", "", str(error))
        place = re.search(r"\(at line (\d+), column \d+\)$", str(error))
        line = int(place[1]) if place else text.count("\n") + (not text.endswith("\n"))
        raise BadConfiguration(f"{name}, line {max(line, 1)}: {message[:1].lower()}{message[1:]}") from None
