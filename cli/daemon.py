"""How commands reach the daemon of the mount that they mean."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from isofs.control import client, endpoint, mounts, results
from isofs.errors import NoAnswer, NotAllowed


class Dead(NoAnswer):
    """The mount is there, but its daemon is dead."""


def need_root() -> None:
    """NotAllowed for everybody but root."""
    if os.geteuid() != 0:
        raise NotAllowed("only root may do this: run it as root")


def mount_point(explicit: str | None) -> str:
    """The mount point that the command line and the current directory mean. NoMount if none."""
    if os.geteuid() == 0:
        endpoint.sweep(mounts.RUN)
    return mounts.choose(explicit, mounts.here(), mounts.mounted())


def ask(
    explicit: str | None,
    name: str,
    args: Mapping[str, object],
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """The daemon's result of a call, which has the shape that `results` gives for that call."""
    return ask_at(mount_point(explicit), name, args, progress)


def pages_at(directory: str, name: str, asked: Mapping[str, object], *, follow: float = 0) -> Iterator[Any]:
    """The pages of lines that a call answers; with `follow`, for ever, with so many seconds between two looks."""
    place: dict[str, object] = {}
    while True:
        page: results.Lines = ask_at(directory, name, {**asked, **place})
        yield page
        place = {"file": page["file"], "at": page["at"]}
        if not page["more"]:
            if not follow:
                return
            time.sleep(follow)


def ask_at(
    directory: str,
    name: str,
    args: Mapping[str, object],
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """As `ask`, of the mount at a mount point that is known already."""
    try:
        return client.call(mounts.socket_for(directory), name, args, progress=progress)
    except client.Unreachable:
        # Only now: a daemon that hangs would hold a look at its mount up, but it has a socket. One that is just reading
        # its store again has none, and answers the look when it has.
        if mounts.stale(directory):
            raise Dead(f"the daemon of {directory} is dead: `isoctl mount {directory}` repairs the mount") from None
        return client.call(mounts.socket_for(directory), name, args, progress=progress)
