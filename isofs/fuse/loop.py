"""Serving the kernel's requests: from a mount that is made to one that is gone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pyfuse3

from isofs.fuse.adapter import Adapter
from isofs.fuse.mounting import Session

#: Requests that are answered at the same time, at most.
MAX_TASKS = 64


@contextlib.contextmanager
def connected(adapter: Adapter, session: Session) -> Iterator[None]:
    """The adapter answers for the session's mount. The mount itself is left as it is at the end."""
    pyfuse3.init(adapter, session.mount_point, set())
    try:
        yield
    finally:
        pyfuse3.close(unmount=False)


async def serve() -> None:
    """Answer requests until the mount is gone."""
    await pyfuse3.main(max_tasks=MAX_TASKS)


def stop() -> None:
    """Let `serve` return although the mount is still there."""
    pyfuse3.terminate()
