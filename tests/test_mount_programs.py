"""Real programs: on the host, as a trusted user and as a suspect they print the same and leave the same tree."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.mount import ALICE, BOB, Mounted, Worker, portrait
from support.programs import PROGRAMS

pytestmark = pytest.mark.mount


def shell(uid: int, script: str, cwd: Path) -> str:
    """What a script prints, with its errors; the path of the directory is left out."""
    done = subprocess.run(
        ["sh", "-c", script],
        user=uid,
        group=uid,
        extra_groups=[],
        umask=0o022,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": str(cwd), "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    return f"{done.stdout}ended with {done.returncode}\n".replace(str(cwd), "HERE")


@pytest.fixture(scope="module")
def on_host() -> dict[str, tuple[str, dict[str, object]]]:
    """What each program printed on the host so far, and the tree that it left."""
    return {}


def prepared(name: str, parent: Path) -> Path:
    work = parent / "work"
    work.mkdir()
    shutil.chown(work, ALICE, ALICE)
    done = shell(ALICE, "set -e\n" + PROGRAMS[name].given, work)
    assert done.endswith("ended with 0\n"), done
    return work


@pytest.mark.parametrize("suspect", [False, True], ids=["trusted", "suspect"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program(
    mount: Mounted, place: Path, on_host: dict[str, tuple[str, dict[str, object]]], name: str, suspect: bool
) -> None:
    if name not in on_host:
        work = prepared(name, place)
        printed = shell(ALICE, PROGRAMS[name].script, work)
        assert printed.endswith("ended with 0\n"), printed
        on_host[name] = printed, portrait(str(work))
    work = prepared(name, mount.path)
    before = portrait(str(mount.backing), ".isofs")
    bob = Worker(BOB)
    try:
        bob(portrait, str(mount.path))
        if suspect:
            mount.ask("suspect", uid=ALICE, user="alice")
        assert shell(ALICE, PROGRAMS[name].script, work) == on_host[name][0]
        alice = Worker(ALICE)
        try:
            assert alice(portrait, str(work)) == on_host[name][1]
        finally:
            alice.close()
        if suspect:
            bob(portrait, str(mount.path))
            assert portrait(str(mount.backing), ".isofs") == before
            assert not mount.ask("innocent", uid=ALICE)["conflicts"]
    finally:
        bob.close()
    assert portrait(str(mount.backing / "work")) == on_host[name][1]
