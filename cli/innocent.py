"""isoctl innocent: merge a suspect's work into what everyone sees."""

from __future__ import annotations

import click

from isoctl import completing, daemon, output, partly, users
from isoctl.interactive import interact
from isofs.control import results
from isofs.errors import Exit, NotAllowed, UsageError


@click.command()
@click.argument("user", shell_complete=completing.suspects)
@partly.options
@click.option("-i", "--interactive", is_flag=True, help="Ask about each object; nothing is done before the end.")
@output.json_option
@click.pass_obj
def innocent(
    directory: str | None, user: str, only: tuple[str, ...], excepted: tuple[str, ...], interactive: bool, as_json: bool
) -> None:
    """Merge the work of USER into what everyone sees.

    Nothing of anyone's is overwritten. Where both sides changed the same thing and no rule decides,
    everyone's stays, the version of USER is kept as a conflict, and the exit code says so. A merge
    that has begun is finished even if this command is interrupted.

    With --only or --except, USER stays a suspect, and what was left out stays isolated. What
    no rule merges, and cannot be merged as USER has it, is left out as well, and the exit code
    says so. Globs are those of a .gitignore; try them with `isoctl plan`.

    With --interactive, what is skipped stays isolated, and main's is kept of what you say so:
    that is discarded as `isoctl malicious` does it, with evidence in the store.
    """
    if interactive:
        if only or excepted or as_json:
            raise UsageError("--interactive goes without --only, --except and --json")
        where = daemon.mount_point(directory)
        if daemon.ask_at(where, "status", {})["two_person"]:
            raise NotAllowed("--interactive carries things out one by one, and here a second person confirms them all")
        _report_conflicts(interact(where, user, users.subject(user).uid), user)
        return
    args = {"uid": users.subject(user).uid, **partly.arguments(only, excepted)}
    with output.progress(f"merging {user}") as move:
        facts: results.Merged = daemon.ask(directory, "innocent", args, move)
    if as_json:
        output.document(facts)
    else:
        output.line(f"merged {facts['user']}: {output.counts(facts['counts'])}")
        output.merge_items(facts["items"])
        partly.show(facts)
    _report_conflicts(facts["conflicts"], facts["user"])
    partly.fail_if_refused(facts["left"])


def _report_conflicts(count: int, user: str) -> None:
    if count:
        output.warn(f"{output.plural(count, 'conflict')} to decide: `isoctl conflicts {user}`")
        raise click.exceptions.Exit(Exit.CONFLICTS)
