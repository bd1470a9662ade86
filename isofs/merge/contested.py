"""Settling by hand what a merge left undecided: one waiting version at a time, wholly or not at all.

The subject of a waiting version works on main again and may even be isolated anew, so nothing here makes it a suspect.
What was chosen is written down in one transaction, as a decision like a merge's; then main is changed. Killed anywhere
after that, the next start finishes it (`resume`).
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from isofs.engine import attic, changes, kept, tree, views
from isofs.engine.batch import Batch
from isofs.engine.slices import Slices, at_once
from isofs.engine.state import Filesystem, Obj, View
from isofs.errors import AtticFailed, CallError, HalfWritten, IsofsError, UsageError
from isofs.merge import apply, ending, marks, naming, places, settle
from isofs.merge.names import Names
from isofs.merge.plan import is_conflict, plan
from isofs.merge.report import Item, Report
from isofs.model.reconcile import Outcome
from isofs.model.records import MAIN, Binding, Decided, Op, Origin, Record, SubjectId, Version
from isofs.model.vectors import G, Vector
from isofs.store import inodes
from isofs.store.inodes import Place


class Choice(enum.StrEnum):
    """Whose version becomes main's."""

    MAIN = "main"
    SUSPECT = "suspect"
    BOTH = "both"  # main's stays, the suspect's is put beside it


@dataclass(frozen=True, slots=True)
class Given:
    """What becomes main's file: a regular file on its way (`Store.staged`), and why it is that.

    `dressed` is whether it has the attributes already that main's file is to have; else it gets those that main's has.
    """

    content: Place
    reason: str = "the content that was given"
    review: bool = False
    dressed: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """A version that waits for a decision, and the path by which it is named."""

    sid: SubjectId
    path: bytes
    version: Version

    @property
    def op(self) -> Op:
        return self.version.op


def waiting(fs: Filesystem, uid: int | None = None) -> Iterator[Waiting]:
    """What waits, of one user or of all: the oldest suspicion first, and of each the versions by path."""
    for sid, view in sorted(fs.waiting.items()):
        if uid is None or fs.subjects[sid].uid == uid:
            found = [Waiting(sid, _path(fs, view, version.op), version) for version in view.versions.values()]
            yield from sorted(found, key=lambda one: one.path)


def chosen(fs: Filesystem, uid: int, path: bytes) -> list[Waiting]:
    """What of a user's waits at a path of main or below it; of one object only the oldest version."""
    there, found = _at(fs, path), dict[Op, Waiting]()
    for one in waiting(fs, uid):
        below = not path or one.path == path or one.path.startswith(path + b"/")
        if below or (there is not None and there.op == one.op):
            found.setdefault(one.op, one)
    return sorted(found.values(), key=lambda one: _last(fs, one))


def _last(fs: Filesystem, one: Waiting) -> bool:
    """Main's directories come last: what is done in a directory changes its times."""
    obj = fs.by_op[one.op]
    return obj.is_dir and bool(obj.ino)


def _path(fs: Filesystem, view: View, op: Op) -> bytes:
    """Where main has the object; else where it had it."""
    obj = fs.by_op[op]
    return views.path(fs, MAIN, obj) or views.path(fs, view.sid, obj) or fs.origins[op].name


def _at(fs: Filesystem, path: bytes) -> Obj | None:
    """What main has at a path."""
    obj = fs.root
    for name in filter(None, path.split(b"/")):
        found = tree.child(fs, obj, name) if obj.is_dir else None
        if found is None:
            return None
        obj = found[0]
    return obj


def settle_one(fs: Filesystem, one: Waiting, choice: Choice | Given, report: Report) -> None:
    """Carry out what was chosen for a version that waits. `finish` is due when all that was chosen is done.

    UsageError for a choice that there isn't (`check`). Where the file system refuses (OSError), main's file is as it
    was, and the version waits as before; after HalfWritten the choice is carried out at the next start, or when it is
    repeated.
    """
    check(fs, one, choice)
    view, obj = fs.waiting[one.sid], fs.by_op[one.op]
    one = replace(one, version=view.versions[one.op])
    decided, before = _merged(fs, one), report.told(one.sid, one.op)
    report.begin_settling(fs, fs.subjects[one.sid])
    try:
        if choice is Choice.MAIN:
            report.tell(fs, one.sid, one.op, Item(one.path, "kept", "main's was chosen"))
            _keep_main(fs, view, one)
        elif choice is Choice.BOTH and obj.ino:
            _put_beside(fs, view, one, obj, decided, report)
        else:
            _replace_main(fs, view, one, obj, choice, decided, report)
    except (OSError, CallError, AtticFailed):
        report.forget(fs, one.sid, one.op, before)
        raise


def check(fs: Filesystem, one: Waiting, choice: Choice | Given | None) -> None:
    """UsageError for a choice that this kind of object doesn't have; None is any content."""
    kind, shown = fs.by_op[one.op].kind, os.fsdecode(one.path)
    if choice is Choice.BOTH and kind == stat.S_IFDIR:
        raise UsageError(f"{shown} is a directory, whose attributes are in conflict: take main's or the suspect's")
    if not isinstance(choice, Choice) and kind != stat.S_IFREG:
        raise UsageError(f"{shown} is a {changes.kind_word(kind)}, which has no content to merge: take one side's")


def _merged(fs: Filesystem, one: Waiting) -> Decided:
    """What Protocol 3 says of the version now; a conflict's vector is the merged one whoever's is taken."""
    state = apply.state(fs, one.version)
    if fs.by_op[one.op].ino and not state.exists:
        raise IsofsError(
            f"{os.fsdecode(one.path)} is not where it was: it was moved behind the mount, and is found again "
            "when you mount anew"
        )
    for decided in plan(one.sid, [state]):
        return decided
    return Decided(one.sid, one.op, Outcome.TAKE.value, Vector.of({G: 0}), naming.MADE, False)


def _dropped(fs: Filesystem, view: View, op: Op) -> Batch:
    """A batch without the version, what was decided of it, and where it can come back."""
    batch = Batch(fs)
    batch.drop(view.versions[op])
    if op in view.decisions:
        batch.drop(view.decisions[op])
    for key in list(view.placed.get(op, ())):
        if (noted := view.binding(*key)) is not None:
            batch.drop(noted)
    return batch


def _keep_main(fs: Filesystem, view: View, one: Waiting) -> None:
    batch, vector = _dropped(fs, view, one.op), fs.origins[one.op].vector
    if vector is not None:
        batch.set_vector(one.op, vector.replace(view.sid, "m"))
    batch.commit()
    _remove_content(fs, view, one.version)


def _remove_content(fs: Filesystem, view: View, version: Version) -> None:
    if version.content is not None:
        fs.store.sync()
        inodes.remove(fs.store.content(view.sid, version.content))


def _replace_main(
    fs: Filesystem, view: View, one: Waiting, obj: Obj, choice: Choice | Given, decided: Decided, report: Report
) -> None:
    """Main's object becomes the version, or the content that was given; it comes back where main has deleted it."""
    before, batch, version = _rows(fs, view, one.op), Batch(fs), one.version
    reason, review = "the suspect's was chosen", False
    if isinstance(choice, Given):
        version = replace(version, content=str(fs.store.new_op()), attributes=False)
        _move_in(fs, view, obj, one.version, choice, version)
        reason, review = choice.reason, choice.review
        batch.put(version)
    if not obj.ino:
        settle.note_places(fs, view, batch)
    batch.put(replace(decided, outcome=Outcome.TAKE.value, reason=reason, review=review))
    try:
        if version.content is not None:
            inodes.sync(fs.store.content(view.sid, version.content))
        batch.commit()
        _carry_out(fs, view, one.op, report, "merged" if isinstance(choice, Given) else "took")
    except (OSError, CallError, AtticFailed):
        _restore(fs, view, one.op, before)
        if version is not one.version and view.versions.get(one.op) == one.version:
            _remove_content(fs, view, version)
        raise
    if version is not one.version:
        _remove_content(fs, view, one.version)


def _move_in(fs: Filesystem, view: View, obj: Obj, old: Version, given: Given, new: Version) -> None:
    """Make what was given a content of the suspect's folder."""
    assert old.content is not None
    assert new.content is not None
    content, to = given.content, fs.store.content(view.sid, new.content)
    if not given.dressed:
        at = inodes.lstat(content)
        inodes.copy_attributes(tree.place(fs, obj) if obj.ino else fs.store.content(view.sid, old.content), content)
        os.utime(content.name, ns=(at.st_mtime_ns, at.st_mtime_ns), dir_fd=content.directory, follow_symlinks=False)
    os.rename(content.name, to.name, src_dir_fd=content.directory, dst_dir_fd=to.directory)


def _put_beside(fs: Filesystem, view: View, one: Waiting, obj: Obj, decided: Decided, report: Report) -> None:
    """Main's stays; what the suspect has becomes an object of its own under a free name beside it.

    In one transaction the version becomes one of something that the suspect made, which is then brought into main.
    """
    tree.located(fs, obj)  # from here on only names that it has
    directory, name = next(views.parents(fs, MAIN, obj))
    aside, op = naming.beside(fs, view, directory, name), fs.store.new_op()
    before, batch = _rows(fs, view, one.op), _dropped(fs, view, one.op)
    batch.set_vector(one.op, decided.merged)
    batch.put(Origin(op, obj.kind, None, None, aside, None, born=view.sid))
    batch.adopt(Obj(obj.kind, 0), op)
    made = Version(view.sid, op, "m", Vector.of({G: 0, view.sid: "m"}), one.version.content, None)
    batch.put(made)
    batch.put(Binding(view.sid, batch.op_of(directory), aside, op, op, kept=True))
    path = places.name_in(fs, view, directory, aside)
    report.tell(fs, view.sid, one.op, Item(one.path, "renamed", naming.BOTH, False, path))
    batch.commit()
    try:
        _carry_out(fs, view, op, Report())
    except (OSError, CallError, AtticFailed):
        _restore(fs, view, one.op, before, made=op)
        raise


def _carry_out(fs: Filesystem, view: View, op: Op, report: Report, action: str = "took") -> None:
    """Change main as it is written down. Repeating it after a kill does no harm."""
    obj, version, decided = fs.by_op[op], view.versions[op], view.decisions.get(op)
    undisturbed = marks.undisturbed(fs, view, op)
    if obj.ino and decided is not None:
        item = Item(_path(fs, view, op), action, decided.reason, decided.review)
        report.tell(fs, view.sid, op, item)
        stowed = apply.take(fs, view, obj, version, decided)
        batch = _dropped(fs, view, op)
        if stowed is not None:
            batch.put(attic.settled(stowed))
        batch.commit()
        _remove_content(fs, view, version)
        for node in obj.nodes:
            kept.forget(fs, node)
    else:
        report.take_back(fs, view.sid, op)  # that it is in conflict; what becomes of it is told of its name
        names = Names(fs, view, report, review=decided is not None and decided.review)
        names.bring_back(op)
        names.restore_times()
    marks.renew(fs, undisturbed)


def _rows(fs: Filesystem, view: View, op: Op) -> list[Record]:
    """The rows of a version that waits: its origin, itself, what was decided, where it can come back."""
    decided = view.decisions.get(op)
    noted = [view.binding(*key) for key in sorted(view.placed.get(op, ()))]
    return [fs.origins[op], view.versions[op], *(row for row in (decided, *noted) if row is not None)]


def _restore(fs: Filesystem, view: View, op: Op, before: list[Record], made: Op | None = None) -> None:
    """The file system refused: put the rows back, unless main has the content by now. `made` is what stood for it."""
    version = view.versions.get(made or op)
    if version is None or not views.content_exists(fs, view.sid, fs.by_op[version.op]):
        return
    refused = made is not None or fs.origins[op].next_ino is not None  # else main may have a part of the content
    batch = _dropped(fs, view, version.op)
    if made is not None:
        batch.drop(fs.origins[made])
    for row in before:
        if refused or not isinstance(row, Origin):
            batch.put(row)
    batch.commit()


def finish(fs: Filesystem, sids: Iterable[SubjectId], report: Report) -> None:
    """`finish_steps` at one stretch."""
    at_once(finish_steps(fs, sids, report))


def finish_steps(fs: Filesystem, sids: Iterable[SubjectId], report: Report) -> Slices[None]:
    """After what was chosen is done: forget what nothing needs any more; whose last version it was is settled."""
    for sid in sids:
        view = fs.waiting[sid]
        yield from ending.finish_steps(fs, view, conflicts=bool(view.versions), last=report.end(sid))


def resume(fs: Filesystem) -> None:
    """Finish what was chosen and cut off; what the file system refuses stays for the next start, or another choice."""
    for sid, view in list(fs.waiting.items()):
        cut_off, report = [op for op in view.versions if _was_chosen(fs, view, op)], Report()
        if cut_off or report.is_open(fs, sid):
            at_once(report.go_on(fs, sid))
        for op in cut_off:
            with contextlib.suppress(OSError, CallError, AtticFailed, HalfWritten):
                _carry_out(fs, view, op, report if fs.origins[op].vector is not None else Report())
        finish(fs, [sid], report)


def _was_chosen(fs: Filesystem, view: View, op: Op) -> bool:
    """Whether it is written down what becomes of a version that waits."""
    decided = view.decisions.get(op)
    return fs.origins[op].vector is None or (decided is not None and not is_conflict(decided))
