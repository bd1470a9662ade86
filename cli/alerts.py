"""Alerts of a detector, line by line: each is acted on at once, and what came of it is printed."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import IO

import click

from isoctl import daemon, output, users
from isofs.control import results
from isofs.errors import IsofsError, NoAnswer, NoSubject, UsageError
from isofs.model.alerts import Alert, Detector, Ignored, alert, condition

#: Bytes of a line; a longer one is no alert.
LONGEST = 1 << 20

#: Seconds after which it is asked again how alerts are read: the configuration may be another one.
FRESH = 30.0


def take(where: str, file: str, name: str, args: Mapping[str, object], *, verbose: bool, as_json: bool) -> None:
    """Have the daemon of a mount isolate whom the alerts in a file are about, until it ends.

    A line that is no alert is counted, and so is an alert that the daemon did not take: the next may be. The exit
    code is that of the last which was not taken.
    """
    counted, number = Counter[str](), 0
    problem: IsofsError | None = None
    rules = _Rules(where, name)
    with _opened(file) as lines:
        for number, line in enumerate(_lines(lines), 1):
            found = alert(name, rules.now(), line) if line is not None else Ignored(f"longer than {LONGEST} bytes")
            if isinstance(found, Ignored):
                counted["ignored"] += 1
                if verbose:
                    output.warn(f"line {number} is ignored: {found.why}")
                continue
            told, failed = _act(where, number, found, args)
            problem = failed or problem
            counted[told["outcome"]] += 1
            _say(told, as_json)
    totals: results.AlertTotals = {"lines": number, "outcomes": dict(counted)}
    if as_json:
        click.echo(json.dumps(totals))
    else:
        output.line(f"{output.plural(number, 'line')}: {output.counts({key: counted[key] for key in counted})}")
    if problem is not None:
        raise click.exceptions.Exit(problem.exit)


def _act(
    where: str, number: int, found: Alert, args: Mapping[str, object]
) -> tuple[results.AlertLine, IsofsError | None]:
    told: results.AlertLine = {
        "line": number,
        "outcome": "unknown",
        "user": found.user,
        "uid": None,
        "reason": found.reason,
        "why": "",
    }
    try:
        who = users.find(found.user)
        told["user"], told["uid"] = who.name, who.uid
        asked = {**args, "uid": who.uid, "user": who.name, "reason": found.reason}
        done: results.Alerted = daemon.ask_at(where, "alert", asked)
        told["outcome"], told["why"] = done["outcome"], done["why"]
    except NoSubject as error:
        told["why"] = str(error)
    except IsofsError as error:
        told["outcome"], told["why"] = "failed", str(error)
        return told, error
    return told, None


def _say(told: results.AlertLine, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(told))
        return
    why = f" ({told['why']})" if told["why"] else ""
    output.line(f"{told['outcome']}: {told['user']}: {told['reason']}{why}")


class _Rules:
    """How the alerts are read, as the daemon has it configured."""

    def __init__(self, where: str, name: str) -> None:
        self._where, self._name = where, name
        self._read, self._asked = self._ask(), time.monotonic()

    def now(self) -> Detector:
        if time.monotonic() - self._asked > FRESH:
            with contextlib.suppress(NoAnswer):
                self._read = self._ask()
            self._asked = time.monotonic()
        return self._read

    def _ask(self) -> Detector:
        found: results.Detector = daemon.ask_at(self._where, "detector", {"name": self._name})
        when = tuple(condition(one) for one in found["when"])
        return Detector(found["format"], tuple(found["user"]), tuple(found["reason"]), when)


def _lines(file: IO[bytes]) -> Iterator[str | None]:
    """Each line as soon as it is there; None for one that is too long."""
    while line := file.readline(LONGEST):
        whole = line.endswith(b"\n") or len(line) < LONGEST
        while not whole:
            rest = file.readline(LONGEST)
            whole = rest.endswith(b"\n") or not rest
            line = b""
        yield line.decode(errors="replace") if line else None


@contextlib.contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        opened = open(file, "rb")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    with opened:
        yield opened
