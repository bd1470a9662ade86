"""The scripted session on the unmounted engine, in a process of its own that may be killed at any commit."""

from __future__ import annotations

import json
import os
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from isofs.engine import recovery, suspicion, views
from isofs.engine.checks import check
from isofs.engine.state import Caller, Filesystem
from isofs.merge import apply
from isofs.model.records import MAIN
from isofs.model.vectors import G, Vector
from isofs.store.folder import open_store
from support.contest import proposals
from support.engine import Kernel, Walker
from support.kill_daemon import Deadly
from support.kill_session import USERS, Operator, Session, build, play
from support.trees import Tree, tree

_SINCE = "2026-01-01T00:00:00Z"


@dataclass
class Seen:
    """What there is at one moment: every user's view, and the version vectors by the view's paths."""

    trees: dict[str, Tree]
    vectors: dict[tuple[int, bytes], tuple[str, str]] = field(default_factory=dict)
    counts: dict[bytes, int | str] = field(default_factory=dict)
    states: dict[int, str] = field(default_factory=dict)


def open_engine(directory: Path) -> Filesystem:
    """The file system of a directory, with verdicts finished that were cut off, as the service does."""
    fs = recovery.open_filesystem(open_store(str(directory / ".isofs")), str(directory))
    for sid in recovery.unfinished(fs):
        apply.resume(fs, sid)
    return fs


def session(kernel: Kernel) -> Session:
    """The users of an engine. All calls of one user come from one thread."""
    fs = kernel.fs

    def sid_of(uid: int) -> int:
        return fs.suspects[uid]

    operator = Operator(
        lambda uid: suspicion.suspect(fs, uid, _name(uid), "test", _SINCE),
        lambda uid: apply.innocent(fs, sid_of(uid), proposals(fs, sid_of(uid))),
        lambda uid: apply.malicious(fs, sid_of(uid)),
    )
    users = {name: Walker(kernel, Caller(uid, uid, 100 + number)) for number, (name, uid) in enumerate(USERS.items())}
    return Session(operator, **users)


def _name(uid: int) -> str:
    return next(name for name, number in USERS.items() if number == uid)


def seen(fs: Filesystem) -> Seen:
    """Everything that is compared, read through users of their own so that it leaves nothing behind."""
    kernel = Kernel(fs)
    found = Seen({name: tree(Walker(kernel, Caller(uid, uid, 900 + uid))) for name, uid in USERS.items()})
    kernel.close()
    for view in (*fs.views.values(), *fs.waiting.values()):
        for op, version in view.versions.items():
            path = views.path(fs, view.sid, fs.by_op[op]) or views.path(fs, MAIN, fs.by_op[op]) or b"?%d" % op
            found.vectors[view.sid, path] = version.state, str(version.vector)
    for op, origin in fs.origins.items():
        mains = views.path(fs, MAIN, fs.by_op[op])
        if mains is not None and isinstance(origin.vector, Vector):
            found.counts[mains] = origin.vector[G]
    found.states = {sid: subject.state.value for sid, subject in fs.subjects.items()}
    return found


def record(directory: Path) -> tuple[list[Seen], int]:
    """Play the session to its end: what there is before it and after each answer, and the number of commits."""
    build(directory)
    fs = open_engine(directory)
    deadly = Deadly(0, "")
    deadly.arm()
    try:
        found = [seen(fs)]
        for _ in play(session(Kernel(fs))):
            found.append(seen(fs))
            assert check(fs) == []
    finally:
        deadly.disarm()
        recovery.close_filesystem(fs)
    return found, deadly.commits


def killed_at(directory: Path, commit: int, when: str) -> int | None:
    """Play the session in a process that is killed at a commit. How many calls were answered; None if not killed."""
    build(directory)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            fs = open_engine(directory)
            deadly = Deadly(commit, when)
            deadly.arm()
            for _ in play(session(Kernel(fs))):
                os.write(writer, b".")
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        answered = len(file.read())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -9), f"the session failed at commit {commit}, after {answered} answers"
    return answered if code else None


def in_processes(count: int, work: Callable[[int], list[str]]) -> list[str]:
    """The lines of `work(0)` to `work(count - 1)`, each in a process of its own, at the same time."""
    readers = []
    for number in range(count):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(reader)
                with os.fdopen(writer, "w") as file:
                    json.dump(work(number), file)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writer)
        readers.append((pid, reader))
    lines: list[str] = []
    codes = []
    for pid, reader in readers:
        with os.fdopen(reader) as file:
            text = file.read()
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        lines += json.loads(text) if text else []
    assert codes == [0] * count, codes
    return lines


def fresh(directory: Path) -> Path:
    """The directory, empty."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    return directory
