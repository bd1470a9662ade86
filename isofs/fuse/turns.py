"""Whose request is answered next, while suspects ask for more than their share.

The kernel hands out requests in the order in which they came, so whoever has the most processes gets the most. While
trusted users are at work, one request of the suspects' is answered after each of theirs; more wait for turns: what
else the kernel has is read first, and what trusted users asked for among it is answered at once. No turn is held back
for long: whoever trusted waits for a lock that the kernel holds for a suspect's request asks for nothing meanwhile, and
then those that wait follow one another.
"""

from __future__ import annotations

import select
from time import monotonic

import trio

#: Seconds for which trusted users count as at work after each request.
AT_WORK = 0.1

#: Seconds to wait for the next request of who was just answered.
PATIENCE = 0.0002

#: Requests that are read before one that waits has its turn, at most, and requests that wait, at most.
READ_FIRST = 2
MOST_PARKED = 1000


class Turns:
    """The requests of suspects that wait for their turn. Without a device, none does."""

    def __init__(self) -> None:
        self._parked = trio.lowlevel.ParkingLot()
        #: How many wait, or have just been let go on.
        self.waiting = 0
        self._device = -1
        self._worked = -AT_WORK
        self._since = self._worked
        self._in_a_row = self._read = 0

    def follow(self, device: int) -> None:
        """Requests come from this device; whoever reads it calls `others_first`."""
        self._device = device

    def trusted(self) -> None:
        """A trusted user asks for something, while somebody is isolated."""
        self._worked, self._in_a_row = monotonic(), 0

    async def wait(self) -> None:
        """To be awaited by a suspect's request before anything is done for it."""
        if self._device < 0 or monotonic() - self._worked > AT_WORK:
            return
        self._in_a_row += 1
        if not self._parked and (self._in_a_row == 1 or not self._readable(0)):
            return
        if len(self._parked) < MOST_PARKED:
            self.waiting += 1
            try:
                await self._parked.park()
            finally:
                self.waiting -= 1

    def _comes(self) -> bool:
        """Whether there is a request; whoever trusted was just answered may be about to ask for more."""
        return self._readable(PATIENCE if self._worked > self._since else 0)

    def _readable(self, patience: float) -> bool:
        return bool(select.select((self._device,), (), (), patience)[0])

    async def others_first(self) -> bool:
        """Let those that wait have their turns: whether another request came, which is to be read before the rest."""
        while self._parked:
            self._read += 1
            if self._read <= READ_FIRST and self._comes():
                return True
            self._read, self._since = 0, self._worked
            self._parked.unpark()
            for _ in range(2):  # in one turn of trio's loop tasks run in any order
                await trio.lowlevel.checkpoint()
        return False
