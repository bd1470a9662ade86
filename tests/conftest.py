"""For all tests: hypothesis profiles, chosen by HYPOTHESIS_PROFILE (`ci` if it is not set), and real mounts."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from isofs.store import inodes
from support.mount import Mounted, Person, daemons_below, mounted, mounts_below, trees_base

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    stateful_step_count=40,
    suppress_health_check=_SLOW_IS_FINE,
    print_blob=True,
)
settings.register_profile(
    "deep",
    deadline=None,
    max_examples=5000,
    stateful_step_count=60,
    suppress_health_check=_SLOW_IS_FINE,
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


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


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk(request: pytest.FixtureRequest) -> Iterator[None]:
    """Thousands of merges of an engine without a mount: a kill is the worst that happens to them."""
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__.startswith(("test_merge_", "test_attic", "test_engine_")):
            patch.setattr(os, "fsync", lambda file: None)
            patch.setattr(os, "fdatasync", lambda file: None)
            patch.setattr(inodes, "sync_all", lambda *args: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    """The tests of a module close what they open, and so does what they test."""
    gc.collect()  # not those that an earlier module forgot
    before = _descriptors()
    yield
    gc.collect()
    left = [path for number, path in sorted(_descriptors().items()) if number not in before]
    assert not left, f"{len(left)} descriptors are left open: {left[:5]}"


def _descriptors() -> dict[int, str]:
    """What this process has open, by descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing itself
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


@pytest.fixture
def place(base: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty directory for one test."""
    yield from _place(base, request.node.name)


@pytest.fixture
def tree(place: Path) -> Path:
    """An empty directory to mount over, writable for all."""
    path = place / "tree"
    path.mkdir()
    path.chmod(0o777)
    return path


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


class Kept:
    """A mount that is used again by the tests of a module, for as long as it is clean."""

    def __init__(self, place: Path) -> None:
        self._place, self._number = place, 0
        self._stack = contextlib.ExitStack()
        self._mount: Mounted | None = None

    def mount(self) -> Mounted:
        if self._mount is None:
            self._number += 1
            tree = self._place / f"tree-{self._number}"
            tree.mkdir()
            tree.chmod(0o777)
            self._mount = self._stack.enter_context(mounted(tree))
        return self._mount

    def drop(self) -> None:
        """Unmount; the next test gets another mount."""
        self._mount = None
        self._stack.pop_all().close()


@pytest.fixture(scope="module")
def kept(base: Path, request: pytest.FixtureRequest) -> Iterator[Kept]:
    """What `mount` gets its mount from."""
    assert os.geteuid() == 0, "these tests need root"
    for place in _place(base, request.module.__name__):
        mounts = Kept(place)
        yield mounts
        mounts.drop()


@pytest.fixture
def mount(kept: Kept) -> Iterator[Mounted]:
    """A mounted directory that is empty, writable for all, and where nobody is isolated.

    After the test everything must be sound; then all verdicts are given and everything is removed.
    """
    found = kept.mount()
    yield found
    try:
        found.check()
        _clean(found)
    except BaseException:
        with contextlib.suppress(Exception):
            kept.drop()
        raise


def _clean(mount: Mounted) -> None:
    for subject in mount.ask("status")["subjects"]:
        mount.ask("malicious", uid=subject["uid"])
    for name in os.listdir(mount.path):
        inner = mount.path / name
        if inner.is_dir() and not inner.is_symlink():
            shutil.rmtree(inner)
        else:
            inner.unlink()
    left = mount.ask("check")["checked"]
    assert left["objects"] == left["versions"] == left["bindings"] == 0, left


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
