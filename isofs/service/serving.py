"""Long work in slices: whoever calls the file system is served in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import TypeVar

import trio

from isofs.engine import slices
from isofs.engine.slices import Slices

T = TypeVar("T")

#: Seconds of work at a stretch, before others are served.
SLICE = 0.005


async def each(things: Iterable[T]) -> AsyncIterator[T]:
    """The things, as they are made, in slices."""
    last = trio.current_time()
    for thing in things:
        yield thing
        if trio.current_time() - last > SLICE:
            await trio.lowlevel.checkpoint()
            last = trio.current_time()


async def in_slices(work: Slices[T]) -> T:
    """What comes of work, done in slices."""
    last = trio.current_time()
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        if trio.current_time() - last > SLICE:
            await trio.lowlevel.checkpoint()
            last = trio.current_time()


async def looked(work: Callable[[], Slices[T]]) -> T:
    """What a look finds at what a suspect may go on changing meanwhile.

    If something goes away under it that it had seen, it is taken anew and at one stretch.
    """
    try:
        return await in_slices(work())
    except KeyError:
        return slices.at_once(work())
