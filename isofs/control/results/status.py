"""Who is isolated, how all is, and what a suspicion did."""

from __future__ import annotations

from typing import TypedDict

from isofs.control.results.verdicts import Proposal


class Counts(TypedDict):
    """How many objects and names a suspect changed, by kind of change."""

    added: int
    modified: int
    deleted: int
    renamed: int
    attributes: int


class Part(TypedDict):
    """What was decided of a suspect's work before the rest: when, of how many objects, and the globs that named them.

    `asked` says in words what was decided one by one, and whether it was merged or main's was kept.
    """

    since: str
    objects: int
    asked: str


class Taken(TypedDict):
    """What a suspect takes up, and may at most; `near` are the limits (bytes, objects, handles) that are near."""

    bytes: int
    bytes_limit: int
    objects: int
    objects_limit: int
    handles: int
    handles_limit: int
    near: list[str]


class TakenTogether(TypedDict):
    """What all suspects take up together, what is free on the store's file system, and how much of it they leave.

    `bases_left_out` are the copies that merges would have been helped by and for which there was no space, since the
    start. `near` are the limits (bytes, reserve) that are near.
    """

    bytes: int
    bytes_limit: int
    free: int
    reserve: int
    bases_left_out: int
    near: list[str]


class Subject(TypedDict):
    """A suspect; `state` is suspect, merging, discarding or conflicts. `parts` were decided before.

    `review` is from when on the suspect is to be looked at again, null if never. `stopped` is whether a verdict was
    stopped half way, and waits for `innocent` or `malicious` to go on with it.
    """

    user: str
    uid: int
    state: str
    since: str
    reason: str
    changed: Counts
    bytes: int
    conflicts: int
    parts: list[Part]
    review: str | None
    stopped: bool
    quota: Taken


class Suspect(TypedDict):
    """Somebody who is isolated or waits for a decision, by name; `state` as in `Subject`."""

    user: str
    uid: int
    state: str


class Suspects(TypedDict):
    """`suspects`: who is isolated, without what they changed."""

    suspects: list[Suspect]


class AtticTotals(TypedDict):
    """How much is in the attic: entries, and the bytes of what they are of."""

    entries: int
    bytes: int


class Degraded(TypedDict):
    """Why a mount is not as it should be, and since when (null: not known).

    `suspects` are "read only" or "shut out"; then `shut_out` are their uids, null for everybody but root.
    """

    reason: str
    since: str | None
    suspects: str
    shut_out: list[int] | None


class Status(TypedDict):
    """`status`: the state ("ok" or "degraded"), the mount, who is isolated on it, and how much its attic keeps.

    `configuration` says what is wrong with the configuration, null if nothing is. With `two_person`, verdicts wait
    among the `proposals` until a second person confirms them.
    """

    state: str
    degraded: Degraded | None
    mount: str
    store: str
    pid: int
    version: str
    since: str
    subjects: list[Subject]
    attic: AtticTotals
    configuration: str | None
    two_person: bool
    proposals: list[Proposal]
    quota: TakenTogether


class OpenFile(TypedDict):
    """A file that a process of a new suspect held open for reading and writing."""

    pid: int
    program: str
    path: str


class Suspected(TypedDict):
    """`suspect`: since when the user is isolated, and what became of the files held open."""

    user: str
    uid: int
    since: str
    killed: list[OpenFile]
    left: list[OpenFile]


class Detector(TypedDict):
    """`detector`: how the alerts of a detector are read. See `isofs.model.alerts`."""

    name: str
    format: str
    user: list[str]
    reason: list[str]
    when: list[str]


class Alerted(TypedDict):
    """`alert`: what became of an alert, and why where nobody was isolated.

    `outcome` is isolated, already, spared (who may not be isolated), limited, or with a dry run: would isolate.
    """

    outcome: str
    why: str


class AlertLine(TypedDict):
    """`suspect --from`: a line about each alert; `line` is its number.

    `outcome` may also be unknown (no such user) or failed (the daemon did not answer).
    """

    line: int
    outcome: str
    user: str
    uid: int | None
    reason: str
    why: str


class AlertTotals(TypedDict):
    """`suspect --from`: the last line, how many lines of its input ended as what; `ignored` are no alerts."""

    lines: int
    outcomes: dict[str, int]
