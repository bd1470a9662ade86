"""What users of the machine are called."""

from __future__ import annotations

import pwd


def name_of(uid: int) -> str:
    """The name that goes with a uid, or the number where there is none. May ask another machine, and wait for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)
