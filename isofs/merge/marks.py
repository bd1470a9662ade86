"""Fingerprints of main: what a merge itself changes of main is no change behind the mount.

A version keeps main's inode, change time and size as they were when it was made. A merge of one suspect changes them,
for the versions of all others, without a trusted modification.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from isofs.engine import tree
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, View
from isofs.errors import CallError
from isofs.model.records import Fingerprint, Op, SubjectId, Version

#: Versions by subject and object.
Marks = list[tuple[SubjectId, Op]]


def undisturbed(fs: Filesystem, merging: View) -> Marks:
    """The other suspects' versions whose fingerprints are main's now, or of what main lacks now."""
    return [
        (view.sid, version.op)
        for view, version in _others(fs, merging)
        if not fs.by_op[version.op].ino or version.fingerprint == _mark(fs, version)
    ]


def renew(fs: Filesystem, merging: View, marks: Marks) -> None:
    """After a merge: give the versions that were undisturbed the fingerprints that main has now."""
    batch, wanted = Batch(fs), set(marks)
    for view, version in _others(fs, merging):
        mark = _mark(fs, version)
        if (view.sid, version.op) in wanted and mark is not None and mark != version.fingerprint:
            batch.put(replace(version, fingerprint=mark))
    batch.commit()


def _others(fs: Filesystem, merging: View) -> Iterator[tuple[View, Version]]:
    for view in (*fs.views.values(), *fs.waiting.values()):
        if view is not merging:
            for version in list(view.versions.values()):
                if version.fingerprint is not None:
                    yield view, version


def _mark(fs: Filesystem, version: Version) -> Fingerprint | None:
    try:
        at = tree.located(fs, fs.by_op[version.op])[1]
    except (OSError, CallError):
        return None
    return Fingerprint(at.st_ino, at.st_ctime_ns, at.st_size)
