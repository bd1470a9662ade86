"""Opening what is served: the file system of a store, or, if the store cannot be used, one without."""

from __future__ import annotations

import contextlib
import logging

from isofs.engine import recovery
from isofs.engine.state import Failure, Filesystem, now
from isofs.errors import NoMount, StoreRefused, StoreUnusable
from isofs.service import proposals, unfinished
from isofs.store.folder import Store, open_store, open_unusable

log = logging.getLogger(__name__)


def opened(directory: str, path: str, *, trust_everybody: bool = False) -> Filesystem:
    """The file system over a directory, recovered; verdicts that were cut off are finished.

    If the store cannot be used, it is one that shuts out whoever is isolated: by the list beside the database, or
    everybody but root where that cannot be read either; nobody if the operator says so (`trust_everybody`).
    StoreRefused where there never was a store, or another process has it.
    """
    try:
        return _recovered(open_store(path), directory)
    except (StoreRefused, NoMount):
        raise
    except Exception as error:  # what damaged rows lead to has many names
        if not isinstance(error, StoreUnusable):
            log.exception("the store %s cannot be read", path)
        reason = str(error) if isinstance(error, StoreUnusable) else f"the store {path} cannot be read: {error!r}"
        store = open_unusable(path)
        isolated = frozenset() if trust_everybody else _possible(store)
        failure = Failure(reason, now(), isolated, at_start=True)
        log.critical("serving without the store, %s: %s", shut_out(failure), reason)
        return recovery.open_without_store(store, directory, failure)


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
