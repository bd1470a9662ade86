"""The daemon's end of the trail: records are numbered, put into the ring, and counted where there is no room."""

from __future__ import annotations

import time
from collections.abc import Mapping

from isofs.audit import chain, tasks
from isofs.audit.record import GAP, Unnumbered, moment, packed, told, unpacked
from isofs.audit.ring import Ring
from isofs.audit.tasks import Task

#: The share of the ring from which on suspects wait for room. The rest is for everybody else.
CROWDED = 0.5

#: The share up to which it must have been emptied, once it was full, before there are records again: so that a flood
#: makes one gap, and not one for each of the larger records among the smaller ones.
_EASED = 0.9


class Trail:
    """Puts records into the ring, in the order of calls of `put`. It never waits.

    What finds no room is counted, and told by a record of its own as soon as there is some.
    """

    def __init__(self, ring: Ring, last: int) -> None:
        self.ring, self._put = ring, ring.put
        self.last = last
        self._lost = 0
        self._lost_since = 0

    def put(self, record: Unnumbered) -> None:
        """Add a record."""
        if self._lost and not self._told_lost():
            self._lost += 1
            return
        sequence = self.last + 1
        if self._put(packed(sequence, record)):
            self.last = sequence
        else:
            self.missed(time.time_ns())

    def missed(self, now: int) -> None:
        """Count a record that there is not."""
        self._lost_since = self._lost_since or now
        self._lost += 1

    def tell(
        self,
        action: str,
        facts: Mapping[str, object],
        *,
        sid: int = 0,
        uid: int = 0,
        task: Task | None = None,
        number: int = 0,
    ) -> None:
        """Add what is no call of the file system: a decision of the operator's, or the trail about itself."""
        who = b"" if task is None else tasks.packed(task)
        self.put(told(time.time_ns(), action, sid, uid, who, number, facts=facts))

    def _told_lost(self) -> bool:
        """Tell what was lost, if there is room again; whether there is."""
        facts = {"lost": self._lost, "since": moment(self._lost_since)}
        if self.ring.used() > _EASED or not self._put(packed(self.last + 1, told(time.time_ns(), GAP, facts=facts))):
            return False
        self.last, self._lost, self._lost_since = self.last + 1, 0, 0
        return True

    @property
    def crowded(self) -> bool:
        """Whether suspects should wait before they give the writer more to do."""
        return self.ring.used() > CROWDED


def last_number(ring: Ring, folder: int) -> tuple[int, int]:
    """The number of the last record of all, in the ring or in the files; and how many bytes are torn at their end.

    What `newest` knows counts as well: the numbers of lines that were cut off are not given again.
    """
    in_ring = 0
    for piece, _ in ring.waiting():
        if piece is not None:
            in_ring = unpacked(piece).sequence
    try:
        known = chain.newest(folder)
    except ValueError:
        known = None
    end = chain.end(folder)
    return max(in_ring, end.sequence, known.sequence if known else 0), end.torn
