"""Serving requests goes on whatever becomes of the callers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from isofs.control import client, mounts
from support.mount import Mounted

pytestmark = pytest.mark.mount


@pytest.fixture
def blind(place: Path) -> Iterator[Mounted]:
    """A mount whose daemon always reads the device, though there is nothing to read."""
    command = [sys.executable, "-m", "support.blind_daemon", str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent) as daemon:
        try:
            assert daemon.stdout is not None
            assert daemon.stdout.readline() == "serving\n"
            yield Mounted(place)
            assert daemon.wait(20) == 0
        finally:
            daemon.kill()
            subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def test_a_request_that_vanished_holds_nothing_up(blind: Mounted) -> None:
    """Nobody calls anything on the mount meanwhile, which would go on with everything else too."""
    for _ in range(5):
        answer = client.call(mounts.socket_for(str(blind.path)), "status", {}, timeout=10)
        assert answer["mount"] == str(blind.path)
    (blind.path / "f").write_text("x")
    assert os.listdir(blind.path) == ["f"]
    blind.umount()
