"""Serving the kernel's requests: from a mount that is made to one that is gone."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator

import pyfuse3

from isofs.fuse import waiting
from isofs.fuse.adapter import MOST_WAITING, Adapter
from isofs.fuse.mounting import Session
from isofs.fuse.turns import MOST_PARKED

#: Requests that are answered at the same time, at most: those that wait for a verdict or for their turn, and as many as
#: are needed.
MAX_TASKS = MOST_WAITING + MOST_PARKED + 64

#: Seconds for which a request that vanished can hold everything up.
TICK = 0.2


@contextlib.contextmanager
def connected(adapter: Adapter, session: Session) -> Iterator[None]:
    """The adapter answers for the session's mount. The mount itself is left as it is at the end."""
    pyfuse3.init(adapter, session.mount_point, set())
    try:
        yield
    finally:
        pyfuse3.close(unmount=False)


async def serve(adapter: Adapter, session: Session, begin: Callable[[], Awaitable[bool]]) -> None:
    """Answer requests until the mount is gone. Only in the main thread: that is where signals go.

    `begin` is awaited when the kernel knows what the mount can do, and before anything else is read: it lets the
    adapter `answer_for` a file system, and says whether to go on.
    """
    with _interrupted():
        await waiting.serve(session.device, MAX_TASKS, adapter.turns, adapter.afterwards, begin)


@contextlib.contextmanager
def _interrupted() -> Iterator[None]:
    """Let a signal arrive every TICK, so that no read of the FUSE device waits for long.

    A request vanishes when its caller is killed before it is read. If that is after the device was seen to be
    readable, pyfuse3 waits in `read` for the next request, and no task and no thread of this process goes on until
    one comes. A read that a signal ends is begun again by pyfuse3. It has no other way out: it takes what
    a device that never blocks would answer for an error.
    """
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def stop() -> None:
    """Let `serve` return although the mount is still there."""
    pyfuse3.terminate()
