"""What scripts/leftovers notices of a run, and what it doesn't: its own tools."""

import os
import subprocess
from pathlib import Path

import pytest

LEFTOVERS = Path(__file__).parents[1] / "scripts/leftovers"


@pytest.fixture
def mark() -> str:
    return f"{os.getpid()}.test"


def processes(mark: str) -> list[str]:
    told = subprocess.run([LEFTOVERS, mark], capture_output=True, text=True, check=True)
    return [line for line in told.stdout.splitlines() if line.startswith("process ")]


def test_a_process_with_the_mark_is_noticed_until_it_ends(mark: str) -> None:
    marked = os.environ | {"ISOFS_TEST_RUN": mark}
    with subprocess.Popen(["sleep", "1000"], env=marked) as process:
        try:
            assert processes(mark) == [f"process {process.pid}: sleep 1000 "]
            assert processes(f"{mark}.other") == []
        finally:
            process.kill()
    assert processes(mark) == []


def test_users_and_groups_are_told(mark: str) -> None:
    told = subprocess.run([LEFTOVERS, mark], capture_output=True, text=True, check=True).stdout
    assert "user or group root:x:0:0:" in told
    assert "user or group root:x:0:\n" in told
