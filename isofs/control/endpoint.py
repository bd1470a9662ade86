"""The socket that a daemon listens on, where root and the groups that it serves can reach it, and nobody else.

The directory is root's: nobody else can list it, or make, rename or remove anything there. Others can go through it if
some daemon serves a group, and reach a socket only if its own access list has a group of theirs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Collection, Iterator

from isofs.errors import Already, IsofsError, NotAllowed

#: Who may enter the directory: its owner alone; or everybody, without seeing what is in it.
_CLOSED, _PASSABLE = 0o700, 0o711

#: An access list as the kernel has it in an extended attribute (acl(5)): a version, then tag, rights and id of each.
_ACL = "system.posix_acl_access"
_ACL_VERSION, _ACL_ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
_OWNER, _OWNING, _GROUP, _MASK, _OTHERS = 0x01, 0x04, 0x08, 0x10, 0x20
_NOBODY, _READ_WRITE = 2**32 - 1, 6


@contextlib.contextmanager
def listening(path: str, groups: Collection[int] = ()) -> Iterator[socket.socket]:
    """A socket that listens at `path`, for root and the members of `groups`; removed at the end.

    What a dead daemon left behind is replaced. Already, if a living one listens there. The last one to
    leave removes the directory.
    """
    directory = os.path.dirname(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        # Linux gives the name the mode of the socket, so it is never wider, not even for a moment.
        os.fchmod(listener.fileno(), 0o600)
        with _locked(directory, make=True):
            if _answers(path):
                raise Already(f"a daemon listens at {path} already")
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise NotAllowed(f"{path} is in the way of the control socket: {error.strerror}") from error
            listener.bind(path)
            listener.listen()
            ours = _identity(path)
            if groups:
                admit(path, groups)
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError), _locked(directory):
                if _identity(path) == ours:
                    os.unlink(path)
                _remove_if_empty(directory)


def admit(path: str, groups: Collection[int]) -> None:
    """Let the members of exactly these groups, and root, reach the socket at `path`."""
    if not groups:
        with contextlib.suppress(OSError):
            os.removexattr(path, _ACL)
        os.chmod(path, 0o600)
        return
    entries = [(_OWNER, _READ_WRITE, _NOBODY), (_OWNING, 0, _NOBODY)]
    entries += [(_GROUP, _READ_WRITE, group) for group in sorted(set(groups))]
    entries += [(_MASK, _READ_WRITE, _NOBODY), (_OTHERS, 0, _NOBODY)]
    packed = _ACL_VERSION.pack(2) + b"".join(_ACL_ENTRY.pack(*entry) for entry in entries)
    try:
        os.setxattr(path, _ACL, packed)
        os.chmod(os.path.dirname(path), _PASSABLE)
    except OSError as error:
        raise IsofsError(f"{path} cannot be opened to groups: {error.strerror}") from error


def sweep(directory: str) -> None:
    """Remove the sockets that dead daemons left in the directory, and the directory itself if it is empty then."""
    with contextlib.suppress(FileNotFoundError), _locked(directory):
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if name.endswith(".sock") and not _answers(path):
                with contextlib.suppress(IsADirectoryError):  # no daemon left that
                    os.unlink(path)
        _remove_if_empty(directory)


def make(directory: str) -> None:
    """Make the directory for what runs, where there is none; it stays as long as anything is in it."""
    _private(directory)


def _private(directory: str) -> None:
    """Make the directory, or make sure that nobody else can see or change what is in the one that is there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, _CLOSED)
    try:
        status = os.lstat(directory)
    except FileNotFoundError:
        return  # removed by the last daemon that ended, this moment: whoever asked makes it again
    private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) & 0o077 in (0, _PASSABLE & 0o077)
    if not private or status.st_uid != os.geteuid():
        raise NotAllowed(f"{directory} must be a directory whose names only the daemon's user can see and change")


@contextlib.contextmanager
def _locked(directory: str, *, make: bool = False) -> Iterator[None]:
    """One process at a time: else two daemons that start at once would remove each other's socket.

    The directory is made where there is none (`make`).
    """
    while True:
        if make:
            _private(directory)
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if make:
                continue
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            status = os.fstat(descriptor)
            # Else it was removed, by whoever had the lock before.
            if _identity(directory) == (status.st_dev, status.st_ino):
                yield
                return
        finally:
            os.close(descriptor)


def _remove_if_empty(directory: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(directory)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Not blocking: a living daemon that is too busy to accept says "again", which is an answer.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except BlockingIOError:
            return True
        return True


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
