"""What can be done about an invariant that does not hold, on a store that nobody has mounted.

A repair never removes a content: what belongs to nothing any more goes into the folder `rescued`. Where it is not
known who is right, the repair leaves something to decide at the verdict, rather than deciding it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from isofs.engine import recovery, tree
from isofs.engine.batch import Batch
from isofs.engine.checks import Fault, Problem, check
from isofs.engine.state import Filesystem, View
from isofs.errors import StoreUnusable
from isofs.model.records import Binding, Op, Record, Stowed, Version
from isofs.model.vectors import G, Vector
from isofs.store import attic, inodes
from isofs.store.inodes import Place


@dataclass(frozen=True)
class Repair:
    """What is wrong, and in words what `make` would do about it."""

    problem: Problem
    does: str
    make: Callable[[Filesystem, Problem], None]


#: How often the checks are run again: one repair may bring another problem to light.
ROUNDS = 8


def repairs(fs: Filesystem) -> list[Repair]:
    """A repair for each problem that can be repaired here; what only the database itself has is not among them."""
    return [Repair(problem, *_REPAIRS[problem.fault]) for problem in check(fs, sound=True) if problem.fault in _REPAIRS]


def repair(
    fs: Filesystem, wanted: Callable[[Repair], bool], *, sound: bool = False
) -> tuple[list[Repair], list[Problem]]:
    """Make the repairs that are wanted, until nothing is left to do; the repairs made, and the problems that stay.

    Each is asked for once. StoreUnusable if one cannot be made; those before it are. It may be known already that the
    database is `sound`.
    """
    made: list[Repair] = []
    asked: set[tuple[Fault, int, tuple[object, ...]]] = set()
    for _ in range(ROUNDS):
        new = [one for one in repairs(fs) if _identity(one.problem) not in asked]
        if not new:
            break
        for one in new:
            asked.add(_identity(one.problem))
            if wanted(one):
                try:
                    one.make(fs, one.problem)
                except OSError as error:
                    raise StoreUnusable(f"{one.does}: {error.strerror}; what was repaired before is") from error
                made.append(one)
    return made, check(fs, sound=sound)


def _identity(problem: Problem) -> tuple[Fault, int, tuple[object, ...]]:
    return problem.fault, problem.sid, problem.key


def _view(fs: Filesystem, problem: Problem) -> View:
    view = fs.view_of(problem.sid)
    assert view is not None
    return view


def _version(fs: Filesystem, problem: Problem) -> Version | None:
    return _view(fs, problem).versions.get(problem.key[0])


def _rescue(fs: Filesystem, problem: Problem) -> None:
    """Move the content of a version out of the way; the row is dealt with by the caller."""
    version = _version(fs, problem)
    if version is not None and version.content is not None:
        fs.store.rescue(fs.store.content(problem.sid, version.content), f"{problem.sid}-{version.content}")


def _forget_version(fs: Filesystem, problem: Problem) -> None:
    version, view = _version(fs, problem), _view(fs, problem)
    if version is None:
        return
    _rescue(fs, problem)
    names = () if fs.by_op[version.op].ino else list(view.placed.get(version.op, ()))
    _drop(fs, version, *(Binding(view.sid, directory, name, version.op, None) for directory, name in names))


def _keep_deleted(fs: Filesystem, problem: Problem) -> None:
    version = _version(fs, problem)
    if version is not None:
        _rescue(fs, problem)
        _put(fs, replace(version, content=None))


def _own_inode(fs: Filesystem, problem: Problem) -> None:
    version = _version(fs, problem)
    if version is not None and version.content is not None:
        _copied_apart(fs, fs.store.content(problem.sid, version.content))


def _copied_apart(fs: Filesystem, place: Place) -> None:
    copy = fs.store.staged()
    inodes.copy(place, copy)
    os.rename(copy.name, place.name, src_dir_fd=copy.directory, dst_dir_fd=place.directory)


def _rescue_unknown(fs: Filesystem, problem: Problem) -> None:
    name = problem.key[0]
    fs.store.rescue(fs.store.content(problem.sid, name), f"{problem.sid}-{name}")


def _forget_vector(fs: Filesystem, problem: Problem) -> None:
    _set_vector(fs, problem.key[0], None)


def _changed_since(fs: Filesystem, problem: Problem) -> None:
    """Count main as changed since the version was made: what is to be decided then is asked at the verdict."""
    op: Op = problem.key[0]
    versions = [view.versions[op] for view in fs.all_views if op in view.versions]
    counts = [count for version in versions if isinstance(count := version.vector.get(G, 0), int)]
    main = fs.origins[op].vector or Vector.of({})
    for version in versions:
        _put(fs, replace(version, vector=version.vector.replace(version.sid, version.state)))
        if version.sid in fs.views:
            main = main.replace(version.sid, 0)
    _set_vector(fs, op, main.replace(G, max(counts, default=0) + 1))


def _set_vector(fs: Filesystem, op: Op, vector: Vector | None) -> None:
    batch = Batch(fs)
    batch.set_vector(op, vector)
    batch.commit()


def _put(fs: Filesystem, version: Version) -> None:
    batch = Batch(fs)
    batch.put(version)
    batch.commit()


def _drop(fs: Filesystem, *records: Record) -> None:
    batch = Batch(fs)
    for record in records:
        batch.drop(record)
    batch.commit()


def _forget_name(fs: Filesystem, problem: Problem) -> None:
    directory, name = problem.key
    binding = _view(fs, problem).binding(directory, name)
    if binding is not None:
        _drop(fs, binding)


def _one_name(fs: Filesystem, problem: Problem) -> None:
    view, op = _view(fs, problem), problem.key[0]
    others = sorted(view.placed.get(op, ()))[1:]
    _drop(fs, *(Binding(view.sid, directory, name, op, None) for directory, name in others))


def _name_again(fs: Filesystem, problem: Problem) -> None:
    view, op = _view(fs, problem), problem.key[0]
    batch = Batch(fs)
    root = batch.op_of(fs.root)
    name = b"rescued-%d" % op
    while view.binding(root, name) is not None or tree.child(fs, fs.root, name) is not None:
        name += b"-"
    batch.put(Binding(view.sid, root, name, op, None))
    batch.commit()


def _look_for_it(fs: Filesystem, problem: Problem) -> None:
    recovery.find_moved(fs)


def _entry(fs: Filesystem, problem: Problem) -> Stowed | None:
    return attic.entry(fs.store.database, problem.key[0])


def _forget_entry(fs: Filesystem, problem: Problem) -> None:
    entry = _entry(fs, problem)
    if entry is not None:
        place = fs.store.stowed(entry.number)
        if inodes.exists(place):
            fs.store.rescue(place, f"attic-{entry.number}")
        _drop(fs, entry)


def _entry_apart(fs: Filesystem, problem: Problem) -> None:
    _copied_apart(fs, fs.store.stowed(problem.key[0]))


def _rescue_from_attic(fs: Filesystem, problem: Problem) -> None:
    name = problem.key[0]
    fs.store.rescue(fs.store.stowed(0)._replace(name=os.fsencode(name)), f"attic-{name}")


_FORGOTTEN = "forget the version: the user sees main's again, or nothing where main has none"

_REPAIRS: dict[Fault, tuple[str, Callable[[Filesystem, Problem], None]]] = {
    Fault.CONTENT_OF_DELETED: ("move the content to the folder rescued; it stays deleted", _keep_deleted),
    Fault.CONTENT_MISSING: (_FORGOTTEN, _forget_version),
    Fault.CONTENT_OF_OTHER_TYPE: (f"move the content to the folder rescued, and {_FORGOTTEN}", _forget_version),
    Fault.CONTENT_LINKED: ("give the version a copy of its own; the other name keeps what it is", _own_inode),
    Fault.CONTENT_UNKNOWN: ("move the content to the folder rescued", _rescue_unknown),
    Fault.VECTOR_UNNEEDED: ("forget main's vector", _forget_vector),
    Fault.VECTOR_MISSING: ("count main as changed since: the verdict asks", _changed_since),
    Fault.VECTOR_WRONG: ("count main as changed since: the verdict asks", _changed_since),
    Fault.BINDING_WRONG: ("forget the name", _forget_name),
    Fault.NAMES_TOO_MANY: ("keep the first name, and forget the others", _one_name),
    Fault.VERSION_LOST: ("give it a name in the root of the user's view: rescued-NUMBER", _name_again),
    Fault.MAIN_ELSEWHERE: ("look for it in all of main, and take it as deleted if it is nowhere", _look_for_it),
    Fault.STOWED_MISSING: ("forget the entry", _forget_entry),
    Fault.STOWED_OF_OTHER_TYPE: ("move what is there to the folder rescued, and forget the entry", _forget_entry),
    Fault.STOWED_LINKED: ("give the entry a copy of its own; the other name keeps what it is", _entry_apart),
    Fault.STOWED_UNKNOWN: ("move it to the folder rescued", _rescue_from_attic),
}
