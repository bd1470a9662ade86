"""What the first bytes of a store's database say, without opening it: a look changes nothing, and needs no lock."""

from __future__ import annotations

import os
import struct

from isofs.store import schema

#: The version that this program reads and writes.
SUPPORTED = schema.VERSION

#: The header of an SQLite file: its magic, and big-endian at 60 and 68 the user's version and the application's id.
_HEADER = struct.Struct(">16s44xI4xI28x")
_MAGIC = b"SQLite format 3\0"


def read(path: str) -> tuple[int | None, bool]:
    """The version of the store in a folder, None if what is there is no store's database; and whether that is all.

    What was written to one that is open, or was not closed, may be in a log beside it.
    """
    with open(os.path.join(path, "isofs.db"), "rb") as file:
        header = file.read(_HEADER.size)
    try:
        closed = os.path.getsize(os.path.join(path, "isofs.db-wal")) == 0
    except FileNotFoundError:
        closed = True
    if len(header) < _HEADER.size:
        return None, closed
    magic, found, application = _HEADER.unpack(header)
    return (found if magic == _MAGIC and application == schema.APPLICATION_ID else None), closed
