"""isoctl changes: what a suspect changed."""

from __future__ import annotations

import click

from isoctl import completing, daemon, marks, output, reads, users
from isofs.control import results


@click.command()
@click.argument("user", shell_complete=completing.suspects)
@output.json_option
@click.pass_obj
def changes(directory: str | None, user: str, as_json: bool) -> None:
    """List what USER changed while isolated.

    One line per object and name: what happened to it, its kind, its size and its path; and, in
    brackets, what makes it worth a look. What these marks say comes after the list, and how much
    USER read of what others made: `isoctl reads USER` lists it.
    """
    facts: results.Changes = daemon.ask(directory, "changes", {"uid": users.subject(user).uid})
    read = reads.total(directory, facts)
    if as_json:
        printed: results.ChangesAndReads = {**facts, "read": read}
        output.document(printed)
        return
    for change in facts["changes"]:
        size = "" if change["size"] is None else output.size(change["size"])
        path = change["path"] if change["from"] is None else f"{change['from']} -> {change['path']}"
        output.line(f"{change['change']:<10}  {change['kind']:<9}  {size:>8}  {path}{marks.after(change['risks'])}")
    marks.summary((change["risks"] for change in facts["changes"]), facts["risks"])
    if read["files"]:
        output.line(f"read  {reads.total_line(read)}, of what others made: `isoctl reads {user}`")
    for gap in read["gaps"]:
        output.line(reads.gap_line(gap))
