"""Waiting for the kernel's requests without turns of trio's loop for each.

pyfuse3 waits by `trio.lowlevel.wait_readable`, under a lock, with tasks that take turns: more than half of what
answering a simple request costs. It looks `trio` up in its own module, where its asyncio mode replaces it, so it can
be given a stand-in that looks at the device first. One task then answers request after request, and lets others run
when there is none, or after a few; another is started whenever an answer has to wait (for a big copy, a verdict).
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any

import pyfuse3
import trio

from isofs.errors import NoFuse
from isofs.fuse.afterwards import Afterwards
from isofs.fuse.handshake import Handshake
from isofs.fuse.turns import Turns
from isofs.fuse.watch import Device, Watch

#: Requests after which other tasks must have their turn.
AT_ONCE = 32

_Loop = Callable[..., Coroutine[Any, Any, None]]


async def serve(
    device: int, max_tasks: int, turns: Turns, afterwards: Afterwards, begin: Callable[[], Awaitable[bool]]
) -> None:
    """`pyfuse3.main`, with as many requests answered at the same time, at most, and turns for those of suspects.

    What comes `afterwards` is done between an answer and the next request.

    `begin` is awaited between the kernel's first request and its second; if it says no, nothing more is read.
    """
    if getattr(pyfuse3, "trio", None) is not trio:
        raise NoFuse(f"pyfuse3 {pyfuse3.__version__} cannot be used: it does not look trio up in its own module")
    handshake = Handshake(device)
    turns.follow(device)
    vars(pyfuse3)["trio"] = _Trio(max_tasks, handshake, turns, Watch(Device(device)), afterwards, begin)
    afterwards.reading = True
    try:
        # A task ends when it has answered and another waits already, and starts none: the stand-in does.
        await pyfuse3.main(min_tasks=0, max_tasks=1)
    finally:
        vars(pyfuse3)["trio"] = trio
        afterwards.reading = False
        afterwards.do()
        handshake.close()


class _Trio:
    """What pyfuse3 finds as `trio`. It is its `trio.lowlevel` as well."""

    def __init__(
        self,
        max_tasks: int,
        handshake: Handshake,
        turns: Turns,
        watch: Watch,
        afterwards: Afterwards,
        begin: Callable[[], Awaitable[bool]],
    ) -> None:
        self.lowlevel = self
        self._begin = begin
        self._handshake = handshake
        self._turns = turns
        self._comes = watch.comes
        self._afterwards = afterwards
        self._left = max_tasks
        self._waiting = False
        self._asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name, None) or getattr(trio.lowlevel, name)

    def Lock(self) -> _Lock:
        return _Lock(self._afterwards)

    def wait_readable(self, descriptor: int) -> Awaitable[None]:
        self._asked += 1
        if self._asked > 2 and not self._turns.waiting and self._asked % AT_ONCE and self._comes():
            return _AT_ONCE
        return self._wait(descriptor)

    async def _wait(self, descriptor: int) -> None:
        if self._asked == 1:
            self._handshake.ask()
            return
        if self._asked == 2:
            self._handshake.answered()
            with self._idle():
                if not await self._begin():
                    raise trio.ClosedResourceError
        if self._turns.waiting and await self._others_first():
            return
        with self._idle():
            await trio.lowlevel.wait_readable(descriptor)

    async def _others_first(self) -> bool:
        with self._idle():
            return await self._turns.others_first()

    @contextlib.contextmanager
    def _idle(self) -> Iterator[None]:
        """While the task that reads waits for requests, so that no other is needed."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    @contextlib.asynccontextmanager
    async def open_nursery(self) -> AsyncIterator[_Tasks]:
        async with trio.open_nursery() as nursery:
            yield _Tasks(self, nursery)

    async def run(self, nursery: trio.Nursery, loop: _Loop, args: tuple[Any, ...]) -> None:
        """Run pyfuse3's loop in this task; whenever it waits for anything but a request, let another task read."""
        self._left -= 1

        def waits() -> None:
            if not self._waiting and self._left > 0:
                nursery.start_soon(self.run, nursery, loop, args)

        try:
            await _watched(loop(*args), waits)
        finally:
            self._left += 1
            self._afterwards.do()


class _Tasks:
    """What pyfuse3 finds as its nursery."""

    def __init__(self, stand_in: _Trio, nursery: trio.Nursery) -> None:
        self._stand_in, self._nursery = stand_in, nursery

    def start_soon(self, loop: _Loop, *args: Any, name: object = None) -> None:
        self._nursery.start_soon(self._stand_in.run, self._nursery, loop, args, name=name)


#: An iterator that is at its end, which it stays.
_NOTHING: Any = iter(())


class _AtOnce:
    """To be awaited for nothing: a coroutine that does nothing takes four times as long."""

    def __await__(self) -> Generator[Any, Any, None]:
        answer: Generator[Any, Any, None] = _NOTHING
        return answer


_AT_ONCE = _AtOnce()


class _Lock:
    """A lock that takes no turn of the loop while it is free. Whoever wants it has answered what it read before."""

    def __init__(self, afterwards: Afterwards) -> None:
        self._afterwards = afterwards
        self._held = False
        self._waiting = 0
        self._others = trio.lowlevel.ParkingLot()

    def __aenter__(self) -> Awaitable[None]:
        if self._afterwards.left:
            self._afterwards.do()
        if self._held:
            return self._wait()
        self._held = True
        return _AT_ONCE

    async def _wait(self) -> None:
        while self._held:
            self._waiting += 1
            try:
                await self._others.park()
            finally:
                self._waiting -= 1
        self._held = True

    def __aexit__(self, *_: object) -> Awaitable[None]:
        self._held = False
        if self._waiting:
            self._others.unpark()
        return _AT_ONCE


@types.coroutine
def _watched(loop: Coroutine[Any, Any, None], waits: Callable[[], None]) -> Generator[Any, Any, None]:
    """Run a coroutine to its end, and tell whenever it gives control away."""
    step: Callable[[Any], Any] = loop.send
    given: Any = None
    while True:
        try:
            asked = step(given)
        except StopIteration:
            return
        waits()
        try:
            given = yield asked
            step = loop.send
        except BaseException as error:
            given, step = error, loop.throw
