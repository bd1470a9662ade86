"""isoctl malicious: throw a suspect's work away."""

from __future__ import annotations

import os
from collections import Counter

import click

from isoctl import completing, daemon, output, partly, users
from isofs.control import mounts, results, wire
from isofs.errors import NotAllowed, UsageError


@click.command()
@click.argument("user", shell_complete=completing.suspects)
@click.option("--accept", metavar="GLOB", multiple=True, help="Merge this before, and keep it; may be repeated.")
@click.option(
    "--evidence",
    metavar="FILE",
    shell_complete=completing.files,
    help="Where the evidence goes, instead of into the store.",
)
@click.option("--no-evidence", is_flag=True, help="Discard, and keep nothing.")
@click.option("--reason", metavar="TEXT", default="", help="Why; written into the evidence.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@output.json_option
@click.pass_obj
def malicious(
    directory: str | None,
    user: str,
    accept: tuple[str, ...],
    evidence: str | None,
    no_evidence: bool,
    reason: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Discard the work of USER, and keep the evidence.

    What everyone sees stays as it is. First everything that USER changed is written into one
    archive, which is read back; if that fails, nothing is discarded. `isoctl evidence` shows, checks
    and unpacks such archives. A discarding that has begun is finished even if this command is
    interrupted.

    What --accept names (globs as in a .gitignore) is merged first. If any of it cannot be merged
    as USER has it, nothing is discarded. The evidence has that as well.
    """
    if no_evidence and evidence is not None:
        raise UsageError("--evidence and --no-evidence exclude each other")
    who = users.subject(user)
    where = daemon.mount_point(directory)
    args: dict[str, object] = {"uid": who.uid, "reason": reason, "by": users.operator(), "no_evidence": no_evidence}
    if accept:
        args["accept"] = list(accept)
    if evidence is not None:
        args |= {"evidence": wire.path_text(os.fsencode(mounts.real(evidence))), "pid": os.getpid()}
    if not yes:
        without = " and keep no evidence" if no_evidence else ""
        but = f" but {', '.join(accept)}" if accept else ""
        _confirm(f"Discard everything that {who.name} changed in {where}{but}{without}?")
    with output.progress(f"discarding {user}") as move:
        facts: results.Discarded = daemon.ask_at(where, "malicious", args, move)
    if as_json:
        output.document(facts)
        return
    if accept:
        output.line(f"merged {facts['user']}: {output.counts(Counter(item['action'] for item in facts['accepted']))}")
        for one in facts["along"]:
            output.line(partly.along(one))
    output.line(f"discarded {facts['user']}: {output.counts(facts['counts'])}")
    if facts["evidence"] is not None:
        output.line(f"evidence kept in {facts['evidence']}")
    if facts["readable"] != facts["evidence"] and os.geteuid() == 0:
        output.line(f"while mounted, read it in {facts['readable']}")


def _confirm(question: str) -> None:
    if not output.can_ask():
        raise UsageError("there is no terminal to ask on: give --yes to discard")
    if not click.confirm(output.quoted(question), err=True):
        raise NotAllowed("not confirmed: nothing is changed")
