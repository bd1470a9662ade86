"""The socket that a daemon listens on, in a directory that only root can enter."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator

from isofs.errors import Already, NotAllowed


@contextlib.contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    """A socket that listens at `path`, mode 0600 in a directory of mode 0700; removed at the end.

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
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
            listener.listen()
            ours = _identity(path)
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError), _locked(directory):
                if _identity(path) == ours:
                    os.unlink(path)
                _remove_if_empty(directory)


def sweep(directory: str) -> None:
    """Remove the sockets that dead daemons left in the directory, and the directory itself if it is empty then."""
    with contextlib.suppress(FileNotFoundError), _locked(directory):
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if name.endswith(".sock") and not _answers(path):
                os.unlink(path)
        _remove_if_empty(directory)


def _private(directory: str) -> None:
    """Make the directory, or make sure that nobody else can enter the one that is there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    try:
        status = os.lstat(directory)
    except FileNotFoundError:
        return  # removed by the last daemon that ended, this moment: whoever asked makes it again
    private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) & 0o077 == 0
    if not private or status.st_uid != os.geteuid():
        raise NotAllowed(f"{directory} must be a directory that only the daemon's user can enter")


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
