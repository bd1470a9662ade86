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


def undisturbed(fs: Filesystem, merging: View, op: Op | None = None) -> Marks:
    """The other suspects' versions (of one object, if it is given) whose fingerprints are main's now, or of what main
    lacks now."""
    ops = _concerned(fs, merging) if op is None else {op}
    return [
        (view.sid, version.op)
        for view, version in _others(fs, merging, ops)
        if not fs.by_op[version.op].ino or version.fingerprint == _mark(fs, version)
    ]


def _concerned(fs: Filesystem, merging: View) -> set[Op]:
    """What a merge may change in main: its objects, and the directories in which they have and get names."""
    found = {*merging.versions, *merging.placed, *merging.hiding, *merging.bindings}
    return found | {directory.op for op in found for directory, _ in fs.by_op[op].links}


def renew(fs: Filesystem, marks: Marks) -> None:
    """After a merge: give the versions that were undisturbed the fingerprints that main has now."""
    batch = Batch(fs)
    for sid, op in marks:
        view = fs.view_of(sid)
        version = view.version(op) if view is not None else None
        mark = _mark(fs, version) if version is not None else None
        if version is not None and None not in (mark, version.fingerprint) and mark != version.fingerprint:
            batch.put(replace(version, fingerprint=mark))
    batch.commit()


def _others(fs: Filesystem, merging: View, ops: set[Op]) -> Iterator[tuple[View, Version]]:
    for view in (*fs.views.values(), *fs.waiting.values()):
        if view is not merging:
            for version in [view.versions[op] for op in ops & view.versions.keys()]:
                if version.fingerprint is not None:
                    yield view, version


def _mark(fs: Filesystem, version: Version) -> Fingerprint | None:
    try:
        at = tree.located(fs, fs.by_op[version.op])[1]
    except (OSError, CallError):
        return None
    return Fingerprint(at.st_ino, at.st_ctime_ns, at.st_size)
