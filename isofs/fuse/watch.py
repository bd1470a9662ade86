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
from typing import Protocol

#: Seconds to wait for the next request before other tasks may run.
PATIENCE = 0.0002

#: Seconds of them for which the device is looked at again and again.
ALERT = 0.00005

#: Requests after which it is looked at so again, at most, though it was in vain.
LONGEST_PAUSE = 1024

#: `select` knows no higher descriptors.
_SELECTABLE = 1024


class Device:
    """What requests come from: a descriptor, looked at with less ado than `select` makes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        self._poll = poll.poll

    def ready(self) -> bool:
        """Whether it can be read now."""
        return bool(self._poll(0))

    def comes(self, seconds: float) -> bool:
        """Whether it can be read within so many seconds. `poll` knows none below a thousandth, `select` not all."""
        if self._descriptor >= _SELECTABLE:
            return self.ready()
        return bool(select.select((self._descriptor,), (), (), seconds)[0])


class Looks(Protocol):
    """How a device is looked at."""

    def ready(self) -> bool: ...
    def comes(self, seconds: float) -> bool: ...


class Watch:
    """On one device, by one task.

    Where nothing is gained by looking, it costs whoever asks the processor: with one of them nobody can ask meanwhile,
    and where others want all of them whoever asks has to wait for its turn. So each look in vain doubles the requests
    that must come until there is another, and each that was not takes one off.
    """

    def __init__(self, device: Looks, processors: int | None = None, clock: Callable[[], float] = perf_counter) -> None:
        self._spins = (processors or len(os.sched_getaffinity(0))) > 1
        self._device, self._ready, self._clock = device, device.ready, clock
        self._quick = False
        self._pause, self._next_pause = 0, 1

    def comes(self) -> bool:
        """Whether there is a request, or one comes soon."""
        if self._quick and (self._ready() or self._seen()):
            return True
        since = self._clock()
        came = self._device.comes(PATIENCE)
        self._pause -= 1
        # Who was woken up was later than the request by about as long as the device would have been looked at.
        self._quick = self._spins and came and self._pause <= 0 and self._clock() - since < 2 * ALERT
        return came

    def _seen(self) -> bool:
        until = self._clock() + ALERT
        while not self._ready():
            if self._clock() > until:
                self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, LONGEST_PAUSE)
                return False
        self._next_pause = max(self._next_pause - 1, 1)
        return True
