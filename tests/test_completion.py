"""Completion in a real bash: commands, options, and suspects from the running daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isofs.errors import Exit
from support.command import refused
from support.mount import ALICE, Mounted, isoctl

#: Takes the words of a command line as bash gives them to a completion, and prints what it would propose.
ASK = """
source <(cat "$SCRIPT")
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_isoctl_completion isoctl "${@: -1}" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    done = isoctl("completion", "bash")
    assert done.code == 0
    path = tmp_path_factory.mktemp("completion") / "isoctl"
    path.write_text(done.out)
    return path


def proposed(script: Path, *words: str, mount: str = "/nowhere") -> list[str]:
    """What bash proposes for the last of these words."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", ASK, "bash", "isoctl", *words],
        env={"PATH": path, "SCRIPT": str(script), "ISOFS_MOUNT": mount},
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_and_options(script: Path) -> None:
    assert proposed(script, "sta") == ["status"]
    assert proposed(script, "suspect", "--dr") == ["--dry-run"]
    assert proposed(script, "suspect", "--handles", "") == ["kill", "refuse", "leave"]


def test_without_a_daemon_nothing_is_said(script: Path) -> None:
    assert proposed(script, "innocent", "") == []


@pytest.mark.mount
def test_suspects(script: Path, mount: Mounted) -> None:
    where = str(mount.path)
    mount.facts("suspect", str(ALICE))
    assert proposed(script, "innocent", "6", mount=where) == [str(ALICE)]
    assert proposed(script, "--mount", where, "resolve", "") == [str(ALICE)]
    assert proposed(script, "innocent", "x", mount=where) == []
    assert mount.ask("suspects") == {"suspects": [{"user": str(ALICE), "uid": ALICE, "state": "suspect"}]}


def test_other_shells() -> None:
    for shell, words in {"zsh": "#compdef isoctl", "fish": "--command isoctl"}.items():
        done = isoctl("completion", shell)
        assert done.code == 0
        assert words in done.out
        assert "_ISOCTL_COMPLETE" in done.out
    refused(isoctl("completion", "csh"), Exit.USAGE, "csh")
