"""What is done with a store whose directory is not mounted."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from isofs.control import results, wire
from isofs.control.users import name_of
from isofs.engine import reading, recovery, repairs, suspicion
from isofs.engine.state import Filesystem
from isofs.service import backup as backups
from isofs.service import newfile
from isofs.service.answers import checked, problem
from isofs.service.starting import check_directory, store_path
from isofs.store import attic, salvage
from isofs.store.folder import locked, open_store

#: Whether to make a repair: the problem, and what would be done about it.
Wanted = Callable[[results.Repair], bool]

_REBUILD = "make a new database of the {} rows that can be read; contents of lost rows go to the folder rescued"

_AGAIN = "isolate the user again; what is left of the work from before is in the folder rescued"


def check(directory: str, store: str | None) -> results.Checked:
    """Run the invariants on a store whose directory is not mounted. Changes nothing but what recovery must."""
    check_directory(directory)
    path = store_path(directory, store)
    with locked(path):
        found = salvage.damage(path)
    if found:  # nothing else can be told of it before it is mended
        return {"ok": False, "checked": {"invariants": 1}, "problems": [_of_database(line) for line in found]}
    with _loaded(directory, path) as fs:
        result = checked(fs, sound=True)
        unknown = [_unknown(uid) for uid in sorted(recovery.unknown_suspects(fs))]
        return {**result, "ok": result["ok"] and not unknown, "problems": [*unknown, *result["problems"]]}


def repair(directory: str, store: str | None, wanted: Wanted) -> results.Repaired:
    """Repair what is wanted in a store whose directory is not mounted.

    A damaged database is kept beside the new one, and no content is removed: what belongs to nothing goes into the
    folder `rescued`.
    """
    check_directory(directory)
    path = store_path(directory, store)
    made: list[results.Repair] = []
    kept = None
    with locked(path):
        lines = salvage.damage(path)
        if lines:
            what = salvage.salvage(path)
            one = _repair(_of_database("; ".join([*lines, *what.lost][:8])), _REBUILD.format(what.count))
            if not wanted(one):
                return {"ok": False, "repaired": [], "problems": [_of_database(line) for line in lines], "kept": None}
            kept = salvage.rebuild(path, what)
            made.append(one)
    with _loaded(directory, path) as fs:
        if kept is not None:
            _rescue_unknown(fs)
        for uid in sorted(recovery.unknown_suspects(fs)):
            one = _repair(_unknown(uid), _AGAIN)
            if wanted(one):
                since = wire.moment(time.time())
                suspicion.suspect(fs, uid, name_of(uid), "isolated again by a repair", since)
                made.append(one)

        def asked(one: repairs.Repair) -> bool:
            return wanted(_repair(problem(fs, one.problem), one.does))

        done, left = repairs.repair(fs, asked, sound=kept is None)
        made += [_repair(problem(fs, one.problem), one.does) for one in done]
        problems = [_unknown(uid) for uid in sorted(recovery.unknown_suspects(fs))]
        problems += [problem(fs, one) for one in left]
        return {"ok": not problems, "repaired": made, "problems": problems, "kept": kept}


@contextlib.contextmanager
def _loaded(directory: str, path: str) -> Iterator[Filesystem]:
    opened = open_store(path, create=False)
    os.umask(0)
    try:
        fs = reading.load(opened, directory)
    except BaseException:
        opened.close()
        raise
    try:
        yield fs
    finally:
        recovery.close_filesystem(fs)


def _rescue_unknown(fs: Filesystem) -> None:
    contents = {
        (view.sid, row.content)
        for view in fs.all_views
        for rows in (view.versions, view.decisions)
        for row in rows.values()
    }
    stowed = {str(number) for number in attic.numbers(fs.store.database)}
    salvage.unknown(fs.store, lambda sid, name: (sid, name) in contents if sid else name in stowed)


def _of_database(line: str) -> results.Problem:
    return {"invariant": "I1", "subject": None, "path": None, "problem": line}


def _unknown(uid: int) -> results.Problem:
    return _of_database(f"user {uid} is isolated, and the database does not know it")


def _repair(found: results.Problem, does: str) -> results.Repair:
    return {**found, "repair": does}


def backup(directory: str, store: str | None, file: str, progress: Callable[[int, int], None]) -> results.BackedUp:
    """Write a backup of a store whose directory is not mounted to a new file."""
    check_directory(directory)
    path = store_path(directory, store)
    with newfile.in_file(os.fsencode(file), os.getpid(), path, "another file") as where:
        opened = open_store(path, create=False)
        try:
            return backups.write(opened, where, directory, contextlib.nullcontext, progress)
        finally:
            opened.close()
