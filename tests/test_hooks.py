"""Programs that are told what happened: what they get, what they may do, and that they hold nothing up."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from isofs.errors import BadConfiguration
from isofs.service import hooks
from isofs.service.events import Event, Events, Kind
from isofs.service.hooks import Ended, Hooks, document, refusal, run
from isofs.service.live import Live
from isofs.settings.document import read
from isofs.store.folder import open_store

#: More than a program of these tests takes, and less than one that hangs.
SOON = 20.0


def ran(*command: str, given: bytes = b"", timeout: float = SOON) -> Ended:
    async def main() -> Ended:
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return await run(command, given, {"ONE": "1"}, namespace, timeout)
        finally:
            os.close(namespace)

    return trio.run(main)


def test_a_program_has_what_it_is_given_and_nothing_else(tmp_path: Path) -> None:
    held = open(tmp_path / "held", "w")  # noqa: SIM115
    os.set_inheritable(held.fileno(), True)
    with held:
        assert ran("/bin/ls", "/proc/self/fd").output.split() == [b"0", b"1", b"2", b"3"]  # 3 is that directory
    assert ran("/usr/bin/env") == Ended(0, b"ONE=1\n")
    assert ran("/bin/cat", given=b"x" * 300_000) == Ended(0, b"x" * hooks.OUTPUT)
    assert ran("/bin/pwd") == Ended(0, b"/\n")
    assert ran("/bin/sh", "-c", "echo out; echo err >&2; exit 3") == Ended(3, b"out\nerr\n")
    pid, _name, _state, _parent, group, session = ran("/bin/cat", "/proc/self/stat").output.split()[:6]
    assert pid == group == session


def test_a_program_that_reads_nothing_or_says_too_much_ends_all_the_same() -> None:
    assert ran("/bin/true", given=b"x" * 300_000) == Ended(0, b"")
    assert ran("/bin/sh", "-c", "yes | head -c 5000000") == Ended(0, b"y\n" * (hooks.OUTPUT // 2))


def test_a_slow_program_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    ended = ran("/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; echo early; sleep 1000 & sleep 1000", timeout=0.3)
    assert ended == Ended(None, b"early\n")
    assert time.monotonic() - began < SOON
    assert_gone(int((tmp_path / "pid").read_text()))


def test_what_a_program_leaves_running_is_ended(tmp_path: Path) -> None:
    ended = ran("/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 1000 & echo done")
    assert ended == Ended(0, b"done\n")
    assert_gone(int((tmp_path / "pid").read_text()))


def assert_gone(group: int) -> None:
    """All of a group end, which were killed a moment ago."""
    late = time.monotonic() + SOON
    while left := members(group):
        assert time.monotonic() < late, left


def members(group: int) -> list[str]:
    """The processes of a group that have not ended."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            state, _parent, pgrp = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state != "Z":
            found.append(name)
    return found


def program(path: Path, text: str = "#!/bin/sh\n") -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_what_others_could_change_is_refused(tmp_path: Path) -> None:
    good = program(tmp_path / "good")
    assert refusal(good, "/srv") is None
    assert refusal("/bin/sh", "/srv") is None
    assert refusal(good, str(tmp_path)) == f"{good} lies in {tmp_path}, where people work"
    link = tmp_path / "link"
    link.symlink_to(good)
    assert refusal(str(link), "/srv") is None
    (tmp_path / "away").mkdir()
    os.rename(good, tmp_path / "away" / "good")
    (tmp_path / "away").chmod(0o777)
    link.unlink()
    link.symlink_to(tmp_path / "away" / "good")
    assert refusal(str(link), "/srv") == f"{link} could be replaced by others than root: see {tmp_path / 'away'}"
    (tmp_path / "away").chmod(0o1777)
    assert refusal(str(link), "/srv") is None
    (tmp_path / "away" / "good").chmod(0o775)
    assert "writable for root alone" in str(refusal(str(link), "/srv"))
    (tmp_path / "away" / "good").chmod(0o755)
    os.chown(tmp_path / "away" / "good", 61001, 0)
    assert "must be root's" in str(refusal(str(link), "/srv"))
    assert refusal(str(tmp_path), "/srv") == f"{tmp_path} is not a program that can be executed"
    (tmp_path / "plain").write_text("")
    assert refusal(str(tmp_path / "plain"), "/srv") == f"{tmp_path / 'plain'} is not a program that can be executed"
    assert refusal("/no/such", "/srv") == "/no/such cannot be run: No such file or directory"


def test_a_configuration_that_names_one_is_refused_with_its_line(tmp_path: Path) -> None:
    good = program(tmp_path / "good")
    text = f'[hooks]\non_review = ["{good}", "x"]\non_quota = "/no/such"\n'
    with pytest.raises(BadConfiguration, match=r"^c.toml, line 3: on_quota cannot be this: /no/such cannot be run"):
        hooks.check(read(text, "c.toml"), "/srv")
    hooks.check(read(text.replace("/no/such", good), "c.toml"), None)
    with pytest.raises(BadConfiguration, match=r"line 2: on_review cannot be this: .* where people work"):
        hooks.check(read(text.replace("/no/such", ""), "c.toml"), str(tmp_path))


def test_the_document_is_one_line_and_says_what_it_is_of() -> None:
    told = document(Event(Kind.SUSPECT, {"user": "a\nb\udcff", "mount": "/other", "event": "x"}, 1e9), "/srv")
    assert told.count(b"\n") == 1
    assert json.loads(told) == {
        "event": "suspect",
        "at": "2001-09-09T01:46:40Z",
        "mount": "/srv",
        "user": "a\nb\udcff",
    }


Act = Callable[[str, Callable[[Events], Awaitable[None]]], None]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Act]:
    """Events that are told while hooks run, with a configuration; then the daemon ends."""
    store = open_store(str(tmp_path / "store"))

    def act(configuration: str, do: Callable[[Events], Awaitable[None]]) -> None:
        (tmp_path / "store" / "config.toml").write_text(configuration)

        async def main() -> None:
            live, events = Live(store), Events()
            assert live.error is None
            namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            found = Hooks("/srv", namespace, live, events)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(found.run)
                    with trio.fail_after(SOON):
                        await do(events)
                    nursery.cancel_scope.cancel()
            finally:
                os.close(namespace)

        trio.run(main)

    yield act
    store.close()


async def until(path: Path, count: int = 1) -> list[dict[str, object]]:
    """What programs wrote to a file, a line each, once there are so many."""
    while True:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return [json.loads(line) for line in lines]
        await trio.sleep(0.01)


def test_each_event_is_told_in_its_order_to_its_program(scene: Act, tmp_path: Path) -> None:
    script = program(tmp_path / "hook", f"#!/bin/sh\ncat >> {tmp_path}/$1-$ISOFS_EVENT\necho $ISOFS_MOUNT\n")
    told: list[dict[str, object]] = []

    async def do(events: Events) -> None:
        for number in range(5):
            events.tell(Event(Kind.SUSPECT, {"uid": number}))
        await trio.to_thread.run_sync(events.tell, Event(Kind.VERDICT, {"uid": 9}))  # from a thread
        events.tell(Event(Kind.QUOTA, {"uid": 10}))  # nobody is to be told
        told.extend(await until(tmp_path / "a-suspect", 5))
        told.extend(await until(tmp_path / "b-verdict"))

    scene(f'[hooks]\non_suspect = ["{script}", "a"]\non_verdict = ["{script}", "b"]\n', do)
    assert [one["uid"] for one in told] == [0, 1, 2, 3, 4, 9]
    assert sorted(os.listdir(tmp_path)) == ["a-suspect", "b-verdict", "hook", "store"]


def test_a_program_that_hangs_holds_up_only_its_own_kind(
    scene: Act, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slow = program(tmp_path / "slow", "#!/bin/sh\nsleep 1000\n")
    quick = program(tmp_path / "quick", f"#!/bin/sh\ncat >> {tmp_path}/told\n")
    at: list[float] = []

    async def do(events: Events) -> None:
        began = time.monotonic()
        for _ in range(hooks.WAITING + 5):
            events.tell(Event(Kind.SUSPECT, {"uid": 1}))
        events.tell(Event(Kind.VERDICT, {"uid": 2}))
        at.append(time.monotonic() - began)
        await until(tmp_path / "told")

    began = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hooks, "GRACE", 0.2)
        scene(f'[hooks]\non_suspect = "{slow}"\non_verdict = "{quick}"\n', do)
    assert at[0] < 1
    assert time.monotonic() - began < SOON
    assert "too many events for hook on_suspect" in caplog.text
    assert "the daemon ends before hook on_suspect was told everything" in caplog.text


def test_what_waits_is_told_before_the_daemon_ends(scene: Act, tmp_path: Path) -> None:
    script = program(tmp_path / "hook", f"#!/bin/sh\nsleep 0.1; cat >> {tmp_path}/told\n")

    async def do(events: Events) -> None:
        for number in range(3):
            events.tell(Event(Kind.SUSPECT, {"uid": number}))
        await trio.lowlevel.checkpoint()

    scene(f'[hooks]\non_suspect = "{script}"\n', do)
    assert [json.loads(line)["uid"] for line in (tmp_path / "told").read_text().splitlines()] == [0, 1, 2]


def test_the_log_says_how_programs_ended(scene: Act, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bad = program(tmp_path / "bad", "#!/bin/sh\nprintf 'no\\033[2J'; exit 4\n")
    good = program(tmp_path / "good", "#!/bin/sh\n")
    (tmp_path / "others").write_text("#!/bin/sh\n")
    (tmp_path / "others").chmod(0o777)
    torn = program(tmp_path / "torn", "#!/no/such/interpreter\n")
    configuration = (
        f'[hooks]\non_suspect = "{bad}"\non_verdict = "{good}"\non_quota = "{tmp_path}/others"\non_failure = "{torn}"\n'
        f'on_review = "{tmp_path}/slow"\ntimeout = 1\n'
    )
    program(tmp_path / "slow", "#!/bin/sh\nsleep 1000\n")

    async def do(events: Events) -> None:
        for kind in (Kind.SUSPECT, Kind.VERDICT, Kind.QUOTA, Kind.FAILURE, Kind.REVIEW):
            events.tell(Event(kind, {"uid": 7}))
        await trio.lowlevel.checkpoint()

    scene(configuration, do)
    said = [record.getMessage() for record in caplog.records]
    assert "hook on_suspect ended with 4: no\N{REPLACEMENT CHARACTER}[2J" in said
    assert "hook on_verdict ended with 0" in said
    assert any(one.startswith("hook on_quota is not run: ") and '"uid": 7' in one for one in said)
    assert any(one.startswith("hook on_failure ended with 127: ") for one in said)
    assert "hook on_review took longer than 1 s and was killed" in said
