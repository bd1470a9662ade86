"""A suspect's processes that change shared names in every way that there is, as fast as they can."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import random
from collections.abc import Callable
from pathlib import Path

from support.race_workers import Found, Running, Work
from support.race_world import COMMON, LAST

_libc = ctypes.CDLL(None, use_errno=True)
_HERE = -100  # AT_FDCWD
_EXCHANGE = 2

#: What every byte that the suspect writes is: no byte of main's is the same.
MARK = b"\xa5"


class Hammer:
    """One process of the suspect's. `number` tells which: its `files/lastN` nobody else changes."""

    def __init__(self, root: Path, number: int, found: Found) -> None:
        self.root, self.number, self.found = root, number, found
        self.random = random.Random(number)
        self.deeds: dict[str, Callable[[], None]] = {
            name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }

    def one(self) -> None:
        """Do one thing. That another process was quicker is fine, so most errors are only counted."""
        name = self.random.choice(list(self.deeds))
        self._counted(name, self.deeds[name])

    def _counted(self, name: str, deed: Callable[[], None]) -> None:
        try:
            deed()
            self.found.calls[name] += 1
        except OSError as error:
            self.found.errors[f"{name} {os.strerror(error.errno or 0)}"] += 1

    def end(self) -> None:
        """What is done last, so that something is known of it."""
        self._counted("last", self.do_last)

    def _file(self) -> Path:
        return self.root / self.random.choice(COMMON)

    def _new(self, kind: str, where: str = "files") -> Path:
        return self.root / where / f"{kind}{self.random.randrange(4 if where == 'files' else 2)}"

    def _bytes(self) -> bytes:
        return MARK * self.random.randrange(1, 9000)

    def _write(self, at: Path, flags: int) -> None:
        opened = os.open(at, flags, 0o666)
        try:
            os.write(opened, self._bytes())
        finally:
            os.close(opened)

    def do_write(self) -> None:
        opened = os.open(self._file(), os.O_WRONLY)
        try:
            os.pwrite(opened, self._bytes(), self.random.randrange(40000))
        finally:
            os.close(opened)

    def do_write_and_read(self) -> None:
        opened = os.open(self._file(), os.O_RDWR)
        try:
            data = self._bytes()
            os.pwrite(opened, data, 0)
            os.pread(opened, len(data), 0)
        finally:
            os.close(opened)

    def do_append(self) -> None:
        self._write(self._file(), os.O_WRONLY | os.O_APPEND)

    def do_overwrite(self) -> None:
        self._write(self._file(), os.O_WRONLY | os.O_TRUNC)

    def do_create(self) -> None:
        self._write(self._new("new"), os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def do_create_or_overwrite(self) -> None:
        self._write(self._file(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def do_create_at_home(self) -> None:
        self._write(self._new("new", "home"), os.O_WRONLY | os.O_CREAT)

    def do_unlink_at_home(self) -> None:
        self._new("new", "home").unlink()

    def do_read(self) -> None:
        self._file().read_bytes()

    def do_list(self) -> None:
        for entry in os.scandir(self.root / "files"):
            entry.stat(follow_symlinks=False)

    def do_truncate(self) -> None:
        os.truncate(self._file(), self.random.randrange(20000))

    def do_truncate_open(self) -> None:
        opened = os.open(self._file(), os.O_RDWR)
        try:
            os.ftruncate(opened, self.random.randrange(20000))
        finally:
            os.close(opened)

    def do_unlink(self) -> None:
        self._file().unlink()

    def do_unlink_hard(self) -> None:
        (self.root / "files" / self.random.choice(["hard1", "hard2"])).unlink()

    def do_save_by_rename(self) -> None:
        new = self.root / "files" / f"away{self.number}"
        self._write(new, os.O_WRONLY | os.O_CREAT)
        os.rename(new, self._file())

    def do_rename(self) -> None:
        os.rename(self._file(), self._new("away"))

    def do_rename_back(self) -> None:
        os.rename(self._new("away"), self._file())

    def do_rename_over(self) -> None:
        os.rename(self._file(), self._file())

    def do_exchange(self) -> None:
        one, other = os.fsencode(self._file()), os.fsencode(self._file())
        if _libc.renameat2(_HERE, one, _HERE, other, _EXCHANGE):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def do_chmod(self) -> None:
        self._file().chmod(self.random.choice([0, 0o600, 0o444, 0o777, 0o666, 0o666]))

    def do_chmod_open(self) -> None:
        opened = os.open(self._file(), os.O_WRONLY)
        try:
            os.fchmod(opened, 0o666)
        finally:
            os.close(opened)

    def do_utime(self) -> None:
        os.utime(self._file(), ns=(self.random.randrange(1 << 60), self.random.randrange(1 << 60)))

    def do_set_xattr(self) -> None:
        os.setxattr(self._file(), "user.tag", self._bytes()[:100])

    def do_new_xattr(self) -> None:
        os.setxattr(self._file(), "user.other", b"x")

    def do_remove_xattr(self) -> None:
        os.removexattr(self._file(), "user.tag")

    def do_link(self) -> None:
        os.link(self._file(), self._new("link"))

    def do_unlink_link(self) -> None:
        self._new("link").unlink()

    def do_unlink_new(self) -> None:
        self._new("new").unlink()

    def do_symlink(self) -> None:
        self._new("soft").symlink_to("f1")

    def do_unlink_symlink(self) -> None:
        self._new("soft").unlink()

    def do_replace_symlink(self) -> None:
        soft = self.root / "files" / f"away{self.number}"
        soft.symlink_to("f2")
        os.rename(soft, self.root / "files/soft")

    def do_fifo(self) -> None:
        os.mkfifo(self._new("pipe"))

    def do_unlink_fifo(self) -> None:
        self._new("pipe").unlink()

    def do_map(self) -> None:
        """Through a shared mapping, of the file that no other process may cut short meanwhile."""
        path = LAST[self.number]
        opened = os.open(self.root / path, os.O_RDWR)
        try:
            size = os.fstat(opened).st_size
            with mmap.mmap(opened, size) as memory:
                memory[:] = MARK * size
                memory.flush()
            self.found.facts[path] = hashlib.sha256(MARK * size).hexdigest()
        finally:
            os.close(opened)

    def do_mkdir(self) -> None:
        self._new("dir").mkdir()

    def do_rmdir(self) -> None:
        self._new("dir").rmdir()

    def do_mkdir_at_home(self) -> None:
        self._new("dir", "home").mkdir()

    def do_rmdir_at_home(self) -> None:
        self._new("dir", "home").rmdir()

    def do_move_directory(self) -> None:
        number = self.random.randrange(2)
        os.rename(self.root / f"moving/m{number}", self.root / f"moving/x{number}")

    def do_move_directory_back(self) -> None:
        number = self.random.randrange(2)
        os.rename(self.root / f"moving/x{number}", self.root / f"moving/m{number}")

    def do_write_in_moved(self) -> None:
        self._write(self.root / f"moving/x{self.random.randrange(2)}/inner", os.O_WRONLY | os.O_TRUNC)

    def do_chmod_directory(self) -> None:
        (self.root / "moving/m2").chmod(self.random.choice([0o700, 0o777, 0o1777]))

    def do_empty_directory(self) -> None:
        (self.root / "moving/m2/inner").unlink()

    def do_remove_directory(self) -> None:
        (self.root / "moving/m2").rmdir()

    def do_make_directory_again(self) -> None:
        (self.root / "moving/m2").mkdir()
        self._write(self.root / "moving/m2/inner", os.O_WRONLY | os.O_CREAT)

    def do_move_listed(self) -> None:
        os.rename(self.root / "listed", self.root / "listed-away")

    def do_move_listed_back(self) -> None:
        os.rename(self.root / "listed-away", self.root / "listed")

    def do_change_listed(self) -> None:
        (self.root / "listed" / f"e{self.random.randrange(6)}").unlink()

    def do_add_to_listed(self) -> None:
        self._write(self.root / "listed/extra", os.O_WRONLY | os.O_CREAT)

    def do_restore_listed(self) -> None:
        self._write(self.root / "listed" / f"e{self.random.randrange(6)}", os.O_WRONLY | os.O_CREAT)

    def do_last(self) -> None:
        """Change the file that nobody else changes, in one of several ways, and remember how it is now."""
        path = LAST[self.number]
        at = self.root / path
        way = self.random.randrange(4)
        data = self._bytes()
        if way == 0:
            at.unlink(missing_ok=True)
            self.found.facts[path] = None
            return
        if way == 1:
            aside = at.with_name(f"away{self.number}-of-last")
            aside.write_bytes(data)
            os.rename(aside, at)
        elif way == 2:
            at.write_bytes(data)
        else:
            with open(at, "ab") as file:
                file.write(data)
            data = at.read_bytes()
        self.found.facts[path] = hashlib.sha256(data).hexdigest()


def hammer(root: Path, number: int) -> Work:
    """The work of one process of the suspect's."""

    def prepare(found: Found) -> Callable[[Running], None]:
        one = Hammer(root, number, found)

        def work(running: Running) -> None:
            while running():
                one.one()
            one.end()

        return work

    return prepare


def last(root: Path, path: str) -> str | None:
    """How a file of `LAST` is: the hash of its content, None if there is none."""
    try:
        return hashlib.sha256((root / path).read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
