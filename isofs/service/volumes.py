"""What a file system can do, found out by looking, and by trying on files without a name that vanish by themselves."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

from isofs.control.mounts import within
from isofs.store.inodes import FICLONE

#: ioctl FS_IOC_GETFLAGS of linux/fs.h, and the flag of a directory whose names differ by more than case.
_GETFLAGS, _CASEFOLD = 0x80086601, 0x40000000

#: An ACL as the kernel has it: version 2; the owner rwx, user 1 r, the group r, the mask r, others nothing.
_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, rights, who)
    for tag, rights, who in (
        (0x01, 7, 2**32 - 1),
        (0x02, 4, 1),
        (0x04, 4, 2**32 - 1),
        (0x10, 4, 2**32 - 1),
        (0x20, 0, 2**32 - 1),
    )
)


@dataclass(frozen=True, slots=True)
class Volume:
    """The file system that a directory lies on; None for what was not tried.

    names     the longest name in bytes; `folds` is whether names that differ in case are the same
    writes    why nothing can be written; empty if it can
    xattrs, acls, reflink, tmpfile    whether there are extended attributes of users, ACLs, files that share blocks,
                                      files without a name
    """

    directory: str
    kind: str
    device: int
    size: int
    free: int
    inodes: int
    free_inodes: int
    names: int
    read_only: bool
    folds: bool
    writes: str | None = None
    xattrs: bool | None = None
    acls: bool | None = None
    reflink: bool | None = None
    tmpfile: bool | None = None


@dataclass(frozen=True, slots=True)
class Mounted:
    """A line of the kernel's table: where, and which type of file system."""

    point: str
    kind: str


def table(text: bytes) -> list[Mounted]:
    """What is mounted, of a text of the form of /proc/self/mountinfo, in its order."""
    found = []
    for line in filter(None, text.split(b"\n")):
        front, _, back = line.partition(b" - ")
        found.append(Mounted(_plain(front.split(b" ")[4]), _plain(back.split(b" ")[0])))
    return found


def kind_of(directory: str, mounted: list[Mounted]) -> str:
    """The type of the file system that a directory lies on."""
    around = [one for one in reversed(mounted) if within(one.point, directory)]  # the last one at a point is on top
    return max(around, key=lambda one: len(one.point)).kind if around else "unknown"


def look(directory: str, reached: str, mounted: list[Mounted], *, write: bool) -> Volume:
    """A directory's file system; `reached` is a path that leads to it now. `write` allows to try things on it."""
    at = os.statvfs(reached)
    found = Volume(
        directory,
        kind_of(directory, mounted),
        os.stat(reached).st_dev,
        at.f_blocks * at.f_frsize,
        at.f_bavail * at.f_frsize,
        at.f_files,
        at.f_favail,
        at.f_namemax,
        bool(at.f_flag & os.ST_RDONLY),
        _folds(reached),
    )
    return _tried(found, reached) if write and not found.read_only else found


def _tried(volume: Volume, reached: str) -> Volume:
    try:
        with contextlib.ExitStack() as stack:
            first, unnamed = stack.enter_context(_scratch(reached))
            second, _ = stack.enter_context(_scratch(reached))
            os.write(first, b"isofs" * 1000)
            os.fsync(first)  # what is not on the disk yet cannot be shared everywhere
            return replace(
                volume,
                writes="",
                tmpfile=unnamed,
                xattrs=_can_set(first, "user.isofs", b"1"),
                acls=_can_set(first, "system.posix_acl_access", _ACL),
                reflink=_can_clone(first, second),
            )
    except OSError as error:
        return replace(volume, writes=error.strerror or "")


@contextlib.contextmanager
def _scratch(directory: str) -> Iterator[tuple[int, bool]]:
    """A file to try things on, which has no name or loses it at once; and whether it never had one."""
    try:
        opened, unnamed = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), True
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            raise
        opened, name = tempfile.mkstemp(prefix=".isofs-doctor-", dir=directory)
        os.unlink(name)
        unnamed = False
    try:
        yield opened, unnamed
    finally:
        os.close(opened)


def _can_set(file: int, name: str, value: bytes) -> bool:
    try:
        os.setxattr(file, name, value)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS):
            return False
        raise
    return True


def _can_clone(source: int, to: int) -> bool:
    try:
        fcntl.ioctl(to, FICLONE, source)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EXDEV, errno.ENOSYS, errno.EPERM):
            return False
        raise
    return True


def _folds(directory: str) -> bool:
    """Whether names that differ in case only are one name: as a flag says, or as an entry that is there shows."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = ctypes.c_long(0)
        with contextlib.suppress(OSError):
            fcntl.ioctl(opened, _GETFLAGS, flags)
            if flags.value & _CASEFOLD:
                return True
        with os.scandir(opened) as entries:
            name = next((one.name for one in entries if one.name.swapcase() != one.name), None)
        if name is None:
            return False
        with contextlib.suppress(OSError):
            one = os.stat(name, dir_fd=opened, follow_symlinks=False)
            other = os.stat(name.swapcase(), dir_fd=opened, follow_symlinks=False)
            both = {name, name.swapcase()} <= set(os.listdir(opened))
            return (one.st_ino, one.st_dev) == (other.st_ino, other.st_dev) and not both
        return False
    finally:
        os.close(opened)


def _plain(field: bytes) -> str:
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), field))
