"""Which isofs mounts there are, which of them a command means, and where its daemon listens.

A mount whose daemon is dead answers every call with ENOTCONN, and one whose daemon hangs doesn't
answer at all. So nothing here but `stale` asks a mount anything: mount points come from the table
of the kernel, and paths are followed by readlink, which needs no daemon at a mount point.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from isofs.errors import NoMount

#: The type of an isofs mount in the kernel's table.
TYPE = "fuse.isofs"

#: Where the sockets of all daemons are.
RUN = "/run/isofs"

_MOUNTINFO = "/proc/self/mountinfo"
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_MOST_LINKS = 40


@dataclass(frozen=True, slots=True)
class Mount:
    """An isofs mount: the real path of the directory that it lies over, and its source's name."""

    directory: str
    source: str


#: What is mounted of the file system: the directory in its root that the daemon mounts, or all of it.
_ROOTS = (b"/root", b"/")


def mounted() -> list[Mount]:
    """The isofs mounts of this process's mount namespace."""
    with open(_MOUNTINFO, "rb") as table:
        return parse(table.read())


def points() -> list[str]:
    """Every directory of this mount namespace at which an isofs, or a part of one, can be entered."""
    with open(_MOUNTINFO, "rb") as table:
        return [mount.directory for _number, _device, _root, mount in _entries(table.read())]


def binds_below(directory: str) -> list[str]:
    """Where below a directory, a real path, something of its own file system is mounted once more."""
    with open(_MOUNTINFO, "rb") as table:
        lines = [line.split(b" ") for line in table.read().split(b"\n") if line]
    found = [(fields[2], _plain(fields[4])) for fields in lines]
    own = max(((len(point), device) for device, point in found if within(point, directory)), default=(0, b""))[1]
    below = [point for device, point in found if device == own and point != directory and within(directory, point)]
    return [point for point in below if _on_one_device(point, directory)]  # not another subvolume


def _on_one_device(point: str, directory: str) -> bool:
    try:
        return os.stat(point).st_dev == os.stat(directory).st_dev
    except OSError:  # something else lies over it
        return False


def parse(table: bytes) -> list[Mount]:
    """The isofs mounts in a text of the form of /proc/self/mountinfo, by their mount ids.

    One entry per file system: bind mounts of it, or of a part of it, are left out.
    """
    found: dict[bytes, tuple[int, Mount]] = {}
    for number, device, root, mount in _entries(table):
        if root not in _ROOTS:
            continue
        entry = number, mount
        # The first one made is the mount, those after it are binds.
        found[device] = min(found.get(device, entry), entry, key=lambda known: known[0])
    return [mount for _number, mount in sorted(found.values(), key=lambda known: known[0])]


def _entries(table: bytes) -> Iterator[tuple[int, bytes, bytes, Mount]]:
    """The isofs entries of the table: mount id, device, root within it, and where it is."""
    # Not splitlines: the kernel writes a carriage return in a name as it is.
    for line in filter(None, table.split(b"\n")):
        # Between the sixth field and the dash there is any number of others.
        front, _, back = line.partition(b" - ")
        number, _parent, device, root, directory, *_ = front.split(b" ")
        kind, source, *_ = back.split(b" ")
        if _plain(kind) == TYPE:
            yield int(number), device, root, Mount(_plain(directory), _plain(source))


def socket_for(directory: str) -> str:
    """The control socket of the mount over `directory`, which is a real path (see `real`)."""
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()
    return os.path.join(RUN, f"{digest[:16]}.sock")


def choose(explicit: str | None, cwd: str, mounts: Sequence[Mount]) -> str:
    """The mount point that a command means, out of `mounts`.

    The one named `explicit`ly; else the deepest one that `cwd` lies in; else the only one there is.
    NoMount says what to do where that is none.
    """
    directories = list(dict.fromkeys(mount.directory for mount in mounts))
    if explicit is not None:
        directory = real(explicit)
        if directory not in directories:
            raise NoMount(f"no isofs is mounted at {explicit}: `isoctl mount {explicit}` mounts it")
        return directory
    around = [directory for directory in directories if within(directory, cwd)]
    if around:
        return max(around, key=len)
    if not directories:
        raise NoMount("no isofs is mounted: `isoctl mount DIR` mounts one")
    if len(directories) > 1:
        names = ", ".join(sorted(directories))
        raise NoMount(f"several isofs are mounted: choose one with --mount DIR: {names}")
    return directories[0]


def within(directory: str, path: str) -> bool:
    """Whether an absolute path is `directory` or lies below it, by their names alone."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def here() -> str:
    """The current directory, even one that is deleted or in a mount that doesn't answer."""
    return os.readlink("/proc/self/cwd")


def real(path: str) -> str:
    """The path without symbolic links, followed without entering what is mounted at its end."""
    todo = os.path.join(here(), path).split("/")[::-1]
    done = "/"
    links = 0
    while todo:
        name = todo.pop()
        if name in ("", "."):
            continue
        if name == "..":
            done = os.path.dirname(done)
            continue
        step = os.path.join(done, name)
        try:
            target = os.readlink(step)
        except OSError:
            done = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise NoMount(f"{path}: {os.strerror(errno.ELOOP)}")
        if target.startswith("/"):
            done = "/"
        todo.extend(target.split("/")[::-1])
    return done


def stale(directory: str) -> bool:
    """Whether the daemon of the mount at `directory` is dead. Waits while a living one hangs."""
    try:
        # Not stat: the kernel may answer that from its cache for as long as a dead daemon allowed it to.
        os.statvfs(directory)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def detach(directory: str) -> None:
    """Take away the mount at `directory` whose daemon is dead, though processes may be in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(directory), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
        number = ctypes.get_errno()
        raise NoMount(f"{directory} can't be unmounted: {os.strerror(number)}")


def _plain(field: bytes) -> str:
    """A field of the table with its escapes (space, tab, newline, backslash) undone."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), field))
