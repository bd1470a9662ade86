"""Users by name or number."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from isofs.control.users import name_of as name_of
from isofs.errors import NoSubject, NotAllowed

#: The greatest uid; the one above it means "none" to the kernel.
_LAST = 2**32 - 2


@dataclass(frozen=True, slots=True)
class User:
    """A uid and the name that goes with it, which is the number where there is no name."""

    uid: int
    name: str


def find(text: str) -> User:
    """The user of a name or a uid, which needs no name. NoSubject for a name that nobody has."""
    if text.isascii() and text.isdecimal():
        uid = int(text) if len(text) <= len(str(_LAST)) else _LAST + 1
        if uid > _LAST:
            raise NoSubject(f"{text} is not a uid")
        return User(uid, name_of(uid))
    try:
        return User(pwd.getpwnam(text).pw_uid, text)
    except KeyError:
        raise NoSubject(f"there is no user {text}") from None


def subject(text: str) -> User:
    """The user of a name or a uid, who must be one that can be isolated: root is not."""
    user = find(text)
    if user.uid == 0:
        raise NotAllowed("root can't be isolated")
    return user


def operator() -> str:
    """Who is at work as root: who logged in, as far as the kernel or sudo tell."""
    try:
        with open("/proc/self/loginuid", encoding="ascii") as file:
            uid = int(file.read())
    except (OSError, ValueError):
        uid = _LAST + 1
    if uid > _LAST:
        told = os.environ.get("SUDO_UID", "")
        uid = int(told) if told.isascii() and told.isdecimal() and len(told) <= len(str(_LAST)) else os.getuid()
    return name_of(uid)
