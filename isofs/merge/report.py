"""What a verdict did, object by object, in words that an operator reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a merge did. `aside` is the name given to what could not have its own."""

    path: bytes
    action: str  # took, merged, kept, deleted, renamed, restored, united, conflict
    reason: str
    review: bool = False
    aside: bytes | None = None


@dataclass(slots=True)
class Report:
    """Everything that a verdict did."""

    items: list[Item] = field(default_factory=list)

    @property
    def conflicts(self) -> int:
        return sum(item.action == "conflict" for item in self.items)

    @property
    def counts(self) -> dict[str, int]:
        return dict(sorted(Counter(item.action for item in self.items).items()))
