"""isoctl umount: take isofs away, and wait for its daemon to end."""

from __future__ import annotations

import contextlib
import os
import select

import click

from isoctl import completing, daemon, output, users
from isofs.control import mounts
from isofs.control.holders import holders
from isofs.errors import Busy, NoAnswer, UsageError

#: How long a daemon may take to end after it has unmounted, in seconds.
LIMIT = 30.0

_MOST_NAMED = 5


@click.command()
@click.argument("directory", metavar="DIR", shell_complete=completing.directories)
@click.option(
    "--timeout",
    type=click.IntRange(0),
    default=0,
    metavar="SECONDS",
    help="Wait so long for the last one to leave; all go on.",
)
@click.option("--lazy", is_flag=True, help="Then take it away all the same: it is served until the last one has left.")
@click.option("--force", is_flag=True, help="Then take it away all the same: whoever is in it gets errors.")
@output.json_option
def umount(directory: str, timeout: int, lazy: bool, force: bool, as_json: bool) -> None:
    """Unmount DIR, and return when its daemon has ended.

    Suspects stay suspects, and are isolated again at the next mount. A mount in use is left as it
    is, and the error says who uses it. What a dead daemon left mounted is taken away.
    """
    daemon.need_root()
    if lazy and force:
        raise UsageError("--lazy goes on serving, --force does not: give one of them")
    where = daemon.mount_point(directory)
    # So that it isn't this process that keeps the mount busy.
    os.chdir("/")
    try:
        pid = daemon.ask_at(where, "status", {})["pid"]
    except daemon.Dead:
        mounts.detach(where)
        pid = None
    else:
        _unmount(where, pid, timeout, "lazy" if lazy else "force" if force else None)
    if as_json:
        output.document({"mount": where, "pid": pid, "stale": pid is None})
    elif pid is None:
        output.line(f"unmounted {where}, whose daemon was dead")
    else:
        output.line(f"unmounted {where}")


def _unmount(where: str, pid: int, timeout: int, anyway: str | None) -> None:
    with contextlib.ExitStack() as stack:
        # Held from before the end, so that a new process of the same number isn't waited for.
        process = os.pidfd_open(pid)
        stack.callback(os.close, process)
        left = _drained(where, pid, timeout, anyway)
        ended = select.poll()
        ended.register(process, select.POLLIN)
        if not left and not ended.poll(LIMIT * 1000):
            raise NoAnswer(f"{where} is unmounted, but its daemon {pid} hasn't ended")


def _drained(where: str, pid: int, timeout: int, anyway: str | None) -> bool:
    """Unmount when nobody uses the mount any more. Whether somebody does still, who is served on (`anyway` lazy)."""
    try:
        daemon.ask_at(where, "umount", {"timeout": timeout} if timeout else {})
        return False
    except Busy as error:
        who = f"{error}: {_who(where, pid)}"
        if anyway is None:
            raise Busy(who) from None
    output.warn(who)
    daemon.ask_at(where, "umount", {"how": anyway})
    return anyway == "lazy"


def _who(where: str, pid: int) -> str:
    found = holders(where, besides=[pid])
    if not found:
        return "nobody holds it any more, try again"
    named = [
        f"{holder.program} ({holder.pid}) of {users.name_of(holder.uid)}, {holder.what} {holder.path}"
        for holder in found[:_MOST_NAMED]
    ]
    more = len(found) - len(named)
    return "held by " + "; ".join(named) + (f"; and {more} more" if more else "")
