"""isoctl diff: the changes of a suspect themselves."""

from __future__ import annotations

import os
import posixpath

import click

from isoctl import completing, daemon, marks, output, users
from isofs.control import mounts, results, wire
from isofs.errors import UsageError


@click.command()
@click.argument("user", shell_complete=completing.suspects)
@click.argument("paths", metavar="[PATH...]", nargs=-1)
@click.option(
    "--against",
    type=click.Choice(["base", "main"]),
    help="What USER started from (what did USER change?), or what everyone sees (what would change there?).",
)
@output.json_option
@click.pass_obj
def diff(directory: str | None, user: str, paths: tuple[str, ...], against: str | None, as_json: bool) -> None:
    """Show the changes of USER themselves.

    Unified diffs for text, sizes and hashes for the rest. Without --against a file is compared with
    what USER started from if a copy of that was kept, else with what everyone sees.

    A PATH is absolute, or relative to the current directory if that is in the mount, or else to the
    root of the mount; a directory means all that is below it. What is worth a look has a line
    before it, with its marks in brackets.
    """
    uid = users.subject(user).uid
    where = daemon.mount_point(directory)
    args = {"uid": uid, "paths": relative(where, mounts.here(), paths), "against": against}
    facts: results.Diff = daemon.ask_at(where, "diff", args)
    if as_json:
        output.document(facts)
    else:
        show(facts)


def show(facts: results.Diff) -> None:
    """Write the changes: what is worth a look, then each with its marks."""
    # Whatever applies patches skips these: lines between two of them that begin with no mark of theirs.
    marks.summary((entry["risks"] for entry in facts["entries"]), facts["risks"], before="# ")
    for entry in facts["entries"]:
        if entry["risks"]:
            output.line(f"# {entry['path']}{marks.after(entry['risks'])}")
        if not entry["known"]:
            output.line(f"# {entry['path']}: what {facts['user']} started from was not kept")
        if entry["text"] is None:
            _summary(entry)
        elif output.on_terminal():
            _coloured(entry["text"])
        else:
            # As bytes: what is read by another program must be exactly what was in the files.
            click.echo(entry["text"].encode("utf-8", "surrogateescape"), nl=False)


def relative(mount: str, cwd: str, paths: tuple[str, ...]) -> list[str]:
    """The paths as seen from the root of the mount; none of them where one is the root itself.

    By their names alone: nothing is looked up in the mount. UsageError for one that lies outside.
    """
    base = cwd if mounts.within(mount, cwd) else mount
    wanted = []
    for path in paths:
        absolute = posixpath.normpath(posixpath.join(base, path))
        if not mounts.within(mount, absolute):
            raise UsageError(f"{path} isn't below {mount}")
        name = posixpath.relpath(absolute, mount)
        if name == ".":
            return []
        wanted.append(wire.path_text(os.fsencode(name)))
    return wanted


def _summary(entry: results.Difference) -> None:
    old = _content(entry["old"]) if entry["known"] else "unknown"
    new = _content(entry["new"])
    output.line(f"{entry['change']} {entry['kind']} {entry['path']}: {old} -> {new}")


def _content(content: results.Content | None) -> str:
    if content is None:
        return "nothing"
    return f"{output.size(content['size'])} sha256:{content['sha256']}"


def _coloured(text: str) -> None:
    for line in text.split("\n")[: -1 if text.endswith("\n") else None]:
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        click.secho(output.content(line), fg=colour)
