"""Where the daemon's log goes: to the journal or standard error in the foreground, to a file in the store else."""

from __future__ import annotations

import contextlib
import logging
import os

#: The levels that can be chosen, the most talkative first.
LEVELS = ("debug", "info", "warning", "error")

#: Bytes of the log in the store after which it becomes `log.1`, and a new one is begun.
LIMIT = 16 << 20

#: What the journal takes for the importance of a line that begins with <N> (sd-daemon(3)).
_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


class _ForJournal(logging.Formatter):
    """Lines with their importance, and without the time, which the journal notes itself."""

    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(mark + line for line in super().format(record).splitlines())


class StoreLog(logging.StreamHandler):  # type: ignore[type-arg]
    """The file `log` in a store, which is standard output and error as well: whatever is printed goes there."""

    def __init__(self, store: str) -> None:
        super().__init__()
        self._path = os.path.join(store, "log")
        self.reopen()

    def reopen(self) -> None:
        """Go on in the file that has the name now, or in a new one. What cannot be opened leaves things as they are."""
        with contextlib.suppress(OSError):
            opened = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            for number in (1, 2):
                os.dup2(opened, number)
            os.close(opened)

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if os.fstat(2).st_size > LIMIT:
            with contextlib.suppress(OSError):
                os.rename(self._path, self._path + ".1")
            self.reopen()


class _Early(logging.StreamHandler):  # type: ignore[type-arg]
    """Standard error, for as long as the log in the store is not open; what it was told belongs there."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        self.records.append(record)


def until_served() -> None:
    """Log to standard error, and once more when the log goes to the store."""
    _use(_Early())


def to_standard_error() -> None:
    """Log to standard error; with marks for the journal if that is what it is."""
    journal = _is_journal(2)
    handler = logging.StreamHandler()
    handler.setFormatter(_ForJournal("%(message)s") if journal else _plain())
    _use(handler)


def to_store(store: str) -> StoreLog:
    """Log to the file `log` in a store, what was told before (`until_served`) first."""
    early = [one for handler in logging.getLogger().handlers if isinstance(handler, _Early) for one in handler.records]
    handler = StoreLog(store)
    handler.setFormatter(_plain())
    _use(handler)
    for record in early:
        handler.handle(record)
    return handler


def level(name: str) -> None:
    """Log what is at least as important as this."""
    logging.getLogger().setLevel(name.upper())


def _use(handler: logging.Handler) -> None:
    logging.raiseExceptions = False  # what cannot be logged must not fail a call
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def _plain() -> logging.Formatter:
    return logging.Formatter("%(asctime)s %(levelname)s %(message)s")


def _is_journal(descriptor: int) -> bool:
    """Whether a descriptor is the one of which JOURNAL_STREAM says that it leads to the journal."""
    at = os.fstat(descriptor)
    return os.environ.get("JOURNAL_STREAM") == f"{at.st_dev}:{at.st_ino}"
