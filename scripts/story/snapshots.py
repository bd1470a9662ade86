"""What a tree is at a moment, as somebody sees it: every name, content and attribute."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

#: The time of everything that was changed since a moment, where only that matters.
SINCE = -1


class Entry(NamedTuple):
    """One name: type and mode, owner, group, links (not of directories), time of change, content's hash."""

    mode: int
    uid: int
    gid: int
    links: int
    mtime: int
    content: str


@dataclass(frozen=True)
class Snapshot:
    """The entries of a tree by their paths below its root."""

    entries: dict[str, Entry]

    @property
    def digest(self) -> str:
        """One hash for all of it."""
        lines = (f"{path!r} {entry!r}\n" for path, entry in sorted(self.entries.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def files(self) -> int:
        return sum(stat.S_ISREG(entry.mode) for entry in self.entries.values())

    def differing(self, other: Snapshot) -> list[str]:
        """The paths at which the two are not the same."""
        paths = sorted(self.entries.keys() | other.entries.keys())
        return [path for path in paths if self.entries.get(path) != other.entries.get(path)]

    def versus(self, other: Snapshot) -> Iterator[str]:
        """What isn't the same, for a person to read."""
        for path in self.differing(other):
            yield f"{path}: {_told(self.entries.get(path))}, not {_told(other.entries.get(path))}"

    def __str__(self) -> str:
        return f"[{self.digest[:12]}]"

    def timed_until(self, moment: int) -> Snapshot:
        """The same, with all times from a moment on (in nanoseconds) alike."""
        entries = {p: e._replace(mtime=SINCE) if e.mtime >= moment else e for p, e in self.entries.items()}
        return Snapshot(entries)

    def untimed_directories(self) -> Snapshot:
        """The same, with all times of directories alike."""
        entries = {p: e._replace(mtime=SINCE) if stat.S_ISDIR(e.mode) else e for p, e in self.entries.items()}
        return Snapshot(entries)

    def uncounted_links(self) -> Snapshot:
        """The same, with all counts of links alike."""
        return Snapshot({p: e._replace(links=0) for p, e in self.entries.items()})

    def with_entries(self, changed: dict[str, Entry]) -> Snapshot:
        return replace(self, entries=self.entries | changed)


def take(root: str | Path) -> Snapshot:
    """Look at a whole tree."""
    return Snapshot(dict(_walk(str(root), "")))


def _walk(root: str, below: str) -> Iterator[tuple[str, Entry]]:
    path = os.path.join(root, below)
    found = os.lstat(path)
    yield (
        below or ".",
        Entry(
            found.st_mode,
            found.st_uid,
            found.st_gid,
            0 if stat.S_ISDIR(found.st_mode) else found.st_nlink,
            found.st_mtime_ns,
            _content(path, found.st_mode),
        ),
    )
    if stat.S_ISDIR(found.st_mode):
        for name in sorted(os.listdir(path)):
            # The store: seen only where isofs is not mounted.
            if below or name != ".isofs":
                yield from _walk(root, os.path.join(below, name))


def _content(path: str, mode: int) -> str:
    if stat.S_ISREG(mode):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return os.readlink(path) if stat.S_ISLNK(mode) else ""


def _told(entry: Entry | None) -> str:
    if entry is None:
        return "nothing"
    return (
        f"{stat.filemode(entry.mode)} {entry.uid}:{entry.gid} links {entry.links} time {entry.mtime} "
        f"{entry.content[:12]}"
    ).strip()
