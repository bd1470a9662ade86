"""What answers say of things: plain values, as they go over the control socket."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Collection, Iterable

from isofs.control import results, wire
from isofs.engine import changes as changed
from isofs.engine import checks
from isofs.engine.changes import Against, ChangeLine
from isofs.engine.slices import Slices
from isofs.engine.state import Filesystem, View
from isofs.merge.preview import Planned
from isofs.merge.report import Item
from isofs.model import risks
from isofs.model.records import Stowed, Subject, SubjectState
from isofs.model.vectors import Vector, named
from isofs.service import limiting, reviews
from isofs.service.unified import unified
from isofs.store import attic

Result = dict[str, object]

#: Larger files are not shown line by line.
TEXT_LIMIT = 1 << 20

_CHANGES = ("added", "modified", "deleted", "renamed", "attributes")


def version() -> str:
    try:
        return importlib.metadata.version("isofs")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def described(fs: Filesystem, subject: Subject, review: int, *, stopped: bool) -> Slices[Result]:
    """A subject, how much was changed, and what waits; `review` is the time of a period in seconds.

    `stopped` is whether a verdict waits to be gone on with.
    """
    view = fs.view_of(subject.sid)
    if view is None or subject.state is SubjectState.DISCARDING:  # settled meanwhile, or gone in part
        view = View(subject.sid)
    counts = Counter(line.change for line in (yield from changed.gather(fs, view)))
    size = yield from changed.bytes_kept(fs, view)
    waiting = len(view.versions) if subject.state is SubjectState.CONFLICTS else 0
    return {
        "user": subject.name,
        "uid": subject.uid,
        "state": subject.state.value,
        "since": subject.since,
        "reason": subject.reason,
        "changed": {change: counts[change] for change in _CHANGES},
        "bytes": size,
        "conflicts": waiting,
        "parts": [
            {"since": part.since, "objects": part.objects, "asked": part.reason}
            for part in fs.subjects.values()
            if part.part_of == subject.sid
        ],
        "review": reviews.since(subject, review),
        "stopped": stopped,
        "quota": limiting.taken(fs, view, subject.name),
    }


def attic_totals(fs: Filesystem) -> Result:
    entries, size = attic.totals(fs.store.database)
    return {"entries": entries, "bytes": size}


def stowed(entry: Stowed) -> results.Stowed:
    return {
        "number": entry.number,
        "at": entry.at,
        "user": entry.user,
        "subject": entry.sid,
        "action": entry.action,
        "kind": changed.kind_word(entry.kind),
        "size": entry.size,
        "live": entry.live,
        "path": wire.path_text(entry.path),
    }


def change(line: ChangeLine) -> Result:
    return {
        "change": line.change,
        "kind": line.kind,
        "path": wire.path_text(line.path),
        "from": None if line.before is None else wire.path_text(line.before),
        "size": line.size,
    }


def difference(fs: Filesystem, view: View, line: ChangeLine, against: Against | None) -> Result:
    """What changed within an object: lines of text where both sides are, sizes and hashes."""
    result: Result = {
        "path": wire.path_text(line.path),
        "change": line.change,
        "kind": line.kind,
        "text": None,
        "old": None,
        "new": None,
        "known": True,
    }
    if line.kind not in ("file", "symlink"):
        return result
    sides = changed.sides(fs, view, line, against)
    result["known"] = sides.known
    for key, place in (("old", sides.old), ("new", sides.new)):
        if place is not None:
            size, digest = changed.digest(place)
            result[key] = {"size": size, "sha256": digest}
    old, new = changed.text_of(sides.old, TEXT_LIMIT), changed.text_of(sides.new, TEXT_LIMIT)
    if line.kind == "file" and sides.known and old is not None and new is not None:
        before = line.path if line.before is None else line.before
        result["text"] = unified(
            old, new, None if sides.old is None else before, None if sides.new is None else line.path
        )
    return result


def item(one: Item) -> Result:
    return {
        "path": wire.path_text(one.path),
        "action": one.action,
        "reason": one.reason,
        "review": one.review,
        "as": None if one.aside is None else wire.path_text(one.aside),
    }


def items(found: Iterable[Item]) -> Slices[list[Result]]:
    """What was done with each object or name."""
    told = []
    for one in found:
        told.append(item(one))
        yield
    return told


def planned(fs: Filesystem, one: Planned, marks: Collection[str]) -> Result:
    """An item of a plan: what would be done, the vectors that say so, and the risks of the change."""
    obj = fs.by_op.get(one.op)
    return {
        **item(one.item),
        "object": one.op,
        "kind": None if obj is None else changed.kind_word(obj.kind),
        "main": vector(one.main),
        "suspect": vector(one.suspect),
        "risks": [name for name in risks.WORDS if name in marks],
    }


def vector(values: Vector | None) -> Result | None:
    return None if values is None else dict(named(values))


def checked(fs: Filesystem, *, sound: bool = False) -> results.Checked:
    """The result of `check` for a file system, live or at rest; the database may be known to be `sound`."""
    problems = checks.check(fs, sound=sound)
    return {
        "ok": not problems,
        "checked": {
            "invariants": len(checks.CHECKS),
            "objects": len(fs.origins),
            "versions": sum(len(v.versions) for v in fs.all_views),
            "bindings": sum(len(list(v.all_bindings())) for v in fs.all_views),
            "stowed": attic.totals(fs.store.database)[0],
        },
        "problems": [problem(fs, one) for one in problems],
    }


def problem(fs: Filesystem, found: checks.Problem) -> results.Problem:
    return {
        "invariant": found.invariant,
        "subject": fs.subjects[found.sid].name if found.sid in fs.subjects else None,
        "path": None if found.path is None else wire.path_text(found.path),
        "problem": found.text,
    }
