"""The invariants of the store and of the engine, as checks (docs/model.md lists them by these numbers).

They read; they change nothing. On a live engine they see the memory as well, which is the store's copy.
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from isofs.engine import tree, usage, views
from isofs.engine.state import Filesystem, Obj, View
from isofs.errors import CallError
from isofs.model.records import MAIN, SubjectState, Version
from isofs.model.vectors import G
from isofs.store import attic, inodes


class Fault(enum.Enum):
    """In what way an invariant does not hold, for whoever repairs it; what `Problem.key` is stands behind each."""

    DATABASE = enum.auto()
    CONTENT_OF_DELETED = enum.auto()  # origin point
    CONTENT_MISSING = enum.auto()  # origin point
    CONTENT_OF_OTHER_TYPE = enum.auto()  # origin point
    CONTENT_LINKED = enum.auto()  # origin point
    CONTENT_UNKNOWN = enum.auto()  # the content's name
    VECTOR_UNNEEDED = enum.auto()  # origin point
    VECTOR_MISSING = enum.auto()  # origin point
    VECTOR_WRONG = enum.auto()  # origin point
    BINDING_WRONG = enum.auto()  # the directory's origin point, the name
    NAMES_TOO_MANY = enum.auto()  # origin point
    VERSION_LOST = enum.auto()  # origin point
    MAIN_ELSEWHERE = enum.auto()  # origin point
    LIVE = enum.auto()  # only while mounted: gone when unmounted
    STOWED_MISSING = enum.auto()  # number
    STOWED_OF_OTHER_TYPE = enum.auto()  # number
    STOWED_LINKED = enum.auto()  # number
    STOWED_UNKNOWN = enum.auto()  # the file's name


@dataclass(frozen=True, slots=True)
class Problem:
    """An invariant that does not hold: which, for whom (0: main), where, and what is wrong."""

    invariant: str
    sid: int
    path: bytes | None
    text: str
    fault: Fault
    key: tuple[Any, ...] = ()


def i1_database(fs: Filesystem) -> Iterator[Problem]:
    """I1: the database is sound and every row refers to rows that exist."""
    for line in fs.store.database.damage():
        yield Problem("I1", MAIN, None, line, Fault.DATABASE)


def i2_contents(fs: Filesystem) -> Iterator[Problem]:
    """I2: every modified version has its content, of the object's type, and nobody else's; no content is nobody's."""
    for view in fs.all_views:
        if fs.subjects[view.sid].state is SubjectState.DISCARDING:
            continue  # some of it is gone
        known = {decided.content for decided in view.decisions.values()}
        for op, version in view.versions.items():
            if version.state == "d":
                if version.content is not None:
                    known.add(version.content)
                    yield _of_version(fs, view, op, "a deleted version has a content", Fault.CONTENT_OF_DELETED)
                continue
            if version.content is None:
                yield _of_version(fs, view, op, "a modified version has no content", Fault.CONTENT_MISSING)
                continue
            known.add(version.content)
            try:
                found = inodes.lstat(fs.store.content(view.sid, version.content))
            except FileNotFoundError:
                yield _of_version(fs, view, op, f"the content {version.content} is missing", Fault.CONTENT_MISSING)
                continue
            if version.bare and not _has_mains_data(fs, version):
                text = "a version has neither data of its own nor main's"
                yield _of_version(fs, view, op, text, Fault.CONTENT_MISSING)
            elif stat.S_IFMT(found.st_mode) != fs.by_op[op].kind:
                yield _of_version(
                    fs, view, op, "the content is of another type than the object", Fault.CONTENT_OF_OTHER_TYPE
                )
            elif found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                yield _of_version(fs, view, op, "the content has a name outside the store", Fault.CONTENT_LINKED)
        for name in fs.store.contents(view.sid):
            if name not in known:
                yield Problem(
                    "I2", view.sid, None, f"the content {name} belongs to no version", Fault.CONTENT_UNKNOWN, (name,)
                )


def _has_mains_data(fs: Filesystem, version: Version) -> bool:
    """Whether main's data may be those of a version that has none: of a suspect's, and in no merge."""
    suspect = fs.subjects[version.sid].state is SubjectState.SUSPECT
    return bool(fs.by_op[version.op].ino) and version.attributes and suspect


def i3_vectors(fs: Filesystem) -> Iterator[Problem]:
    """I3: vectors are as Protocol 2 makes them: own dimension is the state, 0 in main's; G never ahead of main's."""
    versioned = {op for view in fs.all_views for op in view.versions}
    ending = (SubjectState.MERGING, SubjectState.DISCARDING)  # a verdict resets vectors at its end
    under_way = any(subject.state in ending for subject in fs.subjects.values())
    for op, origin in fs.origins.items():
        if origin.vector is not None and op not in versioned and not under_way:
            yield Problem(
                "I3", MAIN, _path(fs, op), "main has a vector that no version needs", Fault.VECTOR_UNNEEDED, (op,)
            )
    for view in fs.all_views:
        for op, version in view.versions.items():
            if version.vector.get(view.sid) != version.state:
                yield Problem(
                    "I3",
                    view.sid,
                    _path(fs, op),
                    f"state and vector differ: {version.vector}",
                    Fault.VECTOR_WRONG,
                    (op,),
                )
            main, seen = fs.origins[op].vector, version.vector.get(G)
            if main is None:
                if fs.origins[op].born != view.sid:
                    yield Problem("I3", view.sid, _path(fs, op), "main has no vector", Fault.VECTOR_MISSING, (op,))
                continue
            if view.sid in fs.views and main.get(view.sid) != 0:
                yield Problem("I3", view.sid, _path(fs, op), f"main's vector is {main}", Fault.VECTOR_WRONG, (op,))
            count = main[G]
            back = "m" in main.values()  # a merge that brings an object back sets G to the version's (Protocol 3)
            if isinstance(count, int) and isinstance(seen, int) and seen > count and not back:
                yield Problem(
                    "I3",
                    view.sid,
                    _path(fs, op),
                    f"{version.vector} is ahead of main's {main}",
                    Fault.VECTOR_WRONG,
                    (op,),
                )


def i4_bindings(fs: Filesystem) -> Iterator[Problem]:
    """I4: bindings lie in directories, lead to what is not deleted, and give a directory one name at most."""
    for view in fs.views.values():
        for b in view.all_bindings():
            if not fs.by_op[b.directory].is_dir:
                yield Problem(
                    "I4",
                    view.sid,
                    _path(fs, b.directory),
                    "a binding lies in what is no directory",
                    Fault.BINDING_WRONG,
                    (b.directory, b.name),
                )
            if b.op is None:
                continue
            version, obj = view.version(b.op), fs.by_op[b.op]
            if version is not None and version.state == "d":
                yield Problem(
                    "I4",
                    view.sid,
                    b.name,
                    "a name leads to what the suspect deleted",
                    Fault.BINDING_WRONG,
                    (b.directory, b.name),
                )
            if version is None and not obj.ino:
                yield Problem(
                    "I4",
                    view.sid,
                    b.name,
                    "a name leads to what exists nowhere",
                    Fault.BINDING_WRONG,
                    (b.directory, b.name),
                )
        for op, names in view.placed.items():
            if fs.by_op[op].is_dir and len(names) > 1:
                yield Problem(
                    "I4", view.sid, _path(fs, op), "a directory has several names", Fault.NAMES_TOO_MANY, (op,)
                )
        named: set[Obj] = set()
        for op, version in view.versions.items():
            state = fs.subjects[view.sid].state
            if (
                state is SubjectState.SUSPECT
                and version.state == "m"
                and not views.has_path(fs, view.sid, fs.by_op[op], named)
            ):
                yield Problem(
                    "I4", view.sid, None, f"version {op} has no name in the view: it is lost", Fault.VERSION_LOST, (op,)
                )


def i5_main(fs: Filesystem) -> Iterator[Problem]:
    """I5: main has every object that the store follows where the store says, with the inode it says."""
    for op, origin in fs.origins.items():
        if origin.ino is None:
            continue
        obj = fs.by_op[op]
        if obj.ino != origin.ino:
            yield Problem(
                "I5",
                MAIN,
                _path(fs, op),
                f"memory has inode {obj.ino}, the store {origin.ino}",
                Fault.MAIN_ELSEWHERE,
                (op,),
            )
            continue
        try:
            tree.located(fs, obj)
        except (OSError, CallError):
            yield Problem(
                "I5",
                MAIN,
                origin.name,
                f"main has no inode {origin.ino} under its known names",
                Fault.MAIN_ELSEWHERE,
                (op,),
            )


def i6_disclosure(fs: Filesystem) -> Iterator[Problem]:
    """I6: no inode of a suspect's is one of main's, and no node of main's leads into the store."""
    contents: dict[int, int] = {}
    content_of: dict[int, int] = {}
    for view in fs.views.values():
        for op, version in view.versions.items():
            if version.content is not None:
                try:
                    at = inodes.lstat(fs.store.content(view.sid, version.content))
                except FileNotFoundError:
                    continue
                if at.st_dev == fs.device:
                    contents[at.st_ino], content_of[at.st_ino] = view.sid, op
    for op, origin in fs.origins.items():
        if origin.ino is not None and origin.ino in contents:
            yield Problem(
                "I6",
                contents[origin.ino],
                _path(fs, op),
                "main's object is a suspect's content",
                Fault.CONTENT_LINKED,
                (content_of[origin.ino],),
            )
    for node in list(fs.nodes.values()):
        if node.sid == MAIN and node.pinned < 0 and node.obj.ino in contents:
            yield Problem(
                "I6", contents[node.obj.ino], None, f"node {node.id} of main leads into the store", Fault.LIVE
            )


def i7_nodes(fs: Filesystem) -> Iterator[Problem]:
    """I7: a file that a suspect has a version of has one node per view, and only the suspect's handles lead there."""
    for handle in list(fs.handles.values()):
        node = handle.node
        if node.sid in fs.views and handle.sid != node.sid:
            yield Problem(
                "I7", node.sid, None, f"handle {handle.id} of {handle.sid} is open on a suspect's node", Fault.LIVE
            )
        if handle.sid in fs.views and node.sid == MAIN and not handle.before:
            yield Problem("I7", handle.sid, None, f"handle {handle.id} of a suspect is open on main's node", Fault.LIVE)


def i8_attic(fs: Filesystem) -> Iterator[Problem]:
    """I8: every entry of the attic has its file, of the right type and no other's, and every file its entry."""
    known, before = set(), None
    while page := attic.page(fs.store.database, before, 1000):
        for entry in page:
            known.add(str(entry.number))
            try:
                found = inodes.lstat(fs.store.stowed(entry.number))
            except FileNotFoundError:
                yield Problem(
                    "I8",
                    MAIN,
                    entry.path,
                    f"entry {entry.number} of the attic is missing",
                    Fault.STOWED_MISSING,
                    (entry.number,),
                )
                continue
            if stat.S_IFMT(found.st_mode) != entry.kind:
                yield Problem(
                    "I8",
                    MAIN,
                    entry.path,
                    f"entry {entry.number} of the attic is of another type",
                    Fault.STOWED_OF_OTHER_TYPE,
                    (entry.number,),
                )
            elif found.st_nlink > 1 and entry.kind != stat.S_IFDIR:
                yield Problem(
                    "I8",
                    MAIN,
                    entry.path,
                    f"entry {entry.number} of the attic has a name outside of it",
                    Fault.STOWED_LINKED,
                    (entry.number,),
                )
        before = page[-1].number
    for name in os.listdir(fs.store.stowed(0).directory):
        if name not in known:
            yield Problem(
                "I8", MAIN, None, f"nothing is known of the attic's file {name}", Fault.STOWED_UNKNOWN, (name,)
            )


def i9_accounts(fs: Filesystem) -> Iterator[Problem]:
    """I9: what is counted as a suspect's is what there is of it."""
    for view in fs.all_views:
        for text in usage.differences(fs, view):
            yield Problem("I9", view.sid, None, text, Fault.LIVE)


CHECKS: tuple[Callable[[Filesystem], Iterator[Problem]], ...] = (
    i1_database,
    i2_contents,
    i3_vectors,
    i4_bindings,
    i5_main,
    i6_disclosure,
    i7_nodes,
    i8_attic,
    i9_accounts,
)


def _of_version(fs: Filesystem, view: View, op: int, text: str, fault: Fault) -> Problem:
    return Problem("I2", view.sid, views.path(fs, view.sid, fs.by_op[op]), text, fault, (op,))


def _path(fs: Filesystem, op: int) -> bytes | None:
    return views.path(fs, MAIN, fs.by_op[op])


def check(fs: Filesystem, *, sound: bool = False) -> list[Problem]:
    """Run every check; empty if all invariants hold. It may be known already that the database is `sound`."""
    return [problem for one in CHECKS if not (sound and one is i1_database) for problem in one(fs)]
