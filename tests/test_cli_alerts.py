"""`isoctl suspect --from` against a daemon that answers what a test tells it to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from isoctl import alerts
from isofs.control.server import Progress
from isofs.errors import Exit, HandlesOpen
from test_cli import HOSTILE, SINCE, Stage, changed, isoctl, stage

__all__ = ["stage"]

#: How the alerts of these tests are read.
MAPPING = {"name": "own", "format": "json", "user": ["who"], "reason": ["why"], "when": ["level >= 3"]}

LINES = [
    {"who": "nobody", "why": "first", "level": 3},
    {"who": "nobody", "why": "too low", "level": 2},
    "no alert",
    {"who": 61001, "why": HOSTILE, "level": 9},
    {"who": "no-such-user", "level": 3},
    {"who": "root", "level": 3},
]


def taken(stage: Stage, *words: str, given: object = LINES, **answers: Any) -> Result:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in given)  # type: ignore[attr-defined]
    with stage.daemon(detector=MAPPING, **answers):
        return isoctl("suspect", "--from", "-", "--detector", "own", *words, input=text)


def isolated(why: str = "") -> dict[str, str]:
    return {"outcome": "isolated" if not why else "spared", "why": why}


async def decide(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
    return isolated("root cannot be isolated" if args["uid"] == 0 else "")


def test_each_alert_is_acted_on_and_said(stage: Stage) -> None:
    done = taken(stage, "--json", alert=decide)
    assert done.exit_code == 0
    *lines, totals = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["line"], one["outcome"], one["user"], one["uid"]) for one in lines] == [
        (1, "isolated", "nobody", 65534),
        (4, "isolated", "61001", 61001),
        (5, "unknown", "no-such-user", None),
        (6, "spared", "root", 0),
    ]
    assert lines[0]["reason"] == "own: first"
    assert lines[3]["why"] == "root cannot be isolated"
    assert totals == {"lines": 6, "outcomes": {"isolated": 2, "ignored": 2, "unknown": 1, "spared": 1}}
    asked = [args for name, args in stage.calls if name == "alert"]
    assert asked[0] == {"uid": 65534, "user": "nobody", "reason": "own: first", "handles": "kill", "dry_run": False}
    assert len(asked) == 3


def test_words_for_people(stage: Stage) -> None:
    done = taken(stage, "--verbose", "--dry-run", "--handles", "leave", alert={"outcome": "would isolate", "why": ""})
    assert done.stdout.splitlines() == [
        "would isolate: nobody: own: first",
        r"would isolate: 61001: own: d/\x1b[2J\x0a\xff",
        "unknown: no-such-user: own: no reason given (there is no user no-such-user)",
        "would isolate: root: own: no reason given",
        "6 lines: 3 would isolate, 2 ignored, 1 unknown",
    ]
    assert done.stderr.splitlines() == [
        "isoctl: line 2 is ignored: not so: level >= 3",
        "isoctl: line 3 is ignored: not a JSON object",
    ]
    assert all(args["dry_run"] and args["handles"] == "leave" for name, args in stage.calls if name == "alert")


def test_one_that_fails_does_not_end_the_others(stage: Stage) -> None:
    answers: Iterator[Exception | Mapping[str, object]] = iter([HandlesOpen("held"), isolated(), isolated()])

    async def one(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    done = taken(stage, "--json", alert=one)
    assert done.exit_code == Exit.HANDLES
    *lines, totals = [json.loads(line) for line in done.stdout.splitlines()]
    assert (lines[0]["outcome"], lines[0]["why"]) == ("failed", "held")
    assert totals["outcomes"]["isolated"] == 2


def test_lines_that_are_too_long_or_odd(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "LONGEST", 64)
    file = tmp_path / "alerts"
    good = b'{"who": "nobody", "level": 3, "why": "%s"}\n'
    file.write_bytes(good % (b"x" * 500) + good % b"\xff" + b"\n" + good % b"y" + b"\0" * 64 + good.rstrip() % b"last")
    with stage.daemon(detector=MAPPING, alert=isolated()):
        done = isoctl("suspect", "--from", str(file), "--detector", "own", "--json")
    *lines, totals = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["line"], one["reason"]) for one in lines] == [(2, "own: \N{REPLACEMENT CHARACTER}"), (4, "own: y")]
    assert totals == {"lines": 5, "outcomes": {"ignored": 3, "isolated": 2}}


def test_a_mapping_that_was_edited_counts(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "FRESH", 0.0)
    now = iter([MAPPING, MAPPING, {**MAPPING, "when": ["level >= 10"]}, {**MAPPING, "when": ["level >= 10"]}])

    async def detector(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
        return next(now)

    text = '{"who": "nobody", "level": 3}\n' * 3
    with stage.daemon(detector=detector, alert=isolated()):
        done = isoctl("suspect", "--from", "-", "--detector", "own", "--json", input=text)
    assert json.loads(done.stdout.splitlines()[-1])["outcomes"] == {"isolated": 1, "ignored": 2}


@pytest.mark.parametrize(
    "words",
    [
        ["--from", "-"],
        ["--from", "-", "--detector", "own", "nobody"],
        ["--from", "-", "--detector", "own", "--reason", "x"],
        ["nobody", "--dry-run"],
        ["nobody", "--verbose"],
        ["nobody", "--detector", "own"],
    ],
    ids=str,
)
def test_usage(stage: Stage, words: list[str]) -> None:
    with stage.daemon():
        done = isoctl("suspect", *words)
    assert (done.exit_code, stage.calls) == (Exit.USAGE, [])
    assert done.stderr.endswith("See `isoctl suspect --help`.\n")


def test_a_file_that_is_not_there(stage: Stage) -> None:
    with stage.daemon(detector=MAPPING):
        done = isoctl("suspect", "--from", "/no/such", "--detector", "own")
    assert (done.exit_code, done.stderr) == (Exit.USAGE, "isoctl: /no/such cannot be read: No such file or directory\n")


def test_status_says_who_is_to_be_looked_at_again(stage: Stage) -> None:
    subject = {**changed("status")["subjects"][0], "review": SINCE}
    later = {**subject, "review": "9999-01-01T00:00:00Z"}
    with stage.daemon(status=changed("status", subjects=[subject])):
        assert f"    to review since {SINCE}" in isoctl("status").stdout
    for one in (later, {**subject, "review": None}):
        with stage.daemon(status=changed("status", subjects=[one])):
            assert "to review" not in isoctl("status").stdout
