"""isoctl suspect: isolate a user."""

from __future__ import annotations

import click

from isoctl import daemon, output, users
from isofs.control import results


@click.command()
@click.argument("user")
@click.option("--reason", metavar="TEXT", default="", help="Why; shown by `isoctl status`.")
@click.option(
    "--handles",
    type=click.Choice(["kill", "refuse", "leave"]),
    default="kill",
    show_default=True,
    help="What to do about files that USER holds locked, or open for reading and writing.",
)
@output.json_option
@click.pass_obj
def suspect(directory: str | None, user: str, reason: str, handles: str, as_json: bool) -> None:
    """Isolate USER from now on.

    USER goes on working and sees everyone's latest work; what USER changes, nobody else sees.

    A file that USER has open for reading and writing can't be isolated, nor a lock that USER holds:
    kill ends the processes that hold one, refuse isolates nobody while there is one, leave lets
    them write to what everyone sees, and hold up others.
    """
    who = users.subject(user)
    args = {"uid": who.uid, "user": who.name, "reason": reason, "handles": handles}
    facts: results.Suspected = daemon.ask(directory, "suspect", args)
    if as_json:
        output.document(facts)
        return
    output.line(f"{facts['user']} (uid {facts['uid']}) is isolated since {facts['since']}")
    for held in facts["killed"]:
        output.line(f"killed {held['program']} ({held['pid']}), which had {held['path']} open")
    for held in facts["left"]:
        output.line(f"NOT ISOLATED: {held['program']} ({held['pid']}) can still write or lock {held['path']}")
