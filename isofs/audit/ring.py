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
from collections.abc import Callable, Iterator
from zlib import crc32

_MAGIC = b"isofs audit 2\0\0\0"
#: Where in the header, in words of 8 bytes, each on a line of the processors' caches of its own; and its length.
_SIZE, _HEAD, _TAIL, _ASLEEP, _DATA = 8, 16, 24, 32, 320
_FRAME = struct.Struct("=II")
#: The length of a piece that only fills the space up to the end.
_FILLS = 0xFFFFFFFF
_FILLER = _FRAME.pack(_FILLS, 0)
_ALIGNED = 7

#: Bytes from its beginning that are used as long as whoever takes keeps up: they stay in the processor's cache.
_WARM = 1 << 16

#: Bytes after which there is another look beyond them, whether whoever takes has kept up.
_STRETCH = 1 << 12

#: Bytes that a new ring has for pieces: some 12,000 calls.
SIZE = 1 << 21


class Ring:
    """One end of the queue. `wake` is called by the end that puts when the other sleeps."""

    def __init__(self, memory: mmap.mmap, wake: Callable[[], None] = lambda: None) -> None:
        self._memory = memory
        self._words = _header(memory)
        self._wake = wake
        self._size = self._words[_SIZE]
        self._head = self._words[_HEAD]
        #: Where in memory the next piece comes, and bytes from there on of which it is known that they are free.
        self._at, self._room = _DATA, 0

    def put(self, piece: bytes) -> bool:
        """Add a piece; False if there is no room."""
        length = len(piece)
        step = (length + 8 + _ALIGNED) & ~_ALIGNED
        if step > self._room and not self._make_room(step):
            return False
        at, words = self._at, self._words
        self._memory[at : at + 8 + length] = _FRAME.pack(length, crc32(piece)) + piece
        self._at = at + step
        self._room -= step
        self._head = words[_HEAD] = self._head + step
        if words[_ASLEEP]:
            words[_ASLEEP] = 0
            self._wake()
        return True

    def _make_room(self, step: int) -> bool:
        """Find room for a piece, here or at the beginning of memory; False if there is none."""
        at, tail = self._head % self._size, self._words[_TAIL]
        end = self._size - at
        fill = end if step > end or (at > _WARM and tail == self._head) else 0
        free = tail + self._size - self._head - fill
        if step > free:
            return False
        if fill:
            self._memory[_DATA + at : _DATA + at + 8] = _FILLER  # it counts once there is a piece behind it
            self._head, at, end = self._head + fill, 0, self._size
        self._at, self._room = _DATA + at, min(free, end, max(step, _WARM - at, _STRETCH))
        return True

    def used(self) -> float:
        """What share of the ring is waiting to be taken."""
        return (self._words[_HEAD] - self._words[_TAIL]) / self._size

    @property
    def head(self) -> int:
        """The position after all that was put in."""
        return self._words[_HEAD]

    def dealt_with(self, position: int) -> bool:
        """Whether whoever takes has dealt with all before a position."""
        return self._words[_TAIL] >= position

    def waiting(self) -> Iterator[tuple[bytes | None, int]]:
        """What has been put in and not been dealt with: pieces, None for a damaged one, and the position after each."""
        at, head = self._words[_TAIL], self._words[_HEAD]
        while at < head:
            begin = _DATA + at % self._size
            length, check = _FRAME.unpack_from(self._memory, begin)
            if length == _FILLS:
                at += self._size - at % self._size
                continue
            step = (_FRAME.size + length + _ALIGNED) & ~_ALIGNED
            if at + step > head:  # nothing that follows can be found
                yield None, head
                return
            begin += _FRAME.size
            piece = self._memory[begin : begin + length]
            at += step
            yield piece if crc32(piece) == check else None, at

    def done(self, position: int) -> None:
        """What lies before the position has been dealt with."""
        self._words[_TAIL] = position

    def sleeps(self) -> bool:
        """Whoever takes is about to sleep; False if something has come meanwhile."""
        self._words[_ASLEEP] = 1
        return not self.used()

    def close(self) -> None:
        self._words.release()
        self._memory.close()


def _header(memory: mmap.mmap) -> memoryview:
    return memoryview(memory)[:_DATA].cast("Q")


def open_ring(path: str, wake: Callable[[], None], size: int = SIZE) -> tuple[Ring, bool]:
    """The end that puts, and whether the ring was there: then whoever had it before was killed.

    Nobody but root can have made it, or it is made anew.
    """
    found = _attached(path)
    if found is not None:
        ring = Ring(found, wake)
        ring.sleeps()  # whoever took before ends with whoever put
        return ring, True
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
    with _header(memory) as words:
        words[_SIZE], words[_ASLEEP] = size, 1
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
    with _header(memory) as words:
        head, tail, size = words[_HEAD], words[_TAIL], words[_SIZE]
    sound = memory[: len(_MAGIC)] == _MAGIC and size == at.st_size - _DATA and tail <= head <= tail + size
    if not sound or size & (size - 1):
        memory.close()
        return None
    return memory
