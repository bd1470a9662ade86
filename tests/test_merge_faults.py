"""A merge whose calls fail: with an error or without, nothing is lost, and running it again ends it as if nothing was.

Every different call that the merge of the kill tests' session makes fails once, one after the other: run, fail, look,
run again.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from isofs.engine import recovery, suspicion
from isofs.engine.checks import Problem, check
from isofs.engine.state import Caller, Filesystem
from isofs.errors import IsofsError
from isofs.merge import apply
from isofs.merge.report import Report
from isofs.store.folder import open_store
from support.engine import Kernel, Walker
from support.faults import CHANGING, LOOKING, Faults
from support.kill_engine import open_engine, seen, session
from support.kill_session import build, play
from support.mount import ALICE, BOB
from support.trees import Tree, differences


class Ended(Exception):
    """The session has come to the verdict."""


def to_the_verdict(directory: Path) -> Filesystem:
    """An engine at the moment at which alice is found innocent."""
    directory.mkdir()
    build(directory)
    fs = open_engine(directory)
    s = session(Kernel(fs))

    def stop(uid: int) -> None:
        raise Ended

    with pytest.raises(Ended):
        for _ in play(s._replace(operator=s.operator._replace(innocent=stop))):
            pass
    return fs


def outcome(fs: Filesystem, report: Report) -> tuple[dict[str, Tree], dict[int, str], set[bytes]]:
    """Everybody's trees, the states of subjects, and the names that the report tells."""
    found = seen(fs)
    return found.trees, found.states, {item.aside or item.path for item in report.items}


def problems(fs: Filesystem) -> list[Problem]:
    """What does not hold. The rows of a suspect whose merge was cut off may be a step behind, as after a kill, and so
    may those of what main was about to lose; what could not be removed waits for the next start."""
    late = {("I2", fs.suspects[ALICE]), ("I3", fs.suspects[ALICE])}
    going = {(origin.op,) for origin in fs.origins.values() if origin.next_ino is not None}
    found = [problem for problem in check(fs) if (problem.invariant, problem.sid) not in late]
    found = [problem for problem in found if problem.invariant != "I5" or problem.key not in going]
    return [problem for problem in found if not problem.text.startswith("nothing is known of the attic's file")]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is there after a merge that nothing disturbed."""
    fs = to_the_verdict(tmp_path_factory.mktemp("undisturbed") / "main")
    found = outcome(fs, apply.innocent(fs, fs.suspects[ALICE]))
    recovery.close_filesystem(fs)
    return found


KINDS = {
    "too many links": (errno.EMLINK, ("link", "rename", "mkdir")),
    "no space": (errno.ENOSPC, CHANGING),
    "no quota": (errno.EDQUOT, CHANGING),
    "read-only": (errno.EROFS, CHANGING),
    "broken when written": (errno.EIO, CHANGING),
    "broken when read": (errno.EIO, LOOKING),
    "no descriptors": (errno.EMFILE, ("open", "scandir")),
    "no space for rows": (errno.ENOSPC, ()),
}


@pytest.mark.parametrize("restarted", [False, True], ids=["again", "restarted"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_call_fails_once(tmp_path: Path, expected: Any, kind: str, restarted: bool) -> None:
    number, names = KINDS[kind]
    faults = Faults(number, names, commits=not names)
    fs = to_the_verdict(tmp_path / "main")
    report = Report()
    try:
        while True:
            before = len(faults.failed)
            try:
                with faults.armed():
                    for _ in apply.merge_steps(fs, fs.suspects[ALICE], report):
                        pass
                break
            except (OSError, IsofsError):
                assert len(faults.failed) > before
            assert problems(fs) == [], faults.failed[-1]
            if restarted:
                fs = reopened(fs, tmp_path / "main")
                assert problems(fs) == [], faults.failed[-1]
        trees, states, names = expected
        fs = reopened(fs, tmp_path / "main")
        found = outcome(fs, report)
        for user, one in trees.items():
            assert differences(found[0][user], one) == [], user
        assert found[1] == states
        assert found[2] == names
        assert check(fs) == []
    finally:
        recovery.close_filesystem(fs)


def reopened(fs: Filesystem, directory: Path) -> Filesystem:
    """As after a restart, but for the verdict, which would be finished."""
    recovery.close_filesystem(fs)
    return recovery.open_filesystem(open_store(str(directory / ".isofs")), str(directory))


@pytest.mark.parametrize("call", ["unlink", "rename"])
def test_what_trusted_users_change_after_a_failed_removal_counts(tmp_path: Path, call: str) -> None:
    """A host that refuses to remove or replace a file (append-only directory) leaves it main's, with all that holds."""
    for name in ("f", "g"):
        (tmp_path / name).write_text("main")
    fs = recovery.open_filesystem(open_store(str(tmp_path / ".isofs")), str(tmp_path))
    try:
        kernel = Kernel(fs)
        alice, bob = (Walker(kernel, Caller(uid, uid, uid)) for uid in (ALICE, BOB))
        kept = bob.open(b"f", os.O_WRONLY, 0)
        with Faults(errno.EPERM, [call]).armed(), pytest.raises(OSError, match="not permitted"):
            bob.unlink(b"f") if call == "unlink" else bob.rename(b"g", b"f")
        assert check(fs) == []
        assert [node for node in fs.nodes.values() if node.pinned >= 0] == []
        suspicion.suspect(fs, ALICE, "alice", "", "2026-01-01T00:00:00Z")
        alice.write(b"f", b"alice", os.O_WRONLY | os.O_TRUNC)
        kept.write(0, b"bob")
        kept.close()
        report = apply.innocent(fs, fs.suspects[ALICE])
        assert report.conflicts == 1
        assert (tmp_path / "f").read_text() == "bobn"
        kernel.close()
    finally:
        recovery.close_filesystem(fs)
