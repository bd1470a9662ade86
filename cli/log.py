"""isoctl log: the audit trail."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pathspec

from isoctl import daemon, output, stores, users
from isofs.audit import reading
from isofs.audit.reading import Wanted
from isofs.audit.verifying import Verified
from isofs.control import mounts, results
from isofs.errors import Problems, UsageError

_AGO = re.compile(r"([0-9]{1,9}) ?(s|min|h|d)")
_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}
_KNOWN = re.compile(r"([0-9]{1,19}):([0-9a-f]{64})")

#: Seconds between two questions for more, while the trail is followed.
_LOOK = 0.5


@click.group(invoke_without_command=True)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is recorded from now on, until interrupted.")
@click.option("--user", metavar="USER", help="Only what USER did, or logged in for it, or what was decided about USER.")
@click.option(
    "--path", "globs", metavar="GLOB", multiple=True, help="Only paths below the mount that match, as in a .gitignore."
)
@click.option(
    "--since", metavar="TIME", help="Only from then on: 2026-11-22, 2026-11-22T14:30:00 (UTC), or 90 min ago: 90min."
)
@click.option("--until", metavar="TIME", help="Only until then.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines of the trail as they are: one JSON object each.")
@stores.store_option
@click.pass_context
def log(
    context: click.Context,
    follow: bool,
    user: str | None,
    globs: tuple[str, ...],
    since: str | None,
    until: str | None,
    as_json: bool,
    store: str | None,
) -> None:
    """Show the audit trail: who did what, in order.

    A line each: when, who, by which program (and process), in whose view (main, or S1 and so on), what
    was called, where, and with what error. `isoctl log verify` tells whether it was changed.
    """
    if context.invoked_subcommand is not None:
        if any((follow, user, globs, since, until, as_json, store)):
            raise UsageError(f"options come after `log {context.invoked_subcommand}`")
        return
    wanted = Wanted(
        "" if since is None else _moment(since),
        "~" if until is None else _moment(until),
        None if user is None else users.find(user).uid,
        _matching([_below_mount(glob, context.obj, store) for glob in globs]) if globs else None,
    )
    if wanted.since > wanted.until:
        raise UsageError(f"--since {since} is later than --until {until}")
    if os.geteuid() != 0 and store is None:
        _show(_asked(daemon.mount_point(context.obj), wanted, follow=follow), follow, as_json)
        return
    daemon.need_root()
    with reading.folder_of(stores.folder(context.obj, store)) as folder:
        if folder is not None:
            _show(reading.records(folder, wanted, follow=follow), follow, as_json)


def _show(found: Iterator[tuple[bytes, Mapping[str, Any]]], follow: bool, as_json: bool) -> None:
    try:
        if as_json:
            for line, _ in found:
                click.echo(line)
                if follow:
                    sys.stdout.flush()
        elif follow:
            for _, fields in found:
                output.line(_told(fields))
                sys.stdout.flush()
        else:
            output.paged(_told(fields) for _, fields in found)
    except BrokenPipeError:
        pass  # whoever reads has seen enough


def _asked(where: str, wanted: Wanted, *, follow: bool) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
    """The lines that are wanted, from the daemon: for whoever has a role, and not the store."""
    for page in daemon.pages_at(where, "log", {"since": wanted.since}, follow=_LOOK if follow else 0):
        for text in page["lines"]:
            line = text.encode("utf-8", "surrogateescape")
            if (fields := wanted.has(line)) is not None:
                yield line, fields


def _below_mount(glob: str, directory: str | None, store: str | None) -> str:
    """A glob that begins with the directory that is mounted over, as one that begins there."""
    if not glob.startswith("/") or (directory is None and store is not None):
        return glob
    where = daemon.mount_point(None) if directory is None else mounts.real(directory)
    return (glob[len(where) :] or "/**") if glob == where or glob.startswith(f"{where}/") else glob


def _matching(globs: Sequence[str]) -> Callable[[bytes], bool]:
    try:
        spec = pathspec.GitIgnoreSpec.from_lines(globs)
    except ValueError as error:
        raise UsageError(f"{' '.join(globs)} is no glob: {error}") from None
    if not any(pattern.include for pattern in spec.patterns):
        raise UsageError(f"--path {shlex.join(globs)} matches nothing")
    return lambda path: bool(spec.match_file(path.decode("utf-8", "surrogateescape")))


def _moment(text: str) -> str:
    """A time as lines of the trail have it. UsageError for what is none."""
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            at = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            at = datetime.fromisoformat(text)
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{text} is no time: give 2026-11-22, 2026-11-22T14:30:00, or 90min, 2h, 7d ago") from None
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _told(fields: Mapping[str, Any]) -> str:
    """A record as a line for people; names come from whoever is suspected, so it must be quoted yet."""

    def get(key: str) -> str:
        return str(fields.get(key, ""))

    program = f"{get('process.name')}({get('process.pid')})" if "process.pid" in fields else "-"
    parts = [get("@timestamp"), f"{get('user.name') or '-':<10}", f"{program:<20}", f"{get('isofs.view') or '-':<5}"]
    parts.append(f"{get('event.action'):<9}")
    if "isofs.from" in fields:
        parts += [_below(fields, "isofs.from"), "->"]
    if "file.path" in fields:
        parts.append(_below(fields, "file.path"))
    if "file.target_path" in fields:
        parts += ["->", get("file.target_path")]
    parts += list(_details(fields))
    return " ".join(parts).rstrip()


def _below(fields: Mapping[str, Any], key: str) -> str:
    """A path of a record, relative to the mount."""
    exact = reading.path(fields, key)
    return str(fields[key]) if exact is None else exact.decode("utf-8", "surrogateescape") or "."


def _details(fields: Mapping[str, Any]) -> Iterator[str]:
    for key in ("written", "read", "size"):
        if count := fields.get(f"isofs.{key}"):
            yield f"{key}={output.size(count) if isinstance(count, int) else count}"
    if fields.get("isofs.truncated"):
        yield "truncated"
    for key in ("mode", "owner", "group", "attribute", "access", "login_uid", "errno"):
        if f"isofs.{key}" in fields:
            yield f"{key}={fields[f'isofs.{key}']}"
    if "isofs.facts" in fields:
        yield json.dumps(fields["isofs.facts"], ensure_ascii=False)


@log.command()
@click.option(
    "--known", metavar="NUMBER:HASH", help="A line that was there once, as verify printed it: it must be still."
)
@stores.store_option
@output.json_option
@click.pass_obj
def verify(directory: str | None, known: str | None, store: str | None, as_json: bool) -> None:
    """Tell whether the audit trail is what was written: no line changed, put in or missing.

    It says the first bad place, and ends with exit code 11. The number and hash of the newest line are
    printed: kept in another place, they show also that somebody wrote the whole trail anew.
    """
    from isofs.audit import verifying

    daemon.need_root()
    line = None if known is None else _KNOWN.fullmatch(known)
    if known is not None and line is None:
        raise UsageError(f"{known} is not the number of a line and its hash, NUMBER:HASH")
    with reading.folder_of(stores.folder(directory, store)) as folder, output.progress("verifying") as move:
        expected = None if line is None else (int(line[1]), line[2])
        if folder is None:
            found = Verified(0, 0, 0, 0, "", 0, None)
        else:
            found = verifying.verify(folder, expected, move)
    facts: results.LogVerified = {
        "ok": found.problem is None,
        "lines": found.lines,
        "files": found.files,
        "first": found.first,
        "last": found.sequence,
        "hash": found.hash,
        "torn": found.torn,
        "problem": found.problem,
    }
    if as_json:
        output.document(facts)
    if found.problem is not None:
        raise Problems(f"the audit trail is not what was written: {found.problem}")
    if not as_json:
        output.line(f"verified {output.plural(found.lines, 'line')} in {output.plural(found.files, 'file')}")
        if found.torn:
            output.line(f"the last line is not whole ({found.torn} bytes): it is being written, or a power cut tore it")
        if found.lines:
            output.line(f"the newest is {found.sequence}:{found.hash}")
