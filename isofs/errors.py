"""Every exception of isofs, each with the errno that a file system call sees and the exit code of a command.

This is the one place where exit codes are numbered; `docs/exit-codes.md` explains them to users.
"""

from __future__ import annotations

import enum
import errno
import os


class Exit(enum.IntEnum):
    """Exit codes of `isoctl`. A number never changes its meaning."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    NO_MOUNT = 3
    NO_SUBJECT = 4
    NOT_ALLOWED = 5
    CONFLICTS = 6
    STORE = 7
    NO_ANSWER = 8
    ALREADY = 9
    BUSY = 10
    PROBLEMS = 11
    NO_FUSE = 12
    HANDLES = 13
    EVIDENCE = 14
    ARCHIVE = 15
    ATTIC = 16
    BACKUP = 17
    UNCONFIRMED = 18


class IsofsError(Exception):
    """Base of all errors that isofs raises on purpose: one line that says what to do.

    `exit` is the exit code of a command that ends with it; `errno` is what a file system call answers.
    """

    exit: Exit = Exit.INTERNAL
    errno: int = errno.EIO

    @property
    def code(self) -> str:
        """The stable word for this kind of error in JSON."""
        return self.exit.name.lower()


class UsageError(IsofsError):
    """The words or arguments of a command are off."""

    exit = Exit.USAGE
    errno = errno.EINVAL


class BadConfiguration(UsageError):
    """The configuration says something that it cannot; the message names the line."""


class NoMount(IsofsError):
    """There is no such directory or no isofs mounted there."""

    exit = Exit.NO_MOUNT
    errno = errno.ENODEV


class NoSubject(IsofsError):
    """No such user, or the user is not a suspect."""

    exit = Exit.NO_SUBJECT
    errno = errno.ESRCH


class NotAllowed(IsofsError):
    """The caller may not do this, or it may not be done to this user."""

    exit = Exit.NOT_ALLOWED
    errno = errno.EPERM


class ConflictsRemain(IsofsError):
    """A merge left objects that it could not decide."""

    exit = Exit.CONFLICTS
    errno = errno.EBUSY


class StoreUnusable(IsofsError):
    """The store is damaged, full, of another version, locked, or not a store. `number`: another errno than EIO."""

    exit = Exit.STORE
    errno = errno.EIO

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number or errno.EIO


class StoreRefused(StoreUnusable):
    """There is no store that could be used, or somebody else has it: nothing is known to be isolated in it."""


class NoAnswer(IsofsError):
    """The daemon does not answer, or its mount is stale."""

    exit = Exit.NO_ANSWER
    errno = errno.ENOTCONN


class Already(IsofsError):
    """The directory is mounted already, or the user is a suspect already."""

    exit = Exit.ALREADY
    errno = errno.EEXIST


class Busy(IsofsError):
    """The mount is in use, or a verdict is being carried out."""

    exit = Exit.BUSY
    errno = errno.EBUSY


class NoFuse(IsofsError):
    """FUSE cannot be used on this machine."""

    exit = Exit.NO_FUSE
    errno = errno.ENODEV


class HandlesOpen(IsofsError):
    """The user holds files locked, or open for reading and writing, which cannot be isolated."""

    exit = Exit.HANDLES
    errno = errno.EBUSY


class EvidenceFailed(IsofsError):
    """The evidence could not be written or did not read back; nothing was discarded."""

    exit = Exit.EVIDENCE
    errno = errno.EIO


class ArchiveUnusable(IsofsError):
    """No such evidence, or the file is no evidence archive, or a damaged one."""

    exit = Exit.ARCHIVE
    errno = errno.EIO


class BackupUnusable(IsofsError):
    """The backup could not be written, or the file is none, or a damaged one."""

    exit = Exit.BACKUP
    errno = errno.EIO


class AtticFailed(IsofsError):
    """The attic has no such entry, or cannot give it back where it was, or cannot keep what is about to go."""

    exit = Exit.ATTIC
    errno = errno.EIO


class HalfWritten(IsofsError):
    """Main's file could be neither overwritten nor put back; what was decided of it stays written down."""

    errno = errno.EIO


class Unconfirmed(IsofsError):
    """A verdict waits for a second person, or is not any more what was proposed."""

    exit = Exit.UNCONFIRMED
    errno = errno.EPERM


class Problems(IsofsError):
    """A check found an invariant that does not hold."""

    exit = Exit.PROBLEMS
    errno = errno.EIO


class CallError(IsofsError):
    """A file system call fails with `errno`: the ordinary answer of a file system to a caller."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.errno = number


#: Errors by their stable word, to build them again on the client's side of the control socket.
BY_CODE: dict[str, type[IsofsError]] = {
    error.exit.name.lower(): error
    for error in (
        UsageError,
        NoMount,
        NoSubject,
        NotAllowed,
        ConflictsRemain,
        StoreUnusable,
        NoAnswer,
        Already,
        Busy,
        NoFuse,
        HandlesOpen,
        EvidenceFailed,
        ArchiveUnusable,
        AtticFailed,
        BackupUnusable,
        Unconfirmed,
        Problems,
    )
}
