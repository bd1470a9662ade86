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
    """On one device, by one task. With one processor nobody could ask while it is looked at, so it waits at once."""

    def __init__(self, device: Looks, processors: int | None = None, clock: Callable[[], float] = perf_counter) -> None:
        self._spins = (processors or len(os.sched_getaffinity(0))) > 1
        self._device, self._ready, self._clock = device, device.ready, clock
        self._quick = False

    def comes(self) -> bool:
        """Whether there is a request, or one comes soon."""
        if self._quick and (self._ready() or self._seen()):
            return True
        since = self._clock()
        came = self._device.comes(PATIENCE)
        # Who was woken up was later than the request by about as long as the device would have been looked at.
        self._quick = self._spins and came and self._clock() - since < 2 * ALERT
        return came

    def _seen(self) -> bool:
        until = self._clock() + ALERT
        while not self._ready():
            if self._clock() > until:
                return False
        return True
