"""A queue from one process to another that outlives both: a file in memory that both have mapped.

What was put in is in the file at once: it is lost neither when the process that puts ends, nor when the one that takes
does, whatever ended them. Putting costs no system call, but for waking whoever takes when that sleeps.

One process puts, one takes. Positions only grow; `head` is where the next piece comes, `tail` what was dealt with. A
piece is its length, a checksum, and its bytes; it never goes over the end of the file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator

_MAGIC = b"isofs audit 1\0\0\0"
_SIZE, _HEAD, _TAIL, _ASLEEP, _DATA = 64, 128, 192, 256, 320
_WORD = struct.Struct("=Q")
_FRAME = struct.Struct("=II")
#: The length of a piece that only fills the space up to the end.
_FILLS = 0xFFFFFFFF
_ALIGNED = 7

#: Bytes that a new ring has for pieces: some 25,000 calls.
SIZE = 1 << 22


class Ring:
    """One end of the queue. `wake` is called by the end that puts when the other sleeps."""

    def __init__(self, memory: mmap.mmap, wake: Callable[[], None] = lambda: None) -> None:
        self._memory = memory
        self._wake = wake
        self._size = _WORD.unpack_from(memory, _SIZE)[0]
        self._mask = self._size - 1
        self._head = _WORD.unpack_from(memory, _HEAD)[0]
        self._limit = self._tail() + self._size

    def _tail(self) -> int:
        return int(_WORD.unpack_from(self._memory, _TAIL)[0])

    def put(self, piece: bytes) -> bool:
        """Add a piece; False if there is no room."""
        memory, head, length = self._memory, self._head, len(piece)
        at, step = head & self._mask, (_FRAME.size + length + _ALIGNED) & ~_ALIGNED
        fill = self._size - at if at + step > self._size else 0
        if head + fill + step > self._limit:
            self._limit = self._tail() + self._size
            if head + fill + step > self._limit:
                return False
        if fill:
            _FRAME.pack_into(memory, _DATA + at, _FILLS, 0)
            at = 0
        begin = _DATA + at
        _FRAME.pack_into(memory, begin, length, zlib.crc32(piece))
        begin += _FRAME.size
        memory[begin : begin + length] = piece
        self._head = head + fill + step
        _WORD.pack_into(memory, _HEAD, self._head)
        if memory[_ASLEEP]:
            memory[_ASLEEP] = 0
            self._wake()
        return True

    def used(self) -> float:
        """What share of the ring is waiting to be taken."""
        head = int(_WORD.unpack_from(self._memory, _HEAD)[0])
        return float((head - self._tail()) / self._size)

    def waiting(self) -> Iterator[tuple[bytes | None, int]]:
        """What has been put in and not been dealt with: pieces, None for a damaged one, and the position after each."""
        at, head = self._tail(), int(_WORD.unpack_from(self._memory, _HEAD)[0])
        while at < head:
            begin = _DATA + (at & self._mask)
            length, check = _FRAME.unpack_from(self._memory, begin)
            if length == _FILLS:
                at += self._size - (at & self._mask)
                continue
            step = (_FRAME.size + length + _ALIGNED) & ~_ALIGNED
            if at + step > head:  # nothing that follows can be found
                yield None, head
                return
            begin += _FRAME.size
            piece = self._memory[begin : begin + length]
            at += step
            yield piece if zlib.crc32(piece) == check else None, at

    def done(self, position: int) -> None:
        """What lies before the position has been dealt with."""
        _WORD.pack_into(self._memory, _TAIL, position)

    def sleeps(self) -> bool:
        """Whoever takes is about to sleep; False if something has come meanwhile."""
        self._memory[_ASLEEP] = 1
        return not self.used()

    def close(self) -> None:
        self._memory.close()


def open_ring(path: str, wake: Callable[[], None], size: int = SIZE) -> tuple[Ring, bool]:
    """The end that puts, and whether the ring was there: then whoever had it before was killed.

    Nobody but root can have made it, or it is made anew.
    """
    found = _attached(path)
    if found is not None:
        found[_ASLEEP] = 1  # whoever took before ends with whoever put
        return Ring(found, wake), True
    scratch = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(scratch)
    opened = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(opened, 0, _DATA + size)  # else a full file system would end the process at a write
        memory = mmap.mmap(opened, _DATA + size)
    finally:
        os.close(opened)
    memory[: len(_MAGIC)] = _MAGIC
    _WORD.pack_into(memory, _SIZE, size)
    memory[_ASLEEP] = 1
    os.rename(scratch, path)
    return Ring(memory, wake), False


def taking(path: str) -> Ring | None:
    """The end that takes, of a ring that is there."""
    found = _attached(path)
    return None if found is None else Ring(found)


def _attached(path: str) -> mmap.mmap | None:
    try:
        opened = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        at = os.fstat(opened)
        if at.st_uid != os.geteuid() or stat.S_IMODE(at.st_mode) & 0o077 or at.st_size <= _DATA:
            return None
        memory = mmap.mmap(opened, at.st_size)
    finally:
        os.close(opened)
    head, tail = _WORD.unpack_from(memory, _HEAD)[0], _WORD.unpack_from(memory, _TAIL)[0]
    size = _WORD.unpack_from(memory, _SIZE)[0]
    sound = memory[: len(_MAGIC)] == _MAGIC and size == at.st_size - _DATA and tail <= head <= tail + size
    if not sound or size & (size - 1):
        memory.close()
        return None
    return memory
