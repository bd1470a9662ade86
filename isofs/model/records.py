"""The values that the store keeps: subjects, origins, versions and bindings (design words, frozen)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from isofs.model.vectors import Vector

#: The number of a subject; `MAIN` is not a subject but main's own view.
SubjectId = int
MAIN: SubjectId = 0

#: The name at the root of main that is the store's, and that does not exist through the mount.
RESERVED = b".isofs"

#: How a name begins under which a merge puts an object of main's out of the way for a moment, with its origin point.
MOVING = b".isofs-moving-"

#: An origin point: unique in the store, never used twice.
Op = int

#: How the name of a content ends that has attributes alone.
_BARE = ".a"


class SubjectState(enum.StrEnum):
    """Where a subject stands between suspicion and the end of its verdict."""

    SUSPECT = "suspect"  # isolated
    MERGING = "merging"  # found innocent; the merge is being applied
    DISCARDING = "discarding"  # found malicious; the evidence is safe, versions are being removed
    CONFLICTS = "conflicts"  # merged but for objects that wait for a decision; works on main again
    ENDED = "ended"  # nothing waits any more


@dataclass(frozen=True, slots=True)
class Subject:
    """A user under suspicion, from one `suspect` to the end of its verdict.

    Or a part of what a suspect changed, split off to be merged alone: `part_of` is the suspect, who goes on being one,
    `objects` how many objects the part had, `since` when it was split off, `reason` what was asked for.
    """

    sid: SubjectId
    uid: int
    name: str
    since: str  # ISO 8601, UTC
    reason: str
    state: SubjectState
    part_of: SubjectId | None = None
    objects: int | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """An object that some suspect has to do with, or a directory on the way to one.

    `ino` is main's inode, None while main has none; `parent` and `name` say where main has it (one of its
    names). `next_ino` is set while a replacement by rename is under way. `born` is the subject that made
    the object, None for what main had first.
    """

    op: Op
    kind: int  # the S_IFMT bits
    ino: int | None
    parent: Op | None
    name: bytes
    vector: Vector | None
    born: SubjectId | None = None
    next_ino: int | None = None


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Main's inode, change time and size when a suspect's version was made.

    Tells a change of main that did not pass the mount.
    """

    ino: int
    ctime_ns: int
    size: int


@dataclass(frozen=True, slots=True)
class Version:
    """A suspect's own state of one object.

    `content` names the inode in the subject's folder, None for a deleted one. `attributes` is whether
    nothing but attributes differ from what the suspect started from.
    """

    sid: SubjectId
    op: Op
    state: Literal["m", "d"]
    vector: Vector
    content: str | None
    fingerprint: Fingerprint | None
    attributes: bool = False

    @property
    def bare(self) -> bool:
        """Whether the content has attributes alone: the data are main's, as they are at any time."""
        return self.content is not None and self.content.endswith(_BARE)

    @property
    def made_as(self) -> Op | None:
        """The object that the content was made for, which another may have taken over; None without a content."""
        return None if self.content is None else int(self.content.partition(".")[0])


def content_name(op: Op, bare: str | None = None) -> str:
    """What the content of a version that is made for an object is called.

    `bare` is a digest of the attributes that one without data started from (letters and digits).
    """
    return str(op) if bare is None else f"{op}.{bare}{_BARE}"


@dataclass(frozen=True, slots=True)
class Binding:
    """A suspect's own entry of one directory: the name leads to `op`, or to nothing if that is None.

    `replaced` is the object that main had under the name. `kept` marks what isofs wrote to keep the
    suspect's view whole when main changed under it: it is no change of the suspect's.
    """

    sid: SubjectId
    directory: Op
    name: bytes
    op: Op | None
    replaced: Op | None
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Base:
    """What main had of an object when `G` stood at `count`, with the `merged` work of so many users in it.

    The common ancestor for a three-way merge of the versions that started from it.
    """

    op: Op
    count: int
    merged: int
    content: str


@dataclass(frozen=True, slots=True)
class Touch:
    """When a suspect last changed the names in a directory, or those of another object (ns since the epoch)."""

    sid: SubjectId
    op: Op
    at_ns: int


@dataclass(frozen=True, slots=True)
class Decided:
    """What a running merge decided of one object (`isofs.model.reconcile.Decision`, as it is kept).

    `content` names the file in the subject's folder that a resolver made of both sides, `seen` is main's time of
    modification (ns) when it read it. `seen` without `content`: both sides ended equal.
    """

    sid: SubjectId
    op: Op
    outcome: str
    merged: Vector
    reason: str
    review: bool
    content: str | None = None
    seen: int | None = None


@dataclass(frozen=True, slots=True)
class Stowed:
    """What was replaced in main or removed from it, in the attic under its number.

    `sid` is the subject whose merge it was and `user` its name; `MAIN` and the operator for what `attic restore`
    replaced. `live` is whether somebody had the file itself open for writing, and may have written to it since.
    Until main has been changed, `op` is the object and `ino` the inode that main is about to lose, None if the
    object keeps it with another content.
    """

    number: int
    at: str  # ISO 8601, UTC
    sid: SubjectId
    user: str
    path: bytes
    kind: int  # the S_IFMT bits
    action: Literal["replaced", "deleted"]
    size: int
    live: bool = False
    op: Op | None = None
    ino: int | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one person proposed to do with the work of user `uid`, and another has to confirm.

    `persons` are the uids that the proposer may be known by. `call` and `args` say what is to be carried out, `content`
    what goes with it. `digest` is of what the user had changed, `seen` has a mark of each changed object.
    """

    uid: int
    at: str  # ISO 8601, UTC
    by: str
    persons: frozenset[int]
    call: str
    args: Mapping[str, object]
    content: bytes | None
    digest: str
    seen: Mapping[Op, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict on a subject's work, or the settling of conflicts by hand: what was asked for, by whom, and when.

    `part` says which part of the work, empty for all of it. It has `ended` when nothing of it is left to be done.
    `counts` are how much was done of what kind (of a discarding, how much was discarded); of a merge only once it has
    ended. What a merge did is in `Told`.
    """

    number: int
    at: str  # ISO 8601, UTC
    ended: str | None
    sid: SubjectId
    uid: int
    user: str
    verdict: Literal["innocent", "malicious", "resolve"]
    part: str
    by: str
    reason: str
    counts: Mapping[str, int]
    evidence: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that a verdict did: to an object, or to the `name` of it in a `directory` (0 and empty for no name).

    `place` is where in the report it is told. The rest is what the report says (`isofs.merge.report.Item`).
    """

    verdict: int
    op: Op
    directory: Op
    name: bytes
    place: int
    path: bytes
    action: str
    reason: str
    review: bool
    aside: bytes | None = None


#: Whatever the store keeps rows of.
Record = Subject | Origin | Version | Binding | Touch | Base | Decided | Stowed | Proposal | Verdict | Told


@dataclass(frozen=True, slots=True)
class Put:
    """Write a row: insert it, or replace the row of the same key."""

    record: Record


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove the row of this key, if there is one."""

    record: Record


#: One change of the store; several are made at once, or not at all.
Change = Put | Drop
