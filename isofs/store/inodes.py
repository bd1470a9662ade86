"""Making and copying inodes, whatever their type, one component below a directory descriptor at a time.

Nothing here follows a symbolic link, and nothing enters a path: so nothing can be led out of the tree or into a
mount.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from typing import NamedTuple

#: ioctl FICLONE of linux/fs.h: share the blocks of another file.
FICLONE = 0x40049409

DEFAULT_ACL = "system.posix_acl_default"

#: What XFS calls ACLs as well: it lists them for root under these names too.
RAW_ACLS = (b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT")

#: Bytes that one copying call moves: large enough to be fast, small enough to be interrupted.
_CHUNK = 1 << 24

_libc = ctypes.CDLL(None, use_errno=True)


class Place(NamedTuple):
    """A name below an open directory: the only way in which backing files are addressed."""

    directory: int
    name: bytes

    @property
    def path(self) -> bytes:
        """A path to the same, for calls that know no directory descriptors. Its last component may be a link."""
        return b"/proc/self/fd/%d/%b" % (self.directory, self.name)


def sync_all(directory: int) -> None:
    """syncfs(2), which Python does not offer: everything on the file system of a directory goes to the disk."""
    opened = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        if _libc.syncfs(opened):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(opened)


def sync(place: Place) -> None:
    """Make the content of a regular file survive a power loss, before a rename brings it somewhere."""
    if not stat.S_ISREG(lstat(place).st_mode):
        return
    opened = os.open(place.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.directory)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def lstat(place: Place) -> os.stat_result:
    return os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)


def exists(place: Place) -> bool:
    try:
        lstat(place)
    except FileNotFoundError:
        return False
    return True


def is_directory(place: Place) -> bool:
    return stat.S_ISDIR(lstat(place).st_mode)


def remove(place: Place) -> None:
    """Remove what is there, file or empty directory; nothing there is fine."""
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(place.name, dir_fd=place.directory)
        except IsADirectoryError:
            os.rmdir(place.name, dir_fd=place.directory)


def make(place: Place, mode: int, rdev: int = 0, target: bytes | None = None) -> None:
    """Make an inode of the type in `mode`; its permission bits pass the umask and the directory's default ACL."""
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFDIR:
        os.mkdir(place.name, stat.S_IMODE(mode), dir_fd=place.directory)
    elif kind == stat.S_IFLNK:
        assert target is not None
        os.symlink(target, place.name, dir_fd=place.directory)
    else:
        os.mknod(place.name, mode, rdev, dir_fd=place.directory)


def own(place: Place, uid: int, gid: int) -> None:
    """Give to a user. Puts back the set-id bits that a change of owner takes from files."""
    before = lstat(place)
    if (before.st_uid, before.st_gid) == (uid, gid):
        return
    os.chown(place.name, uid, gid, dir_fd=place.directory, follow_symlinks=False)
    if before.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(before.st_mode):
        chmod(place, stat.S_IMODE(before.st_mode))


def chmod(place: Place, mode: int) -> None:
    """Set the permission bits. Never call it for a symbolic link: Linux would follow it."""
    os.chmod(place.name, mode, dir_fd=place.directory)


def xattrs(place: Place) -> dict[str, bytes]:
    """All extended attributes, ACLs among them; empty where the file system has none."""
    try:
        names = os.listxattr(place.path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    found = {}
    for name in names:
        with contextlib.suppress(OSError):
            if os.fsencode(name) not in RAW_ACLS:
                found[name] = os.getxattr(place.path, name, follow_symlinks=False)
    return found


def copy_attributes(source: Place, to: Place) -> None:
    """Owner, mode, extended attributes, ACLs and times (access and modification) of `source`."""
    at = lstat(source)
    set_attributes(to, at.st_mode, at.st_uid, at.st_gid, xattrs(source))
    os.utime(
        to.name,
        ns=(at.st_atime_ns, at.st_mtime_ns),
        dir_fd=to.directory,
        follow_symlinks=False,
    )


def set_attributes(to: Place, mode: int, uid: int, gid: int, wanted: Mapping[str, bytes]) -> None:
    """Give an inode this owner, the permission bits of `mode` (which has its type), these extended attributes only."""
    os.chown(to.name, uid, gid, dir_fd=to.directory, follow_symlinks=False)
    there = xattrs(to)
    for name in there.keys() - wanted.keys():
        with contextlib.suppress(OSError):
            os.removexattr(to.path, name, follow_symlinks=False)
    for name, value in wanted.items():
        if there.get(name) != value:
            _set_xattr(to, name, value)
    if not stat.S_ISLNK(mode):
        chmod(to, stat.S_IMODE(mode))


def _set_xattr(to: Place, name: str, value: bytes) -> None:
    try:
        os.setxattr(to.path, name, value, follow_symlinks=False)
    except OSError as error:
        # Attributes of a security module that this process may not set are the module's to set.
        if error.errno != errno.ENOTSUP and not name.startswith("security."):
            raise


def link(source: Place, to: Place) -> None:
    """Give an inode one more name. A directory can have no other: it is copied, without its entries."""
    if stat.S_ISDIR(lstat(source).st_mode):
        copy(source, to)
        return
    os.link(source.name, to.name, src_dir_fd=source.directory, dst_dir_fd=to.directory, follow_symlinks=False)


def copy(source: Place, to: Place) -> None:
    """Copy an inode of any type with all attributes. Holes stay holes; blocks are shared where they can be.

    A directory is copied without its entries. What is at `to` already is replaced.
    """
    at = lstat(source)
    remove(to)
    if stat.S_ISREG(at.st_mode):
        reader = os.open(
            source.name,
            os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC,
            dir_fd=source.directory,
        )
        try:
            copy_content(reader, to, 0o600)
        finally:
            os.close(reader)
    elif stat.S_ISLNK(at.st_mode):
        make(to, at.st_mode, target=os.readlink(source.name, dir_fd=source.directory))
    else:
        make(to, stat.S_IFMT(at.st_mode) | 0o600, at.st_rdev)
    copy_attributes(source, to)


def copy_content(reader: int, to: Place, mode: int) -> None:
    """Make a regular file at `to` with the content of the open file `reader`."""
    writer = os.open(
        to.name,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
        mode,
        dir_fd=to.directory,
    )
    try:
        copy_data(reader, writer)
    finally:
        os.close(writer)


def copy_data(reader: int, writer: int) -> None:
    """Make the content of `writer`, an empty file, that of `reader`."""
    if cloned(reader, writer):
        return
    size = os.fstat(reader).st_size
    for start, end in data_ranges(reader):
        copy_range(reader, writer, start, end)
    os.ftruncate(writer, size)


def cloned(reader: int, writer: int) -> bool:
    """Let `writer` begin with the blocks of `reader`, shared, if the file system can; whether it could."""
    try:
        fcntl.ioctl(writer, FICLONE, reader)
    except OSError as error:
        if error.errno not in (
            errno.EOPNOTSUPP,
            errno.EXDEV,
            errno.EINVAL,
            errno.ENOTTY,
            errno.ENOSYS,
        ):
            raise
        return False
    return True


def data_ranges(descriptor: int, size: int | None = None) -> Iterator[tuple[int, int]]:
    """Where an open file has data, start and end of each range, up to its end, or up to `size`; the rest are holes.

    The file may be cut short or become longer meanwhile.
    """
    size, end = os.fstat(descriptor).st_size if size is None else size, 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.EINVAL:  # the file system knows nothing of holes
                yield end, size
            elif error.errno != errno.ENXIO:
                raise
            return
        if start < end:
            yield start, end


def copy_range(reader: int, writer: int, start: int, end: int) -> None:
    """Copy a range of one open file to the same place of another."""
    position = start
    while position < end:
        length = min(_CHUNK, end - position)
        try:
            done = os.copy_file_range(reader, writer, length, position, position)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
            done = _copy_plainly(reader, writer, length, position)
        if not done:
            return  # the file was cut short meanwhile
        position += done


def _copy_plainly(reader: int, writer: int, length: int, position: int) -> int:
    data = os.pread(reader, min(length, 1 << 20), position)
    written = 0
    while written < len(data):
        written += os.pwrite(writer, data[written:], position + written)
    return written
