"""Opening what is served: the file system of a store, or, if the store cannot be used, one without."""

from __future__ import annotations

import contextlib
import logging

from isofs.engine import recovery
from isofs.engine.outage import Failure
from isofs.engine.state import Filesystem, now
from isofs.errors import NoMount, StoreRefused, StoreUnusable
from isofs.service import proposals, unfinished
from isofs.store.folder import Store, open_store, open_unusable

log = logging.getLogger(__name__)


class Opening:
    """A store that is ours, and what becomes of it: the file system over a directory. Close it at the end.

    Making one takes no time that depends on what the store has, and raises StoreRefused if there never was a store, or
    another process has it.
    """

    def __init__(self, directory: str, path: str, *, trust_everybody: bool = False) -> None:
        self._directory, self._path, self._trust_everybody = directory, path, trust_everybody
        self._fs: Filesystem | None = None
        self._store: Store | None = None
        self._problem: Exception | None = None
        try:
            self._store = open_store(path)
        except StoreRefused:
            raise
        except Exception as error:  # what damaged rows lead to has many names
            self._problem, self._store = error, open_unusable(path)

    def read(self) -> Filesystem:
        """The file system, recovered; verdicts that were cut off are finished.

        If the store cannot be used, it is one that shuts out whoever is isolated: by the list beside the database, or
        everybody but root where that cannot be read either; nobody if the operator says so (`trust_everybody`).
        """
        assert self._store is not None
        if self._problem is None:
            store, self._store = self._store, None
            try:
                self._fs = _recovered(store, self._directory)
                return self._fs
            except (StoreRefused, NoMount):
                raise
            except Exception as error:
                self._problem, self._store = error, open_unusable(self._path)
        self._fs = self._without_store(self._store, self._problem)
        return self._fs

    def _without_store(self, store: Store, problem: Exception) -> Filesystem:
        if isinstance(problem, StoreUnusable):
            reason = str(problem)
        else:
            log.error("the store %s cannot be read", self._path, exc_info=problem)
            reason = f"the store {self._path} cannot be read: {problem!r}"
        isolated = frozenset() if self._trust_everybody else _possible(store)
        failure = Failure(reason, now(), isolated, at_start=True)
        log.critical("serving without the store, %s: %s", shut_out(failure), reason)
        return recovery.open_without_store(store, self._directory, failure)

    def close(self) -> None:
        """Close the file system, or the store if it was not read."""
        if self._fs is not None:
            with contextlib.suppress(StoreUnusable) if self._fs.failure is not None else contextlib.nullcontext():
                recovery.close_filesystem(self._fs)
        elif self._store is not None:
            self._store.close()


def opened(directory: str, path: str, *, trust_everybody: bool = False) -> Filesystem:
    """What is read of a store at once."""
    return Opening(directory, path, trust_everybody=trust_everybody).read()


def _recovered(store: Store, directory: str) -> Filesystem:
    fs = recovery.open_filesystem(store, directory)
    try:
        for line in unfinished.finish(fs):
            log.error("%s", line)
        proposals.forget_ended(fs)
    except BaseException:
        with contextlib.suppress(StoreUnusable):
            recovery.close_filesystem(fs)
        raise
    return fs


def _possible(store: Store) -> frozenset[int] | None:
    """Who may be isolated; None if nothing says it."""
    try:
        known = store.known()
    except StoreUnusable as error:
        log.error("%s", error)
        return None
    return None if known is None else known.possible


def shut_out(failure: Failure) -> str:
    """Whom a failure shuts out, in words."""
    if failure.isolated is None:
        return "everybody but root is shut out"
    if not failure.isolated:
        return "nobody is shut out"
    return "shut out: uid " + ", ".join(map(str, sorted(failure.isolated)))
