"""A file for the operator that is there whole or not at all: in the store, or where the operator has a path."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from isofs.control import mounts
from isofs.errors import IsofsError, UsageError

T = TypeVar("T")

_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Where:
    """Where a file comes to lie, and where it is written: names below open directories; and how to show it."""

    directory: int
    name: bytes
    scratch_directory: int
    scratch: bytes
    path: str


@contextlib.contextmanager
def in_file(path: bytes, pid: int, mount: str, other: str) -> Iterator[Where]:
    """A new file where the process `pid` has this path: what it has mounted, the daemon need not have.

    UsageError if there is something already, or no directory to put it in, or it would lie in the mount itself;
    it asks for `other`.
    """
    shown = path.decode("utf-8", "backslashreplace")
    folder, name = os.path.split(path)
    if not path.startswith(b"/") or not name:
        raise UsageError(f"{shown} is no absolute path of a file")
    if mounts.within(mount, os.fsdecode(path)):
        raise UsageError(f"{shown} lies in {mount}, where it would be visible: give {other}")
    try:
        opened = _open_folder(pid, folder)
    except OSError as error:
        raise UsageError(f"{shown} cannot be made: {error.strerror}") from None
    try:
        if os.path.lexists(b"/proc/self/fd/%d/%b" % (opened, name)):
            raise UsageError(f"{shown} exists already: give {other}")
        yield Where(opened, name, opened, b".%b.partial" % name[:200], os.fsdecode(path))
    finally:
        os.close(opened)


def _open_folder(pid: int, folder: bytes) -> int:
    """The directory at an absolute path without links, as a process sees it."""
    at = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in filter(None, folder.split(b"/")):
        try:
            below = os.open(name, _PATH, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at


def write(where: Where, fill: Callable[[BinaryIO], T], taken: IsofsError) -> T:
    """Make the file with what `fill` writes, durably, or leave nothing. `taken` is raised if the name is by then.

    `fill` gets a file that it can read as well; what it wrote is on the disk once it has synced it.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(where.scratch, dir_fd=where.scratch_directory)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(where.scratch, flags, 0o600, dir_fd=where.scratch_directory)
    try:
        with open(opened, "r+b", buffering=1 << 20) as file:
            filled = fill(file)
        if os.path.lexists(b"/proc/self/fd/%d/%b" % (where.directory, where.name)):
            raise taken
        os.rename(where.scratch, where.name, src_dir_fd=where.scratch_directory, dst_dir_fd=where.directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(where.scratch, dir_fd=where.scratch_directory)
        raise
    folder = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=where.directory)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return filled


def to_disk(file: BinaryIO) -> None:
    """Sync what was written, and go back to the beginning: to read from the disk, as far as it can be had."""
    file.flush()
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    file.seek(0)
