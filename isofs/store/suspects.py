"""Who is isolated, in a file of its own beside the database: what is left to go by when that cannot be read.

The file is replaced whole around each change of the database that isolates somebody or ends it, durably before: users
of whom the database may say either meanwhile are in `changing`. A hash tells a damaged list from a sound one.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass

from isofs.errors import StoreUnusable
from isofs.store import whole

NAME = "suspects"
_SCRATCH = "suspects.new"

#: Whether all that trusted users changed is in the database: two words of one length, written over each other, which
#: also a full disk allows.
WATCHED_NAME = "watched"
_WATCHED, _UNWATCHED = b"all\n", b"not\n"


@dataclass(frozen=True, slots=True)
class Known:
    """The uids of who is `isolated`, and of who is just being isolated or released (`changing`)."""

    isolated: frozenset[int] = frozenset()
    changing: frozenset[int] = frozenset()

    @property
    def possible(self) -> frozenset[int]:
        """Everybody who may be isolated."""
        return self.isolated | self.changing


def read(root: int, path: str) -> Known | None:
    """The list in the store whose folder is open as `root`; None if there is none. StoreUnusable if it is damaged."""
    try:
        opened = os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        with open(opened, encoding="utf-8") as file:
            text, _, digest = file.read().partition("\n")
        if digest.strip() != _digest(text):
            raise ValueError("its hash is wrong")
        found = json.loads(text)
        return Known(frozenset(found["isolated"]), frozenset(found["changing"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreUnusable(f"the list {path}/{NAME} of who is isolated cannot be read: {error}") from error


def write(root: int, path: str, known: Known, *, durably: bool = True) -> None:
    """Put another list in the place of what is there. StoreUnusable if that cannot be done.

    Not `durably`: a power loss may bring back the list before.
    """
    text = json.dumps({"isolated": sorted(known.isolated), "changing": sorted(known.changing)})
    try:
        whole.replace(root, NAME, _SCRATCH, f"{text}\n{_digest(text)}\n", durably=durably)
    except OSError as error:
        raise StoreUnusable(
            f"the list {path}/{NAME} of who is isolated cannot be written: {error.strerror}", error.errno
        ) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def is_watched(root: int) -> bool:
    """Whether all that trusted users changed of what suspects have is in the database."""
    try:
        opened = os.open(WATCHED_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    except FileNotFoundError:
        return True
    with open(opened, "rb") as file:
        return file.read() != _UNWATCHED


def set_watched(root: int, watched: bool) -> None:
    """Note durably whether it is. Raises OSError."""
    opened = os.open(WATCHED_NAME, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=root)
    try:
        os.pwrite(opened, _WATCHED if watched else _UNWATCHED, 0)
        os.fsync(opened)
    finally:
        os.close(opened)
