"""Set: files whose lines are a set, in an order that says nothing. Additions are united, deletions stand."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isofs.merge.resolvers.base import (
    Inputs,
    Merged,
    Option,
    Options,
    Proposal,
    Unresolved,
    Value,
    is_text,
    register,
)

_KEYS: dict[str, Callable[[bytes], tuple[bytes, bytes]]] = {
    "bytes": lambda line: (line, line),
    "nocase": lambda line: (line.lower(), line),
}


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of a file without their ends, the end that they all have, and whether the last one has it."""

    lines: Sequence[bytes]
    end: bytes
    ended: bool


def read(content: bytes) -> Lines | None:
    """None if the lines do not all end alike."""
    if not content:
        return Lines((), b"\n", True)
    lines = content.split(b"\n")
    ended = not lines[-1]
    if ended:
        lines.pop()
    whole, rest = (lines, []) if ended else (lines[:-1], lines[-1:])
    returns = sum(line.endswith(b"\r") for line in whole)
    if not returns and not any(line.endswith(b"\r") for line in rest):
        return Lines(lines, b"\n", ended)
    if returns < len(whole) or any(line.endswith(b"\r") for line in rest):
        return None
    return Lines([line.removesuffix(b"\r") for line in whole] + rest, b"\r\n", ended)


def _is_set(content: bytes, options: Options) -> bool:
    found = read(content) if is_text(content) else None
    return found is not None and _ordered(found.lines, options["order"])


def _ordered(lines: Sequence[bytes], order: Value) -> bool:
    if order == "any":
        return True
    key = _KEYS[str(order)]
    return all(key(a) < key(b) for a, b in itertools.pairwise(lines))


@register(
    "set",
    "files whose lines are a sorted set: additions are united, deletions stand",
    needs_base=True,
    fits=_is_set,
    options={
        "order": Option(
            "bytes",
            "how the lines are sorted: by `bytes`, by letters without `nocase`, or `any`: not at all, and what the "
            "suspect added goes to the end",
            ("bytes", "nocase", "any"),
        ),
    },
)
def merge_sets(inputs: Inputs, options: Options) -> Proposal:
    """The set of what was in the base and neither side deleted, and what either side added."""
    assert inputs.base is not None
    base, main, suspect = read(inputs.base), read(inputs.main), read(inputs.suspect)
    if base is None or main is None or suspect is None:
        return Unresolved(("set: a side mixes line ends",))
    if len({side.end for side in (base, main, suspect) if side.lines}) > 1:
        return Unresolved(("set: the sides end their lines differently",))
    order = options["order"]
    for name, side in ((inputs.main_name, main), (inputs.suspect_name, suspect), ("the base", base)):
        if not _ordered(side.lines, order):
            return Unresolved((f"set: the lines of {name} are not a sorted set",))
    old, mine, theirs = (_numbered(side.lines) for side in (base, main, suspect))
    kept = [element for element in mine if element in theirs or element not in old]
    added = [element for element in theirs if element not in mine and element not in old]
    lines = [line for line, _ in (*kept, *added)]
    if order != "any":
        lines.sort(key=_KEYS[str(order)])
        if not _ordered(lines, order):
            raise AssertionError("a union of sets is one")
    ended = _three_way(base.ended, main.ended, suspect.ended)
    end = next((side.end for side in (main, suspect) if side.lines), b"\n")
    reason = (
        f"set: {inputs.suspect_name} added {len(added)} lines and "
        f"{sum(1 for element in old if element in mine and element not in theirs)} of its deletions stand"
    )
    return Merged(end.join(lines) + (end if ended and lines else b""), (reason,))


def _numbered(lines: Sequence[bytes]) -> dict[tuple[bytes, int], None]:
    """Each line with how often it was there before: where a line may come more than once, each is an element."""
    seen: Counter[bytes] = Counter()
    found: dict[tuple[bytes, int], None] = {}
    for line in lines:
        found[line, seen[line]] = None
        seen[line] += 1
    return found


def _three_way(base: bool, main: bool, suspect: bool) -> bool:
    return suspect if main == base else main
