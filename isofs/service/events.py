"""What happened that somebody may want to hear of, told to whoever subscribed."""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

log = logging.getLogger(__name__)


class Kind(enum.StrEnum):
    """What happens to subjects and to the file system; the words that hooks and the audit trail use."""

    SUSPECT = "suspect"  # somebody was isolated
    VERDICT = "verdict"  # a verdict, or a part of one, was carried out
    CONFLICT = "conflict"  # a merge left something to decide
    QUOTA = "quota"  # a suspect comes near a limit, or was refused something for it
    FAILURE = "failure"  # the store failed, or works again
    REVIEW = "review"  # somebody has been a suspect for long


@dataclass(frozen=True)
class Event:
    """One event. `facts` is plain JSON with the keys that docs/ state for the kind; `at` is seconds of the epoch."""

    kind: Kind
    facts: Mapping[str, object]
    at: float = field(default_factory=time.time)


class Events:
    """Tells each event to every subscriber, in order, in the caller's thread."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, callback: Callable[[Event], None]) -> None:
        """Have `callback` called with every event from now on. It must not wait."""
        self._subscribers.append(callback)

    def tell(self, event: Event) -> None:
        """Tell everybody. A subscriber that fails is logged: what happened has happened."""
        for callback in self._subscribers:
            try:
                callback(event)
            except Exception:
                log.exception("a subscriber failed at %s", event.kind)
