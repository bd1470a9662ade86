"""The control socket under fuzzing: a real daemon over a real store, callers with and without rights.

Never a crash, never an answer to who may not ask, and no decision by one person where two are needed. What takes
longer is `scripts/fuzz`.
"""

from __future__ import annotations

import contextlib
import grp
import json
import random
import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Kept
from isofs.control import wire
from support.fuzzing import DECIDABLE, DECIDERS, OBSERVABLE, OBSERVERS, ROOTS, SEEDS, Fuzzed, call, fuzzed, mutated
from support.mount import ALICE, BOB, CAROL, DAVE, Worker, as_user

pytestmark = pytest.mark.mount

#: Seconds of the byte fuzzer.
SHORT = 2.0


@pytest.fixture(scope="module")
def world(kept: Kept) -> Iterator[Fuzzed]:
    assert (OBSERVERS[1], DECIDERS[1]) == tuple(grp.getgrnam(name).gr_gid for name, _ in (OBSERVERS, DECIDERS))
    mount = kept.mount()
    with fuzzed(mount) as found:
        yield found
        assert found.alive()


fuzz = settings(max_examples=40, suppress_health_check=list(HealthCheck))

names = st.sampled_from(sorted(OBSERVABLE | DECIDABLE | ROOTS)) | st.text(max_size=12)
keys = st.sampled_from(sorted({key for frame in SEEDS for key in json.loads(frame)["args"]}))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([ALICE, DAVE, CAROL, 2**31, 2**32 - 1, 2**63, 2**64, -(2**63) - 1, 10**40])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["hers", "contested", ".", "..", "/", "a\0b", "\ud800", "\udcff", "main", "suspect", "external"])
    | st.text(st.characters(exclude_categories=()), max_size=8)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
arguments = st.fixed_dictionaries({"uid": st.just(ALICE) | scalars}, optional={"user": scalars}) | st.just(
    dict[str, object]()
)
requests = st.builds(
    lambda name, about, more: json.dumps({"v": 1, "call": name, "args": {**about, **more}}).encode() + b"\n",
    names,
    arguments,
    st.dictionaries(keys, values, max_size=4),
)


@fuzz
@given(st.lists(requests | st.sampled_from(SEEDS), min_size=1, max_size=5))
def test_no_request_of_an_observer_changes_anything(world: Fuzzed, sent: list[bytes]) -> None:
    before = world.state()
    answers = world.say("observer", *sent)
    assert len(answers) == len(sent)
    assert world.state() == before


@fuzz
@given(st.lists(requests | st.sampled_from(SEEDS), min_size=1, max_size=5))
def test_no_request_of_one_person_decides_where_two_must(world: Fuzzed, sent: list[bytes]) -> None:
    """Whatever is asked for: main is the same, and every suspect has what they had."""
    before = world.undecided()
    world.say("decider", *sent)
    assert world.undecided() == before
    isolated = {subject["uid"] for subject in world.mount.ask("status")["subjects"]}
    assert {ALICE, DAVE} <= isolated


@fuzz
@given(st.integers(), st.integers(1, 6), st.booleans())
def test_no_bytes_of_an_observer_change_anything(world: Fuzzed, seed: int, count: int, split: bool) -> None:
    rng = random.Random(seed)
    data = b"".join(mutated(rng, SEEDS) for _ in range(count))
    cut = [data[at : at + 1 + len(data) // 5] for at in range(0, len(data), 1 + len(data) // 5)] if split else [data]
    before = world.state()
    world.say("observer", *cut)
    assert world.state() == before


ODD = [
    call("attic", before=2**64),
    call("attic", before=-(2**63) - 1),
    call("attic", path="\ud800"),
    call("attic_restore", number=2**64),
    call("attic_restore", path="a" * 5000),
    call("suspect", uid=63_000, user="\udcff", reason="caf\udce9"),
    call("suspect", uid=63_001, user="x", reason="\ud800"),
    call("malicious", uid=ALICE, reason="\ud800"),
    call("innocent", uid=ALICE, only=["\udcff*"]),
    call("confirm", uid=2**64),
    call("withdraw", uid=-(2**64)),
    call("log", since="\ud800", after=2**70),
    call("decide", uid=ALICE, take=[2**70], dry=True),
    call(
        "markers", uid=DAVE, user="dave", path="contested", using="text", options=["\ud800=1"], pid=1, descriptor=2**70
    ),
]


@pytest.mark.parametrize("frame", ODD, ids=lambda frame: frame[:70].decode())
def test_odd_values_do_not_reach_the_store(world: Fuzzed, frame: bytes) -> None:
    """Which nothing a caller says can make unusable."""
    (answer,) = world.say("decider", frame)
    assert answer["ok"] or answer["error"]["code"] != "store", answer


def test_every_request_of_others_is_refused_by_the_kernel(world: Fuzzed) -> None:
    """Who is in no group, and who is a suspect, in whatever group."""
    before = world.state()

    def refused() -> bool:
        with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(PermissionError):
            connection.connect(world.path)
            return False
        return True

    assert as_user(BOB, refused)
    suspect = Worker(ALICE, groups=(OBSERVERS[1], DECIDERS[1]))
    world.workers["suspect"] = suspect
    answers = world.say("suspect", *SEEDS)
    assert {answer["error"]["code"] for answer in answers} == {"not_allowed"}
    assert len(answers) == len(SEEDS)
    suspect.close()
    assert world.state() == before


def _hold(path: str, count: int, size: int) -> int:
    """Keep connections open, each with so many bytes of a line that has no end; how many are not refused."""
    held = []
    for _ in range(count):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.settimeout(5)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            connection.sendall(b"[" * size)
        held.append(connection)
    _HELD.extend(held)
    left = 0
    for connection in held:
        connection.setblocking(False)
        try:
            connection.recv(1000)
        except BlockingIOError:
            left += 1
        except ConnectionResetError:
            pass
    return left


_HELD: list[socket.socket] = []


def test_many_connections_take_bounded_memory_and_keep_nobody_out(world: Fuzzed) -> None:
    before = world.memory()
    crowd = [Worker(uid, groups=(OBSERVERS[1],)) for uid in range(62_000, 62_006)]
    left = [worker(_hold, world.path, 12, wire.REQUEST_LIMIT - 1) for worker in crowd]
    assert all(count <= 8 for count in left)
    assert sum(left) <= 32
    assert world.memory() - before < 100 << 20
    assert world.alive()
    for worker in crowd:
        worker.close()


def test_slow_senders_keep_nobody_waiting(world: Fuzzed) -> None:
    frame = call("status")

    def slowly() -> list[float]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(world.path)
            took = []
            for byte in frame:
                connection.sendall(bytes([byte]))
                began = time.monotonic()
                assert b'"ok":true' in world_answer(world.path, frame)
                took.append(time.monotonic() - began)
            assert b'"ok":true' in connection.recv(1 << 16)
            return took

    assert max(as_user(BOB, slowly, groups=(OBSERVERS[1],))) < 5


def world_answer(path: str, frame: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(frame)
        return connection.makefile("rb").readline()


def test_the_byte_fuzzer_for_a_moment(world: Fuzzed) -> None:
    """As everybody who reaches the socket."""
    rng, end, rounds = random.Random(7), time.monotonic() + SHORT, 0
    state, undecided = world.state(), world.undecided()
    while time.monotonic() < end:
        world.say("observer", b"".join(mutated(rng, SEEDS) for _ in range(20)))
        assert world.state() == state
        world.say("decider", b"".join(mutated(rng, SEEDS) for _ in range(20)))
        assert world.undecided() == undecided
        state = world.state()
        rounds += 1
    assert rounds > 3
    assert world.memory() < 500 << 20
