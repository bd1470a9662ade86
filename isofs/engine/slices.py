"""Long work in slices: a generator that yields where others may be served, and returns what it found.

Between two slices anything may change but what its caller keeps still: what is looked at later is seen as it is then,
and what is gone is left out.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

Slices = Generator[None, None, T]

#: So many things of a list are sorted, or looked through, at a stretch: less than a millisecond.
_RUN = 500


def at_once(work: Slices[T]) -> T:
    """The result of work that nobody is served in."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


def in_order(items: Iterable[T], key: Callable[[T], Any]) -> Slices[list[T]]:
    """The items, sorted."""
    ahead, runs, found = iter(items), list[list[T]](), list[T]()
    while run := sorted(islice(ahead, _RUN), key=key):
        runs.append(run)
        yield
    for number, item in enumerate(heapq.merge(*runs, key=key)):
        found.append(item)
        if number % _RUN == 0:
            yield
    return found


def now_and_then(items: Iterable[T]) -> Iterator[T | None]:
    """The items, with a None among them where others may be served."""
    for number, item in enumerate(items):
        if number % _RUN == _RUN - 1:
            yield None
        yield item
