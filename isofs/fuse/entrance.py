"""The way into a mount that nobody serves yet.

To take the mount out of the daemon's namespace the kernel follows a path into it, through the protocol's root to the
one directory in there: two requests, which need nothing of a store. They are answered here, on the device itself. What
else is asked then stays with the device until it is served: a caller that waits there can be killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct

import trio

from isofs.engine.calls import LONG
from isofs.engine.state import ROOT_NODE
from isofs.fuse import mounting
from isofs.fuse.mounting import Session

_PROTOCOL_ROOT = 1
_LOOKUP, _FORGET, _GETATTR, _GETXATTR, _INTERRUPT, _BATCH_FORGET = 1, 2, 3, 22, 36, 42
_UNANSWERED = (_FORGET, _INTERRUPT, _BATCH_FORGET)

#: More than any request.
_LARGEST = 1 << 21

#: fuse_in_header; fuse_out_header.
_ASKED = struct.Struct("=IIQQIIII")
_ANSWERED = struct.Struct("=IiQ")

#: fuse_attr; fuse_attr_out and fuse_entry_out, up to it.
_ATTRIBUTES = struct.Struct("=6Q10I")
_FOR = struct.Struct("=QII")
_ENTRY = struct.Struct("=QQQQII")


async def take_out(session: Session) -> int:
    """Take the mount out of this namespace; a descriptor keeps it, for `mounting.show`. From here on requests wait.

    The device must be at the second request.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_answer, session.device)
        tree = await trio.to_thread.run_sync(mounting.take_out, session)
        nursery.cancel_scope.cancel()
    return tree


async def _answer(device: int) -> None:
    """Answer what leads to the directory that is mounted, and refuse everything else, until cancelled."""
    os.set_blocking(device, False)  # a request may vanish
    try:
        while True:
            await trio.lowlevel.wait_readable(device)
            with contextlib.suppress(OSError):  # whoever asked is gone
                answer = _answer_to(os.read(device, _LARGEST))
                if answer is not None:
                    os.write(device, answer)
    finally:
        os.set_blocking(device, True)


def _answer_to(request: bytes) -> bytes | None:
    _, call, number, node, *_ = _ASKED.unpack_from(request)
    body, failure = b"", 0
    if call in _UNANSWERED:
        return None
    if (call, node) == (_GETATTR, _PROTOCOL_ROOT):
        body = _FOR.pack(0, 0, 0) + _attributes(_PROTOCOL_ROOT)
    elif (call, node, request[_ASKED.size :]) == (_LOOKUP, _PROTOCOL_ROOT, mounting.ROOT_NAME + b"\0"):
        body = _ENTRY.pack(ROOT_NODE, 0, int(LONG), 0, 0, 0) + _attributes(ROOT_NODE)
    else:
        failure = -(errno.ENODATA if call == _GETXATTR else errno.EIO)
    return _ANSWERED.pack(_ANSWERED.size + len(body), failure, number) + body


def _attributes(node: int) -> bytes:
    """A directory that nobody may enter: the kernel asks again before it goes by any of it."""
    return _ATTRIBUTES.pack(node, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFDIR | stat.S_IRWXU, 1, 0, 0, 0, 0, 0)
