"""What verdicts would do, did, and left to be decided."""

from __future__ import annotations

from typing import Any, TypedDict

from isofs.control.results.changes import Content

#: What a merge did with one object or name; `action` is took, merged, kept, deleted, renamed,
#: conflict, united or restored, and `as` is the name that something was put aside under.
Item = TypedDict("Item", {"path": str, "action": str, "reason": str, "review": bool, "as": str | None})


#: What a merge would do to an object, which has a number in the store, with the version vectors of both sides where
#: there are any, and the risks of the change. `kind` as in `Change`, null for what is gone by now.
PlannedItem = TypedDict(
    "PlannedItem",
    {
        "path": str,
        "action": str,
        "reason": str,
        "review": bool,
        "as": str | None,
        "object": int,
        "kind": str | None,
        "main": dict[str, object] | None,
        "suspect": dict[str, object] | None,
        "risks": list[str],
    },
)


class Aside(TypedDict):
    """What a partial verdict does beside what it was asked for, and why; `asked` is whether --except says so."""

    path: str
    reason: str
    asked: bool


class Planned(TypedDict):
    """`plan`: what `innocent` would do now, with the same globs; `risks` are those of all changes together.

    `along` and `left` as in `Merged`.
    """

    user: str
    counts: dict[str, int]
    items: list[PlannedItem]
    risks: list[str]
    along: list[Aside]
    left: list[Aside]


class Merged(TypedDict):
    """`innocent`: what the merge did, and how many conflicts wait for a decision.

    Of a partial one, `along` is what came along though no glob names it, `left` what stays isolated though one does.
    """

    user: str
    counts: dict[str, int]
    items: list[Item]
    conflicts: int
    along: list[Aside]
    left: list[Aside]


class Decided(TypedDict):
    """`decide`: what was merged and how much discarded, and how many conflicts of it wait for a decision.

    `along` and `left` as in `Merged`; `evidence` and `readable` as in `Discarded`.
    """

    user: str
    counts: dict[str, int]
    items: list[Item]
    discarded: dict[str, int]
    conflicts: int
    along: list[Aside]
    left: list[Aside]
    evidence: str | None
    readable: str | None


class Discarded(TypedDict):
    """`malicious`: what was thrown away, and the archive that keeps it, if one was wanted.

    `accepted` is what was merged before, `along` what of it no glob names. `readable` is where root can read the
    archive as long as this daemon runs.
    """

    user: str
    counts: dict[str, int]
    accepted: list[Item]
    along: list[Aside]
    evidence: str | None
    readable: str | None


class Conflict(TypedDict):
    """One pair of versions that no rule decides; `version` is where the suspect's is kept.

    `since` is when the suspicion began, `readable` is where root can read the version as long as this daemon runs.
    """

    user: str
    uid: int
    since: str
    path: str
    kind: str
    reason: str
    main: dict[str, object] | None
    suspect: dict[str, object] | None
    version: str | None
    readable: str | None


class Conflicts(TypedDict):
    """`conflicts`: what merges could not decide. The command adds `commands`, those that settle it, to each."""

    conflicts: list[Conflict]


class Resolved(TypedDict):
    """`resolve`: what was done with each conflict, and how many of the user's wait still."""

    user: str
    counts: dict[str, int]
    items: list[Item]
    conflicts: int


class Marked(TypedDict):
    """`resolve --markers`: whether what was written has markers in it, and why. The command adds `file`.

    `seen` tells both sides as they were from what they are later.
    """

    user: str
    path: str
    marked: bool
    reasons: list[str]
    seen: str


class Verdict(TypedDict):
    """A verdict (`innocent`, `malicious`), or conflicts settled by hand (`resolve`): on whose work, by whom, and when.

    `part` is what was asked for of a part. `ended` is null while it goes on, or waits to be gone on with. `counts` are
    how much was done of what kind, so far. `evidence` and `readable` as in `Discarded`.
    """

    number: int
    at: str
    ended: str | None
    user: str
    uid: int
    verdict: str
    part: str
    by: str
    reason: str
    counts: dict[str, int]
    evidence: str | None
    readable: str | None


class Reports(TypedDict):
    """`reports`: verdicts, newest first. The call answers a page, and `more` is whether there are older ones."""

    verdicts: list[Verdict]
    more: bool


class Report(Verdict):
    """`report`: a verdict, and what it did with each object or name."""

    items: list[Item]


class Proposal(TypedDict):
    """What one person proposed, and another has to confirm; `words` are the command, `content` what --with gave.

    `changed` is whether the user has changed something since.
    """

    user: str
    uid: int
    at: str
    by: str
    call: str
    words: list[str]
    reason: str
    content: Content | None
    changed: bool


class Proposals(TypedDict):
    """`proposals`: what waits for a second person."""

    proposals: list[Proposal]


class Confirmed(TypedDict):
    """`confirm`: what was carried out; `result` is that of the `call`."""

    user: str
    call: str
    by: str
    confirmed_by: str
    result: dict[str, Any]
