"""Who may reach a control socket, and what the server knows of whoever calls: real processes, users and groups."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

import fake_daemon
from isofs.control import client, endpoint, wire
from isofs.control.peers import Peer, peer_of
from isofs.control.server import Call, Limits, Progress
from isofs.errors import Already, Busy, IsofsError, NotAllowed
from support.mount import Worker, as_user, trees_base

WATCHERS, DECIDERS, OTHERS = 7001, 7002, 7003


@pytest.fixture
def path() -> Iterator[str]:
    base = trees_base()
    yield str(base / "run" / "control.sock")
    base.rmdir()


async def described(call: Call) -> Mapping[str, object]:
    peer = call.peer
    return {
        "pid": peer.pid,
        "uid": peer.uid,
        "gid": peer.gid,
        "groups": sorted(peer.groups),
        "login": peer.login,
        "program": peer.program,
    }


def anybody(peer: Peer, request: wire.Request) -> None:
    """Admit everyone who can reach the socket."""


def asked(path: str, name: str = "who", args: Mapping[str, object] | None = None) -> Any:
    """What the server answers, or the word of its error; to be called in a child."""
    try:
        return client.call(path, name, args or {})
    except IsofsError as error:
        return error.code


def reaches(path: str, uid: int, gid: int, *groups: int) -> bool:
    def tried() -> bool:
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            try:
                connection.connect(path)
            except PermissionError:
                return False
            return True

    return bool(as_user(uid, tried, gid=gid, groups=groups))


def test_the_peer_is_who_the_kernel_says(path: str) -> None:
    many = tuple(range(20_000, 21_000))
    with fake_daemon.running(path, {}, personal={"who": described}, admit=anybody, groups=[WATCHERS]):
        found = as_user(4001, lambda: [asked(path), os.getpid()], gid=4002, groups=(WATCHERS, *many))
        expected = {"pid": found[1], "uid": 4001, "gid": 4002, "groups": [WATCHERS, *many]}
        assert {key: found[0][key] for key in expected} == expected
        assert found[0]["program"] == Path("/proc/self/comm").read_text().strip()


def test_the_login_uid_is_told(path: str) -> None:
    def after_login() -> Any:
        Path("/proc/self/loginuid").write_text("4007")
        return asked(path)

    with fake_daemon.running(path, {}, personal={"who": described}):
        assert as_user(0, after_login)["login"] == 4007
        if Path("/proc/self/loginuid").read_text() == str(2**32 - 1):
            assert as_user(0, lambda: asked(path))["login"] is None


def connected_to(path: str) -> None:
    """Connect, and stay so until the process ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        os.dup(connection.fileno())


@pytest.mark.parametrize("ended", [False, True])
def test_a_peer_that_ended_is_known_by_its_uid_alone(path: str, ended: bool) -> None:
    """Its number may be another process's by now."""
    with endpoint.listening(path, [WATCHERS]) as listener:
        worker = Worker(4001, groups=(WATCHERS,))
        worker(connected_to, path)
        with listener.accept()[0] as connection:
            if ended:
                worker.close()
            peer = peer_of(trio.socket.from_stdlib_socket(connection))
        if not ended:
            worker.close()
    program = "" if ended else Path("/proc/self/comm").read_text().strip()
    assert (peer.pid, peer.uid, peer.groups, peer.program) == (worker.pid, 4001, frozenset({WATCHERS}), program)


@pytest.mark.parametrize(
    ("uid", "login", "persons", "person"),
    [
        (0, None, {0}, 0),
        (0, 1001, {1001}, 1001),
        (0, 0, {0}, 0),
        (1001, None, {1001}, 1001),
        (1001, 1001, {1001}, 1001),
        (1002, 1001, {1001, 1002}, 1001),
    ],
)
def test_who_a_peer_may_be(uid: int, login: int | None, persons: set[int], person: int) -> None:
    peer = Peer(1, uid, uid, frozenset(), login, "isoctl")
    assert peer.persons == persons
    assert peer.person == person


def test_only_members_reach_the_socket(path: str) -> None:
    with fake_daemon.running(path, {}, groups=[WATCHERS, DECIDERS]):
        assert reaches(path, 4001, 4001, WATCHERS)
        assert reaches(path, 4001, DECIDERS)
        assert reaches(path, 0, 0)
        assert not reaches(path, 4001, 4001)
        assert not reaches(path, 4001, OTHERS)
        assert not reaches(path, 4001, 0), "the group of the socket itself is nobody's"
        endpoint.admit(path, [DECIDERS])
        assert not reaches(path, 4001, WATCHERS)
        assert reaches(path, 4001, DECIDERS)
        endpoint.admit(path, [])
        assert not reaches(path, 4001, DECIDERS)
        assert not reaches(path, 4001, 0)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_members_can_change_nothing_where_the_socket_is(path: str) -> None:
    directory = os.path.dirname(path)

    def attempts() -> list[str]:
        held = []
        attempts: dict[str, Callable[[], object]] = {
            "list": lambda: os.listdir(directory),
            "remove": lambda: os.unlink(path),
            "rename": lambda: os.rename(path, path + ".other"),
            "make": lambda: os.mkdir(directory + "/made"),
            "open to others": lambda: os.chmod(path, 0o666),
            "remove the directory": lambda: os.rmdir(directory),
        }
        for name, attempt in attempts.items():
            try:
                attempt()
            except PermissionError:
                held.append(name)
        return held

    with fake_daemon.running(path, {}, groups=[WATCHERS]):
        assert len(as_user(4001, attempts, gid=WATCHERS)) == 6
    assert not os.path.exists(directory)


def test_a_daemon_without_groups_beside_one_that_has_some(path: str) -> None:
    """The directory is shared, the sockets are not."""
    other = path + ".other"
    with fake_daemon.running(path, {}), fake_daemon.running(other, {}, groups=[WATCHERS]):
        assert reaches(other, 4001, WATCHERS)
        assert not reaches(path, 4001, WATCHERS)
        with fake_daemon.running(path + ".third", {}):
            pass
        with pytest.raises(BaseExceptionGroup) as refused, fake_daemon.running(path, {}):
            pass
        assert refused.group_contains(Already)


def test_who_is_not_admitted_is_refused_and_recorded(path: str) -> None:
    done: list[str] = []
    heard: list[tuple[int, str, str]] = []

    async def act(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
        done.append(str(args["by"]))
        return {}

    def admit(peer: Peer, request: wire.Request) -> None:
        if not (peer.uid == 0 or peer.within(DECIDERS)):
            raise NotAllowed(f"user {peer.uid} may not {request.call}")

    def record(peer: Peer, request: wire.Request, outcome: wire.Result | wire.Failure) -> None:
        heard.append((peer.uid, request.call, outcome.code if isinstance(outcome, wire.Failure) else "ok"))

    with fake_daemon.running(path, {"act": act}, admit=admit, record=record, groups=[WATCHERS, DECIDERS]):
        assert as_user(4001, lambda: asked(path, "act", {"by": "a"}), gid=WATCHERS) == "not_allowed"
        assert as_user(4002, lambda: asked(path, "act", {"by": "b"}), groups=(DECIDERS,)) == {}
        assert as_user(0, lambda: asked(path, "act", {"by": "c"})) == {}
        assert as_user(0, lambda: asked(path, "none", {})) == "usage"
        assert as_user(0, lambda: asked(path, "act", {})) == "internal"
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.connect(path)
            connection.sendall(b"no request\n")
            assert connection.recv(1000)
    assert done == ["b", "c"]
    assert heard == [
        (4001, "act", "not_allowed"),
        (4002, "act", "ok"),
        (0, "act", "ok"),
        (0, "none", "usage"),
        (0, "act", "internal"),
    ]


def test_a_trail_that_fails_stops_nobody(path: str, caplog: pytest.LogCaptureFixture) -> None:
    def record(peer: Peer, request: wire.Request, outcome: wire.Result | wire.Failure) -> None:
        raise OSError("disk full")

    with fake_daemon.running(path, {"act": fake_daemon.answering({})}, record=record):
        assert client.call(path, "act", {}) == {}
    assert "'act' could not be recorded" in caplog.text


def test_others_cannot_keep_root_out(path: str) -> None:
    """Nor one member the others."""

    def connected() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.sendall(wire.encode(wire.Request("act", {})))
        return connection

    def refused(count: int) -> list[bool]:
        """Which of so many connections, all kept open, are refused."""
        held = [connected() for _ in range(count)]
        return [b"busy" in connection.recv(1000) for connection in held]

    limits = Limits(connections=5, share=3)
    handlers = {"act": fake_daemon.answering({})}
    with fake_daemon.running(path, handlers, limits, admit=anybody, groups=[WATCHERS]):
        assert as_user(4001, lambda: refused(4), gid=WATCHERS) == [False] * 3 + [True]
        held = [connected() for _ in range(6)]
        assert [b"busy" in connection.recv(1000) for connection in held] == [False] * 5 + [True]
        with pytest.raises(Busy):
            client.call(path, "act", {})
        assert as_user(4002, lambda: asked(path, "act"), gid=WATCHERS) == {}
        for connection in held:
            connection.close()
