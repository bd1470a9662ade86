"""Who is never isolated: root, system accounts, and whom the operator names."""

from __future__ import annotations

import contextlib
import pwd
import re

from isofs.errors import NotAllowed, UsageError
from isofs.settings.access import Access

#: The greatest uid; the one above it means "none" to the kernel.
_LAST = 2**32 - 2

_LOGIN_DEFS = "/etc/login.defs"

#: The first uid of people where nothing says otherwise.
_FIRST = 1000


def check(uid: int, access: Access, login_defs: str = _LOGIN_DEFS) -> None:
    """NotAllowed, with the setting to change, if the user may not be suspected; UsageError for what is no uid."""
    if not 0 <= uid <= _LAST:
        raise UsageError(f"{uid} is not a uid")
    if uid == 0:
        raise NotAllowed("root can't be isolated")
    for name in access.never:
        if uid == _uid(name):
            raise NotAllowed(f"{name} is never isolated: `access.never` in the configuration says so")
    if access.system_accounts and uid < (first := first_of_people(login_defs)):
        raise NotAllowed(
            f"user {uid} is a system account (below {first}), and those are never isolated: "
            "`access.system_accounts = false` in the configuration changes that"
        )


def first_of_people(login_defs: str) -> int:
    """The first uid that is no system account's, as the machine has it configured."""
    found = {}
    with contextlib.suppress(OSError), open(login_defs, encoding="utf-8", errors="replace") as file:
        for line in file:
            match = re.match(r"\s*(SYS_UID_MAX|UID_MIN)\s+(\d{1,10})\s*(?:#.*)?$", line)
            if match:
                found[match[1]] = int(match[2])
    return found["SYS_UID_MAX"] + 1 if "SYS_UID_MAX" in found else found.get("UID_MIN", _FIRST)


def _uid(name: str) -> int | None:
    if name.isascii() and name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:  # gone since it was configured
        return None
