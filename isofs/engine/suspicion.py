"""A user comes under suspicion: from this moment on what the user changes is isolated."""

from __future__ import annotations

import os

from isofs.engine import versions
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Handle
from isofs.errors import Already, NotAllowed
from isofs.model.records import MAIN, Subject, SubjectState


def suspect(fs: Filesystem, uid: int, name: str, reason: str, since: str) -> Subject:
    """Isolate a user. `since` is the time in ISO 8601.

    Handles that the user has open for writing only are re-routed; those for reading and writing
    (`shared_writers`) cannot be and go on writing main: whoever calls this has dealt with them or will.
    What an earlier merge left undecided goes on waiting beside it, as another subject's would.
    Raises what `check` does.
    """
    check(fs, uid, name)
    sid = max(fs.subjects, default=MAIN) + 1
    subject = Subject(sid, uid, name, since, reason, SubjectState.SUSPECT)
    batch = Batch(fs)
    batch.put(subject)
    batch.commit()
    for handle in handles_of(fs, uid):
        _reroute(fs, handle, sid)
        versions.expire_names(fs, handle.node.obj)  # a change by the descriptor will look no name up
    return subject


def check(fs: Filesystem, uid: int, name: str) -> None:
    """Whether a user can be isolated: NotAllowed for root, and Already for a suspect."""
    if uid == 0:
        raise NotAllowed("root cannot be isolated: root can reach main and the store without the mount")
    for subject in fs.subjects.values():
        if subject.uid == uid and subject.state not in (SubjectState.CONFLICTS, SubjectState.ENDED):
            raise Already(f"{name} is a suspect already, since {subject.since}")


def handles_of(fs: Filesystem, uid: int) -> list[Handle]:
    """The handles that a user has open on main."""
    return [h for h in fs.handles.values() if h.uid == uid and h.sid == MAIN]


def shared_writers(fs: Filesystem, uid: int) -> list[Handle]:
    """The user's handles open for reading and writing: their bytes pass through main's page cache."""
    return [
        h
        for h in fs.handles.values()
        if h.uid == uid and (h.sid == MAIN or h.before) and h.flags & os.O_ACCMODE == os.O_RDWR
    ]


def revoke(fs: Filesystem, uid: int) -> list[Handle]:
    """Let nothing be written any more through the user's handles for reading and writing. Returns them."""
    found = shared_writers(fs, uid)
    for handle in found:
        handle.revoked = True
    return found


def _reroute(fs: Filesystem, handle: Handle, sid: int) -> None:
    """A handle opened before: one for writing only must never reach main again."""
    handle.sid, handle.before = sid, True
    fs.views[sid].account.handles += 1
    if handle.flags & os.O_ACCMODE == os.O_WRONLY and handle.node.pinned < 0:
        os.close(handle.descriptor)
        handle.descriptor, handle.ready = -1, False
