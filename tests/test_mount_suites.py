"""Suites that nobody here wrote: the quick ones of Python's own, over a mount in both views (scripts/conformance)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.mount

CONFORM = Path(__file__).parent.parent / "scripts" / "conform"


def conform(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CONFORM), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def rows(printed: str) -> list[list[str]]:
    """The lines of the table: suite, command, seconds, and what there is to say of each view."""
    return [line.split() for line in printed.splitlines() if line.startswith(("python ", "shell "))]


def test_pythons_own_tests_of_files() -> None:
    """Nothing fails: not on the host, which would hide what fails on the mount, nor for a trusted user or a suspect."""
    done = conform("--quick", "python")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rows(done.stdout)) >= 10
    assert [row for row in rows(done.stdout) if row[3:] != ["ok", "same", "same"]] == []


def test_what_fails_on_the_mount_alone_is_told() -> None:
    done = conform("--command", "fallocate --punch-hole --length 4096 /dev/stdin 0<>file")
    assert done.returncode == 1, done.stdout + done.stderr
    assert [row[3:] for row in rows(done.stdout)] == [["ok", "1", "worse", "1", "worse"]]
