"""Giving an inode another content and other attributes in place, because it has several names, or is a directory.

No file system does that at once. So what can fail for lack of space is tried before anything is changed: blocks are
allocated for all that will be written. What fails after that all the same is undone, from a copy of what was there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator

from isofs.errors import HalfWritten
from isofs.store import inodes
from isofs.store.inodes import Place

# Modes of fallocate(2), of linux/falloc.h.
KEEP_SIZE, PUNCH_HOLE, UNSHARE_RANGE = 0x01, 0x02, 0x40

#: What a file system says that does not know such a mode.
_UNKNOWN = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

#: What is looked at, or written, at a time.
_ZEROS = bytes(1 << 18)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


def fallocate(descriptor: int, mode: int, start: int, length: int) -> None:
    """fallocate(2) with a mode, which Python does not offer. Raises OSError."""
    if _libc.fallocate(descriptor, mode, start, length):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def overwrite(content: Place, to: Place, kept: Place) -> None:
    """Give the inode at `to` the content and the attributes of another of its type; `kept` is a copy of what it is.

    Then that is on the disk. After an OSError it is what it was, after HalfWritten it is not. Repeating it after a kill
    does no harm.
    """
    with contextlib.ExitStack() as closing:
        reader, writer = (_opened(place, how, closing) for place, how in ((content, os.O_RDONLY), (to, os.O_RDWR)))
        with _undone(kept, to, writer):
            written = writer < 0 or inodes.cloned(reader, writer)
        if not written:
            _allocate(reader, writer)
        with _undone(kept, to, writer):
            if not written:
                _write(reader, writer)
            if writer >= 0:
                os.ftruncate(writer, os.fstat(reader).st_size)
            inodes.copy_attributes(content, to)
            if writer >= 0:
                os.fsync(writer)  # whoever called forgets the content next


def _opened(place: Place, access: int, closing: contextlib.ExitStack) -> int:
    """A descriptor of the file at a place; -1 if what is there has no content."""
    if not stat.S_ISREG(inodes.lstat(place).st_mode):
        return -1
    opened = os.open(place.name, access | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.directory)
    closing.callback(os.close, opened)
    return opened


@contextlib.contextmanager
def _undone(kept: Place, to: Place, writer: int) -> Iterator[None]:
    """Around a change of what is at `to`: an OSError leaves it as it is `kept`."""
    try:
        yield
    except OSError as error:
        try:
            with contextlib.ExitStack() as closing:
                if writer >= 0:
                    reader = _opened(kept, os.O_RDONLY, closing)
                    _write(reader, writer)
                    os.ftruncate(writer, os.fstat(reader).st_size)
            inodes.copy_attributes(kept, to)
        except OSError:
            name = to.name.decode("utf-8", "backslashreplace")
            raise HalfWritten(
                f"{name} was overwritten in part only ({error.strerror}), and could not be put back: "
                "make it possible, and repeat"
            ) from error
        raise


def _allocate(reader: int, writer: int) -> None:
    """Allocate in `writer` what the data of `reader` will need. If there is no room, what was allocated is given back.

    Nothing changes that can be read. Blocks that are shared become `writer`'s own, if the file system can do that
    beforehand. Where it writes everything to new places, allocating promises nothing.
    """
    before = os.fstat(writer)
    holes = [hole for start, end in inodes.data_ranges(reader) for hole in _holes(writer, start, end)]
    try:
        if not all(_reserved(writer, start, end - start) for start, end in inodes.data_ranges(reader)):
            _check_room(writer, sum(end - start for start, end in holes))
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(writer, os.fstat(writer).st_size)  # what lies beyond its end
            for start, end in holes:
                _give_back(writer, start, end)
            os.utime(writer, ns=(before.st_atime_ns, before.st_mtime_ns))
        raise


def _reserved(writer: int, start: int, length: int) -> bool:
    """Allocate a range; whether the file system knows how."""
    for mode in (KEEP_SIZE | UNSHARE_RANGE, KEEP_SIZE):
        try:
            fallocate(writer, mode, start, length)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
        else:
            return True
    return False


def _give_back(writer: int, start: int, end: int) -> None:
    """Let what was a hole be one again, but for what somebody else has written there since."""
    for at in range(start, end, len(_ZEROS)):
        length = min(len(_ZEROS), end - at)
        if not any(os.pread(writer, length, at)):
            fallocate(writer, KEEP_SIZE | PUNCH_HOLE, at, length)


def _check_room(writer: int, needed: int) -> None:
    """Where nothing can be allocated beforehand: whether there is room now."""
    free = os.fstatvfs(writer)
    if free.f_bavail * free.f_frsize < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _holes(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where an open file has no data between two positions, its end and what lies beyond it included."""
    while start < end:
        try:
            data = min(os.lseek(descriptor, start, os.SEEK_DATA), end)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = end
        if data > start:
            yield start, data
        start = end if data == end else os.lseek(descriptor, data, os.SEEK_HOLE)


def _write(reader: int, writer: int) -> None:
    """Make `writer` begin with the content of `reader`, holes as holes. It may get longer; it is not cut."""
    done = 0
    for start, end in inodes.data_ranges(reader):
        _clear(writer, done, start)
        inodes.copy_range(reader, writer, start, end)
        done = end
    _clear(writer, done, os.fstat(reader).st_size)


def _clear(writer: int, start: int, end: int) -> None:
    """Let there be zeros between two positions, as far as the file goes."""
    if start >= end or list(_holes(writer, start, end)) == [(start, end)]:
        return
    try:
        fallocate(writer, KEEP_SIZE | PUNCH_HOLE, start, end - start)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        end = min(end, os.fstat(writer).st_size)
        while start < end:
            start += os.pwrite(writer, _ZEROS[: end - start], start)
