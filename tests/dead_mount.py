"""Mounts of the real kernel with a daemon that never answers: hanging, or dead."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

_LIBC = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2


@contextlib.contextmanager
def hanging(directory: str) -> Iterator[int]:
    """An isofs mount that nobody answers for; closing the descriptor given makes it a dead one."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    name = os.fsencode(directory)
    if _LIBC.mount(b"the-store", name, b"fuse.isofs", 0, options) != 0:
        os.close(device)
        raise OSError(ctypes.get_errno(), "mount")
    try:
        yield device
    finally:
        # First, so that nothing waits for an answer that doesn't come.
        with contextlib.suppress(OSError):
            os.close(device)
        _LIBC.umount2(name, _MNT_DETACH)


@contextlib.contextmanager
def dead(directory: str) -> Iterator[None]:
    """An isofs mount whose daemon is gone: every call answers ENOTCONN."""
    with hanging(directory) as device:
        os.close(device)
        yield
