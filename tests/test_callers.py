"""What is asked of a calling process: what counts is what the process is by now, and nobody else's with its number."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterator

import pytest

from isofs.engine.callers import FSETID, by_descriptor, changes_owner, in_group, may, without_set_ids
from isofs.engine.state import Caller
from support.calls import become_capable
from support.mount import ALICE, BOB, Worker

GROUP = 62001

_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def alice() -> Iterator[Worker]:
    one = Worker(ALICE, groups=(GROUP,))
    yield one
    one.close()


@pytest.fixture
def capable() -> Iterator[Worker]:
    one = Worker(0)
    one(become_capable, ALICE)
    yield one
    one.close()


@pytest.fixture
def ended() -> int:
    one = Worker(ALICE)
    one.close()
    return one.pid


def test_capabilities(alice: Worker, capable: Worker, ended: int) -> None:
    assert may(0, os.getpid(), FSETID)
    assert may(ALICE, capable.pid, FSETID)
    assert not may(ALICE, alice.pid, FSETID)
    assert not may(BOB, capable.pid, FSETID), "the process is not bob's"
    assert not may(ALICE, os.getpid(), FSETID), "the number is root's by now"
    assert may(0, ended, FSETID)
    assert not may(ALICE, ended, FSETID)


def test_groups(alice: Worker, ended: int) -> None:
    assert in_group(ALICE, alice.pid, GROUP)
    assert in_group(ALICE, alice.pid, ALICE)
    assert not in_group(ALICE, alice.pid, BOB)
    assert not in_group(BOB, alice.pid, GROUP), "the process is not bob's"
    assert not in_group(ALICE, ended, ALICE)


def test_whoever_has_capabilities_in_a_namespace_of_its_own_takes_the_bits(alice: Worker, capable: Worker) -> None:
    assert without_set_ids(stat.S_IFREG | 0o6755, BOB, ALICE, capable.pid) == 0o6755
    try:
        alice(_unshare)
    except OSError:
        pytest.skip("users may have no namespaces")
    assert int(alice(_capabilities).split()[1], 16) & FSETID
    assert without_set_ids(stat.S_IFREG | 0o6755, BOB, ALICE, alice.pid) == 0o755


def _unshare() -> None:
    """A user namespace of this process's own (CLONE_NEWUSER)."""
    if _libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _capabilities() -> str:
    with open("/proc/self/status") as file:
        return next(line for line in file if line.startswith("CapEff"))


def test_a_process_that_waits_for_something_else(alice: Worker, ended: int) -> None:
    for pid in (alice.pid, ended):
        caller = Caller(ALICE, ALICE, pid)
        assert not by_descriptor(caller)
        assert not changes_owner(caller)
