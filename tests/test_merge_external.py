"""External merge drivers: what they are given, what they can do, and what is taken of what they leave."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

import pytest

from isofs.merge.external import expand
from isofs.merge.resolvers.base import Inputs, Merged, Options, Proposal, Unresolved
from support.merging import merge, merged

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become nobody")


def _drive(command: str, timeout: int = 20) -> Proposal:
    options: Options = {"command": command, "timeout": timeout}
    return merge("external", b"base\n", b"main\n", b"suspect\n", options, path=b"a dir/it's.txt")


def _content(command: str) -> str:
    proposal = _drive(command)
    assert isinstance(proposal, Merged), proposal
    return proposal.content.decode()


def test_a_driver_is_called_as_git_calls_it() -> None:
    assert _content("cat %O %B >> %A; echo %L %P %X %Y 50%% %z >> %A").splitlines() == [
        "main",
        "base",
        "suspect",
        "7 a dir/it's.txt main alice 50% %z",
    ]


def test_names_are_words_for_the_shell_whatever_is_in_them() -> None:
    inputs = Inputs(b"$(touch x);\n'\xff", b"", b"a", b"b", main_name="; rm", suspect_name="`x`")
    words = shlex.split(expand("x %P %X %Y", inputs))
    assert words == ["x", inputs.path.decode(errors="surrogateescape"), "; rm", "`x`"]


def test_real_drivers() -> None:
    lines = b"1\n2\n3\n4\n5\n"
    options = {"command": "git merge-file %A %O %B"}
    main, suspect = lines.replace(b"1", b"one"), lines.replace(b"5", b"five")
    assert merged("external", lines, main, suspect, options) == main.replace(b"5", b"five")
    proposal = merge("external", lines, main, lines.replace(b"1", b"I"), options)
    assert isinstance(proposal, Unresolved)
    assert proposal.marked is not None
    assert proposal.marked.startswith(b"<<<<<<<")


@pytest.mark.parametrize("status", [1, 3, 126, 127, 200])
def test_a_failure_is_unresolved_and_nothing_of_it_is_merged(status: int) -> None:
    proposal = _drive(f"echo half > %A; echo 'went wrong' >&2; exit {status}")
    assert isinstance(proposal, Unresolved)
    assert proposal.reasons == (f"external: the driver ended with {status}: went wrong",)
    assert (proposal.marked is not None) is (status < 126)


@pytest.mark.parametrize(
    "command",
    [
        "rm %A",
        "rm %A; ln -s /etc/shadow %A",
        "rm %A; mkdir %A",
        "rm %A; mkfifo %A",
        "ln %A other",
        "kill -9 $$",
        "no-such-program-anywhere",
        "truncate -s 300M %A",
    ],
)
def test_odd_results_are_not_taken(command: str) -> None:
    assert isinstance(_drive(command), Unresolved)


def test_a_driver_is_nobody_in_an_empty_place_without_an_environment() -> None:
    told = _content(
        "{ id -u; id -g; id -G; pwd | wc -l; echo $(ls -A); echo $(env | cut -d= -f1);"
        "echo $(grep -E 'NoNewPrivs|CapEff|CapBnd' /proc/self/status); } > new; cat new > %A"
    ).splitlines()
    assert told[:4] == ["65534", "65534", "65534", "1"]
    assert told[4].split() == ["base", "main", "new", "suspect"]
    assert set(told[5].split()) <= {"PATH", "PWD", "_", "OLDPWD", "SHLVL"}
    assert "NoNewPrivs: 1" in told[6]
    assert told[6].count("0000000000000000") == 2


def test_a_driver_cannot_read_what_nobody_cannot(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    assert isinstance(_drive(f"cat {secret} > %A"), Unresolved)


def test_a_driver_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    begun = time.monotonic()
    proposal = _drive("sleep 71.25 & echo half > %A; sleep 71.25", timeout=1)
    assert isinstance(proposal, Unresolved)
    assert "longer than 1 s" in proposal.reasons[0]
    assert time.monotonic() - begun < 10
    assert not _running(b"71.25")


def test_what_a_driver_leaves_running_is_ended() -> None:
    assert _content("sleep 72.25 & echo done > %A") == "done\n"
    assert not _running(b"72.25")


def _running(word: bytes) -> bool:
    for _ in range(50):
        found = [pid for pid in os.listdir("/proc") if pid.isdigit() and _has(pid, word)]
        if not found:
            return False
        time.sleep(0.1)
    return True


def _has(pid: str, word: bytes) -> bool:
    try:
        return word in Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o711)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o711)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert _content("mkdir -p x/y; chmod 0 x; echo done > %A") == "done\n"
    assert list(tmp_path.iterdir()) == []
