"""Two minutes of what `scripts/soak` does for an hour: work, suspicions, verdicts and crashes at random."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.mount

#: How long it takes in seconds, without the last verdicts.
SECONDS = os.environ.get("ISOFS_SOAK", "100")


def test_nothing_leaks_and_nothing_is_lost_in_two_minutes() -> None:
    script = Path(__file__).parents[1] / "scripts" / "endure"
    done = subprocess.run(
        [sys.executable, str(script), "--seconds", SECONDS], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert "comparisons" in last, done.stdout
    assert "verdicts" in last, done.stdout
    assert "descriptors" in last, done.stdout
