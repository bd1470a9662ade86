"""isoctl attic: what merges replaced or deleted, and how it comes back."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from isoctl import daemon, output, users
from isoctl.diff import relative
from isofs.control import mounts, results
from isofs.errors import Exit, NotAllowed, UsageError

_HOUR = 3600
_UNITS = {"": 24 * _HOUR, "d": 24 * _HOUR, "h": _HOUR}

#: More is as good as for ever, and has to be a number that a clock can be set back by.
_LONGEST = 10**10


@click.group()
def attic() -> None:
    """List, bring back and remove what merges replaced or deleted.

    It is kept for 30 days. A PATH is absolute, or relative to the current directory if that is in the
    mount, or else to the root of the mount.
    """


@attic.command("list")
@click.argument("path", required=False)
@output.json_option
@click.pass_obj
def list_(directory: str | None, path: str | None, as_json: bool) -> None:
    """List what is in the attic, newest first; with PATH what was there or below it.

    A number, when it came there, whose merge it was, what that did, the type, the size, and the path.
    """
    where = daemon.mount_point(directory)
    pages = _pages(where, "" if path is None else "".join(relative(where, mounts.here(), (path,))))
    if as_json:
        facts: results.Attic = {"entries": [entry for page in pages for entry in page], "more": False}
        output.document(facts)
        return
    output.paged(_lines(pages))


def _pages(where: str, path: str) -> Iterator[list[results.Stowed]]:
    before: int | None = None
    while True:
        facts: results.Attic = daemon.ask_at(where, "attic", {"before": before, "path": path})
        yield facts["entries"]
        if not facts["more"]:
            return
        before = facts["entries"][-1]["number"]


def _lines(pages: Iterator[list[results.Stowed]]) -> Iterator[str]:
    entry = None
    for page in pages:
        for entry in page:
            live = "  (was open for writing, and may have changed since)" if entry["live"] else ""
            yield (
                f"{entry['number']:>6}  {entry['at']}  {entry['user']}  {entry['action']:<8}  "
                f"{entry['kind']:<9}  {output.size(entry['size']):>8}  {entry['path']}{live}"
            )
    if entry is None:
        yield "the attic is empty"


@attic.command()
@click.argument("what", metavar="PATH|NUMBER")
@click.option("--as", "to", metavar="PATH", help="Bring it back there instead of where it was.")
@click.option("--replace", is_flag=True, help="Replace what is there now, which goes into the attic.")
@output.json_option
@click.pass_obj
def restore(directory: str | None, what: str, to: str | None, replace: bool, as_json: bool) -> None:
    """Bring back what was at PATH last, or what has the NUMBER in the list.

    It comes with its attributes, and leaves the attic. What is there now is never replaced unasked.
    Directories on the way that are gone come back first, if the attic has them. A path that looks
    like a number is written ./7.

    A directory comes with all that the same merge took from it; of the merges that took something
    from it, that is the last one. Repeated after an interruption, the command goes on. What cannot
    come back, because something else has its name now, is left in the attic, and the exit code
    says so. With --replace, what is there goes into the attic, and a directory that is there gets
    the attributes of the old one.
    """
    where = daemon.mount_point(directory)
    args: dict[str, object] = {"replace": replace, "by": users.operator()}
    if what.isascii() and what.isdecimal():
        if int(what[:19]) >> 62:
            raise UsageError(f"{what} is no number of the list")
        args["number"] = int(what)
    else:
        args["path"] = _inside(where, what)
    if to is not None:
        args["as"] = _inside(where, to)
    with output.progress("restoring") as move:
        facts: results.Restored = daemon.ask_at(where, "attic_restore", args, move)
    if as_json:
        output.document(facts)
    else:
        for entry in facts["restored"]:
            output.line(f"restored {entry['path']}")
        for entry in facts["replaced"]:
            output.line(f"what was at {entry['path']} is number {entry['number']} in the attic")
        for left in facts["left"]:
            output.line(f"left number {left['number']}: {left['reason']}")
    if facts["left"]:
        output.warn(f"{output.plural(len(facts['left']), 'thing')} could not come back: left in the attic")
        raise click.exceptions.Exit(Exit.ATTIC)


def _inside(where: str, path: str) -> str:
    found = relative(where, mounts.here(), (path,))
    if not found:
        raise UsageError("the root of the mount is never in the attic: name something in it")
    return found[0]


@attic.command()
@click.option("--older-than", metavar="AGE", help="Only what is older: days (30, 30d) or hours (12h).")
@click.option("--yes", is_flag=True, help="Don't ask.")
@output.json_option
@click.pass_obj
def purge(directory: str | None, older_than: str | None, yes: bool, as_json: bool) -> None:
    """Remove what is in the attic for good."""
    age = None if older_than is None else _seconds(older_than)
    where = daemon.mount_point(directory)
    if not yes:
        what = "everything" if age is None else f"what is older than {older_than}"
        _confirm(f"Remove {what} from the attic of {where}, for good?")
    with output.progress("purging the attic") as move:
        facts: results.Purged = daemon.ask_at(where, "attic_purge", {"older_than": age}, move)
    if as_json:
        output.document(facts)
        return
    output.line(f"removed {output.plural(facts['entries'], 'thing')}, {output.size(facts['bytes'])}")


def _seconds(age: str) -> int:
    """The seconds that an age means. UsageError for what is none."""
    found = re.fullmatch(r"([0-9]{1,9})([dh]?)", age)
    if found is None or (seconds := int(found[1]) * _UNITS[found[2]]) > _LONGEST:
        raise UsageError(f"{age} is no age: give days (30, 30d) or hours (12h)")
    return seconds


def _confirm(question: str) -> None:
    if not output.can_ask():
        raise UsageError("there is no terminal to ask on: give --yes to remove")
    if not click.confirm(output.quoted(question), err=True):
        raise NotAllowed("not confirmed: nothing is changed")
