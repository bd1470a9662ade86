"""isoctl proposals, confirm, withdraw: verdicts that need two persons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from isoctl import daemon, output, users
from isofs.control import results
from isofs.errors import Exit


@click.command()
@output.json_option
@click.pass_obj
def proposals(directory: str | None, as_json: bool) -> None:
    """List the verdicts that wait for a second person.

    Who proposed what and when, and whether the user has changed something since.
    """
    facts: results.Proposals = daemon.ask(directory, "proposals", {})
    if as_json:
        output.document(facts)
        return
    for one in facts["proposals"]:
        show(one)
    if not facts["proposals"]:
        output.line("nothing is proposed")


def show(one: results.Proposal, indent: str = "") -> None:
    """Print a proposal, a line or two."""
    reason = f": {one['reason']}" if one["reason"] else ""
    output.line(f"{indent}{one['user']} (uid {one['uid']})  proposed by {one['by']} {one['at']}{reason}")
    output.command("isoctl", *one["words"], indent=f"{indent}    ")
    if one["content"] is not None:
        output.line(f"{indent}    FILE: {output.size(one['content']['size'])} sha256:{one['content']['sha256']}")
    if one["changed"]:
        output.line(f"{indent}    {one['user']} has changed something since")


@click.command()
@click.argument("user")
@click.option("--anyway", is_flag=True, help="Though USER has changed something since it was proposed.")
@output.json_option
@click.pass_obj
def confirm(directory: str | None, user: str, anyway: bool, as_json: bool) -> None:
    """Carry out the verdict about USER that another person proposed.

    Nobody confirms what they proposed themselves, under whatever name. If USER has changed something
    since, nothing is carried out, and the error names what; --anyway decides about what is there now.
    """
    args = {"uid": users.subject(user).uid, "anyway": anyway}
    with output.progress(f"deciding about {user}") as move:
        facts: results.Confirmed = daemon.ask(directory, "confirm", args, move)
    if as_json:
        output.document(facts)
    else:
        output.line(f"{facts['call']} {facts['user']}, as {facts['by']} proposed: {_outcome(facts['result'])}")
        output.merge_items(facts["result"].get("items", ()))
    if facts["result"].get("conflicts"):
        left = output.plural(facts["result"]["conflicts"], "conflict")
        output.warn(f"{left} to decide: `isoctl conflicts {facts['user']}`")
        if facts["call"] == "innocent":
            raise click.exceptions.Exit(Exit.CONFLICTS)


def _outcome(result: Mapping[str, Any]) -> str:
    evidence = result.get("evidence")
    return output.counts(result["counts"]) + (f"; evidence kept in {evidence}" if evidence else "")


@click.command()
@click.argument("user")
@output.json_option
@click.pass_obj
def withdraw(directory: str | None, user: str, as_json: bool) -> None:
    """Withdraw what is proposed about USER, whoever proposed it."""
    facts: results.Proposal = daemon.ask(directory, "withdraw", {"uid": users.subject(user).uid})
    if as_json:
        output.document(facts)
        return
    output.line(f"withdrawn: {facts['call']} {facts['user']}, which {facts['by']} proposed")
