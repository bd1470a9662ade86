"""What the control socket says of the state that the mount is in, and refuses while it is without its store."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from isofs.control import results
from isofs.engine.outage import Failure
from isofs.engine.state import Filesystem
from isofs.errors import StoreUnusable
from isofs.service.opening import shut_out

Handler = Callable[..., Any]

#: What is answered without a store as well.
_ALWAYS = ("status", "umount", "log_level", "bring_back")


def guarded(fs: Filesystem, handlers: Mapping[str, Handler]) -> dict[str, Handler]:
    """The calls, which are refused while the file system does without its store."""

    def guard(handler: Handler) -> Handler:
        async def refused_if_failed(*args: Any) -> object:
            check(fs)
            return await handler(*args)

        return refused_if_failed

    return {name: handler if name in _ALWAYS else guard(handler) for name, handler in handlers.items()}


def check(fs: Filesystem) -> None:
    """StoreUnusable if the file system does without its store."""
    if fs.failure is not None:
        raise StoreUnusable(
            f"the mount does without its store since {fs.failure.since} ({shut_out(fs.failure)}): {fs.failure.reason};"
            f" mend the store, then {_then(fs.failure)}"
        )


def _then(failure: Failure) -> str:
    return "unmount and mount again" if failure.at_start else "`isoctl --mount DIR check --repair`"


def degraded(fs: Filesystem) -> results.Degraded | None:
    """Why the mount is not as it should be; None if it is."""
    if fs.failure is not None:
        return told(fs.failure)
    reason, since = _of_the_file_system(fs), None
    if fs.trouble is not None:
        reason, since = fs.trouble.reason, fs.trouble.since
    return None if reason is None else {"reason": reason, "since": since, "suspects": "read only", "shut_out": []}


def sentence(degraded: results.Degraded | None) -> str:
    """The state in one line."""
    return "ok" if degraded is None else " ".join(f"degraded: {degraded['reason']}".split())


def told(failure: Failure) -> results.Degraded:
    uids = None if failure.isolated is None else sorted(failure.isolated)
    return {"reason": failure.reason, "since": failure.since, "suspects": "shut out", "shut_out": uids}


def _of_the_file_system(fs: Filesystem) -> str | None:
    """What the store's file system says of itself, though nobody has tried to write there since."""
    found = os.fstatvfs(fs.store.root)
    if found.f_flag & os.ST_RDONLY:
        return f"the file system of the store {fs.store.path} is read-only"
    if found.f_blocks and not found.f_bfree:
        return f"the file system of the store {fs.store.path} is full"
    return None
