"""Open directories: what was told of one stays where it was told, however the directory changes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from isofs.engine import accounting, calls
from isofs.engine.state import Caller, Filesystem, Node, Obj


class Directory:
    """An open directory: its entries as far as they have been read, so that positions stay valid."""

    def __init__(self, node: Node, caller: Caller, fs: Filesystem) -> None:
        self.node, self.caller, self.fs = node, caller, fs
        self._entries: list[tuple[bytes, Obj]] = []
        self._more: Iterator[tuple[bytes, Obj, os.stat_result | None]] | None = None
        self._account = accounting.opens_directory(fs, calls.sid_of(fs, caller, node))

    def rewind(self) -> None:
        """Read the directory anew: positions told before are of no use."""
        self.close()
        self._entries = []
        self._more = calls.readdir(self.fs, self.caller, self.node)

    def at(self, position: int) -> tuple[bytes, Obj, os.stat_result | None] | None:
        """The entry at a position, None after the last; with its attributes only when they have just been looked at."""
        if self._more is None:
            self.rewind()
        assert self._more is not None
        while len(self._entries) <= position:
            found = next(self._more, None)
            if found is None:
                return None
            self._entries.append(found[:2])
            if len(self._entries) > position:
                return found
        return *self._entries[position], None

    def close(self) -> None:
        if self._more is not None:
            with contextlib.suppress(AttributeError):
                self._more.close()  # type: ignore[attr-defined]
            self._more = None

    def release(self) -> None:
        """Nobody has it open any more."""
        self.close()
        if self._account is not None:
            self._account.handles -= 1
