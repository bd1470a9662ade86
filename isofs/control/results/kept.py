"""What is kept: the attic, evidence, backups."""

from __future__ import annotations

from typing import TypedDict


class Stowed(TypedDict):
    """One entry of the attic: what a merge replaced in main or deleted (`action`), when, and where main had it.

    `user` is whose merge it was; `subject` is their number, 0 for what an operator's `attic restore` replaced.
    `live` says that the file was open for writing, and may have been written to since.
    """

    number: int
    at: str
    user: str
    subject: int
    action: str
    kind: str
    size: int
    live: bool
    path: str


class Attic(TypedDict):
    """`attic`: entries, newest first. The call answers a page, and `more` is whether there are older ones."""

    entries: list[Stowed]
    more: bool


class Restored(TypedDict):
    """`attic_restore`: what came back where, each after the directories that it needed.

    `replaced` are the new entries of what it replaced, `stowed` the number of the last of them. `left` is what is in
    the attic still, because it could not come back to its path.
    """

    restored: list[RestoredEntry]
    stowed: int | None
    replaced: list[RestoredEntry]
    left: list[LeftEntry]


class RestoredEntry(TypedDict):
    """One entry of the attic, and where it was or is."""

    number: int
    path: str


class LeftEntry(RestoredEntry):
    """One entry that could not come back there, and why."""

    reason: str


class Purged(TypedDict):
    """`attic_purge`: how many entries were removed, and the bytes of what they were of."""

    entries: int
    bytes: int


class Archive(TypedDict):
    """One entry of `evidence list`. If `error` says what is wrong with it, what it would tell is null."""

    name: str
    path: str
    size: int
    user: str | None
    uid: int | None
    since: str | None
    verdict: str | None
    versions: int | None
    bytes: int | None
    error: str | None


class Archives(TypedDict):
    """`evidence list`: the archives in the store."""

    evidence: list[Archive]


class Verified(TypedDict):
    """`evidence verify`: an archive of which every hash is right."""

    path: str
    user: str | None
    versions: int
    contents: int
    bytes: int


class Extracted(TypedDict):
    """`evidence extract`: what was made below `directory`, and which special files were not."""

    path: str
    directory: str
    files: int
    directories: int
    links: int
    left_out: list[str]


class BackedUp(TypedDict):
    """`backup`: where the backup is, how many inodes are in it, and its size."""

    file: str
    members: int
    bytes: int
    at: str


class StoreRestored(TypedDict):
    """`restore`: the store that was made, and when and of which mount the backup was."""

    store: str
    at: str
    mount: str
    members: int
