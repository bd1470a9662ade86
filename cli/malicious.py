"""isoctl malicious: throw a suspect's work away."""

from __future__ import annotations

import click

from isoctl import daemon, output, users
from isofs.control import results
from isofs.errors import NotAllowed, UsageError


@click.command()
@click.argument("user")
@click.option("--yes", is_flag=True, help="Don't ask.")
@output.json_option
@click.pass_obj
def malicious(directory: str | None, user: str, yes: bool, as_json: bool) -> None:
    """Discard the work of USER, and keep the evidence.

    What everyone sees stays as it is. A discarding that has begun is finished even if this command
    is interrupted.
    """
    daemon.need_root()
    who = users.subject(user)
    where = daemon.mount_point(directory)
    if not yes:
        _confirm(f"Discard everything that {who.name} changed in {where}?")
    with output.progress(f"discarding {user}") as move:
        facts: results.Discarded = daemon.ask_at(where, "malicious", {"uid": who.uid}, move)
    if as_json:
        output.document(facts)
        return
    output.line(f"discarded {facts['user']}: {output.counts(facts['counts'])}")
    if facts["evidence"] is not None:
        output.line(f"evidence kept in {facts['evidence']}")
    if facts["readable"] != facts["evidence"]:
        output.line(f"while mounted, read it in {facts['readable']}")


def _confirm(question: str) -> None:
    if not output.can_ask():
        raise UsageError("there is no terminal to ask on: give --yes to discard")
    if not click.confirm(output.quoted(question), err=True):
        raise NotAllowed("not confirmed: nothing is changed")
