"""What the audit trail says."""

from __future__ import annotations

from typing import TypedDict


class Lines(TypedDict):
    """`log`: lines of the audit trail; where those after them are, and whether there are some already."""

    lines: list[str]
    file: int
    at: int
    more: bool


class Gap(TypedDict):
    """When what suspects read was not recorded, and why; `until` is null if it is not yet."""

    since: str
    until: str | None
    why: str


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


class ReadObject(TypedDict):
    """An object of others' that a suspect opened for reading, when first; `subject` tells suspicions apart."""

    subject: int
    at: str
    path: str
    kind: str
    inode: int
    size: int | None
    program: str


class Reads(TypedDict):
    """`reads`: what a user may have copied out while isolated, and when that was not recorded of anybody."""

    user: str
    reads: list[ReadObject]
    gaps: list[Gap]
