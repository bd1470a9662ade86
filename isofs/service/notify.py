"""Telling whoever supervises the daemon how it is: systemd, or `isofs.service.supervisor`, which speak the same.

The protocol is a datagram of lines to the socket that NOTIFY_SOCKET names (sd_notify(3)). That the daemon is alive is
told only when a request from outside was answered through the mount.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys

import trio

from isofs.fuse.mounting import Session
from isofs.service import pulse


def tell(*lines: str) -> None:
    """Send lines like READY=1 to the supervisor, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address)
        sender.send("\n".join(lines).encode())


def patience() -> float | None:
    """Seconds after which the supervisor takes a silent daemon for one that hangs; None if it does not watch."""
    for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    limit = os.environ.get("WATCHDOG_USEC", "")
    return int(limit) / 1e6 if for_us and limit.isdecimal() and int(limit) else None


async def keep_telling_by_itself(status: str) -> None:
    """Say that the daemon is alive though nobody can be answered yet, and what it does, until cancelled."""
    tell(status)
    while limit := patience():
        tell("WATCHDOG=1")
        await trio.sleep(limit / 4)


async def keep_telling(session: Session) -> None:
    """Say that the daemon is alive each time that another process was answered by the mount, until cancelled."""
    limit = patience()
    if limit is None:
        return
    # A process of its own asks: one of this process's threads would wait for itself, and could not even be killed.
    beats, theirs = os.pipe()
    words = [sys.executable, "-I", "-S", pulse.__file__, str(session.namespace), session.directory, str(limit / 4)]
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        pass_fds=(session.namespace,),
        start_new_session=True,
    )
    os.close(theirs)
    try:
        while True:
            await trio.lowlevel.wait_readable(beats)
            if not os.read(beats, 4096):
                return  # it could not ask; the supervisor will notice
            tell("WATCHDOG=1")
    finally:
        process.kill()  # and not waited for: it may itself wait for an answer of ours
        os.close(beats)
