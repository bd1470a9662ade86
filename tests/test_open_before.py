"""What somebody had open when the suspicion began can be changed without looking a name up."""

from __future__ import annotations

import os
from pathlib import Path

from isofs.engine import calls, suspicion
from isofs.engine.state import ROOT_NODE, Caller
from isofs.model.records import MAIN
from support.contest import BOB, Contest


def test_names_of_what_a_suspect_has_open_are_asked_for_from_then_on(tmp_path: Path) -> None:
    """Else the kernel would lead the suspect to main's file, for a moment after the suspect changed it."""
    contest = Contest(tmp_path / "main", {"file": b""}, suspects=())

    def kept() -> float:
        found = calls.lookup(contest.fs, Caller(1003, 100, 1, 0o022), contest.fs.nodes[ROOT_NODE], b"file")
        assert found is not None
        assert found.node.sid == MAIN
        return found.entry_timeout

    opened = contest.bob.open(b"file", os.O_WRONLY)
    before = kept()
    suspicion.suspect(contest.fs, BOB, "bob", "", "2026-01-02T03:04:05Z")
    during = kept()
    opened.close()
    assert (before, during, kept()) == (calls.LONG, 0, calls.LONG)
    contest.close()
