"""Append: logs to which both sides only added. What they added is united in the order of its times."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from isofs.merge.resolvers.base import Inputs, Merged, Option, Options, Proposal, Unresolved, register
from isofs.merge.resolvers.times import Moment, moment


@dataclass(frozen=True, slots=True)
class Entry:
    """A line with a time and the lines without one that follow it: a stack trace, say."""

    lines: bytes
    at: Moment | None


@register(
    "append",
    "logs to which both only added: the union, in order of time where every entry has one, else main's first",
    needs_base=True,
    options={
        "order": Option("time", "`time`, or `main-first` to leave the times alone", ("time", "main-first")),
    },
)
def merge_appended(inputs: Inputs, options: Options) -> Proposal:
    """Every line that was added on either side, in its side's order. The same line added on both is there twice."""
    assert inputs.base is not None
    base, main, suspect = inputs.base, inputs.main, inputs.suspect
    for name, side in ((inputs.main_name, main), (inputs.suspect_name, suspect)):
        if not side.startswith(base):
            return Unresolved((f"append: {name} did more than add to its end",))
    if base and not base.endswith(b"\n"):
        ends = [end for end in (b"\n", b"\r\n") if main.startswith(base + end) and suspect.startswith(base + end)]
        if not ends:
            return Unresolved(("append: both went on with a last line that had no end",))
        base += ends[0]
    added, theirs = main[len(base) :], suspect[len(base) :]
    end = b"\r\n" if base.endswith(b"\r\n") or (not base and added.split(b"\n", 1)[0].endswith(b"\r")) else b"\n"
    before = _last_moment(base)
    mine, others = list(entries(added, before)), list(entries(theirs, before))
    told = f"append: united {_count(added)} lines of {inputs.main_name} and {_count(theirs)} of {inputs.suspect_name}"
    if options["order"] == "time" and _comparable(mine, others):
        united, order = _by_time(mine, others), "in order of time"
    else:
        united, order = [*mine, *others], f"{inputs.main_name}'s first"
    return Merged(base + _joined([entry.lines for entry in united], end), (f"{told}, {order}",))


def entries(lines: bytes, before: Moment | None = None) -> Iterator[Entry]:
    """The entries of a log. Lines before the first time belong to an entry of their own, without one.

    A time never goes back: where a log's does, the entry has the time of the one before.
    """
    held: list[bytes] = []
    at: Moment | None = None
    latest = before
    for line in io.BytesIO(lines):
        found = moment(line)
        if found is None:
            held.append(line)
            continue
        if held:
            yield Entry(b"".join(held), at)
        found = found.near(latest)
        if at is not None and at.form == found.form and found.seconds < at.seconds:
            found = at
        held, at, latest = [line], found, found
    if held:
        yield Entry(b"".join(held), at)


def _last_moment(base: bytes) -> Moment | None:
    tail = base[-65536:].split(b"\n")[1 if len(base) > 65536 else 0 :]
    return next((at for line in reversed(tail) if (at := moment(line)) is not None), None)


def _comparable(mine: Sequence[Entry], others: Sequence[Entry]) -> bool:
    forms = {entry.at.form if entry.at is not None else None for entry in (*mine, *others)}
    return len(forms) == 1 and None not in forms


def _by_time(mine: Sequence[Entry], others: Sequence[Entry]) -> list[Entry]:
    """Main's entry is first of two at one time."""
    merged: list[Entry] = []
    i = j = 0
    while i < len(mine) and j < len(others):
        first, second = mine[i].at, others[j].at
        assert first is not None
        assert second is not None
        if first.seconds <= second.seconds:
            merged.append(mine[i])
            i += 1
        else:
            merged.append(others[j])
            j += 1
    return [*merged, *mine[i:], *others[j:]]


def _joined(parts: Sequence[bytes], end: bytes) -> bytes:
    """The parts behind each other. One that was last, and had no line end, gets one if another follows."""
    whole = [part if part.endswith(b"\n") else part + end for part in parts[:-1]]
    return b"".join([*whole, *parts[-1:]])


def _count(lines: bytes) -> int:
    return lines.count(b"\n") + (not lines.endswith(b"\n") and bool(lines))
