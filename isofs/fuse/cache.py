"""Telling the kernel that what it keeps is out of date."""

from __future__ import annotations

import contextlib
import logging
from collections import deque

import pyfuse3
import trio

log = logging.getLogger(__name__)


class KernelCache:
    """The kernel's caches of one mount (`isofs.engine.state.Kernel`).

    Attributes are forgotten at once. Forgetting an entry takes locks that a call in progress may hold, so entries
    go through a queue and a thread; `drained` waits for those asked for so far.
    """

    def __init__(self) -> None:
        self._entries: deque[tuple[int, bytes]] = deque()
        self._more = trio.Event()
        self._done = trio.Condition()
        self._asked = self._finished = 0

    def forget_attributes(self, node: int) -> None:
        with contextlib.suppress(OSError):  # the kernel does not know the node: nothing to forget
            pyfuse3.invalidate_inode(pyfuse3.InodeT(node), attr_only=True)

    def forget_entry(self, parent: int, name: bytes) -> None:
        self._entries.append((parent, name))
        self._asked += 1
        self._more.set()

    async def forget_data(self, node: int) -> None:
        """Write back what the node's page cache holds, and drop it."""
        await trio.to_thread.run_sync(_invalidate_data, node)

    async def run(self) -> None:
        """Carry out what was asked for, for ever."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._entries:
                parent, name = self._entries.popleft()
                await trio.to_thread.run_sync(_invalidate_entry, parent, name)
                self._finished += 1
                async with self._done:
                    self._done.notify_all()

    async def drained(self) -> None:
        """Wait until every entry asked for so far is forgotten."""
        asked = self._asked
        async with self._done:
            while self._finished < asked:
                await self._done.wait()


def _invalidate_entry(parent: int, name: bytes) -> None:
    with contextlib.suppress(OSError):
        pyfuse3.invalidate_entry(pyfuse3.InodeT(parent), pyfuse3.FileNameT(name))


def _invalidate_data(node: int) -> None:
    with contextlib.suppress(OSError):
        pyfuse3.invalidate_inode(pyfuse3.InodeT(node))
