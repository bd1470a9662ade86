"""Telling the kernel that what it keeps is out of date."""

from __future__ import annotations

import contextlib
import logging
import os
import struct
from collections import deque

import pyfuse3
import trio

log = logging.getLogger(__name__)

#: fuse_out_header of a notification (length, code, 0) and fuse_notify_inval_entry_out (parent, name length, flags).
_NOTIFICATION = struct.Struct("=IiQ")
_INVALIDATE_ENTRY = struct.Struct("=QII")
_NOTIFY_INVALIDATE_ENTRY = 3
_EXPIRE_ONLY = 1


class KernelCache:
    """The kernel's caches of one mount (`isofs.engine.state.Kernel`).

    Attributes are forgotten at once. Forgetting an entry takes locks that a call in progress may hold, so entries
    go through a queue and a thread; `drained` waits for those asked for so far. `device` is the FUSE device.
    """

    def __init__(self, device: int) -> None:
        self._device = device
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
                await trio.to_thread.run_sync(_expire_entry, self._device, parent, name)
                self._finished += 1
                async with self._done:
                    self._done.notify_all()

    async def drained(self) -> None:
        """Wait until every entry asked for so far is forgotten."""
        asked = self._asked
        async with self._done:
            while self._finished < asked:
                await self._done.wait()


def _expire_entry(device: int, parent: int, name: bytes) -> None:
    """Let the kernel look a name up again before it next uses it.

    pyfuse3 can only invalidate: that also drops the entry, and who works in the directory that it leads to gets no
    answer from `getcwd` until somebody looks it up. Kernels before 6.2 do not know the flag, and invalidate.
    """
    body = _INVALIDATE_ENTRY.pack(parent, len(name), _EXPIRE_ONLY) + name + b"\0"
    with contextlib.suppress(OSError):  # the kernel has no such entry: nothing to forget
        os.write(device, _NOTIFICATION.pack(_NOTIFICATION.size + len(body), _NOTIFY_INVALIDATE_ENTRY, 0) + body)


def _invalidate_data(node: int) -> None:
    with contextlib.suppress(OSError):
        pyfuse3.invalidate_inode(pyfuse3.InodeT(node))
