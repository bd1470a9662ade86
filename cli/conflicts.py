"""isoctl conflicts: what merges could not decide."""

from __future__ import annotations

from collections.abc import Mapping

import click

from isoctl import daemon, output, users
from isofs.control import results


@click.command()
@click.argument("user", required=False)
@output.json_option
@click.pass_obj
def conflicts(directory: str | None, user: str | None, as_json: bool) -> None:
    """Show what a merge could not decide, of USER or of all.

    Prints facts: the exit code is 0 whether there are any or not. `isoctl diff USER` shows what the
    versions that wait changed.
    """
    uid = None if user is None else users.subject(user).uid
    facts: results.Conflicts = daemon.ask(directory, "conflicts", {"uid": uid})
    if as_json:
        output.document(facts)
        return
    if not facts["conflicts"]:
        output.line("no conflicts")
    for conflict in facts["conflicts"]:
        output.line(f"{conflict['user']}: {conflict['kind']} {conflict['path']}: {conflict['reason']}")
        output.line(f"    main     {_vector(conflict['main'])}")
        output.line(f"    suspect  {_vector(conflict['suspect'])}")
        if conflict["version"] is not None:
            output.line(f"    kept in  {conflict['version']}")
        if conflict["readable"] != conflict["version"]:
            output.line(f"    read it  {conflict['readable']}")


def _vector(vector: Mapping[str, object] | None) -> str:
    if vector is None:
        return "none"
    return output.vector(vector)
