"""What a user has changed at this moment, in short: to tell later whether it is still the same."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping

from isofs.engine import views
from isofs.engine.state import Filesystem, View
from isofs.model.records import Op
from isofs.store import inodes

#: Digits of a mark, which only says where to look: the digest is what decides.
_MARK = 12


def marks(fs: Filesystem, uid: int) -> tuple[str, dict[Op, str]]:
    """A digest of all that is isolated of a user or waits, and a mark of each object in it.

    Contents are known by inode, change time and size, as every change of them passes through us. What main did does
    not matter, nor what isofs itself keeps.
    """
    found: dict[Op, list[str]] = defaultdict(list)
    whole = hashlib.sha256()
    for view in views_of(fs, uid):
        whole.update(f"subject {view.sid}\n".encode())
        for op, version in view.versions.items():
            content = None if version.content is None else _identity(fs, view, version.content)
            found[op].append(repr((view.sid, version.state, content)))
        for b in view.all_bindings():
            if not b.kept:
                found[b.op or b.replaced or b.directory].append(repr((view.sid, b.directory, b.name, b.op)))
    short = {}
    for op in sorted(found):
        digest = hashlib.sha256("\n".join(sorted(found[op])).encode()).hexdigest()
        whole.update(f"{op} {digest}\n".encode())
        short[op] = digest[:_MARK]
    return whole.hexdigest(), short


def views_of(fs: Filesystem, uid: int) -> Iterator[View]:
    """What is isolated of a user, and then what waits."""
    for views_ in (fs.views, fs.waiting):
        for sid, view in views_.items():
            if fs.subjects[sid].uid == uid:
                yield view


def differing(fs: Filesystem, uid: int, before: Mapping[Op, str], now: Mapping[Op, str]) -> list[bytes]:
    """The paths of what changed between two times; empty for what the user has no name for now."""
    paths = []
    for op in sorted(before.keys() | now.keys()):
        if before.get(op) != now.get(op):
            obj = fs.by_op.get(op)
            found = (None if obj is None else views.path(fs, view.sid, obj) for view in views_of(fs, uid))
            paths.append(next((path for path in found if path), b""))
    return paths


def _identity(fs: Filesystem, view: View, content: str) -> tuple[int, int, int] | None:
    try:
        at = inodes.lstat(fs.store.content(view.sid, content))
    except FileNotFoundError:  # of a merge that is under way
        return None
    return at.st_ino, at.st_ctime_ns, at.st_size
