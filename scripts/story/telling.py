"""How the demo speaks: chapters, what is run, what came of it, and claims that hold or end it."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator

_COLOURS = {"bold": "1", "green": "32", "red": "31", "cyan": "36", "dim": "2"}
_MOST_LINES = 12


class ClaimFailed(Exception):
    """What the demo said is not so."""


class Teller:
    """Prints the story, and counts the claims that were checked."""

    def __init__(self) -> None:
        self.claims = 0
        self._colourful = sys.stdout.isatty()
        # Of a terminal that can't show them, the marks are shown as escapes.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        self._width = min(shutil.get_terminal_size((110, 24)).columns, 110)
        self._chapter = 0

    def title(self, text: str) -> None:
        self._say("")
        self._say(self._in("bold", text))

    def chapter(self, text: str) -> None:
        self._chapter += 1
        self._say("")
        self._say(self._in("bold", f"{self._chapter}. {text}"))

    def tell(self, text: str) -> None:
        for line in textwrap.wrap(text, self._width - 3):
            self._say(f"   {line}")

    def did(self, who: str, what: str) -> None:
        """Somebody did something with these programs."""
        first, *rest = textwrap.wrap(what, self._width - 12)
        self._say(f"   {self._in('cyan', f'{who:<7}')}  {first}")
        for line in rest:
            self._say(f"            {line}")

    def ran(self, command: str, output: str) -> None:
        """A command of the administrator, and the beginning of what it printed."""
        self._say(f"   {self._in('cyan', '# ' + command)}")
        for line in _beginning(output.splitlines()):
            self._say(f"     {self._in('dim', line[: self._width - 5])}")

    def claim(self, text: str, problems: Iterable[str]) -> None:
        """Say that something is so. The problems are what speaks against it: there must be none."""
        found = list(problems)
        self.claims += 1
        first, *rest = textwrap.wrap(text, self._width - 5)
        self._say(f"   {self._in('red', '✗') if found else self._in('green', '✓')} {first}")
        for line in rest:
            self._say(f"     {line}")
        if not found:
            return
        for line in _beginning(found):
            self._say(f"       {line}")
        raise ClaimFailed(text)

    def _in(self, colour: str, text: str) -> str:
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._colourful else text

    def _say(self, line: str) -> None:
        print(line, flush=True)


def _beginning(lines: list[str]) -> Iterator[str]:
    yield from lines[:_MOST_LINES]
    if len(lines) > _MOST_LINES:
        yield f"... and {len(lines) - _MOST_LINES} lines more"
