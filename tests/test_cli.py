"""The program `isoctl` against a daemon that answers what a test tells it to."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import dead_mount
import fake_daemon
import isofs.service
from isoctl import output, users
from isoctl.diff import relative
from isoctl.main import main
from isofs.control import client, mounts, wire
from isofs.control.mounts import Mount
from isofs.control.server import Plain, Progress
from isofs.errors import BY_CODE, Exit, NoSubject, NotAllowed, UsageError
from isofs.service.starting import How
from support.mount import as_user

#: A name that would clear the screen, and isn't UTF-8; and how it must be shown.
HOSTILE = wire.path_text(b"d/\x1b[2J\n\xff")
SHOWN = r"d/\x1b[2J\x0a\xff"

SINCE = "2026-05-01T10:00:00Z"

PROPOSAL = {
    "user": "alice",
    "uid": 4001,
    "at": SINCE,
    "by": "carol",
    "call": "resolve",
    "words": ["resolve", "alice", HOSTILE, "--with", "FILE"],
    "reason": "looks\x07 fine",
    "content": {"size": 3, "sha256": "ab" * 32},
    "changed": True,
}

#: How it is shown.
PROPOSED = [
    rf"alice (uid 4001)  proposed by carol {SINCE}: looks\x07 fine",
    r"    isoctl resolve alice $'d/\033[2J\012\377' --with FILE",
    f"    FILE: 3 B sha256:{'ab' * 32}",
    "    alice has changed something since",
]

#: What the daemon answers to each call.
ANSWERS: dict[str, dict[str, Any]] = {
    "status": {
        "state": "ok",
        "degraded": None,
        "mount": "/srv/share",
        "store": "/srv/share/.isofs",
        "pid": 123,
        "version": "0.1.0",
        "since": SINCE,
        "subjects": [
            {
                "user": "alice",
                "uid": 4001,
                "state": "conflicts",
                "since": SINCE,
                "reason": "alert \x1b]0;7",
                "changed": {"added": 3, "modified": 0, "deleted": 1, "renamed": 0, "attributes": 2},
                "bytes": 1536,
                "conflicts": 1,
                "parts": [
                    {"since": SINCE, "objects": 1, "asked": "--only \x1b[2J"},
                    {"since": SINCE, "objects": 12, "asked": ""},
                ],
                "review": None,
                "stopped": False,
                "quota": {
                    "bytes": 9 << 30,
                    "bytes_limit": 10 << 30,
                    "objects": 1,
                    "objects_limit": 100_000,
                    "handles": 3,
                    "handles_limit": 2000,
                    "near": ["bytes", "handles"],
                },
            }
        ],
        "attic": {"entries": 2, "bytes": 3072},
        "configuration": None,
        "quota": {
            "bytes": 40 << 30,
            "bytes_limit": 50 << 30,
            "free": 3 << 30,
            "reserve": 1 << 30,
            "bases_left_out": 2,
            "near": ["bytes", "reserve"],
        },
        "two_person": True,
        "proposals": [PROPOSAL],
    },
    "proposals": {"proposals": [PROPOSAL]},
    "withdraw": PROPOSAL,
    "confirm": {
        "user": "alice",
        "call": "innocent",
        "by": "carol",
        "confirmed_by": "root",
        "result": {
            "user": "alice",
            "counts": {"took": 1, "merged": 1},
            "items": [
                {"path": "a", "action": "took", "reason": "only the suspect", "review": False, "as": None},
                {"path": HOSTILE, "action": "merged", "reason": "text", "review": True, "as": None},
            ],
            "conflicts": 0,
        },
    },
    "suspect": {
        "user": "alice",
        "uid": 4001,
        "since": SINCE,
        "killed": [{"pid": 7, "program": "vi\x07m", "path": HOSTILE}],
        "left": [{"pid": 8, "program": "mysqld", "path": "db"}],
    },
    "changes": {
        "user": "alice",
        "subject": 1,
        "since": SINCE,
        "changes": [
            {
                "change": "added",
                "kind": "file",
                "path": HOSTILE,
                "from": None,
                "size": 2048,
                "risks": ["exec", "owner"],
            },
            {"change": "renamed", "kind": "directory", "path": "new", "from": "old", "size": None, "risks": []},
            {"change": "deleted", "kind": "file", "path": "gone", "from": None, "size": None, "risks": ["exec"]},
        ],
        "risks": ["mass-deletion"],
    },
    "diff": {
        "user": "alice",
        "risks": [],
        "entries": [
            {
                "path": "a",
                "change": "modified",
                "kind": "file",
                "text": "--- a\n+++ b\n@@ -1 +1 @@\n-\told\\\n+new \x1b[2J\udcff\r\n",
                "old": None,
                "new": None,
                "known": True,
                "risks": [],
            },
            {
                "path": HOSTILE,
                "change": "modified",
                "kind": "file",
                "text": None,
                "old": {"size": 1, "sha256": "00"},
                "new": {"size": 3_000_000, "sha256": "11"},
                "known": True,
                "risks": ["setuid"],
            },
            {
                "path": "gone",
                "change": "deleted",
                "kind": "file",
                "text": None,
                "old": {"size": 1, "sha256": "00"},
                "new": None,
                "known": True,
                "risks": [],
            },
        ],
    },
    "innocent": {
        "user": "alice",
        "counts": {"took": 2, "conflict": 0, "renamed": 1, "restored": 1},
        "items": [
            {"path": "quiet", "action": "took", "reason": "new", "review": False, "as": None},
            {
                "path": HOSTILE,
                "action": "renamed",
                "reason": "two objects of one name",
                "review": False,
                "as": "x.isofs-alice",
            },
            {"path": "r", "action": "restored", "reason": "deleted", "review": True, "as": None},
        ],
        "conflicts": 0,
        "along": [],
        "left": [],
    },
    "malicious": {
        "user": "alice",
        "counts": {"discarded": 5},
        "accepted": [],
        "along": [],
        "evidence": "/e/" + HOSTILE,
        "readable": "/proc/123/root/e/" + HOSTILE,
    },
    "conflicts": {
        "conflicts": [
            {
                "user": "alice",
                "uid": 4001,
                "since": SINCE,
                "path": HOSTILE,
                "kind": "file",
                "reason": "changed on both sides",
                "main": {"G": 2, "4001": "m"},
                "suspect": None,
                "version": "/store/4001/12",
                "readable": "/proc/123/root/store/4001/12",
            }
        ]
    },
    "resolve": {
        "user": "alice",
        "counts": {"renamed": 1},
        "items": [
            {
                "path": HOSTILE,
                "action": "renamed",
                "reason": "both stay",
                "review": False,
                "as": HOSTILE + ".isofs-alice",
            }
        ],
        "conflicts": 0,
    },
    "check": {"ok": True, "checked": {"objects": 5, "bindings": 7}, "problems": []},
    "attic": {
        "entries": [
            {
                "number": 12,
                "at": SINCE,
                "user": "alice",
                "subject": 3,
                "action": "replaced",
                "kind": "file",
                "size": 2048,
                "live": True,
                "path": HOSTILE,
            }
        ],
        "more": False,
    },
    "attic_restore": {
        "restored": [{"number": 11, "path": "d"}, {"number": 12, "path": HOSTILE}],
        "stowed": 13,
        "replaced": [{"number": 13, "path": HOSTILE}],
        "left": [],
    },
    "attic_purge": {"entries": 2, "bytes": 3072},
}

#: Every command that asks the daemon one thing.
COMMANDS = {
    "status": ["status"],
    "suspect": ["suspect", "4001"],
    "changes": ["changes", "4001"],
    "diff": ["diff", "4001"],
    "innocent": ["innocent", "4001"],
    "malicious": ["malicious", "4001", "--yes"],
    "conflicts": ["conflicts"],
    "resolve": ["resolve", "4001", "f", "--take", "both"],
    "proposals": ["proposals"],
    "confirm": ["confirm", "4001"],
    "withdraw": ["withdraw", "4001"],
    "check": ["check"],
    "attic": ["attic", "list"],
    "attic_restore": ["attic", "restore", "12"],
    "attic_purge": ["attic", "purge", "--yes"],
}

every_command = pytest.mark.parametrize(("call", "words"), COMMANDS.items())


class Stage:
    """A mount that only seems to be there, its daemon, and what the daemon was asked."""

    def __init__(self, mount: str) -> None:
        self.mount = mount
        self.calls: list[tuple[str, dict[str, object]]] = []

    @contextlib.contextmanager
    def daemon(self, **answers: Mapping[str, object] | Exception | Plain) -> Iterator[None]:
        """Serve these answers, and those of ANSWERS to all other calls."""
        handlers = {name: self._handler(name, answer) for name, answer in {**ANSWERS, **answers}.items()}
        with fake_daemon.running(mounts.socket_for(self.mount), handlers):
            yield

    def _handler(self, name: str, answer: Mapping[str, object] | Exception | Plain) -> Plain:
        async def handler(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
            self.calls.append((name, dict(args)))
            if isinstance(answer, Exception):
                raise answer
            if isinstance(answer, Mapping):
                return answer
            made: Mapping[str, object] = await answer(args, progress)
            return made

        return handler


def isoctl(*words: str, **more: Any) -> Result:
    result = CliRunner().invoke(main, words, **more)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    mount = os.path.realpath(tmp_path / "share")
    os.mkdir(mount)
    monkeypatch.setattr(mounts, "RUN", str(tmp_path / "run"))
    monkeypatch.setattr(mounts, "mounted", lambda: [Mount(mount, "store")])
    monkeypatch.delenv("ISOFS_MOUNT", raising=False)
    return Stage(mount)


NOTHING_READ: dict[str, Any] = {"first": None, "last": None, "gaps": []}


@every_command
def test_json_is_the_result_itself(stage: Stage, call: str, words: list[str]) -> None:
    with stage.daemon():
        result = isoctl(*words, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    if call == "conflicts":  # what settles them depends on how `isoctl` is called
        assert [one.pop("commands") for one in found["conflicts"]] != [[]]
    if call == "changes":  # what was read is in the store, which has nothing here
        assert found.pop("read") == {**dict.fromkeys(("files", "size", "opens", "read"), 0), **NOTHING_READ}
        assert stage.calls.pop() == ("status", {})
    assert found == ANSWERS[call]
    assert result.stdout.isascii()
    assert result.stderr == ""
    assert [name for name, _ in stage.calls] == [call]


@every_command
def test_nothing_printed_steers_a_terminal(
    stage: Stage, call: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    with stage.daemon():
        result = isoctl(*words)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert re.fullmatch(r"[\n\t -~]+", result.stdout)


@every_command
@pytest.mark.parametrize("code", BY_CODE)
def test_errors_are_one_line_and_their_own_code(stage: Stage, call: str, words: list[str], code: str) -> None:
    error = BY_CODE[code]("do\nthis \x1b[1m")
    with stage.daemon(**{call: error}):
        result = isoctl(*words)
        as_json = isoctl(*words, "--json")
    assert result.exit_code == as_json.exit_code == error.exit
    assert result.stdout == ""
    assert result.stderr == as_json.stderr == "isoctl: do\\x0athis \\x1b[1m\n"
    assert json.loads(as_json.stdout) == {"error": {"code": code, "message": str(error)}}


@every_command
def test_only_who_may(stage: Stage, call: str, words: list[str]) -> None:
    """A real process of somebody else, whom the kernel keeps from the socket."""
    with stage.daemon():
        code, said = as_user(4001, lambda: [(result := isoctl(*words)).exit_code, result.stderr])
    assert code == Exit.NOT_ALLOWED
    assert said in (
        "isoctl: only root, and the groups that root gave a role, may control isofs\n",
        "isoctl: only root may do this: run it as root\n",
    )
    assert stage.calls == []


@every_command
def test_without_a_daemon(stage: Stage, call: str, words: list[str]) -> None:
    result = isoctl(*words)
    assert result.exit_code == Exit.NO_ANSWER
    assert result.stderr.startswith("isoctl: no daemon answers")


@pytest.mark.mount
@every_command
def test_with_a_dead_daemon(stage: Stage, call: str, words: list[str]) -> None:
    with dead_mount.dead(stage.mount):
        result = isoctl(*words, "--json")
    assert result.exit_code == Exit.NO_ANSWER
    message = json.loads(result.stdout)["error"]["message"]
    assert message.endswith(f"is dead: `isoctl mount {stage.mount}` repairs the mount")


@pytest.mark.parametrize("words", [w for c, w in COMMANDS.items() if "4001" in w], ids=str)
def test_users_are_looked_up_first(stage: Stage, words: list[str]) -> None:
    def of(user: str) -> Result:
        return isoctl(*[user if word == "4001" else word for word in words])

    with stage.daemon():
        assert of("root").exit_code == Exit.NOT_ALLOWED
        assert of("0").exit_code == Exit.NOT_ALLOWED
        assert of("no-such-user\x1b").exit_code == Exit.NO_SUBJECT
        assert stage.calls == []
        assert of("nobody").exit_code == 0
    assert stage.calls[0][1]["uid"] == 65534


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["--nonsense"],
        ["suspect"],
        ["suspect", "a", "b"],
        ["suspect", "4001", "--handles", "x"],
        ["status", "--reason", "x"],
    ],
    ids=str,
)
def test_usage_errors_are_one_line(words: list[str]) -> None:
    result = isoctl(*words)
    assert result.exit_code == Exit.USAGE
    assert result.stdout == ""
    assert re.fullmatch(r"isoctl: .*See `isoctl.* --help`\.\n", result.stderr)
    as_json = isoctl(*words, "--json")
    assert as_json.exit_code == Exit.USAGE
    assert json.loads(as_json.stdout)["error"]["code"] == "usage"


def test_help_and_version() -> None:
    result = isoctl("-h")
    assert result.exit_code == 0
    # Wrapped wherever the terminal ends.
    text = " ".join(result.stdout.split())
    for code in Exit:
        assert f"{code.value} {code.name.lower().replace('_', ' ')}" in text
    for command in main.commands:
        assert f"\n  {command} " in result.stdout
        assert isoctl(command, "--help").exit_code == 0
    # No summary is cut off.
    assert "...\n" not in result.stdout.partition("Commands:")[2]
    assert isoctl("--version").stdout.startswith("isoctl ")


def test_the_documented_exit_codes_are_those_there_are() -> None:
    page = Path(__file__).parent.parent / "docs" / "exit-codes.md"
    rows = re.findall(r"^\| (\d+) \| (?:`(\w+)`)?", page.read_text(), re.MULTILINE)
    words = {code.value: code.name.lower() for code in Exit}
    assert {int(number): word or "done" for number, word in rows} == words


# Which mount


def test_the_mount_is_chosen_by_option_variable_or_directory(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [Mount("/elsewhere", ""), Mount(stage.mount, ""), Mount("/third", "")]
    monkeypatch.setattr(mounts, "mounted", lambda: others)
    with stage.daemon():
        assert isoctl("--mount", stage.mount, "status").exit_code == 0
        assert isoctl("status", env={"ISOFS_MOUNT": stage.mount}).exit_code == 0
        unclear = isoctl("status")
        assert unclear.exit_code == Exit.NO_MOUNT
        assert f"/elsewhere, /third, {stage.mount}" in unclear.stderr
        monkeypatch.chdir(stage.mount)
        assert isoctl("status").exit_code == 0
        assert isoctl("--mount", "/", "status").exit_code == Exit.NO_MOUNT


# What each command prints


def printed(stage: Stage, *words: str, **answers: Mapping[str, object]) -> list[str]:
    with stage.daemon(**answers):
        result = isoctl(*words)
    assert result.exit_code == 0
    return result.stdout.splitlines()


def changed(call: str, **fields: object) -> dict[str, Any]:
    """A copy of an answer with other values."""
    return {**copy.deepcopy(ANSWERS[call]), **fields}


def test_status(stage: Stage) -> None:
    assert printed(stage, "status") == [
        "state   ok",
        "mount   /srv/share",
        "store   /srv/share/.isofs",
        f"daemon  pid 123, version 0.1.0, since {SINCE}",
        "attic   2 things that merges replaced or deleted, 3.0 KiB",
        "SPACE   suspects together take 40 GiB of 50 GiB: at the limit none of them can write more",
        "SPACE   3.0 GiB are free, 1.0 GiB are left to main: below that suspects can write no more",
        "SPACE   what main had of 2 files was not kept: merges of them need a decision",
        rf"alice (uid 4001)  conflicts since {SINCE}: alert \x1b]0;7",
        "    3 added, 1 deleted, 2 attributes; 1.5 KiB",
        "    takes 9.0 GiB of 10 GiB, 1 of 100000 objects, 3 of 2000 open files",
        "    NEAR A LIMIT: bytes, open files; beyond it calls fail: `isoctl config edit`, table [quota]",
        rf"    1 object decided {SINCE}: --only \x1b[2J",
        f"    12 objects decided {SINCE}",
        "    1 conflict to decide: `isoctl conflicts alice`",
        "to be confirmed by a second person (`isoctl confirm USER`):",
        *(f"    {line}" for line in PROPOSED),
    ]
    assert "nobody is isolated" in printed(stage, "status", status=changed("status", subjects=[]))


def test_proposals(stage: Stage) -> None:
    assert printed(stage, "proposals") == PROPOSED
    assert printed(stage, "proposals", proposals={"proposals": []}) == ["nothing is proposed"]
    assert printed(stage, "withdraw", "4001") == ["withdrawn: resolve alice, which carol proposed"]
    assert stage.calls[-1] == ("withdraw", {"uid": 4001})


def test_confirm_says_what_was_carried_out_and_what_is_left(stage: Stage) -> None:
    assert printed(stage, "confirm", "4001", "--anyway") == [
        "innocent alice, as carol proposed: 1 taken, 1 merged",
        f"merged    {SHOWN}: text  (please review)",
    ]
    assert stage.calls == [("confirm", {"uid": 4001, "anyway": True})]
    left = {**ANSWERS["confirm"], "result": {**ANSWERS["confirm"]["result"], "conflicts": 1}}
    with stage.daemon(confirm=left):
        result = isoctl("confirm", "4001")
    assert result.exit_code == Exit.CONFLICTS
    assert result.stderr == "isoctl: 1 conflict to decide: `isoctl conflicts alice`\n"
    kept = {"counts": {"added": 2}, "evidence": HOSTILE}
    facts = {**ANSWERS["confirm"], "call": "malicious", "result": kept}
    assert printed(stage, "confirm", "4001", confirm=facts) == [
        f"malicious alice, as carol proposed: 2 added; evidence kept in {SHOWN}"
    ]


def test_interactive_verdicts_are_refused_where_two_persons_decide(stage: Stage) -> None:
    with stage.daemon():
        result = isoctl("innocent", "4001", "--interactive")
    assert result.exit_code == Exit.NOT_ALLOWED
    assert [call for call, _ in stage.calls] == ["status"]


@pytest.mark.parametrize(
    ("state", "again"), [("merging", "innocent"), ("discarding", "malicious"), ("suspect", "the next verdict")]
)
def test_status_says_what_goes_on_with_a_verdict(stage: Stage, state: str, again: str) -> None:
    subject = {**ANSWERS["status"]["subjects"][0], "state": state, "stopped": True}
    (line,) = (
        line for line in printed(stage, "status", status=changed("status", subjects=[subject])) if "STOP" in line
    )
    assert again in line


def test_status_begins_with_what_is_wrong(stage: Stage) -> None:
    def shown(**degraded: object) -> list[str]:
        facts = {"reason": "the disk \x1b is full", "since": SINCE, "suspects": "shut out", "shut_out": [], **degraded}
        return printed(stage, "status", status=changed("status", state="degraded", degraded=facts, subjects=[]))

    assert shown(shut_out=[0, 4001])[:2] == [
        rf"state   degraded: the disk \x1b is full, since {SINCE}",
        "        shut out: root, 4001; mend the store, then unmount and mount again",
    ]
    assert "shut out: everybody but root" in shown(shut_out=None)[1]
    assert shown(suspects="read only", since=None)[:2] == [
        r"state   degraded: the disk \x1b is full",
        "        suspects can read, and change nothing; everybody else goes on",
    ]
    assert "nobody is isolated" not in shown()


def test_suspect(stage: Stage) -> None:
    assert printed(stage, "suspect", "4001", "--reason", "an alert", "--handles", "leave") == [
        f"alice (uid 4001) is isolated since {SINCE}",
        rf"killed vi\x07m (7), which had {SHOWN} open",
        "NOT ISOLATED: mysqld (8) can still write or lock db",
    ]
    assert stage.calls == [("suspect", {"uid": 4001, "user": "4001", "reason": "an alert", "handles": "leave"})]


def test_suspect_kills_unless_told_otherwise(stage: Stage) -> None:
    printed(stage, "suspect", "nobody")
    assert stage.calls == [("suspect", {"uid": 65534, "user": "nobody", "reason": "", "handles": "kill"})]


def test_changes(stage: Stage) -> None:
    assert printed(stage, "changes", "4001") == [
        f"added       file        2.0 KiB  {SHOWN}  [exec, owner]",
        "renamed     directory            old -> new",
        "deleted     file                 gone  [exec]",
        "risk  exec: 2 changes: can be run, and could not be",
        "risk  owner: 1 change: has another owner or group",
        "risk  mass-deletion: many deletions",
    ]


def test_diff_to_a_program_is_exact(stage: Stage) -> None:
    with stage.daemon():
        result = isoctl("diff", "4001")
    assert result.stdout_bytes == (
        b"# risk  setuid: 1 change: has the set-user-ID bit, and had it not\n"
        b"--- a\n+++ b\n@@ -1 +1 @@\n-\told\\\n+new \x1b[2J\xff\r\n"
        + f"# {SHOWN}  [setuid]\n".encode()
        + f"modified file {SHOWN}: 1 B sha256:00 -> 2.9 MiB sha256:11\n".encode()
        + b"deleted file gone: 1 B sha256:00 -> nothing\n"
    )


def test_diff_to_a_terminal_is_safe_and_coloured(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    with stage.daemon():
        result = isoctl("diff", "4001", color=True)
    assert result.stdout.splitlines()[1:6] == [
        "\x1b[31m--- a\x1b[0m",
        "\x1b[32m+++ b\x1b[0m",
        "\x1b[36m@@ -1 +1 @@\x1b[0m",
        "\x1b[31m-\told\\\x1b[0m",
        "\x1b[32m+new \\x1b[2J\\xff\\x0d\x1b[0m",
    ]


@pytest.mark.parametrize(
    ("cwd", "paths", "expected"),
    [
        ("/", (), []),
        ("/", ("a", "./b//c/", "d/../e"), ["a", "b/c", "e"]),
        ("/m/sub", ("a", "../b", "/m/c"), ["sub/a", "b", "c"]),
        ("/", ("/m/c", "/m//d"), ["c", "d"]),
        ("/", ("a", "."), []),
        ("/m/sub", (".",), ["sub"]),
        ("/m/sub", ("..", "a"), []),
        ("/mm", ("a",), ["a"]),
        ("/", ("\udcff\n",), ["\udcff\n"]),
    ],
)
def test_paths_are_seen_from_the_root(cwd: str, paths: tuple[str, ...], expected: list[str]) -> None:
    assert relative("/m", cwd, paths) == expected


@pytest.mark.parametrize("path", ["..", "/", "/mm/a", "a/../../b", "/m/../x"])
def test_paths_outside_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match="isn't below /m"):
        relative("/m", "/", (path,))


def test_diff_sends_its_paths(stage: Stage) -> None:
    printed(stage, "diff", "4001", "a", f"{stage.mount}/b/")
    assert stage.calls == [("diff", {"uid": 4001, "paths": ["a", "b"], "against": None})]


def test_diff_against_what_was_not_kept_says_so(stage: Stage) -> None:
    entry = {**ANSWERS["diff"]["entries"][2], "path": HOSTILE, "known": False, "old": None, "change": "modified"}
    assert printed(stage, "diff", "4001", "--against", "base", diff={**ANSWERS["diff"], "entries": [entry]}) == [
        f"# {SHOWN}: what alice started from was not kept",
        f"modified file {SHOWN}: unknown -> nothing",
    ]
    assert stage.calls == [("diff", {"uid": 4001, "paths": [], "against": "base"})]


def test_innocent_shows_what_somebody_should_look_at(stage: Stage) -> None:
    assert printed(stage, "innocent", "4001") == [
        "merged alice: 2 taken, 1 renamed, 1 restored",
        f"renamed   {SHOWN} as x.isofs-alice: two objects of one name",
        "restored  r: deleted  (please review)",
    ]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_innocent_with_conflicts_has_its_own_exit_code(stage: Stage, options: list[str]) -> None:
    item = {"path": "c", "action": "conflict", "reason": "both", "review": False, "as": None}
    answer = changed("innocent", items=[item], conflicts=2)
    with stage.daemon(innocent=answer):
        result = isoctl("innocent", "4001", *options)
    assert result.exit_code == Exit.CONFLICTS
    assert result.stderr == "isoctl: 2 conflicts to decide: `isoctl conflicts alice`\n"
    if options:
        assert json.loads(result.stdout) == answer
    else:
        assert result.stdout.splitlines()[1] == "conflict  c: both"


ALONG = {"path": "new", "reason": HOSTILE + " needs it", "asked": False}
LEFT = {"path": HOSTILE, "reason": "both changed it", "asked": False}
EXCEPTED = {"path": "x", "reason": "it needs y, which stays", "asked": True}


@pytest.mark.parametrize(("left", "code"), [([LEFT, EXCEPTED], 6), ([EXCEPTED], 0), ([], 0)])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_innocent_of_a_part(stage: Stage, left: list[dict[str, Any]], code: int, options: list[str]) -> None:
    answer = changed("innocent", items=[], along=[ALONG], left=left)
    words = ["--only", "a*", "--only", "b", "--except", "c", *options]
    with stage.daemon(innocent=answer):
        result = isoctl("innocent", "4001", *words)
    assert result.exit_code == code
    assert ("stay isolated" in result.stderr) == bool(code)
    assert stage.calls == [("innocent", {"uid": 4001, "only": ["a*", "b"], "except": ["c"]})]
    if options:
        assert json.loads(result.stdout) == answer
    else:
        assert rf"along     new: {SHOWN} needs it" in result.stdout
        assert (rf"left      {SHOWN}: both changed it" in result.stdout) == bool(code)


def test_plan_says_what_would_be_done(stage: Stage) -> None:
    item = {"reason": "why", "review": False, "as": None, "object": 1, "kind": "file", "main": None, "suspect": None}
    items = [{**item, "path": f"d/{word}", "action": word, "risks": []} for word in ("took", "deleted", "conflict")]
    answer = {"user": "alice", "counts": {"took": 1, "deleted": 1, "conflict": 1}, "items": items, "risks": []}
    assert printed(stage, "plan", "4001", plan={**answer, "along": [], "left": []}) == [
        "alice: take 1, delete 1, conflict 1",
        "    d: take 1, delete 1, conflict 1",
        "take      d/took: why",
        "delete    d/deleted: why",
        "conflict  d/conflict: why",
    ]


def test_plan_of_a_part(stage: Stage) -> None:
    answer = {"user": "alice", "counts": {}, "items": [], "risks": [], "along": [ALONG], "left": [LEFT]}
    lines = printed(stage, "plan", "4001", "--except", "a", plan=answer)
    assert lines[-2:] == [rf"along     new: {SHOWN} needs it", rf"left      {SHOWN}: both changed it"]
    assert stage.calls == [("plan", {"uid": 4001, "only": [], "except": ["a"]})]


def test_malicious_but_for_a_part(stage: Stage) -> None:
    item = {"path": "a", "action": "took", "reason": "new", "review": False, "as": None}
    answer = changed("malicious", accepted=[item], along=[ALONG])
    lines = printed(stage, "malicious", "4001", "--yes", "--accept", "a", malicious=answer)
    assert lines[:2] == ["merged alice: 1 taken", rf"along     new: {SHOWN} needs it"]
    assert stage.calls[0][1]["accept"] == ["a"]


def test_malicious(stage: Stage) -> None:
    assert printed(stage, "malicious", "4001", "--yes") == [
        "discarded alice: 5 discarded",
        f"evidence kept in /e/{SHOWN}",
        f"while mounted, read it in /proc/123/root/e/{SHOWN}",
    ]
    elsewhere = changed("malicious", evidence="/e", readable="/e")
    assert printed(stage, "malicious", "4001", "--yes", malicious=elsewhere)[1:] == ["evidence kept in /e"]


def test_malicious_without_a_terminal_needs_yes(stage: Stage) -> None:
    with stage.daemon():
        result = isoctl("malicious", "4001", input="y\n")
    assert result.exit_code == Exit.USAGE
    assert "--yes" in result.stderr
    assert stage.calls == []


@pytest.mark.parametrize(
    ("answer", "code"), [("y\n", 0), ("n\n", Exit.NOT_ALLOWED), ("\n", Exit.NOT_ALLOWED), ("", 130)]
)
def test_malicious_asks_on_a_terminal(stage: Stage, monkeypatch: pytest.MonkeyPatch, answer: str, code: int) -> None:
    monkeypatch.setattr(output, "can_ask", lambda: True)
    with stage.daemon():
        result = isoctl("malicious", "4001", "--json", input=answer)
    assert result.exit_code == code
    assert f"Discard everything that 4001 changed in {stage.mount}?" in result.stderr
    assert [name for name, _ in stage.calls] == ([] if code else ["malicious"])


def test_conflicts(stage: Stage) -> None:
    assert printed(stage, "conflicts", "4001") == [
        f"alice: file {SHOWN}: changed on both sides",
        "    main     G=2 4001=m",
        "    suspect  none",
        "    kept in  /store/4001/12",
        "    read it  /proc/123/root/store/4001/12",
        *(
            rf"    isoctl resolve alice $'{stage.mount}/d/\033[2J\012\377' --{way}"
            for way in ("take main", "take suspect", "take both", "markers FILE", "with FILE")
        ),
    ]
    elsewhere = {"conflicts": [{**ANSWERS["conflicts"]["conflicts"][0], "readable": "/store/4001/12"}]}
    assert printed(stage, "conflicts", "4001", conflicts=elsewhere)[3:4] == ["    kept in  /store/4001/12"]
    assert printed(stage, "conflicts", conflicts={"conflicts": []}) == ["no conflicts"]
    assert [args for _, args in stage.calls] == [{"uid": 4001}, {"uid": 4001}, {"uid": None}]


@pytest.mark.parametrize(
    ("kind", "main", "ways"),
    [
        ("file", {"G": "d", "S1": 0}, ["--take main", "--take suspect", "--take both", "--with FILE"]),
        ("symlink", {"G": 1, "S1": 0}, ["--take main", "--take suspect", "--take both"]),
        ("directory", {"G": 1, "S1": 0}, ["--take main", "--take suspect"]),
    ],
)
def test_conflicts_gives_the_commands_that_there_are(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, kind: str, main: dict[str, object], ways: list[str]
) -> None:
    """With the mount, where there are several; each as a shell reads it."""
    monkeypatch.setattr(mounts, "mounted", lambda: [Mount(stage.mount, "store"), Mount("/other", "store")])
    conflict = {**ANSWERS["conflicts"]["conflicts"][0], "path": "it's", "kind": kind, "main": main}
    with stage.daemon(conflicts={"conflicts": [conflict]}):
        result = isoctl("--mount", stage.mount, "conflicts", "--json")
    (found,) = json.loads(result.stdout)["conflicts"]
    before = ["isoctl", "--mount", stage.mount, "resolve", "alice", f"{stage.mount}/it's"]
    assert [shlex.split(command) for command in found["commands"]] == [before + way.split() for way in ways]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), max_size=4))
def test_command_lines_are_what_a_shell_reads(words: list[str]) -> None:
    line = output.shell(*words)
    assert line.isprintable()
    script = f"printf '%s\\0' {line}" if words else ":"
    ran = subprocess.run(["bash", "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert ran.stdout == b"".join(word.encode() + b"\0" for word in words)


def test_command_lines_with_bytes_that_are_no_text() -> None:
    word = wire.path_text(b"\xff7'\\\x1b")
    ran = subprocess.run(["bash", "-c", f"printf %s {output.shell(word)}"], capture_output=True, check=True)
    assert ran.stdout == wire.path_bytes(word)


def test_resolve_takes_one_side(stage: Stage) -> None:
    assert printed(stage, "resolve", "4001", f"{stage.mount}/d", "--take", "both") == [
        f"renamed   {SHOWN} as {SHOWN}.isofs-alice: both stay"
    ]
    assert printed(
        stage, "resolve", "4001", ".", "--take", "main", resolve=changed("resolve", items=[], conflicts=2)
    ) == ["2 conflicts left: `isoctl conflicts alice`"]
    assert [args for _, args in stage.calls] == [
        {"uid": 4001, "user": "4001", "path": "d", "take": "both"},
        {"uid": 4001, "user": "4001", "path": "", "take": "main"},
    ]


def receiving(contents: list[bytes]) -> Plain:
    """A daemon that reads the file that it is offered, as ours does."""

    async def handler(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
        path = Path(f"/proc/{args['pid']}/fd/{args['descriptor']}")
        assert path.is_file()
        contents.append(path.read_bytes())
        return ANSWERS["resolve"]

    return handler


def test_resolve_with_a_file_standard_input_or_a_file_of_the_mount(stage: Stage, tmp_path: Path) -> None:
    received: list[bytes] = []
    (tmp_path / "file").write_bytes(b"from a file\xff")
    (Path(stage.mount) / "file").write_bytes(b"from the mount")
    for file in (str(tmp_path / "file"), f"{stage.mount}/file", "-"):
        with stage.daemon(resolve=receiving(received)):
            assert isoctl("resolve", "4001", "f", "--with", file, input=b"from standard input").exit_code == 0
    assert received == [b"from a file\xff", b"from the mount", b"from standard input"]


def test_resolve_using_a_resolver(stage: Stage) -> None:
    printed(stage, "resolve", "4001", "f", "--using", "append", "--option", "order=a=b", "--option", "x=")
    (call,) = stage.calls
    assert call[1] == {"uid": 4001, "user": "4001", "path": "f", "using": "append", "options": ["order=a=b", "x="]}


def marking(content: bytes) -> Plain:
    async def handler(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
        Path(f"/proc/{args['pid']}/fd/{args['descriptor']}").write_bytes(content)
        return {"user": "alice", "path": "f", "marked": True, "reasons": ["both changed line 1 (\x1b)"]}

    return handler


def test_resolve_writes_markers_into_a_new_file(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "marked here"
    with stage.daemon(markers=marking(b"<<<<<<< main\n\xff")):
        result = isoctl("resolve", "4001", "f", "--markers", str(file))
        again = isoctl("resolve", "4001", "f", "--markers", str(file), "--using", "append")
    assert result.stdout.splitlines() == [
        r"both changed line 1 (\x1b)",
        f"wrote {file}, with markers; nothing else was changed",
        f"isoctl resolve alice {stage.mount}/f --with '{file}'",
    ]
    assert file.read_bytes() == b"<<<<<<< main\n\xff"
    assert file.stat().st_mode & 0o777 == 0o600
    assert again.exit_code == Exit.USAGE
    assert "exists already" in again.stderr
    assert [(name, args["using"]) for name, args in stage.calls] == [("markers", "text")]
    with stage.daemon(markers=marking(b"")):
        as_json = isoctl("resolve", "4001", "f", "--markers", str(tmp_path / "new"), "--json")
    assert json.loads(as_json.stdout)["file"] == str(tmp_path / "new")


def test_no_markers_no_file(stage: Stage, tmp_path: Path) -> None:
    with stage.daemon(markers=BY_CODE["conflicts"]("waits as before")):
        result = isoctl("resolve", "4001", "f", "--markers", str(tmp_path / "new"))
    assert result.exit_code == Exit.CONFLICTS
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --take main, suspect or both"),
        (["--take", "hers"], "hers"),
        (["--take", "main", "--with", "x"], "--take and --with exclude each other"),
        (["--using", "text", "--with", "x"], "--with and --using exclude each other"),
        (["--take", "main", "--markers", "x"], "--markers settles nothing"),
        (["--take", "main", "--option", "a=b"], "--option is for --using"),
        (["--using", "text", "--option", "a"], "--option is KEY=VALUE"),
        (["--with", "/no/such/file"], "/no/such/file cannot be read: No such file"),
        (["--with", "/"], "/ cannot be read: Is a directory"),
        (["--markers", "/no/such/file"], "/no/such/file cannot be written: No such file"),
    ],
    ids=str,
)
def test_resolve_refuses_what_cannot_be_meant(stage: Stage, words: list[str], said: str) -> None:
    with stage.daemon(markers=marking(b"")):
        result = isoctl("resolve", "4001", "f", *words)
    assert result.exit_code == Exit.USAGE
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not [name for name, _ in stage.calls if name != "markers"]


def test_attic_list(stage: Stage) -> None:
    line = (
        f"    12  {SINCE}  alice  replaced  file        2.0 KiB  {SHOWN}"
        "  (was open for writing, and may have changed since)"
    )
    assert printed(stage, "attic", "list") == [line]
    assert printed(stage, "attic", "list", attic={"entries": [], "more": False}) == ["the attic is empty"]


def test_attic_list_asks_for_page_after_page(stage: Stage) -> None:
    one = ANSWERS["attic"]["entries"][0]

    async def page(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
        before = args["before"]
        newest = 4 if before is None else int(str(before)) - 1
        return {"entries": [{**one, "number": n} for n in (newest, newest - 1)], "more": newest > 2}

    with stage.daemon(attic=page):
        result = isoctl("attic", "list", "--json")
    assert [entry["number"] for entry in json.loads(result.stdout)["entries"]] == [4, 3, 2, 1]
    assert [args for _, args in stage.calls] == [{"before": None, "path": ""}, {"before": 3, "path": ""}]


def test_attic_list_of_a_path(stage: Stage) -> None:
    for path in ("d/./e", stage.mount, "."):
        printed(stage, "attic", "list", path)
    assert [args["path"] for _, args in stage.calls] == ["d/e", "", ""]
    with stage.daemon():
        assert isoctl("attic", "list", "/elsewhere").exit_code == Exit.USAGE


def test_attic_restore_says_what_it_left(stage: Stage) -> None:
    left = [{"number": 12, "path": HOSTILE, "reason": f"{HOSTILE} exists"}]
    with stage.daemon(attic_restore={**ANSWERS["attic_restore"], "left": left}):
        result = isoctl("attic", "restore", "d")
        assert result.exit_code == Exit.ATTIC
        assert result.stdout.splitlines()[-1] == rf"left number 12: {SHOWN} exists"
        assert result.stderr == "isoctl: 1 thing could not come back: left in the attic\n"
        result = isoctl("attic", "restore", "d", "--json")
    assert (result.exit_code, json.loads(result.stdout)["left"]) == (Exit.ATTIC, left)


def test_attic_restore(stage: Stage) -> None:
    assert printed(stage, "attic", "restore", "12") == [
        "restored d",
        f"restored {SHOWN}",
        f"what was at {SHOWN} is number 13 in the attic",
    ]
    quiet = {"restored": [{"number": 12, "path": "x"}], "stowed": None, "replaced": [], "left": []}
    words = ["attic", "restore", "./12", "--as", f"{stage.mount}/d/../x", "--replace"]
    assert printed(stage, *words, attic_restore=quiet) == ["restored x"]
    by = users.operator()
    assert [args for _, args in stage.calls] == [
        {"number": 12, "replace": False, "by": by},
        {"path": "12", "as": "x", "replace": True, "by": by},
    ]


@pytest.mark.parametrize(
    "words", [["restore", "."], ["restore", "/"], ["restore", "x", "--as", "../y"], ["restore", "9" * 40]], ids=str
)
def test_what_cannot_be_in_the_mount_is_not_asked_for(stage: Stage, words: list[str]) -> None:
    with stage.daemon():
        assert isoctl("attic", *words).exit_code == Exit.USAGE
    assert stage.calls == []


@pytest.mark.parametrize(
    ("age", "seconds"),
    [("30", 30 * 86400), ("30d", 30 * 86400), ("12h", 43200), ("0", 0)]
    + [(age, None) for age in ("", "d", "-1", "1w", "1.5", "1 d", "9999999", "\u0663")],
)
def test_attic_purge_takes_an_age(stage: Stage, age: str, seconds: int | None) -> None:
    with stage.daemon():
        result = isoctl("attic", "purge", "--older-than", age, "--yes")
    assert result.exit_code == (Exit.USAGE if seconds is None else 0)
    assert [args for _, args in stage.calls] == ([] if seconds is None else [{"older_than": seconds}])


def test_attic_purge_without_a_terminal_needs_yes(stage: Stage) -> None:
    with stage.daemon():
        result = isoctl("attic", "purge", input="y\n")
    assert result.exit_code == Exit.USAGE
    assert "--yes" in result.stderr
    assert stage.calls == []


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", Exit.NOT_ALLOWED), ("", 130)])
def test_attic_purge_asks_on_a_terminal(stage: Stage, monkeypatch: pytest.MonkeyPatch, answer: str, code: int) -> None:
    monkeypatch.setattr(output, "can_ask", lambda: True)
    with stage.daemon():
        result = isoctl("attic", "purge", "--older-than", "2d", input=answer)
    assert result.exit_code == code
    assert f"Remove what is older than 2d from the attic of {stage.mount}, for good?" in result.stderr
    assert [name for name, _ in stage.calls] == ([] if code else ["attic_purge"])


PROBLEM = {"invariant": "nothing-lost", "subject": "alice", "path": HOSTILE, "problem": "no bytes"}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_check_with_problems_has_its_own_exit_code(stage: Stage, options: list[str]) -> None:
    answer = changed("check", ok=False, problems=[PROBLEM])
    with stage.daemon(check=answer):
        result = isoctl("check", *options)
    assert result.exit_code == Exit.PROBLEMS
    assert result.stderr == "isoctl: 1 problem found\n"
    if options:
        assert json.loads(result.stdout) == answer
    else:
        assert result.stdout.splitlines() == [
            f"nothing-lost: no bytes (alice, {SHOWN})",
            "checked 5 objects, 7 bindings",
        ]


def test_check_of_a_mount_uses_the_daemons_store(stage: Stage) -> None:
    with stage.daemon():
        assert isoctl("check", "--store", "/x").exit_code == Exit.USAGE
    assert stage.calls == []


# Mounting


class Service(types.ModuleType):
    """What `isofs.service.starting` and `resting` would be, and what they were asked."""

    def __init__(self) -> None:
        super().__init__("isofs.service.starting")
        self.asked: list[tuple[object, ...]] = []
        self.repaired = False
        self.degraded: dict[str, object] | None = None
        self.How = How

    def start(self, directory: str, store: str | None, how: How, ready: Callable[[Any], None]) -> int:
        self.asked.append((directory, store, how))
        kept = store or f"{directory}/.isofs"
        ready(
            {"mount": directory, "store": kept, "repaired": self.repaired, "pid": 9, "degraded": self.degraded},
        )
        return 0

    def check(self, directory: str, store: str | None) -> dict[str, object]:
        self.asked.append((directory, store))
        return ANSWERS["check"]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    fake = Service()
    for name in ("starting", "resting"):
        monkeypatch.setitem(sys.modules, f"isofs.service.{name}", fake)
        monkeypatch.setattr(isofs.service, name, fake, raising=False)
    return fake


def test_mount(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = isoctl("mount", "over", "--store", "kept/../store")
    assert result.exit_code == 0
    assert result.stdout == f"mounted {tmp_path}/over (store {tmp_path}/store)\n"
    assert service.asked == [(f"{tmp_path}/over", f"{tmp_path}/store", How())]


def test_mount_says_that_it_repaired(service: Service) -> None:
    service.repaired = True
    result = isoctl("mount", "/over")
    assert result.stdout == ("replaced the mount of a dead daemon at /over\nmounted /over (store /over/.isofs)\n")


def test_mount_as_json_and_in_the_foreground(service: Service) -> None:
    expected = {"mount": "/over", "store": "/over/.isofs", "repaired": False, "pid": 9, "degraded": None}
    assert json.loads(isoctl("mount", "/over", "--json").stdout) == expected
    assert isoctl("mount", "/over", "--foreground").stdout == "mounted /over (store /over/.isofs)\n"
    assert service.asked[1] == ("/over", None, How(foreground=True))


def test_mount_supervised(service: Service) -> None:
    isoctl("mount", "/over", "--supervised", "--watchdog", "5", "--trust-everybody")
    assert service.asked == [("/over", None, How(supervised=True, watchdog=5, trust_everybody=True))]
    for words in (["--watchdog", "5"], ["--supervised", "--watchdog", "0.5"]):
        assert isoctl("mount", "/over", *words).exit_code == Exit.USAGE


def test_mount_of_a_store_that_is_unusable_says_so(service: Service) -> None:
    service.degraded = {"reason": "no \x1b database", "since": SINCE, "suspects": "shut out", "shut_out": None}
    result = isoctl("mount", "/over")
    assert (result.exit_code, result.stdout) == (0, "mounted /over (store /over/.isofs)\n")
    assert result.stderr == "isoctl: degraded: no \\x1b database; isoctl status says who is shut out\n"


def test_mount_needs_root(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert isoctl("mount", "/over").exit_code == Exit.NOT_ALLOWED
    assert service.asked == []


def test_check_of_what_is_not_mounted_needs_no_daemon(stage: Stage, service: Service) -> None:
    result = isoctl("--mount", "/over", "check", "--store", "/s")
    assert result.exit_code == 0
    assert service.asked == [("/over", "/s")]


# Unmounting


@contextlib.contextmanager
def process(directory: str = "/") -> Iterator[subprocess.Popen[bytes]]:
    """A process in a directory, which ends when its input does."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd=directory) as running:
        yield running
        running.communicate()


def ending(running: subprocess.Popen[bytes]) -> Plain:
    """A daemon that unmounts, answers, and ends."""

    async def handler(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
        assert running.stdin is not None
        running.stdin.close()
        return {"pid": running.pid}

    return handler


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_umount_waits_for_the_daemon_to_end(stage: Stage, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.chdir(stage.mount)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as running:
        with stage.daemon(status=changed("status", pid=running.pid), umount=ending(running)):
            result = isoctl("umount", ".", *options)
        assert running.poll() == 0
    assert result.exit_code == 0
    if options:
        expected = {"mount": stage.mount, "pid": running.pid, "stale": False}
        assert json.loads(result.stdout) == expected
    else:
        assert result.stdout == f"unmounted {stage.mount}\n"


def test_umount_does_not_wait_for_ever(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys.modules["isoctl.umount"], "LIMIT", 0.05)
    with (
        process() as running,
        stage.daemon(status=changed("status", pid=running.pid), umount={"pid": running.pid}),
    ):
        result = isoctl("umount", stage.mount)
    assert result.exit_code == Exit.NO_ANSWER
    assert f"its daemon {running.pid} hasn't ended" in result.stderr


def test_umount_says_who_holds_the_mount(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    # Neither the daemon, which holds what lies underneath, nor the command itself is named.
    monkeypatch.chdir(stage.mount)
    with process(stage.mount) as daemon, process(stage.mount) as holder:
        busy = BY_CODE["busy"]("the mount is in use")
        with stage.daemon(status=changed("status", pid=daemon.pid), umount=busy):
            result = isoctl("umount", ".")
    assert result.exit_code == Exit.BUSY
    assert result.stderr == (f"isoctl: the mount is in use: held by cat ({holder.pid}) of root, cwd {stage.mount}\n")


def test_umount_of_what_nobody_holds_any_more(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    busy = BY_CODE["busy"]("the mount is in use")
    with stage.daemon(status=changed("status", pid=os.getpid()), umount=busy):
        result = isoctl("umount", stage.mount)
    assert result.exit_code == Exit.BUSY
    assert "try again" in result.stderr


def test_umount_of_what_is_not_mounted(stage: Stage) -> None:
    assert isoctl("umount", "/elsewhere").exit_code == Exit.NO_MOUNT


@pytest.mark.mount
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_umount_takes_a_dead_mount_away(stage: Stage, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.chdir("/")
    with dead_mount.dead(stage.mount):
        result = isoctl("umount", stage.mount, *options)
        assert not mounts.stale(stage.mount)
    assert result.exit_code == 0
    if options:
        assert json.loads(result.stdout) == {"mount": stage.mount, "pid": None, "stale": True}
    else:
        assert result.stdout == f"unmounted {stage.mount}, whose daemon was dead\n"


# Progress, interruptions and broken pipes


async def slow(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
    progress(3, 4)
    return ANSWERS["innocent"]


def test_progress_is_shown_on_a_terminal_only(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    with stage.daemon(innocent=slow):
        assert isoctl("innocent", "4001").stderr == ""
        # The runner's own streams are of this class, which a terminal's would be too.
        monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True)
        result = isoctl("innocent", "4001", "--json")
    assert "merging 4001" in result.stderr
    assert "75%" in result.stderr
    assert json.loads(result.stdout) == ANSWERS["innocent"]


def test_interrupted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "call", interrupt)
    assert isoctl("innocent", "4001").exit_code == 130


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["--json", "nonsense"]])
def test_a_reader_who_is_gone_is_no_news(words: list[str], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = "from isoctl.main import main; main()"
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": unbuffered},
        check=False,
        timeout=20,
    )
    os.close(writer)
    assert done.returncode in (Exit.INTERNAL, Exit.USAGE)
    assert b"Traceback" not in done.stderr
    assert b"Broken" not in done.stderr


def test_commands_load_nothing_that_only_the_daemon_needs() -> None:
    program = "import sys, isoctl.main; print(*sys.modules)"
    loaded = subprocess.check_output(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    ).split()
    assert "isofs.control.client" in loaded
    daemons = {"trio", "pyfuse3", "sqlalchemy", "isofs.service", "isofs.model.records", "isofs.engine", "isofs.store"}
    assert daemons.isdisjoint(loaded)


# Words and numbers


@given(st.text(st.characters(exclude_categories=())))
def test_quoted_text_is_visible_and_tells_names_apart(text: str) -> None:
    shown = output.quoted(text)
    assert shown.isprintable()
    plain = re.sub(
        rb"\\(?:x([0-9a-f]{2})|\\)",
        lambda found: bytes.fromhex(found[1].decode()) if found[1] else b"\\",
        shown.encode(),
    )
    expected = b"".join(
        c.encode("utf-8", "surrogateescape" if "\udc80" <= c <= "\udcff" else "surrogatepass") for c in text
    )
    assert plain == expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 漢", "plain ü 漢"),
        ("a\\x1b", "a\\\\x1b"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x85", "\\xc2\\x85"),
        ("\udc85", "\\x85"),
        ("\u202etxt.exe", "\\xe2\\x80\\xaetxt.exe"),
    ],
)
def test_quoted(text: str, shown: str) -> None:
    assert output.quoted(text) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10_188, "9.9 KiB"),
        (10_189, "10 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (120 << 20, "120 MiB"),
        (3 << 40, "3.0 TiB"),
        ((1 << 64) - 1, "16 EiB"),
    ],
)
def test_sizes_are_readable(count: int, shown: str) -> None:
    assert output.size(count) == shown


def test_users_by_name_and_number() -> None:
    assert users.find("root") == users.User(0, "root")
    assert users.find("65534") == users.find("nobody") == users.User(65534, "nobody")
    assert users.find("4123456789") == users.User(4123456789, "4123456789")


@pytest.mark.parametrize("text", ["", "nosuchuser", "-1", "1.5", "٣", "4294967295", "9" * 5000])
def test_users_that_cannot_be(text: str) -> None:
    with pytest.raises(NoSubject):
        users.find(text)


def test_root_is_no_subject() -> None:
    with pytest.raises(NotAllowed):
        users.subject("000")
