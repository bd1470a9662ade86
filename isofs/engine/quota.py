"""How much suspects may take up, and what is known of what one does: plain values, and the rules between them.

An account follows the rows of a suspect (`isofs.engine.batch`). What its contents take of the disk is looked at seldom
(`isofs.engine.usage`): in between a suspect may write what it was granted, which costs each write a subtraction.
"""

from __future__ import annotations

import errno
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

#: No limit.
UNLIMITED = 1 << 62

#: Bytes that are granted at a time, at most.
GRANT = 16 << 20

#: What a change may take of the disk beyond the bytes that are written.
SLACK = 8192

#: What may be in an account: a content by its name, or who holds one open that has no name any more.
Held = Hashable

#: Each limit, and what a call fails with that would go beyond it.
ERRORS = {
    "bytes": errno.EDQUOT,
    "objects": errno.EDQUOT,
    "handles": errno.ENFILE,
    "total": errno.EDQUOT,
    "reserve": errno.ENOSPC,
    "reserve_inodes": errno.ENOSPC,
}

#: What a call fails with where there is no room: the disk is full, or a limit is reached.
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Limit:
    """What one suspect may have: bytes of the disk, objects, and open files."""

    bytes: int = UNLIMITED
    objects: int = UNLIMITED
    handles: int = UNLIMITED


@dataclass(frozen=True, slots=True)
class Limits:
    """What suspects may have: each one, by user name or by default, and all together.

    `reserve` and `reserve_inodes` are what suspects leave free on the store's file system, a twentieth of it at most.
    From `warn_at` percent of a limit on somebody is told.
    """

    each: Limit = Limit()
    users: Mapping[str, Limit] = field(default_factory=dict)
    total: int = UNLIMITED
    all_handles: int = UNLIMITED
    reserve: int = 0
    reserve_inodes: int = 0
    warn_at: int = 80

    def of(self, user: str) -> Limit:
        return self.users.get(user, self.each)

    def near(self, limit: int, room: int) -> bool:
        """Whether so little room is left below a limit that somebody is to know."""
        return room * 100 <= limit * (100 - self.warn_at)


def reserved(reserve: int, size: int) -> int:
    """What of a reserve counts on a file system of a size: on a small one a large reserve would be everything."""
    return min(reserve, size // 20)


def freeing(limit: int) -> int:
    """The limit of objects for what makes none: to remove or rename what is main's needs rows, and has to work."""
    return limit + limit // 8 + 16


@dataclass(frozen=True, slots=True)
class Room:
    """How many bytes more there may be before a limit, of `limit` in all, is reached. Negative beyond it."""

    bytes: int
    by: str
    limit: int


@dataclass(frozen=True, slots=True)
class Notice:
    """A suspect has come near a limit, or was refused something for it (`refused`)."""

    sid: int
    refused: bool
    limit: str
    used: int
    of: int


@dataclass(eq=False, slots=True)
class Account:
    """What a suspect takes up.

    `counted` is whether what the last start found has been looked at; until then it may be anything. `taken` are the
    bytes of what was looked at, `used` their sum; `stale` is to be looked at, `written` are the handles that were
    written through since. `promised` is being copied. Before `left` is used up, of what was `granted`, there is no need
    to look at anything; the same with inodes and `makes`. `handles` are open, `nameless` files are held without a name.
    `told` are the limits that somebody was told of, `used_up` those that are used by half.
    """

    counted: bool = True
    taken: dict[Held, int] = field(default_factory=dict)
    stale: set[Held] = field(default_factory=set)
    written: set[Held] = field(default_factory=set)
    used: int = 0
    promised: int = 0
    granted: int = 0
    left: int = 0
    makes: int = 0
    handles: int = 0
    nameless: int = 0
    told: set[tuple[str, bool]] = field(default_factory=set)
    used_up: set[str] = field(default_factory=set)

    def holds(self, held: Held) -> bool:
        return held in self.taken or held in self.stale

    def follow(self, before: str | None, now: str | None) -> None:
        """A version has another content."""
        if before == now:
            return
        if before is not None:
            self.forget(before)
        if now is not None:
            self.stale.add(now)

    def hold(self, held: Held) -> None:
        """Something has no name any more, and is kept for as long as somebody knows it."""
        self.stale.add(held)
        self.nameless += 1

    def let_go(self, held: Held) -> None:
        """Nobody knows it any more, if it was held at all."""
        if self.holds(held):
            self.forget(held)
            self.nameless -= 1

    def forget(self, held: Held) -> None:
        """Something takes up nothing any more."""
        self.stale.discard(held)
        self.used -= self.taken.pop(held, 0)

    def measured(self, held: Held, size: int) -> None:
        self.used += size - self.taken.get(held, 0)
        self.taken[held] = size

    def grant(self, size: int) -> None:
        self.granted = self.left = max(0, size)

    def at_most(self) -> int:
        """The bytes that may have been taken by now."""
        return UNLIMITED if not self.counted else self.used + self.promised + self.granted

    def news(self, limit: str, *, refused: bool) -> bool:
        """Whether somebody is still to be told of a limit; from now on somebody was."""
        if (limit, refused) in self.told:
            return False
        self.told.add((limit, refused))
        return True

    def eased(self, limit: str, of: int, room: int) -> None:
        """Of a limit that was half used, and is half free again, somebody is to be told anew."""
        if room * 2 <= of:
            self.used_up.add(limit)
        elif limit in self.used_up:
            self.used_up.discard(limit)
            self.told -= {(limit, False), (limit, True)}
