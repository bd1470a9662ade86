"""Who else than root may use the control socket, and who is never isolated."""

from __future__ import annotations

import grp
import pwd
from dataclasses import dataclass

from isofs.settings.kinds import flag, setting, text, texts


def _group(name: str) -> str | None:
    try:
        return None if not name or grp.getgrnam(name) else ""
    except (KeyError, ValueError):
        return f"names {name!r}, and there is no such group"


def _user(name: str) -> str | None:
    if name.isascii() and name.isdecimal():
        return None if int(name[:11]) < 2**32 - 1 else f"names {name}, which is not a uid"
    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError):
        return f"names {name!r}, and there is no such user"
    return None


@dataclass(frozen=True)
class Access:
    """Groups and what they may do: see docs/access.md."""

    observe: str = setting(text("", _group), "the group whose members may look at what suspects do")
    decide: str = setting(text("", _group), "the group whose members may also suspect, and give verdicts")
    two_person: bool = setting(flag(False), "whether a verdict waits until a second person confirms it")
    never: tuple[str, ...] = setting(texts((), _user), "users, by name or uid, who cannot be suspected")
    system_accounts: bool = setting(flag(True), "whether system accounts cannot be suspected either")
