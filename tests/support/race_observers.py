"""Trusted processes that look at names all the time, and note whatever is not as main has it."""

from __future__ import annotations

import errno
import mmap
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

from support.race_workers import Found, Running, Work
from support.race_world import ABSENT, DIRECTORIES, FILES, LINKS, Known, described, entries, status


class Observer:
    """One trusted process. It has files open and mapped, and works in a shared directory, from the start on."""

    def __init__(self, root: Path, known: dict[str, Known], number: int, found: Found) -> None:
        self.root, self.known, self.found = root, known, found
        self.random = random.Random(100 + number)
        self.looks: list[Callable[[], None]] = [getattr(self, name) for name in dir(self) if name.startswith("look_")]
        self.home = root / ("files", "home", "home/deep")[number % 3]
        os.chdir(self.home)
        self.open = {path: os.open(root / path, os.O_RDONLY) for path in FILES}
        self.maps = {path: mmap.mmap(self.open[path], 0, prot=mmap.PROT_READ) for path in FILES}
        self.directories = {path: os.open(root / path, os.O_RDONLY | os.O_DIRECTORY) for path in DIRECTORIES}

    def one(self, look: Callable[[], None] | None = None) -> None:
        """Look at one thing, any if none is named. An error is a difference as well: main would not have made it."""
        look = look or self.random.choice(self.looks)
        kind = look.__name__.removeprefix("look_")
        self.found.calls[kind] += 1
        try:
            look()
        except OSError as error:
            self.found.differs(kind, f"{os.strerror(error.errno or 0)} ({error.filename!r})")

    def _file(self) -> str:
        return self.random.choice(FILES)

    def _any(self) -> str:
        return self.random.choice(["", *DIRECTORIES, *FILES, *LINKS])

    def _same_status(self, kind: str, path: str, found: os.stat_result) -> None:
        wanted = self.known[path].status
        if status(found) != wanted:
            self.found.differs(kind, f"{path}: {described(status(found), wanted)}")

    def _same_data(self, kind: str, path: str, data: bytes) -> None:
        wanted = self.known[path].content
        if data != wanted:
            pairs = enumerate(zip(data, wanted, strict=False))
            at = next((place for place, (a, b) in pairs if a != b), min(len(data), len(wanted)))
            text = f"{path}: {len(data)} bytes instead of {len(wanted)}, from {at} on {data[at : at + 16]!r}"
            self.found.differs(kind, text)

    def look_stat(self) -> None:
        path = self._any()
        self._same_status("stat", path, os.lstat(self.root / path))

    def look_stat_at(self) -> None:
        """By the descriptor of the directory, as find and rm do."""
        path = self.random.choice([path for path in FILES if "/" in path])
        above, name = path.rsplit("/", 1)
        self._same_status("stat_at", path, os.stat(name, dir_fd=self.directories[above], follow_symlinks=False))

    def look_stat_open(self) -> None:
        path = self._file()
        self._same_status("stat_open", path, os.fstat(self.open[path]))

    def look_stat_open_directory(self) -> None:
        path = self.random.choice(DIRECTORIES)
        self._same_status("stat_open_directory", path, os.fstat(self.directories[path]))

    def look_access(self) -> None:
        path = self._file()
        if not os.access(self.root / path, os.R_OK | os.W_OK):
            self.found.differs("access", f"{path}: refused")

    def look_read(self) -> None:
        path = self._file()
        self._same_data("read", path, (self.root / path).read_bytes())

    def look_read_open(self) -> None:
        path = self._file()
        self._same_data("read_open", path, os.pread(self.open[path], 1 << 20, 0))

    def look_read_for_writing(self) -> None:
        """What is open for writing as well, but not written."""
        path = self._file()
        opened = os.open(self.root / path, os.O_RDWR)
        try:
            self._same_data("read_for_writing", path, os.pread(opened, 1 << 20, 0))
        finally:
            os.close(opened)

    def look_readlink(self) -> None:
        path = self.random.choice(LINKS)
        self._same_data("readlink", path, os.fsencode(os.readlink(self.root / path)))

    def look_through_link(self) -> None:
        self._same_data("through_link", "files/f0", (self.root / "files/soft").read_bytes())

    def look_map(self) -> None:
        path = self._file()
        self._same_data("map", path, self.maps[path][:])

    def look_map_anew(self) -> None:
        path = self._file()
        opened = os.open(self.root / path, os.O_RDONLY)
        try:
            with mmap.mmap(opened, 0, prot=mmap.PROT_READ) as memory:
                self._same_data("map_anew", path, memory[:])
        except ValueError as error:  # it seems empty, and none of main's is
            self.found.differs("map_anew", f"{path}: {error}")
        finally:
            os.close(opened)

    def look_list(self) -> None:
        path = self.random.choice(["", *DIRECTORIES])
        self._same_entries("list", path, entries(str(self.root / path)))

    def look_list_open(self) -> None:
        path = self.random.choice(DIRECTORIES)
        self._same_entries("list_open", path, entries(self.directories[path]))

    def _same_entries(self, kind: str, path: str, found: tuple[tuple[str, int, int], ...]) -> None:
        wanted = self.known[path].entries
        if found != wanted:
            more, less = set(found) - set(wanted), set(wanted) - set(found)
            self.found.differs(kind, f"{path or 'the root'}: also {sorted(more)}, without {sorted(less)}")

    def look_getcwd(self) -> None:
        found = os.getcwd()
        if found != str(self.home):
            self.found.differs("getcwd", f"{found} instead of {self.home}")

    def look_chdir(self) -> None:
        """Going there again, by its path."""
        os.chdir(self.home)
        self.look_getcwd()

    def look_here(self) -> None:
        """Relative to the working directory."""
        here = str(self.home.relative_to(self.root))
        self._same_status("here", here, os.stat("."))
        self._same_entries("here", here, entries("."))

    def look_xattr(self) -> None:
        path = self._file()
        found, wanted = os.getxattr(self.root / path, "user.tag"), self.known[path].tag
        if found != wanted:
            self.found.differs("xattr", f"{path}: {found!r}")

    def look_xattr_open(self) -> None:
        path = self._file()
        found, wanted = os.getxattr(self.open[path], "user.tag"), self.known[path].tag
        if found != wanted:
            self.found.differs("xattr_open", f"{path}: {found!r}")

    def look_xattr_names(self) -> None:
        path = self._file()
        found = sorted(name for name in os.listxattr(self.root / path) if name.startswith("user."))
        if found != ["user.tag"]:
            self.found.differs("xattr_names", f"{path}: {found}")

    def look_absent(self) -> None:
        path = self.random.choice(ABSENT)
        try:
            found = os.lstat(self.root / path)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        self.found.differs("absent", f"{path} is there, mode {stat.filemode(found.st_mode)}, inode {found.st_ino}")

    def look_absent_open(self) -> None:
        path = self.random.choice(ABSENT)
        try:
            os.close(os.open(self.root / path, os.O_RDONLY | os.O_NONBLOCK))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        self.found.differs("absent_open", f"{path} can be opened")


def observe(root: Path, known: dict[str, Known], number: int, *, until_different: bool = False) -> Work:
    """The work of one trusted process; `until_different` ends the whole run as soon as something differs."""

    def prepare(found: Found) -> Callable[[Running], None]:
        one = Observer(root, known, number, found)
        for look in one.looks:
            one.one(look)

        def work(running: Running) -> None:
            while running():
                one.one()
                if until_different and found.different:
                    running.stop_everyone()

        return work

    return prepare
