"""Telling the kernel that what it keeps is out of date."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import struct
import threading

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
    go through a queue to a thread of their own, which begins at once however busy the others are; `drained` waits for
    those asked for so far. `device` is the FUSE device.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._entries: queue.SimpleQueue[tuple[int, bytes] | threading.Event | None] = queue.SimpleQueue()

    def forget_attributes(self, node: int) -> None:
        with contextlib.suppress(OSError):  # the kernel does not know the node: nothing to forget
            pyfuse3.invalidate_inode(pyfuse3.InodeT(node), attr_only=True)

    def forget_entry(self, parent: int, name: bytes) -> None:
        self._entries.put((parent, name))

    async def forget_data(self, node: int) -> None:
        """Write back what the node's page cache holds, and drop it."""
        await trio.to_thread.run_sync(_invalidate_data, node)

    async def run(self) -> None:
        """Carry out what was asked for, for ever."""
        threading.Thread(target=self._expire, name="entries", daemon=True).start()
        try:
            await trio.sleep_forever()
        finally:
            self._entries.put(None)

    def _expire(self) -> None:
        while (asked := self._entries.get()) is not None:
            if isinstance(asked, threading.Event):
                asked.set()
            else:
                _expire_entry(self._device, *asked)

    async def drained(self) -> None:
        """Wait until every entry asked for so far is forgotten."""
        done = threading.Event()
        self._entries.put(done)
        await trio.to_thread.run_sync(done.wait)


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
