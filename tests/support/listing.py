"""Reading a directory as programs may: with small and large buffers, telling positions and going back to them."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_GETDENTS64 = {"x86_64": 217, "aarch64": 61}[os.uname().machine]

#: What a worker process reads: its descriptor, and the entries read from the kernel but not told yet.
_reading: dict[str, int] = {}
_ahead: list[tuple[str, int]] = []


def begin(path: str) -> None:
    _reading["directory"] = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    _reading["position"] = 0
    _ahead.clear()


def end() -> None:
    os.close(_reading.pop("directory"))


def read(count: int, size: int) -> list[str]:
    """The names of the next entries, asked for with buffers of this size; none at the end."""
    found: list[str] = []
    while len(found) < count:
        if not _ahead and not _fetch(size):
            break
        name, _reading["position"] = _ahead.pop(0)
        if name not in (".", ".."):
            found.append(name)
    return found


def _fetch(size: int) -> bool:
    buffer = ctypes.create_string_buffer(size)
    length: int = _libc.syscall(_GETDENTS64, _reading["directory"], buffer, size)
    if length < 0:
        raise OSError(ctypes.get_errno(), "getdents64")
    at = 0
    while at < length:
        _, position, record = struct.unpack_from("QqH", buffer, at)
        name = buffer.raw[at + 19 : at + record].split(b"\0", 1)[0]
        _ahead.append((os.fsdecode(name), position))
        at += record
    return length > 0


def tell() -> int:
    return _reading["position"]


def seek(position: int) -> None:
    """To a position told before, or to the beginning: 0."""
    os.lseek(_reading["directory"], position, os.SEEK_SET)
    _reading["position"] = position
    _ahead.clear()
