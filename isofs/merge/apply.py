"""Carrying out a verdict. Killed anywhere, it goes on at the next start (`resume`).

What was decided of each object is written first, in one transaction; then object after object reaches its final
state, each by one rename where that can be, and its rows go when it has. Contents of what main has come first, under
the names that main knows; then names and what main lacks, from the root down; deletions, and last what directories are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace

from isofs.engine import attic, handover, kept, main, recovery, remaining, tree, trusted, versions, views
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Obj, View
from isofs.errors import CallError, IsofsError
from isofs.merge import ending, marks, naming, places, preview, removing, resolving, sequences, settle
from isofs.merge.names import Names
from isofs.merge.plan import ObjectState, is_conflict, plan
from isofs.merge.report import Item, Report
from isofs.merge.resolving import UNRESOLVED, Resolution
from isofs.model.reconcile import Outcome
from isofs.model.records import MAIN, Decided, Op, Stowed, SubjectId, SubjectState, Version
from isofs.model.vectors import G
from isofs.store import inodes, overwriting


def innocent(fs: Filesystem, sid: SubjectId, resolutions: Mapping[Op, Resolution] = UNRESOLVED) -> Report:
    """Merge a suspect's view into main (Protocol 3) and end the suspicion, but for what is in conflict."""
    report = Report()
    for _ in merge_steps(fs, sid, report, resolutions=resolutions):
        pass
    return report


def malicious(fs: Filesystem, sid: SubjectId) -> Report:
    """Discard a suspect's view, and end the suspicion. Keeps no evidence: `isofs.merge.evidence` collects it before."""
    report = Report()
    for _ in discard_steps(fs, sid, report):
        pass
    fs.store.remove_discarded(sid)
    return report


def resume(fs: Filesystem, sid: SubjectId) -> Report:
    """Finish a verdict that was cut off."""
    if fs.subjects[sid].state is SubjectState.DISCARDING:
        return malicious(fs, sid)
    return innocent(fs, sid)


def merge_steps(
    fs: Filesystem,
    sid: SubjectId,
    report: Report,
    mapped: frozenset[int] = frozenset(),
    resolutions: Mapping[Op, Resolution] = UNRESOLVED,
) -> Generator[tuple[int, int], None, None]:
    """`innocent` step by step: yields (done, total) after each object, when others may be served.

    Handles on the nodes `mapped` get at main's objects only where the suspect's version became main's. `resolutions`
    are what resolvers proposed of what both sides changed. If a call of the host's fails, or the store cannot be
    written, that is raised; done anew, the merge goes on where it stopped, and the report has all of it.
    """
    try:
        yield from _merge(fs, sid, report, mapped, resolutions)
    except (OSError, IsofsError):
        fs.along.clear()  # it is told again when it is done again
        with contextlib.suppress(OSError, IsofsError):
            recovery.finish_announced(fs)
            attic.recover(fs)
            if sid in fs.views:
                fs.views[sid].cut_off = True
                settle.tidy(fs, fs.views[sid])
        raise


def _merge(
    fs: Filesystem,
    sid: SubjectId,
    report: Report,
    mapped: frozenset[int],
    resolutions: Mapping[Op, Resolution],
) -> Iterator[tuple[int, int]]:
    if fs.subjects[sid].state is SubjectState.MERGING:
        for _ in report.take_up(fs, fs.subjects[sid], "innocent"):
            yield 0, 1
        _view(fs, sid).renamed = naming.told_renamed(report.all_told(sid))
    for _ in begin_merge(fs, sid, report, resolutions):
        yield 0, 1
    view = _view(fs, sid)
    attic.settle(fs)
    total = len(view.versions) + sum(len(names) for names in view.bindings.values())
    done, undisturbed = 0, marks.undisturbed(fs, view)
    _report_conflicts(fs, view, report)
    late = sequences.late(fs, view)
    for decided in [
        d for d in view.decisions.values() if d.op not in late
    ]:  # while main is what resolvers read, and has its names still
        if decided.outcome == Outcome.TAKE.value and fs.by_op[decided.op].ino:
            if fs.by_op[decided.op].is_dir:
                _stow_directory(fs, view, decided)
            else:
                _apply_content(fs, view, decided, report)
                done += 1
        yield done, total
    names = Names(fs, view, report)
    names.number_all()
    for _ in names.place_all():
        done += 1
        yield done, total
    for _ in removing.remove_all(fs, view, report):
        yield done, total
    directories = [d for d in view.decisions.values() if fs.by_op[d.op].is_dir]
    for decided in [d for d in view.decisions.values() if not fs.by_op[d.op].is_dir]:
        _apply_content(fs, view, decided, report)
        done += 1
        yield done, total
    for _ in names.place_all():  # what trusted users deleted since it was decided comes back
        yield done, total
    for _ in _delete_all(fs, view, report):
        yield done, total
    removing.put_beside_what_stays(fs, view, report)
    for decided in directories:  # last: what is done in a directory changes its times
        if decided.op in view.decisions:
            _apply_content(fs, view, decided, report)
    yield done, total
    names.restore_times()
    for _ in settle.touch_directories(fs, view):
        yield total, total
    marks.renew(fs, undisturbed)
    attic.settle(fs, merged=True)
    conflicts = any(map(is_conflict, view.decisions.values()))
    for _ in ending.finish_steps(fs, view, conflicts=conflicts, mapped=mapped, last=report.end(sid)):
        yield total, total
    yield total, total


def begin_merge(
    fs: Filesystem, sid: SubjectId, report: Report, resolutions: Mapping[Op, Resolution] = UNRESOLVED
) -> Iterator[None]:
    """Write down the verdict and what it decides of each object; nothing if that was done before.

    Yields after each object, when others may be served: if main changes after it was looked at, that is seen when it is
    the object's turn. It is written in one transaction, after the last.
    """
    view = _view(fs, sid)
    if fs.subjects[sid].state is SubjectState.MERGING:
        recovery.finish_announced(fs)
    else:
        decisions = dict[Op, tuple[Version, Decided | None]]()
        for op in list(view.versions):
            if give_data(fs, view, op) and (version := view.versions.get(op)) is not None:
                decisions[op] = version, _decide(fs, view, version, resolutions)
            yield
        batch = Batch(fs)
        if fs.subjects[sid].state is SubjectState.CONFLICTS:
            settle.note_places(fs, view, batch)
        # What was left of a part is decided as what it is: a subject of its own.
        batch.put(replace(fs.subjects[sid], state=SubjectState.MERGING, part_of=None))
        report.begin(fs.subjects[sid], "innocent", batch)
        for decided in list(view.decisions.values()):
            batch.drop(decided)
        for op in [op for op in list(view.versions) if give_data(fs, view, op)]:
            version = view.versions[op]
            seen, decision = decisions.get(op, (None, None))
            if seen is not version:  # somebody else's change made it what it is
                decision = _decide(fs, view, version, resolutions)
            if decision is not None:
                batch.put(decision)
        batch.commit()
        resolving.remove_unused(fs, view, resolutions)
    fs.store.sync_contents()  # what main will have of them, and what was decided


def give_data(fs: Filesystem, view: View, op: Op) -> bool:
    """Give a version its data if it has attributes alone: what is merged, or waits, has its own.

    False if main lost them behind the mount: then there is no version any more.
    """
    version = view.versions.get(op)
    if version is None or not version.bare:
        return True
    try:
        versions.give_data(fs, view, fs.by_op[op], version)
    except CallError:
        remaining.lose(fs, view, fs.by_op[op], version)
        return False
    return True


def _decide(fs: Filesystem, view: View, version: Version, resolutions: Mapping[Op, Resolution]) -> Decided | None:
    """What becomes of one object, as it is now; None for what only the suspect ever had: it is taken."""
    for decided in plan(view.sid, [state(fs, version)]):
        return resolving.decided(fs, view, decided, resolutions.get(version.op))
    return None


def _view(fs: Filesystem, sid: SubjectId) -> View:
    view = fs.view_of(sid)
    assert view is not None
    return view


def states(fs: Filesystem, view: View) -> Iterator[ObjectState]:
    """The state of every object that a view has a version of, as it is when it is asked for."""
    for op in list(view.versions):
        version = view.versions.get(op)
        if version is not None:
            yield state(fs, version)


def state(fs: Filesystem, version: Version) -> ObjectState:
    """The state of one object, as it is now."""
    vector, obj = fs.origins[version.op].vector, fs.by_op[version.op]
    version = versions.with_data(fs, version, obj)
    exists, changed = bool(obj.ino), False
    if exists:
        try:
            at = tree.located(fs, obj)[1]
            changed = vector is not None and versions.changed_unseen(version, at, vector.get(G), obj)
        except CallError:
            exists = False
    return ObjectState(version, vector, exists, changed)


def _report_conflicts(fs: Filesystem, view: View, report: Report) -> None:
    for decided in view.decisions.values():
        known = report.told(view.sid, decided.op)
        if is_conflict(decided) and (known is None or known.action != "conflict"):
            _report_conflict(fs, view, decided, report)
    Batch(fs).commit()


def _report_conflict(fs: Filesystem, view: View, decided: Decided, report: Report) -> None:
    where = _told(fs, view, fs.by_op[decided.op])
    report.tell(fs, view.sid, decided.op, Item(where, "conflict", decided.reason))


def _told(fs: Filesystem, view: View, obj: Obj) -> bytes:
    return attic.where(fs, view, obj) if obj.links else views.path(fs, view.sid, obj) or b"?"


def _stow_directory(fs: Filesystem, view: View, decided: Decided) -> None:
    """Keep the attributes of a directory that will be elsewhere when it gets others, which is last."""
    obj, batch = fs.by_op[decided.op], Batch(fs)
    way = obj
    while way.links and way.op not in view.placed:
        way = next(iter(way.links))[0]
    if way.op not in view.placed:
        return
    with contextlib.suppress(CallError):  # gone behind the mount
        attic.stow_in_place(fs, obj, batch, by=view.sid)
        batch.commit()


def _apply_content(fs: Filesystem, view: View, decided: Decided, report: Report) -> None:
    """Bring one object of main to what was decided, its names and its deletion excepted."""
    obj, version = fs.by_op[decided.op], view.version(decided.op)
    outcome = Outcome(decided.outcome)
    if version is None or outcome in (Outcome.CONFLICT, Outcome.DELETE):
        return
    batch = Batch(fs)
    if outcome is Outcome.TAKE and _overtaken(fs, obj, version, decided):
        late = replace(decided, outcome=Outcome.CONFLICT.value, reason=resolving.OVERTAKEN, content=None, seen=None)
        batch.put(late)
        _report_conflict(fs, view, late, report)
        batch.commit()
        settle.remove_unused(fs, decided)
        attic.forget_kept(fs, obj, by=view.sid)
        return
    where = _told(fs, view, obj)
    if outcome is Outcome.TAKE and obj.ino:
        if obj.is_dir and naming.hidden_names(view, obj):
            where = places.path(fs, view, obj) or where
        elif decided.seen is None:
            where = preview.path_then(fs, view, obj) or where
        action = "took" if decided.seen is None else "merged"
        report.tell(fs, view.sid, obj.op, Item(where, action, decided.reason, decided.review))
        stowed = take(fs, view, obj, version, decided)
        if stowed is not None:
            batch.put(attic.settled(stowed))
        batch.drop(version)
    elif outcome is Outcome.TAKE:
        return  # main has deleted it: it comes back with its name
    else:
        if outcome is Outcome.KEEP:
            report.tell(fs, view.sid, obj.op, Item(where, "kept", decided.reason, decided.review))
        batch.set_vector(decided.op, settle.merged_now(fs, decided))
        if version.state == "d":
            naming.leave_names(view, obj, batch)
        batch.drop(version)
    batch.drop(decided)
    batch.commit()
    if version.content is not None:
        settle.remove_content(fs, view, obj, version.content)
    settle.remove_unused(fs, decided)


def _overtaken(fs: Filesystem, obj: Obj, version: Version, decided: Decided) -> bool:
    """Whether main changed since what is about to replace it was decided."""
    if decided.seen is None:
        return settle.overtaken(fs, version)
    return resolving.overtaken(fs, obj, decided)


def take(fs: Filesystem, view: View, obj: Obj, version: Version, decided: Decided) -> Stowed | None:
    """Main's object becomes the suspect's version, or what a resolver made of both sides.

    What it was goes into the attic: whoever called commits the entry that is returned, `settled`.
    Repeating it after a kill does no harm.
    """
    name = decided.content or version.content
    assert name is not None
    content = fs.store.content(view.sid, name)
    if not inodes.exists(content):
        return None  # renamed into main before the kill
    place, at = tree.located(fs, obj)
    batch = Batch(fs)
    if obj.is_dir or at.st_nlink > 1:
        stowed = attic.stow_in_place(fs, obj, batch, by=view.sid)
        trusted.keep_base(fs, obj, batch)
        batch.set_vector(obj.op, settle.merged_now(fs, decided))
        try:
            with trusted.announced(fs, obj, merging=True):
                batch.commit(lasting=True)
                overwriting.overwrite(content, place, kept=fs.store.stowed(stowed.number))
        except OSError:
            attic.forget(fs, stowed)
            raise
        finally:
            kept.changed(fs, obj)
        return stowed
    content = settle.beside_main(fs, content)
    ino = inodes.lstat(content).st_ino
    with trusted.announced(fs, obj, merging=True), attic.stowing(fs, obj, batch, "replaced", by=view.sid) as stowed:
        handover.pin_nodes(fs, obj)
        trusted.will_replace_content(fs, obj, ino, batch, settle.merged_now(fs, decided))
        batch.commit(lasting=True)
        before = settle.open_before(fs, view, obj, content)
        with settle.same_times(place.directory):
            main.renameat2(content, place, 0)
    handover.content_replaced(fs, obj, None, ino)
    if decided.content is None:  # else the kernel keeps pages for the suspect's node that are not main's
        settle.promote(fs, view, obj)
    settle.lead_on(fs, obj, before)
    for directory, known in obj.links:
        settle.expire(fs, directory, known)
    return stowed


def _delete_all(fs: Filesystem, view: View, report: Report) -> Iterator[None]:
    """The suspect's deletions that stand: directories last, deepest first, so that they are empty by then.

    A file may have names in several directories, so its path says nothing of which of them must wait for it.
    """
    doomed = [d for d in view.decisions.values() if d.outcome == Outcome.DELETE.value]
    paths = {d.op: views.path(fs, MAIN, fs.by_op[d.op]) or b"" for d in doomed}
    for decided in sorted(doomed, key=lambda d: (fs.by_op[d.op].is_dir, -paths[d.op].count(b"/"))):
        obj = fs.by_op[decided.op]
        path = places.deleted(fs, view, obj) if obj.links and paths[decided.op] else b""
        left, version = False, view.version(decided.op)
        late = version is not None and settle.overtaken(fs, version)
        for directory, name in naming.removed_names(fs, view, obj):
            found = tree.child(fs, directory, name)
            if found is None or found[0] is not obj or late:
                continue
            if obj.is_dir and not trusted.empty_in_main(fs, obj):
                left = True
                continue
            removing.tell_deleted(fs, view, report, obj, decided)
            (main.rmdir if obj.is_dir else main.unlink)(fs, directory, name, by=view.sid)
            settle.expire(fs, directory, name)
        if left:
            report.tell(fs, view.sid, obj.op, Item(path, "kept", naming.FILLED, True))
        elif late:
            reason = "main modified it while it was being merged: the suspect's deletion does not stand"
            report.tell(fs, view.sid, obj.op, Item(path, "kept", reason, True))
        elif obj.ino:
            path = attic.where(fs, view, obj) if obj.links else path
            report.tell(fs, view.sid, obj.op, Item(path, "kept", naming.RENAMED_SINCE, True))
        elif path and report.told(view.sid, obj.op) is None:
            report.tell(fs, view.sid, obj.op, Item(path, "deleted", decided.reason, decided.review))
        batch = Batch(fs)
        vector = fs.origins[decided.op].vector
        if not obj.ino:
            batch.set_vector(decided.op, settle.merged_now(fs, decided))
        elif vector is not None:  # something of it stays, so main is not deleted
            batch.set_vector(decided.op, vector.replace(view.sid, "d"))
            naming.leave_names(view, obj, batch)
        if decided.op in view.versions:
            batch.drop(view.versions[decided.op])
        batch.drop(decided)
        batch.commit()
        yield


def discard_steps(
    fs: Filesystem, sid: SubjectId, report: Report, mapped: frozenset[int] = frozenset()
) -> Iterator[tuple[int, int]]:
    """`malicious` step by step: yields (done, total). Handles on the nodes `mapped` never get at main's objects.

    Whoever begins it has written the evidence, or does without. What is thrown away lies aside in the store
    (`remove_discarded`) when it is done.
    """
    view, subject = _view(fs, sid), fs.subjects[sid]
    if subject.state is not SubjectState.DISCARDING:
        batch = Batch(fs)
        batch.put(replace(subject, state=SubjectState.DISCARDING))
        report.begin(subject, "malicious", batch)
        batch.commit()
    else:
        for _ in report.take_up(fs, subject, "malicious"):
            yield 0, 2
    fs.store.sync()  # before a folder moves: no power cut may leave versions without contents and without a verdict
    yield 0, 2
    settle.detach_handles(fs, view, mapped)
    fs.store.set_aside(sid)
    yield 1, 2
    for _ in ending.finish_steps(fs, view, conflicts=False, last=report.end(sid)):
        yield 1, 2
    yield 2, 2
