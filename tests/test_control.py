"""The control server and its client over real sockets: who is let in, and what ends a server."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fake_daemon
from isofs.control import accepting, client, endpoint, wire
from isofs.control.server import Limits, Plain, Progress, plain, serve
from isofs.errors import (
    BY_CODE,
    Already,
    Busy,
    IsofsError,
    NoAnswer,
    NotAllowed,
    UsageError,
)

NOBODY = 65534


async def echo(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
    return dict(args)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "control.sock")


@pytest.fixture
def echoing(path: str) -> Iterator[str]:
    with fake_daemon.running(path, {"echo": echo}):
        yield path
        assert client.call(path, "echo", {"alive": True}) == {"alive": True}


def connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(path)
    return connection


def said(connection: socket.socket) -> list[dict[str, object]]:
    """All that the server says until it hangs up."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := connection.recv(65536):
            data += more
    return [json.loads(line) for line in data.splitlines()]


def test_a_call_is_answered_whatever_its_names(echoing: str) -> None:
    args = {"uid": 1000, "path": wire.path_text(b"\xff\n\x1b[31m"), "none": None}
    assert client.call(echoing, "echo", args) == args


def test_socket_and_directory_are_roots_alone(echoing: str) -> None:
    assert stat.S_IMODE(os.stat(echoing).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(echoing)).st_mode) == 0o700


def test_the_socket_is_gone_afterwards(path: str) -> None:
    with fake_daemon.running(path, {}):
        assert os.path.exists(path)
    assert not os.path.exists(path)


def test_a_directory_that_others_can_enter_is_refused(path: str) -> None:
    os.mkdir(os.path.dirname(path), 0o755)
    with pytest.raises(BaseExceptionGroup) as refused, fake_daemon.running(path, {}):
        pass
    assert refused.group_contains(NotAllowed)


def test_a_dead_daemons_socket_is_replaced(path: str) -> None:
    os.mkdir(os.path.dirname(path), 0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with fake_daemon.running(path, {"echo": echo}):
        assert client.call(path, "echo", {}) == {}


def test_a_living_daemons_socket_is_left_alone(echoing: str) -> None:
    with pytest.raises(BaseExceptionGroup) as refused, fake_daemon.running(echoing, {}):
        pass
    assert refused.group_contains(Already)


def test_the_directory_goes_with_the_last_socket(path: str) -> None:
    other = f"{path}.other"
    with fake_daemon.running(path, {}):
        with fake_daemon.running(other, {}):
            pass
        assert os.path.exists(path)
    assert not os.path.exists(os.path.dirname(path))


def test_a_sweep_removes_what_the_dead_left(path: str) -> None:
    """And nothing that a daemon listens at, or that is no socket of ours."""
    directory = Path(path).parent
    with fake_daemon.running(path, {"echo": echo}):
        dead = directory / "dead.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(dead))
        endpoint.sweep(str(directory))
        assert os.listdir(directory) == [os.path.basename(path)]
        assert client.call(path, "echo", {}) == {}
        (directory / "note").write_text("x")
        (directory / "folder.sock").mkdir()
        endpoint.sweep(str(directory))
    assert sorted(os.listdir(directory)) == ["folder.sock", "note"]
    (directory / "note").unlink()
    (directory / "folder.sock").rmdir()
    endpoint.sweep(str(directory))
    assert not directory.exists()
    endpoint.sweep(str(directory))


def test_daemons_that_come_and_go_at_once(path: str) -> None:
    """The directory is made and removed all the time; none is refused, and each is reached while it listens."""
    directory = os.path.dirname(path)

    def come_and_go(number: int) -> None:
        for _ in range(100):
            with endpoint.listening(f"{path}.{number}.sock"), socket.socket(socket.AF_UNIX) as caller:
                caller.connect(f"{path}.{number}.sock")
                endpoint.sweep(directory)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(come_and_go, number) for number in range(4)]:
            done.result(60)
    assert not os.path.exists(directory)


def as_nobody(path: str) -> dict[str, object]:
    """What the server says to a real process of another user."""
    program = (
        "import os, socket, sys\n"
        "os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(sys.argv[1])\n"
        'print(\'{"v":1,"call":"echo","args":{}}\', file=s.makefile("w"), flush=True)\n'
        'print(s.makefile().readline(), end="")\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path, str(NOBODY)],
        capture_output=True,
        check=False,
        timeout=20,
    )
    return json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr.decode()}


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody can reach, unlike those that pytest makes."""
    made = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    yield made
    subprocess.run(["rm", "-r", "--", str(made)], check=True)


def test_other_users_cannot_reach_the_socket(open_directory: Path) -> None:
    open_directory.chmod(0o755)
    path = str(open_directory / "run" / "control.sock")
    with fake_daemon.running(path, {"echo": echo}):
        assert "PermissionError" in str(as_nobody(path)["failed"])


def test_other_users_are_refused_even_where_they_reach_the_socket(open_directory: Path) -> None:
    open_directory.chmod(0o755)
    path = str(open_directory / "run" / "control.sock")
    with fake_daemon.running(path, {"echo": echo}):
        os.chmod(os.path.dirname(path), 0o755)
        os.chmod(path, 0o666)
        answer = as_nobody(path)
        assert answer["ok"] is False
        assert answer["error"]["code"] == "not_allowed"  # type: ignore[index]
        assert client.call(path, "echo", {}) == {}


@pytest.mark.parametrize("code", BY_CODE)
def test_an_error_arrives_as_what_it_was(path: str, code: str) -> None:
    with (
        fake_daemon.running(path, {"fail": fake_daemon.failing(BY_CODE[code]("what\nto do"))}),
        pytest.raises(BY_CODE[code], match="what\nto do") as caught,
    ):
        client.call(path, "fail", {})
    assert type(caught.value) is BY_CODE[code]


@pytest.mark.parametrize(
    "handler",
    [
        fake_daemon.failing(ZeroDivisionError("oops")),
        fake_daemon.failing(ExceptionGroup("two", [ValueError(), KeyError()])),
        fake_daemon.answering({"not json": object()}),
        fake_daemon.answering({"not json": float("nan")}),
    ],
)
def test_a_bug_is_logged_and_answered_as_internal(path: str, handler: Plain, caplog: pytest.LogCaptureFixture) -> None:
    with fake_daemon.running(path, {"fail": handler, "echo": echo}):
        with pytest.raises(IsofsError) as caught:
            client.call(path, "fail", {})
        assert caught.value.code == "internal"
        assert client.call(path, "echo", {}) == {}
    assert "'fail' failed" in caplog.text


def test_an_unknown_call_is_named(echoing: str) -> None:
    with pytest.raises(UsageError, match="'nonsense'"):
        client.call(echoing, "nonsense", {})


def test_progress_arrives_in_order_and_the_last_state_always(path: str) -> None:
    async def work(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
        for done in range(1000):
            progress(done + 1, 1000)
            if done % 100 == 0:
                await trio.lowlevel.checkpoint()
        return {"done": True}

    seen: list[tuple[int, int]] = []
    with fake_daemon.running(path, {"work": work}):
        result = client.call(path, "work", {}, progress=lambda *state: seen.append(state))
    assert result == {"done": True}
    assert seen == sorted(seen)
    assert seen[-1] == (1000, 1000)


def test_a_long_call_is_heard_of_without_progress(path: str) -> None:
    heard = threading.Event()

    async def work(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
        await trio.to_thread.run_sync(heard.wait, 20)
        return {}

    with fake_daemon.running(path, {"work": work}, Limits(heartbeat=0.01)):
        assert client.call(path, "work", {}, progress=lambda *_: heard.set(), timeout=20) == {}
    assert heard.is_set()


def test_several_requests_one_after_the_other(echoing: str) -> None:
    with connected(echoing) as connection:
        requests = [wire.encode(wire.Request("echo", {"n": n})) for n in range(50)]
        # In pieces that end anywhere.
        data = b"".join(requests)
        for start in range(0, len(data), 37):
            connection.sendall(data[start : start + 37])
        connection.shutdown(socket.SHUT_WR)
        assert [answer["result"] for answer in said(connection)] == [{"n": n} for n in range(50)]


def test_a_bad_line_is_answered_and_the_next_one_served(echoing: str) -> None:
    with connected(echoing) as connection:
        connection.sendall(b"garbage\n\xff\xff\n\n" + wire.encode(wire.Request("echo", {})))
        connection.shutdown(socket.SHUT_WR)
        answers = said(connection)
    assert [answer["ok"] for answer in answers] == [False, False, False, True]
    assert all(answer["v"] == 1 for answer in answers)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_huge_line_is_refused_and_ends_the_connection(echoing: str, end: bytes) -> None:
    with connected(echoing) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(b"x" * (wire.REQUEST_LIMIT + 1) + end)
        (answer,) = said(connection)
    assert answer["error"]["code"] == "usage"  # type: ignore[index]


def test_half_a_line_is_dropped(echoing: str) -> None:
    with connected(echoing) as connection:
        connection.sendall(b'{"v":1,"call":"echo"')
        connection.shutdown(socket.SHUT_WR)
        assert said(connection) == []


fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
pieces = st.lists(
    st.binary(max_size=60)
    | st.sampled_from(
        [
            b"\n",
            b'{"v":1,"call":"echo","args":{}}\n',
            b'{"v":1,"call":"echo","args":{"a":"\\ud800"}}\n',
            b'{"v":2}\n',
            b'{"v":1,"call":"__class__","args":{}}\n',
        ]
    ),
    max_size=8,
)


@fuzz
@given(pieces)
def test_no_bytes_end_the_server(echoing: str, sent: list[bytes]) -> None:
    data = b"".join(sent)
    with connected(echoing) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        # Each line has its answer, and each answer is one that a client understands.
        assert len(said(connection)) == data.count(b"\n")
    assert client.call(echoing, "echo", {"still": "there"}) == {"still": "there"}


@fuzz
@given(pieces)
def test_no_client_that_leaves_ends_the_server(echoing: str, sent: list[bytes]) -> None:
    with connected(echoing) as connection:
        connection.sendall(b"".join(sent))
    assert client.call(echoing, "echo", {"still": "there"}) == {"still": "there"}


def test_a_call_is_finished_though_its_client_has_left(path: str) -> None:
    begun, left, finished = threading.Event(), threading.Event(), threading.Event()

    async def verdict(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
        begun.set()
        await trio.to_thread.run_sync(left.wait, 20)
        for done in range(100):
            progress(done, 100)
            await trio.lowlevel.checkpoint()
        finished.set()
        return {"much": "x" * 1_000_000}

    with fake_daemon.running(path, {"verdict": verdict, "echo": echo}):
        with connected(path) as connection:
            connection.sendall(wire.encode(wire.Request("verdict", {})))
            assert begun.wait(20)
        left.set()
        assert finished.wait(20)
        assert client.call(path, "echo", {}) == {}


def test_a_client_that_reads_nothing_holds_nobody_up(path: str) -> None:
    big = fake_daemon.answering({"much": "x" * 5_000_000})
    with (
        fake_daemon.running(path, {"big": big, "echo": echo}, Limits(patience=0.05)),
        connected(path) as connection,
    ):
        connection.sendall(wire.encode(wire.Request("big", {})))
        assert client.call(path, "echo", {}) == {}
        gone = select.poll()
        gone.register(connection, 0)
        assert gone.poll(20_000)
        received = 0
        while more := connection.recv(1 << 20):
            received += len(more)
    assert received < 5_000_000


def test_an_idle_connection_is_closed(path: str) -> None:
    with (
        fake_daemon.running(path, {"echo": echo}, Limits(idle=0.05)),
        connected(path) as connection,
    ):
        assert said(connection) == []


def test_more_connections_than_allowed_are_told_so(path: str) -> None:
    with (
        fake_daemon.running(path, {"echo": echo}, Limits(connections=2)),
        connected(path) as first,
        connected(path) as second,
    ):
        for connection in (first, second):
            connection.sendall(wire.encode(wire.Request("echo", {})))
            assert connection.recv(1000)
        with pytest.raises(Busy):
            client.call(path, "echo", {})
        first.shutdown(socket.SHUT_WR)
        assert said(first) == []
        with connected(path) as third:
            third.sendall(wire.encode(wire.Request("echo", {})))
            assert b'"ok"' in third.recv(1000)


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """This process can open so many files more, and afterwards what it could before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    taken = [os.dup(0) for _ in range(count)]  # what is free below the highest is no help
    limit = max([free, *taken])
    for one in (free, *taken):
        os.close(one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_callers_wait_and_are_served_when_there_are_some(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with fake_daemon.running(path, {"echo": echo}), socket.socket(socket.AF_UNIX) as waiting:
        waiting.settimeout(10)
        with descriptors_left(0):
            waiting.connect(path)
            waiting.sendall(wire.encode(wire.Request("echo", {})))
            while not caplog.records:
                assert not select.select([waiting], [], [], 0.05)[0]
        assert b'"ok"' in waiting.recv(1000)
        assert client.call(path, "echo", {"alive": True}) == {"alive": True}
    assert [(one.getMessage(), one.exc_info) for one in caplog.records] == [
        ("control connections wait, none can be accepted: Too many open files; trying on", None),
        ("control connections are accepted again", None),
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_nobody_is_taken_for_another_because_descriptors_are_used_up(path: str, count: int) -> None:
    """With one for the connection, or one more, too few are left to ask whose login it is."""
    with fake_daemon.running(path, {"echo": echo}), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        with descriptors_left(count):
            connection.connect(path)
            [answer] = said(connection)
        assert answer["error"]["code"] == "busy", answer  # type: ignore[index]


class Exhausted(trio.abc.Listener[trio.SocketStream]):
    """A listener that can accept nothing."""

    tries = 0

    async def accept(self) -> trio.SocketStream:
        self.tries += 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def aclose(self) -> None:
        pass


def test_a_lack_of_descriptors_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    listener = Exhausted()

    async def never(stream: trio.SocketStream) -> None:
        raise AssertionError("nothing was accepted")

    async def three_minutes() -> None:
        with trio.move_on_after(179):
            async with trio.open_nursery() as nursery:
                await accepting.accept(listener, never, nursery)

    trio.run(three_minutes, clock=trio.testing.MockClock(autojump_threshold=0))
    assert listener.tries > 1000
    assert len(caplog.records) == 3


async def stopped_during(path: str, limits: Limits, *, finishes: bool) -> object:
    """What a client hears whose call is going on when the server is cancelled."""
    begun = trio.Event()
    may_finish = trio.Event()

    async def work(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
        begun.set()
        await may_finish.wait()
        return {"pid": os.getpid()}

    heard: list[object] = []

    def ask() -> None:
        try:
            heard.append(client.call(path, "work", {}))
        except NoAnswer as error:
            heard.append(error)

    async with trio.open_nursery() as clients, trio.open_nursery() as servers:

        async def listen(task_status: trio.TaskStatus[None]) -> None:
            await serve(path, plain({"work": work}), limits=limits, task_status=task_status)

        await servers.start(lambda task_status: listen(task_status))
        clients.start_soon(trio.to_thread.run_sync, ask)
        await begun.wait()
        servers.cancel_scope.cancel()
        if finishes:
            may_finish.set()
    return heard[0]


def test_a_call_that_has_begun_is_answered_though_the_server_stops(path: str) -> None:
    assert trio.run(partial(stopped_during, path, Limits(), finishes=True)) == {"pid": os.getpid()}


def test_a_call_that_never_ends_does_not_keep_the_server(path: str) -> None:
    heard = trio.run(partial(stopped_during, path, Limits(grace=0.05), finishes=False))
    assert isinstance(heard, NoAnswer)


def test_no_socket_is_no_answer(path: str) -> None:
    with pytest.raises(client.Unreachable):
        client.call(path, "echo", {})


def test_a_dead_daemon_is_no_answer(path: str) -> None:
    os.mkdir(os.path.dirname(path))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(client.Unreachable):
        client.call(path, "echo", {})


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b'{"v":1,"progress":{"done":1,"total":2}}\n',
        b'{"v":1,"ok":true,"result":{}}',
        b"nonsense\n",
        b'{"v":2,"ok":true,"result":{}}\n',
        b'{"v":1,"ok":true,"result":[]}\n',
    ],
)
def test_a_daemon_that_ends_without_an_answer(tmp_path: Path, answer: bytes) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_once)
        thread.start()
        with pytest.raises(NoAnswer) as caught:
            client.call(path, "echo", {}, timeout=20)
        thread.join()
    assert not isinstance(caught.value, client.Unreachable)


def test_a_silent_daemon_is_no_answer(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(NoAnswer, match="said nothing for 0"):
            client.call(path, "echo", {}, timeout=0.05)
