"""Fixtures of the tests that mount: trees that every user can reach, and nothing left behind at the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.mount import Mounted, Person, daemons_below, mounted, mounts_below, trees_base


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """Where all mounts of this session are made. Fails the session if one of them, or a daemon, is left."""
    path = trees_base()
    yield path
    mounts, daemons = mounts_below(path), daemons_below(path)
    for point in mounts:
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)
    for pid in daemons:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(path, ignore_errors=True)
    assert not mounts, "mounts are left behind"
    assert not daemons, "daemons are left behind"


@pytest.fixture
def place(base: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty directory for one test."""
    yield from _place(base, request.node.name)


def _place(base: Path, name: str) -> Iterator[Path]:
    plain = "".join(c if c.isalnum() else "_" for c in name)[:60]
    path = base / plain
    number = 1
    while path.exists():
        number += 1
        path = base / f"{plain}-{number}"
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def common(base: Path, request: pytest.FixtureRequest) -> Iterator[Mounted]:
    """One mount for all tests of a module; `mount` is how a test gets it clean."""
    assert os.geteuid() == 0, "these tests need root"
    for place in _place(base, request.module.__name__):
        tree = place / "tree"
        tree.mkdir()
        tree.chmod(0o777)
        with mounted(tree) as mount:
            yield mount


@pytest.fixture
def mount(common: Mounted) -> Iterator[Mounted]:
    """A mounted directory that is empty, writable for all, and where nobody is isolated.

    After the test everything must be sound; then all verdicts are given and everything is removed.
    """
    yield common
    common.check()
    for subject in common.facts("status")["subjects"]:
        common.facts("malicious", str(subject["uid"]), "--yes")
    for name in os.listdir(common.path):
        inner = common.path / name
        if inner.is_dir() and not inner.is_symlink():
            shutil.rmtree(inner)
        else:
            inner.unlink()
    left = common.facts("check")
    assert left["checked"]["objects"] == left["checked"]["versions"] == left["checked"]["bindings"] == 0, left


@pytest.fixture
def person(mount: Mounted) -> Iterator[Callable[[int], Person]]:
    """`person(uid)`: that user at work in the mount, until the end of the test."""
    people: list[Person] = []

    def begin(uid: int) -> Person:
        people.append(Person(uid, mount.path))
        return people[-1]

    yield begin
    for one in people:
        one.close()
