"""Hooks and alerts on a real mount: what programs see there, and whom detectors isolate."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isofs.errors import Exit
from support.command import refused
from support.mount import ALICE, BOB, CAROL, DAVE, Mounted, Person

pytestmark = pytest.mark.mount

Begin = Callable[[int], Person]

#: Seconds within which a program is told.
SOON = 30


class Told:
    """A program that tells what it is told, and what else it finds out, through a pipe."""

    def __init__(self, place: Path, script: str = "") -> None:
        self.path = place / "hook"
        pipe = place / "pipe"
        os.mkfifo(pipe)
        self._pipe = os.open(pipe, os.O_RDWR | os.O_CLOEXEC)
        self._rest = b""
        self.path.write_text(f"#!/bin/sh\n{{ cat; {script}\necho end; }} > {pipe}\n")
        self.path.chmod(0o755)

    def next(self) -> tuple[dict[str, Any], list[str]]:
        """What it was told, and the lines that it found out."""
        while b"end\n" not in self._rest:
            assert select.select([self._pipe], [], [], SOON)[0], self._rest
            self._rest += os.read(self._pipe, 1 << 16)
        text, _, self._rest = self._rest.partition(b"end\n")
        first, *lines = text.decode().splitlines()
        return json.loads(first), lines

    def close(self) -> None:
        os.close(self._pipe)


@pytest.fixture
def told(place: Path) -> Iterator[Callable[..., Told]]:
    every: list[Told] = []

    def make(script: str = "") -> Told:
        every.append(Told(place, script))
        return every[-1]

    yield make
    for one in every:
        one.close()


@pytest.fixture
def configure(mount: Mounted) -> Iterator[Callable[[str], None]]:
    def write(text: str) -> None:
        config = mount.backing / ".isofs" / "config.toml"
        config.write_text(text)
        mount.ask("status")

    yield write
    write("")


def test_a_program_sees_the_mount_as_everybody_does(
    mount: Mounted, person: Begin, told: Callable[..., Told], configure: Callable[[str], None]
) -> None:
    """Not what lies below it; what it asks the daemon is answered; and it holds up neither calls nor verdicts."""
    (mount.path / "file").write_text("main's\n")
    (mount.path / "file").chmod(0o666)
    command = f"{sys.executable} -m isoctl.main"
    hook = told(f'ls -A "$ISOFS_MOUNT"; cat "$ISOFS_MOUNT/file"; {command} changes {ALICE} 2>&1')
    configure(f'[hooks]\non_suspect = "{hook.path}"\non_verdict = "{hook.path}"\n')
    alice = person(ALICE)
    since = mount.facts("suspect", str(ALICE), "--reason", "odd \x1b[2J")["since"]
    alice.write("file", "hers\n")
    facts, seen = hook.next()
    assert {key: facts[key] for key in ("event", "mount", "user", "uid", "since", "reason")} == {
        "event": "suspect",
        "mount": str(mount.path),
        "user": str(ALICE),
        "uid": ALICE,
        "since": since,
        "reason": "odd \x1b[2J",
    }
    assert seen[:2] == ["file", "main's"]
    assert mount.isoctl("malicious", str(ALICE), "--yes").code == 0
    facts, seen = hook.next()
    assert (facts["event"], facts["verdict"], facts["counts"]) == ("verdict", "malicious", {"modified": 1})
    assert seen[:2] == ["file", "main's"]
    assert "is not a suspect" in seen[2]


def test_a_program_may_be_read_through_the_mount(
    mount: Mounted, told: Callable[..., Told], configure: Callable[[str], None]
) -> None:
    """Here its interpreter is: the daemon must be able to serve that while it starts the program."""
    shutil.copy("/bin/sh", mount.path / "sh")
    hook = told()
    hook.path.write_text(hook.path.read_text().replace("#!/bin/sh", f"#!{mount.path}/sh"))
    configure(f'[hooks]\non_suspect = "{hook.path}"\n')
    mount.facts("suspect", str(ALICE))
    assert hook.next()[0]["uid"] == ALICE


def test_a_configuration_with_a_program_that_would_not_run_is_refused(mount: Mounted, place: Path) -> None:
    file = place / "config"
    (mount.path / "hook").write_text("#!/bin/sh\n")
    (mount.path / "hook").chmod(0o755)
    file.write_text(f'[hooks]\non_suspect = "{mount.path}/hook"\n')
    for words in (["check", str(file)], ["edit", "--from", str(file)]):
        refused(mount.isoctl("config", *words), Exit.USAGE, "line 2: on_suspect", "where people work")
    assert mount.facts("config", "show")["text"] == ""


def test_alerts_isolate_as_they_come(
    mount: Mounted, person: Begin, told: Callable[..., Told], configure: Callable[[str], None]
) -> None:
    hook = told()
    hooks = f'[hooks]\non_suspect = "{hook.path}"\non_failure = "{hook.path}"\n'
    configure(f'{hooks}[alerts]\nmost = 2\n[access]\nnever = "{DAVE}"\n')
    alice = person(ALICE)
    words = [sys.executable, "-m", "isoctl.main", "--mount", str(mount.path), "suspect", "--json"]
    with subprocess.Popen(
        [*words, "--from", "-", "--detector", "auditd"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def alert(uid: int) -> dict[str, Any]:
            """What is said of an alert, while the detector goes on."""
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f'type=SYSCALL msg=audit(1.0:7): auid={uid} uid=0 comm="tar" key="isofs-x"\n')
            process.stdin.write("type=EOE msg=audit(1.0:7):\n")
            process.stdin.flush()
            found: dict[str, Any] = json.loads(process.stdout.readline())
            return found

        assert alert(ALICE)["outcome"] == "isolated"
        alice.write("hers", "x")
        assert not (mount.path / "hers").exists()
        facts, _ = hook.next()
        assert facts["reason"] == "auditd: isofs-x; comm tar; serial 7"
        assert alert(ALICE)["outcome"] == "already"
        assert alert(0)["outcome"] == "spared"
        assert "`access.never`" in alert(DAVE)["why"]
        assert alert(BOB)["outcome"] == "isolated"
        hook.next()
        limited = alert(CAROL)
        assert limited["outcome"] == "limited"
        assert "2 users within 600 s" in limited["why"]
        facts, _ = hook.next()
        assert (facts["event"], facts["what"], facts["uid"]) == ("failure", "alerts", CAROL)
        assert alert(CAROL)["outcome"] == "limited"
        process.stdin.close()
        totals = json.loads(process.stdout.readline())
    assert process.returncode == 0
    assert totals == {
        "lines": 14,
        "outcomes": {"isolated": 2, "ignored": 7, "already": 1, "spared": 2, "limited": 2},
    }
    assert {one["uid"] for one in mount.facts("status")["subjects"]} == {ALICE, BOB}
    mount.facts("suspect", str(CAROL))  # an operator has no limit


def test_a_dry_run_isolates_nobody(mount: Mounted, place: Path) -> None:
    mount.facts("suspect", str(BOB))
    file = place / "alerts"
    lines = [
        {"rule": "x", "priority": "Alert", "source": "syscall", "output_fields": {"user.uid": uid}}
        for uid in (ALICE, BOB, 0, ALICE)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = mount.isoctl("suspect", "--from", str(file), "--detector", "falco", "--dry-run", "--json")
    assert [json.loads(line).get("outcome") for line in done.out.splitlines()] == [
        "would isolate",
        "already",
        "spared",
        "would isolate",
        None,
    ]
    assert [one["uid"] for one in mount.facts("status")["subjects"]] == [BOB]
    done = mount.isoctl("suspect", "--from", str(file), "--detector", "snort")
    assert (done.code, done.out) == (2, "")
    assert "there is no detector 'snort'; there are: wazuh, falco, auditd" in done.err


def test_somebody_is_reminded_of_suspects_and_nobody_is_released(
    mount: Mounted, told: Callable[..., Told], configure: Callable[[str], None]
) -> None:
    hook = told()
    since = mount.facts("suspect", str(ALICE), "--reason", "late")["since"]
    assert mount.facts("status")["subjects"][0]["review"] > since
    configure(f'[hooks]\non_review = "{hook.path}"\n[alerts]\nreview = 1\n')
    first, _ = hook.next()
    second, _ = hook.next()
    assert {key: first[key] for key in ("event", "user", "uid", "since", "reason")} == {
        "event": "review",
        "user": str(ALICE),
        "uid": ALICE,
        "since": since,
        "reason": "late",
    }
    assert 1 <= first["periods"] < second["periods"]
    assert f"to review since {first['review']}" in mount.isoctl("status").out
    assert mount.facts("status")["subjects"][0]["state"] == "suspect"
