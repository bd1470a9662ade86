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

    What a dead daemon left behind is replaced. Already, if a living one listens there.
    """
    directory = os.path.dirname(path)
    _private(directory)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        # Linux gives the name the mode of the socket, so it is never wider, not even for a moment.
        os.fchmod(listener.fileno(), 0o600)
        with _locked(directory):
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
            with _locked(directory):
                if _identity(path) == ours:
                    os.unlink(path)


def _private(directory: str) -> None:
    """Make the directory, or make sure that nobody else can enter the one that is there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    status = os.lstat(directory)
    private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) & 0o077 == 0
    if not private or status.st_uid != os.geteuid():
        raise NotAllowed(f"{directory} must be a directory that only the daemon's user can enter")


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """One daemon at a time: else two that start at once would remove each other's socket."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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
