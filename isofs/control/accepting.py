"""Accepting connections, also where there is nothing left for a while to accept them with."""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

log = logging.getLogger(__name__)

#: What says that descriptors or memory are used up, which whoever connects cannot help.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

#: Seconds until another try, and between two lines about it in the log.
_AGAIN, _TELL = 0.1, 60.0

Listener = trio.abc.Listener[trio.SocketStream]


async def accept(
    listener: Listener, connection: Callable[[trio.SocketStream], Awaitable[None]], nursery: trio.Nursery
) -> NoReturn:
    """Start `connection` for each that comes in. Without descriptors they wait, and the log says so, but not often.

    `trio.serve_listeners` would write a traceback for every try.
    """
    told, failing = -math.inf, False
    while True:
        try:
            stream = await listener.accept()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            if trio.current_time() - told >= _TELL:
                log.error("control connections wait, none can be accepted: %s; trying on", error.strerror)
                told, failing = trio.current_time(), True
            await trio.sleep(_AGAIN)
        else:
            if failing:
                log.warning("control connections are accepted again")
                failing = False
            nursery.start_soon(connection, stream)
