"""Main loses what the store does not know: whoever has it keeps it, and a removal that fails changes nothing."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from isofs.engine import attributes, calls, files
from isofs.engine.attributes import NewAttributes
from isofs.engine.state import Caller, node_for
from isofs.errors import CallError
from isofs.model.records import MAIN
from support.contest import Contest

CALLER = Caller(1001, 100, 1, 0o022)


@pytest.mark.parametrize("suspects", [(), ("alice",)])
@pytest.mark.parametrize("name", [b"file", b"empty"])
def test_what_is_removed_leads_on_to_what_it_was(tmp_path: Path, name: bytes, suspects: tuple[str, ...]) -> None:
    contest = Contest(tmp_path / "main", {"file": b"text"}, suspects=suspects)
    (tmp_path / "main" / "empty").mkdir()
    fs, root = contest.fs, node_for(contest.fs, MAIN, contest.fs.root)
    found = calls.lookup(fs, CALLER, root, name)
    assert found is not None
    before = found.attributes

    (calls.rmdir if stat.S_ISDIR(before.mode) else calls.unlink)(fs, CALLER, root, name)

    after, _ = calls.getattr(fs, CALLER, found.node)
    assert (after.ino, after.mode, after.nlink) == (before.ino, before.mode, 0)
    assert calls.lookup(fs, CALLER, root, name) is None
    calls.forget(fs, found.node, 1)
    assert found.node.id not in fs.nodes
    contest.close()


def test_what_cannot_be_removed_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contest = Contest(tmp_path / "main", {"file": b"text"}, suspects=())
    fs, root = contest.fs, node_for(contest.fs, MAIN, contest.fs.root)
    found = calls.lookup(fs, CALLER, root, b"file")
    assert found is not None
    descriptors = os.listdir("/proc/self/fd")

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "refused")

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refused)
        with pytest.raises(OSError, match="refused"):
            calls.unlink(fs, CALLER, root, b"file")

    assert os.listdir("/proc/self/fd") == descriptors
    again = calls.lookup(fs, CALLER, root, b"file")
    assert again is not None
    assert (again.node, again.attributes) == (found.node, found.attributes)
    contest.close()


@pytest.mark.parametrize("opened", [False, True])
def test_what_has_other_names_leads_on_to_them(tmp_path: Path, opened: bool) -> None:
    """Also if nobody has looked them up since the start."""
    other = tmp_path / "main" / "deep" / "er" / "other"
    contest = Contest(tmp_path / "main", {"file": b"text", "deep/er/x": b""}, suspects=())
    os.link(tmp_path / "main" / "file", other)
    fs, root = contest.fs, node_for(contest.fs, MAIN, contest.fs.root)
    found = calls.lookup(fs, CALLER, root, b"file")
    assert found is not None
    handle = files.open(fs, CALLER, found.node, os.O_RDONLY) if opened else None

    calls.unlink(fs, CALLER, root, b"file")

    after, _ = calls.getattr(fs, CALLER, found.node)
    assert (after.ino, after.nlink) == (found.attributes.ino, 1)
    attributes.setattr(fs, CALLER, found.node, NewAttributes(mode=0o640))
    assert stat.S_IMODE(other.stat().st_mode) == 0o640
    if handle is not None:
        files.release(fs, handle)
    contest.close()


def test_what_a_suspect_renamed_has_other_names_in_main(tmp_path: Path) -> None:
    contest = Contest(tmp_path / "main", {"file": b"text"}, suspects=())
    os.link(tmp_path / "main" / "file", tmp_path / "main" / "other")
    alice = contest.join("alice")
    alice.rename(b"file", b"hers")
    contest.bob.unlink(b"file")
    assert alice.read(b"hers") == b"text"
    contest.close()


def test_what_lost_its_other_names_unseen_is_gone(tmp_path: Path) -> None:
    contest = Contest(tmp_path / "main", {"file": b"text"}, suspects=())
    os.link(tmp_path / "main" / "file", tmp_path / "main" / "other")
    fs, root = contest.fs, node_for(contest.fs, MAIN, contest.fs.root)
    found = calls.lookup(fs, CALLER, root, b"file")
    assert found is not None
    calls.unlink(fs, CALLER, root, b"file")
    (tmp_path / "main" / "other").unlink()
    for _ in range(2):
        with pytest.raises(CallError):
            calls.getattr(fs, CALLER, found.node)
    assert not found.node.obj.ino
    contest.close()
