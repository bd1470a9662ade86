"""What a request does not tell of its caller, and /proc does: groups, capabilities, the call that it waits in."""

from __future__ import annotations

import os
import stat

from isofs.engine.state import Caller

#: Bits of <linux/capability.h>.
FOWNER, FSETID = 1 << 3, 1 << 4

#: By machine, the calls that change the attributes of an open file and know no path, and those that change an owner.
_BY_DESCRIPTOR = {"x86_64": (91, 93, 190, 199), "aarch64": (52, 55, 7, 16)}  # fchmod, fchown, fsetxattr, fremovexattr
_TIMES = {"x86_64": 280, "aarch64": 88}  # utimensat: without a path it is futimens
_CHOWN = {"x86_64": (92, 93, 94, 260), "aarch64": (54, 55)}  # chown, fchown, lchown, fchownat

#: How often a caller that has just made its request is looked at before it sleeps.
_LOOKS = 200


def may(uid: int, pid: int, capability: int) -> bool:
    """Whether a user's process has a capability that counts for files: not one of a user namespace of its own.

    Root has it if there is nobody to ask any more.
    """
    rows = _status(uid, pid)
    if rows is None:
        return uid == 0
    if not int(rows["CapEff"], 16) & capability:
        return False
    try:
        return os.stat(f"/proc/{pid}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino
    except OSError:
        return uid == 0


def in_group(uid: int, pid: int, gid: int) -> bool:
    """Whether a user's process works with the rights of a group."""
    rows = _status(uid, pid)
    return rows is not None and str(gid) in (rows["Gid"].split()[-1], *rows["Groups"].split())


def _status(uid: int, pid: int) -> dict[str, str] | None:
    """What the kernel says of a process; None if it has ended, also where another user's has its number now."""
    try:
        with open(f"/proc/{pid}/status") as file:
            rows = dict(line.split(":", 1) for line in file if line.startswith(("Uid:", "Gid:", "Groups:", "CapEff:")))
    except OSError:
        return None
    return rows if rows["Uid"].split()[-1] == str(uid) else None


def without_set_ids(mode: int, gid: int, uid: int, pid: int) -> int:
    """The permission bits of a file as a change of its content or owner by a process leaves them."""
    mode = stat.S_IMODE(mode)
    if not mode & (stat.S_ISUID | stat.S_ISGID) or may(uid, pid, FSETID):
        return mode
    kept = mode & ~stat.S_ISUID
    if mode & stat.S_ISGID and (mode & stat.S_IXGRP or not in_group(uid, pid, gid)):
        kept &= ~stat.S_ISGID
    return kept


def by_descriptor(caller: Caller) -> bool:
    """Whether a thread waits in a change of attributes that knows no path: one that is not made again on ESTALE.

    False where the kernel does not say.
    """
    machine, call = os.uname().machine, _call(caller.pid)
    if not call or machine not in _TIMES:
        return False
    number = int(call[0])
    return number in _BY_DESCRIPTOR[machine] or (number == _TIMES[machine] and int(call[2], 16) == 0)


def changes_owner(caller: Caller) -> bool:
    """Whether a thread waits in a change of an owner; False where the kernel does not say."""
    call = _call(caller.pid)
    return bool(call) and int(call[0]) in _CHOWN.get(os.uname().machine, ())


def _call(pid: int) -> list[str]:
    """The number and the arguments of the call that a thread waits in, nothing if it is in none."""
    for _ in range(_LOOKS):
        try:
            with open(f"/proc/{pid}/syscall") as file:
                words = file.read().split()
        except OSError:
            return []
        if words and words[0] != "running":  # it has sent its request, and goes to sleep
            return words if len(words) > 2 else []
        os.sched_yield()
    return []
