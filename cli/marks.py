"""Marks of risk as commands print them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from isoctl import output
from isofs.model import risks


def after(names: Iterable[str]) -> str:
    """What follows the path of a change: its marks in brackets, or nothing."""
    text = ", ".join(names)
    return f"  [{text}]" if text else ""


def summary(each: Iterable[Iterable[str]], whole: Iterable[str], *, before: str = "") -> None:
    """Print the lines of `summarised`."""
    for line in summarised(each, whole):
        output.line(f"{before}{line}")


def summarised(each: Iterable[Iterable[str]], whole: Iterable[str]) -> Iterator[str]:
    """A line for every mark that was set: how often, and what it says. Nothing where none was."""
    counted = Counter(name for names in each for name in names)
    for name in (*risks.WORDS, *(name for name in counted if name not in risks.WORDS)):
        if counted[name]:
            yield f"risk  {name}: {output.plural(counted[name], 'change')}: {risks.WORDS.get(name, name)}"
    for name in whole:
        yield f"risk  {name}: {risks.WORDS.get(name, name)}"
