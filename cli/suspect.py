"""isoctl suspect: isolate a user."""

from __future__ import annotations

import click

from isoctl import alerts, completing, daemon, output, users
from isofs.control import results


@click.command()
@click.argument("user", required=False)
@click.option("--reason", metavar="TEXT", help="Why; shown by `isoctl status`.")
@click.option(
    "--handles",
    type=click.Choice(["kill", "refuse", "leave"]),
    default="kill",
    show_default=True,
    help="What to do about files that USER holds locked, or open for reading and writing.",
)
@click.option(
    "--from",
    "file",
    metavar="FILE",
    shell_complete=completing.files,
    help="Isolate whom alerts are about: a line each (- for standard input).",
)
@click.option(
    "--detector", metavar="NAME", help="Which detector the alerts are of: wazuh, falco, auditd, or a configured one."
)
@click.option("--dry-run", is_flag=True, help="Say whom alerts would isolate, and isolate nobody.")
@click.option("--verbose", is_flag=True, help="Say of each line that is no alert why it is none.")
@output.json_option
@click.pass_obj
def suspect(
    directory: str | None,
    user: str | None,
    reason: str | None,
    handles: str,
    file: str | None,
    detector: str | None,
    dry_run: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Isolate USER from now on.

    USER goes on working and sees everyone's latest work; what USER changes, nobody else sees.

    A file that USER has open for reading and writing can't be isolated, nor a lock that USER holds:
    kill ends the processes that hold one, or lock later what they had open before; refuse isolates
    nobody while there is one; leave lets them write to what everyone sees, and hold up others.

    With --from and --detector, the alerts of a detector are taken as they come, until the input ends. Alerts may
    isolate a few users in a time only (see `isoctl config show`); --json prints a line for each alert.
    """
    if file is not None:
        if user is not None or reason is not None or detector is None:
            raise _usage("--from needs --detector NAME, and has the user and the reason from the alerts.")
        args = {"handles": handles, "dry_run": dry_run}
        where = daemon.mount_point(directory)
        alerts.take(where, file, detector, args, verbose=verbose, as_json=as_json)
        return
    if user is None or detector is not None or dry_run or verbose:
        raise _usage("Give a USER; --detector, --dry-run and --verbose are for alerts: --from FILE.")
    who = users.subject(user)
    args = {"uid": who.uid, "user": who.name, "reason": reason or "", "handles": handles}
    facts: results.Suspected = daemon.ask(directory, "suspect", args)
    if as_json:
        output.document(facts)
        return
    output.line(f"{facts['user']} (uid {facts['uid']}) is isolated since {facts['since']}")
    for held in facts["killed"]:
        output.line(f"killed {held['program']} ({held['pid']}), which had {held['path']} open")
    for held in facts["left"]:
        output.line(f"NOT ISOLATED: {held['program']} ({held['pid']}) can still write or lock {held['path']}")


def _usage(message: str) -> click.UsageError:
    return click.UsageError(message, click.get_current_context())
