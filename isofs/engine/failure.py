"""What goes on when the store cannot be used: trusted users with main, and nobody else with anything.

A change of main that the store cannot follow is made all the same. From then on the views are not what they must be, so
whoever is isolated is answered EIO, and the file system is one without a store: no object of main's is known to have
to do with anybody. Whoever brings it back (`returning`), or the next mount, reads the store as it was then, and takes
what main has become for a change that nobody watched (`recovery`).
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable
from typing import TypeVar

from isofs.engine.batch import Batch
from isofs.engine.outage import Failure
from isofs.engine.state import Caller, Filesystem, Handle, Node, now
from isofs.errors import CallError, StoreUnusable
from isofs.store import suspects

log = logging.getLogger(__name__)

T = TypeVar("T")


def fail(fs: Filesystem, error: StoreUnusable) -> None:
    """Go on without the store from now on."""
    if fs.failure is not None:
        return
    fs.failure = Failure(str(error), now(), frozenset(fs.suspects))
    log.critical("going on without the store, whoever is isolated is shut out: %s", error)
    with contextlib.suppress(OSError):  # else the fingerprints of files tell, at the next mount
        suspects.set_watched(fs.store.root, False)
    forget_all(fs)
    fs.on_change_of_state()


def forget_all(fs: Filesystem) -> None:
    """Know of nothing that the store has."""
    for obj in fs.by_op.values():
        obj.op = 0
    for known in (fs.by_op, fs.origins, fs.bases, fs.referring, fs.subjects, fs.views, fs.waiting):
        known.clear()


def anyway(fs: Filesystem, change: Callable[[], T]) -> T:
    """Make a trusted user's change of main, without the store if that cannot follow it."""
    try:
        return change()
    except StoreUnusable as error:
        fail(fs, error)
        return change()


def follow(fs: Filesystem, batch: Batch, *, merging: bool = False) -> None:
    """Write down that main has been changed; without the store if that cannot be. A merge stops instead (`merging`)."""
    try:
        batch.commit()
    except StoreUnusable as error:
        if merging:
            raise
        fail(fs, error)


def admit(fs: Filesystem, caller: Caller, node: Node) -> None:
    """Without a store: EIO for who is isolated, and for everybody on what was a suspect's."""
    if node.sid or (fs.failure is not None and fs.failure.shuts_out(caller.uid)):
        raise CallError(errno.EIO)


def admit_handle(fs: Filesystem, handle: Handle) -> None:
    """The same for what is open."""
    if handle.sid or handle.node.sid or (fs.failure is not None and fs.failure.shuts_out(handle.uid)):
        raise CallError(errno.EIO)
