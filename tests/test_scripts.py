"""The scripts that no other test runs: they work, and ruff looks at them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_ruff_looks_at_every_script_that_is_python() -> None:
    scripts = [path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix]
    python = {f"scripts/{path.name}" for path in scripts if "python" in path.read_text().splitlines()[0]}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert set(settings["extend-include"]) == python


def test_work_is_waited_for_however_short_it_is() -> None:
    command = [sys.executable, str(ROOT / "scripts/waits"), "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^(.*?) +\d+\.\d\d s   calls wait", done.stdout, re.MULTILINE) == [
        "changes",
        "plan, with its answer",
        "choice of half of it",
        "splitting that off",
        "merging it",
    ]
