"""The host's calls fail once: each different call of a stretch of work, the first time that it is made.

Nothing of this is in the product: functions of `os`, and the method that commits, are replaced in this process, and
only while `armed`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from isofs.engine import main
from isofs.errors import StoreUnusable
from isofs.model.records import Change
from isofs.store.database import Database

#: What changes a file system, and what only looks at it.
CHANGING = (
    "rename", "link", "unlink", "rmdir", "mkdir", "symlink", "mknod", "chmod", "chown", "fchmod", "fchown", "utime",
    "setxattr", "removexattr", "ftruncate", "pwrite", "copy_file_range", "open",
)  # fmt: skip
LOOKING = ("stat", "fstat", "listxattr", "scandir", "readlink")


class Faults:
    """Makes calls fail. `made` counts those that failed so far."""

    def __init__(self, number: int, names: Sequence[str], *, commits: bool = False) -> None:
        self.number, self.names, self.commits = number, names, commits
        self.failed: list[str] = []
        self._seen: set[str] = set()
        self._looking = False

    def _fails(self, what: str) -> bool:
        if what in self._seen:
            return False
        self._seen.add(what)
        self.failed.append(what)
        return True

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        replaced = {name: getattr(os, name) for name in self.names}
        renameat2, write = main.renameat2, Database.write
        faults = self

        def exchange(source: Any, to: Any, flags: int) -> None:
            if flags and faults._fails(f"renameat2 {source.name!r} {to.name!r} {flags}"):
                raise OSError(faults.number, os.strerror(faults.number))
            renameat2(source, to, flags)

        def commit(database: Database, changes: Sequence[Change]) -> None:
            if faults.commits and faults._fails(f"commit {_without_numbers(changes)}"):
                raise StoreUnusable("the disk is full")
            write(database, changes)

        for name, call in replaced.items():
            setattr(os, name, self._failing(name, call))
        main.renameat2, Database.write = exchange, commit  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            main.renameat2, Database.write = renameat2, write  # type: ignore[method-assign]
            for name, call in replaced.items():
                setattr(os, name, call)

    def _failing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*args: Any, **keywords: Any) -> Any:
            if not self._looking and self._fails(self._described(name, args, keywords)):
                raise OSError(self.number, os.strerror(self.number))
            return call(*args, **keywords)

        return failing

    def _described(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> str:
        """The call, with what a descriptor leads to instead of its number, which differs from run to run."""
        self._looking = True
        try:
            known = {key: _led_to(value) if key.endswith("dir_fd") else value for key, value in keywords.items()}
            on = _led_to(args[0]) if args and isinstance(args[0], int) else args[:1]
            text = f"{name} {on} {args[1:]} {known}"
            # These differ from run to run.
            numbered = any(part in text for part in (".isofs/attic", ".isofs/staging", "/proc/self/fd/"))
            return re.sub(r"\d+", "N", text) if numbered else text
        finally:
            self._looking = False


def _led_to(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def _without_numbers(changes: Sequence[Change]) -> list[str]:
    """What is committed, as it is called: a number that is given to something new is another each time."""
    return [f"{type(c).__name__} {type(c.record).__name__} {getattr(c.record, 'name', '')!r}" for c in changes]
