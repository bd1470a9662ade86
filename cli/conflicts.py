"""isoctl conflicts: what merges could not decide."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import click

from isoctl import completing, daemon, output, users
from isofs.control import mounts, results


@click.command()
@click.argument("user", required=False, shell_complete=completing.suspects)
@output.json_option
@click.pass_obj
def conflicts(directory: str | None, user: str | None, as_json: bool) -> None:
    """Show what a merge could not decide, and how to settle it.

    Of USER, or of all. Prints facts: the exit code is 0 whether there are any or not. `isoctl diff USER` shows what the
    versions that wait changed.
    """
    uid = None if user is None else users.subject(user).uid
    where = daemon.mount_point(directory)
    facts: results.Conflicts = daemon.ask_at(where, "conflicts", {"uid": uid})
    several = len(mounts.mounted()) > 1
    if as_json:
        found = [
            {**one, "commands": [output.shell(*words) for words in _commands(where, one, several)]}
            for one in facts["conflicts"]
        ]
        output.document({"conflicts": found})
        return
    if not facts["conflicts"]:
        output.line("no conflicts")
    for conflict in facts["conflicts"]:
        output.line(f"{conflict['user']}: {conflict['kind']} {conflict['path']}: {conflict['reason']}")
        output.line(f"    main     {_vector(conflict['main'])}")
        output.line(f"    suspect  {_vector(conflict['suspect'])}")
        if conflict["version"] is not None:
            output.line(f"    kept in  {conflict['version']}")
        if conflict["readable"] != conflict["version"] and os.geteuid() == 0:
            output.line(f"    read it  {conflict['readable']}")
        for words in _commands(where, conflict, several):
            output.command(*words, indent="    ")


def _commands(where: str, conflict: results.Conflict, several: bool) -> Iterator[tuple[str, ...]]:
    """Each way to settle a conflict, as the words of a command."""
    program = ("isoctl", "--mount", where) if several else ("isoctl",)
    resolve = (*program, "resolve", conflict["user"], os.path.join(where, conflict["path"]))
    for side in ("main", "suspect", "both"):
        if side != "both" or conflict["kind"] != "directory":
            yield (*resolve, "--take", side)
    if conflict["kind"] == "file" and conflict["main"] is not None and conflict["main"].get("G") != "d":
        yield (*resolve, "--markers", "FILE")
    if conflict["kind"] == "file":
        yield (*resolve, "--with", "FILE")


def _vector(vector: Mapping[str, object] | None) -> str:
    if vector is None:
        return "none"
    return output.vector(vector)
