"""isoctl malicious: throw a suspect's work away."""

from __future__ import annotations

import os

import click

from isoctl import daemon, output, users
from isofs.control import mounts, results, wire
from isofs.errors import NotAllowed, UsageError


@click.command()
@click.argument("user")
@click.option("--evidence", metavar="FILE", help="Where the evidence goes, instead of into the store.")
@click.option("--no-evidence", is_flag=True, help="Discard, and keep nothing.")
@click.option("--reason", metavar="TEXT", default="", help="Why; written into the evidence.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@output.json_option
@click.pass_obj
def malicious(
    directory: str | None, user: str, evidence: str | None, no_evidence: bool, reason: str, yes: bool, as_json: bool
) -> None:
    """Discard the work of USER, and keep the evidence.

    What everyone sees stays as it is. First everything that USER changed is written into one
    archive, which is read back; if that fails, nothing is discarded. `isoctl evidence` shows, checks
    and unpacks such archives. A discarding that has begun is finished even if this command is
    interrupted.
    """
    daemon.need_root()
    if no_evidence and evidence is not None:
        raise UsageError("--evidence and --no-evidence exclude each other")
    who = users.subject(user)
    where = daemon.mount_point(directory)
    args: dict[str, object] = {"uid": who.uid, "reason": reason, "by": users.operator(), "no_evidence": no_evidence}
    if evidence is not None:
        args |= {"evidence": wire.path_text(os.fsencode(mounts.real(evidence))), "pid": os.getpid()}
    if not yes:
        without = " and keep no evidence" if no_evidence else ""
        _confirm(f"Discard everything that {who.name} changed in {where}{without}?")
    with output.progress(f"discarding {user}") as move:
        facts: results.Discarded = daemon.ask_at(where, "malicious", args, move)
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
