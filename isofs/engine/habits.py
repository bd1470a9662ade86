"""What a suspect's programs will probably do next.

Who opens a file of main's by main's node is sent the long way to a node of its own. A look-up or a listing that leads
there at once saves that, but costs whoever only looks at files a request for each; so it is done for those who open.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection
from dataclasses import dataclass, field

#: Directories that are remembered as opened in, threads as listing or opening, and directories that each has listed.
#: What is forgotten costs requests only.
_DIRECTORIES, _THREADS, _LISTED = 10_000, 1000, 16


@dataclass(slots=True)
class Habits:
    """Of one suspect: where, by inode, it opens files of main's, and which of its threads open what they list."""

    opened_in: set[int] = field(default_factory=set)
    listed: OrderedDict[int, deque[int]] = field(default_factory=OrderedDict)
    readers: OrderedDict[int, None] = field(default_factory=OrderedDict)

    def lists(self, thread: int, directory: int) -> None:
        """A thread lists a directory."""
        known = self.listed.pop(thread, None)
        self.listed[thread] = known = deque(maxlen=_LISTED) if known is None else known
        known.append(directory)
        if len(self.listed) > _THREADS:
            self.listed.popitem(last=False)

    def opens(self, thread: int, directories: Collection[int]) -> None:
        """A thread opens by main's node a file that is in these directories."""
        if len(self.opened_in) >= _DIRECTORIES:
            self.opened_in.clear()
        self.opened_in.update(directories)
        if any(directory in self.listed.get(thread, ()) for directory in directories):
            self.readers[thread] = None
            if len(self.readers) > _THREADS:
                self.readers.popitem(last=False)

    def opens_in(self, directory: int) -> bool:
        """Whether a file that is looked up in a directory will probably be opened."""
        return directory in self.opened_in

    def opens_listed(self, thread: int) -> bool:
        """Whether files in what a thread lists will probably be opened by it."""
        return thread in self.readers
