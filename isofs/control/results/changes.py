"""What suspects changed."""

from __future__ import annotations

from typing import TypedDict

from isofs.control.results.trail import ReadTotal

#: One change; `change` is added, modified, deleted, renamed or attributes, `kind` is file,
#: directory, symlink, fifo, socket or device, and `from` is the name before a renaming. `risks` are
#: names of rules of `isofs.model.risks`, as everywhere.
Change = TypedDict(
    "Change",
    {"change": str, "kind": str, "path": str, "from": str | None, "size": int | None, "risks": list[str]},
)


class Changes(TypedDict):
    """`changes`: one entry per object and name that the user changed; `risks` are those of all together.

    `subject` is the number of the suspicion, as in the audit trail.
    """

    user: str
    subject: int
    since: str
    changes: list[Change]
    risks: list[str]


class ChangesAndReads(Changes):
    """`changes` as it is printed: with what the user read of what others made."""

    read: ReadTotal


class Content(TypedDict):
    """What tells two contents apart without showing them."""

    size: int
    sha256: str


class Difference(TypedDict):
    """One changed object: `text` is a unified diff where both sides are text.

    `known` is false if what the suspect started from was asked for and not kept: then there is no `old` side.
    """

    path: str
    change: str
    kind: str
    text: str | None
    old: Content | None
    new: Content | None
    known: bool
    risks: list[str]


class Diff(TypedDict):
    """`diff`: what changed within the objects that the user changed; `risks` are those of all changes together."""

    user: str
    entries: list[Difference]
    risks: list[str]
