"""`[quota]`: how much suspects may take up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from isofs.settings.kinds import Kind, number, setting, size, tables

T = TypeVar("T")


def _or_default(kind: Kind[T]) -> Kind[T | None]:
    """A setting that means the one of all users while it is left out."""
    return Kind(None, kind.read, lambda value: None if value is None else kind.shown(value))


@dataclass(frozen=True)
class User:
    """`[quota.users.NAME]`: what is otherwise for one user."""

    bytes: int | None = setting(_or_default(size("10 GiB")), "bytes of the disk that the user may take")
    objects: int | None = setting(_or_default(number(100_000, low=1)), "objects that the user may change")
    handles: int | None = setting(_or_default(number(2000, low=1)), "files that the user may have open")


@dataclass(frozen=True)
class Quota:
    """How much suspects may take up."""

    bytes: int = setting(size("10 GiB"), "bytes of the disk that one suspect may take")
    objects: int = setting(number(100_000, low=1), "objects that one suspect may change")
    handles: int = setting(number(2000, low=1), "files that one suspect may have open")
    total_bytes: int = setting(size("50 GiB"), "bytes of the disk that all suspects may take together")
    reserve: int = setting(size("1 GiB"), "bytes that suspects leave free, a twentieth of the disk at most")
    reserve_inodes: int = setting(number(10_000), "inodes that suspects leave free, a twentieth at most")
    warn_at: int = setting(number(80, low=1, high=100), "percent of a limit from which on you are warned")
    users: Mapping[str, User] = setting(tables(User), "what is otherwise for a user, by name")
