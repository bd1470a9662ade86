"""Work, suspicions, verdicts and SIGKILLs at random for two minutes; `scripts/soak` does it for an hour."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.mount

ENDURE = Path(__file__).parent.parent / "scripts" / "endure"


def test_nothing_is_lost_and_nothing_leaks_in_two_minutes() -> None:
    command = [sys.executable, str(ENDURE), "--seconds", "120"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.splitlines()[-1]
    for what in ("acts", "suspicions", "verdicts", "kills", "comparisons"):
        assert int(re.findall(rf"(\d+) {what}", told)[0]) > 0
