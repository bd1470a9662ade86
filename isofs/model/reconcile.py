"""Protocol 3: what becomes of an object when a suspect turns out to be innocent (paper, section 6.2). Pure."""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass

from isofs.model.vectors import G, Vector, dominates


class Outcome(enum.Enum):
    """Which version is the merged one."""

    NOTHING = "nothing"  # both deleted: only the vectors are merged
    TAKE = "take"  # the suspect's version becomes main's
    KEEP = "keep"  # main's version stays (or stays deleted)
    DELETE = "delete"  # main's version is deleted
    CONFLICT = "conflict"  # main is left alone, the suspect's version waits


@dataclass(frozen=True, slots=True)
class Decision:
    """What Protocol 3 says of one object: the outcome, main's merged vector, and why in words.

    `review` marks what the paper decides by rule and what LOCUS, Ficus, Coda and Unison would report.
    """

    outcome: Outcome
    merged: Vector
    reason: str
    review: bool = False


@functools.lru_cache(maxsize=1024)  # nearly all objects of a suspect have vectors like another's
def reconcile(main: Vector, suspect: Vector, subject: int) -> Decision:
    """Protocol 3 for one object of both vectors.

    `main` says whether main is deleted (`G:'d'`), `suspect[subject]` whether the suspect's version is
    (`'d'`) or not (`'m'`, or 0 for a version that was never modified).
    """
    main_deleted, state = main.deleted, suspect.get(subject, 0)
    if main_deleted and state == "d":
        return Decision(Outcome.NOTHING, main.replace(subject, "d"), "deleted on both sides")
    if main_deleted:
        return _main_deleted(main, suspect, subject)
    if state == "d":
        return _suspect_deleted(main, suspect, subject)
    return _both_exist(main, suspect, subject)


def _main_deleted(main: Vector, suspect: Vector, subject: int) -> Decision:
    if suspect.get(subject, 0) != "m":
        return Decision(Outcome.KEEP, main, "main deleted it and the suspect never changed it")
    merged = main.replace(G, suspect[G]).replace(subject, "m")
    return Decision(
        Outcome.TAKE,
        merged,
        "main deleted what the suspect modified: the suspect's comes back",
        True,
    )


def _suspect_deleted(main: Vector, suspect: Vector, subject: int) -> Decision:
    count, seen = main[G], suspect[G]
    if isinstance(count, int) and isinstance(seen, int) and count > seen:
        reason = "main modified it after the suspect's copy: the suspect's deletion does not stand"
        return Decision(Outcome.KEEP, main.replace(subject, "d"), reason, True)
    if any(main[d] == "m" and suspect.get(d, 0) == 0 for d in main if d != G):
        reason = "another user's work on it was merged: the suspect's deletion does not stand"
        return Decision(Outcome.KEEP, main.replace(subject, "d"), reason, True)
    merged = main.replace(G, "d").replace(subject, "d")
    return Decision(Outcome.DELETE, merged, "the suspect deleted it and main did not change it")


def _both_exist(main: Vector, suspect: Vector, subject: int) -> Decision:
    padded = suspect.padded(main)
    if dominates(main, padded):
        return Decision(Outcome.KEEP, main, "main's version includes the suspect's")
    if dominates(padded, main):
        return Decision(Outcome.TAKE, padded, "only the suspect changed it")
    reason = f"both changed it, main {_since(main, suspect)}"
    return Decision(Outcome.CONFLICT, main.replace(subject, "m"), reason)


def _since(main: Vector, suspect: Vector) -> str:
    """What happened to main after the suspect's copy, in words."""
    count, seen = main[G], suspect.get(G, 0)
    if isinstance(count, int) and isinstance(seen, int) and count > seen:
        times = {1: "once", 2: "twice"}.get(count - seen, f"{count - seen} times")
        return f"{times} since the suspect's copy"
    return "by a merge of another user's work"
