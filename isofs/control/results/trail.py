"""What the audit trail says."""

from __future__ import annotations

from typing import TypedDict

from isofs.audit.readset import Gap, Read


class Lines(TypedDict):
    """`log`: lines of the audit trail; where those after them are, and whether there are some already."""

    lines: list[str]
    file: int
    at: int
    more: bool


class ReadLines(Lines):
    """`reads`, as the daemon answers: lines of read sets, and all gaps."""

    gaps: list[Gap]


class LogVerified(TypedDict):
    """`log verify`: whether the audit trail is what was written, its good lines, and the newest of them."""

    ok: bool
    lines: int
    files: int
    first: int
    last: int
    hash: str
    torn: int
    problem: str | None


class Reads(TypedDict):
    """`reads`: what a user may have copied out while isolated, and when that was not recorded of anybody."""

    user: str
    reads: list[Read]
    gaps: list[Gap]


class ReadTotal(TypedDict):
    """What read sets come to, of files alone: their sizes, how often they were opened, and bytes that were asked for.

    `first` and `last` are null if there is none. `gaps` are times since the suspicion in which nothing was recorded.
    """

    files: int
    size: int
    opens: int
    read: int
    first: str | None
    last: str | None
    gaps: list[Gap]
