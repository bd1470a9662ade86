"""What an innocent verdict would do with each object (Protocol 3). Pure: values in, decisions out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from isofs.model.reconcile import Outcome, reconcile
from isofs.model.records import Decided, SubjectId, Version
from isofs.model.vectors import Vector, trusted_deletion, trusted_modification


@dataclass(frozen=True, slots=True)
class ObjectState:
    """One object of a suspect's: its version, main's vector (None: main never had it), and main's own state.

    `changed_unseen` is whether main changed without a call through the mount (the fingerprint differs while G
    says that nothing happened).
    """

    version: Version
    main: Vector | None
    exists: bool
    changed_unseen: bool = False


def plan(sid: SubjectId, states: Iterable[ObjectState]) -> list[Decided]:
    """A decision for every object that main knows. What only the suspect ever had needs none: it is taken."""
    return [_decide(sid, state) for state in states if state.main is not None]


def _decide(sid: SubjectId, state: ObjectState) -> Decided:
    main = state.main
    assert main is not None
    if not state.exists and not main.deleted:
        main = trusted_deletion(main)
    elif state.changed_unseen and not main.deleted:
        main = trusted_modification(main)
    decision = reconcile(main, state.version.vector, sid)
    return Decided(sid, state.version.op, decision.outcome.value, decision.merged, decision.reason, decision.review)


def is_conflict(decided: Decided) -> bool:
    return decided.outcome == Outcome.CONFLICT.value
