"""The demo, which proves each thing that it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.mount

STORY = Path(__file__).parent.parent / "scripts" / "story"


def test_everything_that_the_demo_says_is_so() -> None:
    done = subprocess.run([sys.executable, str(STORY)], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✓" in done.stdout
    assert "✗" not in done.stdout
