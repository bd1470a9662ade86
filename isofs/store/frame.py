"""Reading the one zstandard frame that a file must be, from its first byte to its last."""

from __future__ import annotations

from typing import BinaryIO

import zstandard

#: The largest window (memory) that a frame may ask for.
_WINDOW = 1 << 27


class FrameDamaged(Exception):
    """The file is no whole frame and nothing else; the message says why."""


class Frame:
    """The bytes in the frame of a file, read `bite` compressed bytes at a time.

    They may become 32,768 times as many.
    """

    def __init__(self, file: BinaryIO, bite: int) -> None:
        self._file, self._bite = file, bite
        self._frame = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
        self._data = memoryview(b"")

    def some(self, most: int) -> memoryview:
        """At least one byte and at most so many; none at the end of the frame, which is that of the file."""
        while not self._data:
            if self._frame.eof:
                if self._frame.unused_data or self._file.read(1):
                    raise FrameDamaged("something follows its end")
                break
            bite = self._file.read(self._bite)
            if not bite:
                raise FrameDamaged("it ends too early")
            try:
                self._data = memoryview(self._frame.decompress(bite))
            except zstandard.ZstdError as error:
                raise FrameDamaged(str(error)) from None
        found, self._data = self._data[:most], self._data[most:]
        return found

    def read(self, count: int) -> bytes:
        """So many bytes; fewer at the end of the frame only."""
        found = bytearray()
        while len(found) < count and (part := self.some(count - len(found))):
            found += part
        return bytes(found)
