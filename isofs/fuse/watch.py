"""Seeing the next request when it comes.

Whoever waits in the kernel for one is woken up by whoever asks, and the processor that it waited on by the other: where
programs ask again at once, that takes as long as answering. So the device is looked at again and again for a moment, as
long as requests come that quickly.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from time import perf_counter

#: Seconds to wait for the next request before other tasks may run.
PATIENCE = 0.0002

#: Seconds of them for which the device is looked at again and again.
ALERT = 0.00005

#: Whether a descriptor can be read within so many seconds.
Readable = Callable[[int, float], bool]


def readable(descriptor: int, seconds: float) -> bool:
    return bool(select.select((descriptor,), (), (), seconds)[0])


class Watch:
    """On one device, by one task. With one processor nobody could ask while it is looked at, so it waits at once."""

    def __init__(
        self,
        processors: int | None = None,
        readable: Readable = readable,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._spins = (processors or len(os.sched_getaffinity(0))) > 1
        self._readable, self._clock = readable, clock
        self._quick = False

    def comes(self, device: int) -> bool:
        """Whether there is a request, or one comes soon."""
        if self._quick and self._seen(device):
            return True
        since = self._clock()
        came = self._readable(device, PATIENCE)
        # Who was woken up was later than the request by about as long as the device would have been looked at.
        self._quick = self._spins and came and self._clock() - since < 2 * ALERT
        return came

    def _seen(self, device: int) -> bool:
        until = self._clock() + ALERT
        while not self._readable(device, 0):
            if self._clock() > until:
                return False
        return True
