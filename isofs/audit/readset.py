"""What a read set holds: one shape for what is kept, what is answered and shown, and what evidence has of it."""

from __future__ import annotations

from typing import TypedDict


class Read(TypedDict):
    """An object of others' that a suspect opened for reading; a directory was listed. `subject` tells suspicions apart.

    `at` is when it was first opened, `last` when it was last opened, or closed after something was read; it was opened
    `opens` times, and `read` bytes were asked for in all that is closed: these three are null where older versions did
    not count. `size` is that at first, and so is `program`. `path` is relative to the mount, text with the bytes that
    are not UTF-8 as surrogates.
    """

    subject: int
    uid: int
    at: str
    last: str | None
    opens: int | None
    read: int | None
    path: str
    kind: str
    inode: int
    size: int | None
    program: str


class Gap(TypedDict):
    """A time in which a suspect may have read something that is in no set; `until` is null if it goes on.

    `why` is `off` (nothing was to be recorded, or could be), `lost` (there was no room for records), or, in evidence,
    `not written` (not all was written down in time).
    """

    since: str
    until: str | None
    why: str
