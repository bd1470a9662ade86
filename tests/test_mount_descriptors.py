"""The daemon comes to its limit of open files: callers are told, nothing is lost, and it goes on when there is room."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.mount import ALICE, BOB, Person, mounted

pytestmark = pytest.mark.mount

#: Files that are open at the same time.
THOUSANDS = 2000


@contextlib.contextmanager
def left(daemon: int, count: int) -> Iterator[None]:
    """The daemon can open so many more, and afterwards what it could before."""
    before = resource.prlimit(daemon, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon, resource.RLIMIT_NOFILE, (opened(daemon) + count, before[1]))
    try:
        yield
    finally:
        resource.prlimit(daemon, resource.RLIMIT_NOFILE, before)


def opened(daemon: int) -> int:
    return len(os.listdir(f"/proc/{daemon}/fd"))


def refused(call: Callable[[], object]) -> bool:
    """Whether there was no room for a call, which is made again then, when there is."""
    try:
        call()
    except OSError as error:
        if error.errno != errno.ENFILE:
            raise
        return True
    return False


def test_each_call_is_made_whole_or_not_at_all(tree: Path) -> None:
    """With no descriptor left, with one, and so on until everything can be done."""
    for name in range(30):
        (tree / f"f{name}").write_text("main's\n")
        (tree / f"f{name}").chmod(0o666)
    with mounted(tree) as mount:
        alice, bob = Person(ALICE, mount.path), Person(BOB, mount.path)
        mount.facts("suspect", str(ALICE))
        daemon = mount.pid
        main = {f"f{name}": "main's\n" for name in range(30)}
        hers: dict[str, str | None] = {}
        count = again = 0
        missed: list[Callable[[], object]] = []
        while count < 2 or missed:
            own, shared = f"f{2 * count}", f"f{2 * count + 1}"
            calls: list[Callable[[], object]] = [
                lambda own=own: alice.write(own, "hers\n"),  # type: ignore[misc]
                lambda shared=shared: alice.remove(shared),  # type: ignore[misc]
                lambda count=count: alice.write(f"new{count}", "hers\n"),  # type: ignore[misc]
                lambda own=own: bob.write(own, "bob's\n"),  # type: ignore[misc]
                lambda count=count: bob.write(f"bob{count}", "bob's\n"),  # type: ignore[misc]
                lambda: bob.names(),
                lambda: alice.names(),
            ]
            with left(daemon, count):
                missed = [call for call in calls if refused(call)]
            for call in missed:
                call()
            again += len(missed)
            main |= {own: "bob's\n", f"bob{count}": "bob's\n"}
            hers |= {own: "hers\n", shared: None, f"new{count}": "hers\n"}
            count += 1
        assert again
        assert not missed
        assert bob.tree() == main
        assert alice.tree() == {name: text for name, text in {**main, **hers}.items() if text is not None}
        mount.check()
        alice.close()
        bob.close()


def test_thousands_of_open_files_and_one_too_many(tree: Path) -> None:
    (tree / "f").write_text("main's\n")
    (tree / "f").chmod(0o666)
    own = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(own[1], 2 * THOUSANDS), own[1]))
    held: list[int] = []
    with mounted(tree) as mount:
        alice = Person(ALICE, mount.path)
        mount.facts("suspect", str(ALICE))
        daemon = mount.pid
        alice.append("f", "hers\n")
        before = opened(daemon)
        try:
            with left(daemon, THOUSANDS):
                while not refused(lambda: held.append(os.open(mount.path / "f", os.O_RDWR))):
                    assert len(held) <= THOUSANDS
                assert len(held) > THOUSANDS - 100
                assert refused(lambda: alice.append("new", "hers\n"))
                for number, descriptor in enumerate(held[:: THOUSANDS // 10]):  # what is open works
                    os.pwrite(descriptor, b"M", number)
                    assert os.pread(descriptor, 1, number) == b"M"
                while held:
                    os.close(held.pop())
                assert alice.read("f") == "main's\nhers\n"
                alice.append("new", "hers\n")
            assert (mount.path / "f").read_text() == "MMMMMMMMMM"
            while opened(daemon) > before + 5:  # the kernel tells of closed files a little later; directories stay open
                os.listxattr(mount.path)
            mount.check()
        finally:
            for descriptor in held:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, own)
            alice.close()
