"""isoctl report: what verdicts did, also after the terminal that they were given in was closed."""

from __future__ import annotations

from collections.abc import Iterator

import click

from isoctl import daemon, output, users
from isofs.control import results


@click.command()
@click.argument("user", required=False)
@click.option("--number", type=click.IntRange(1), metavar="N", help="That of a verdict in the list.")
@output.json_option
@click.pass_obj
def report(directory: str | None, user: str | None, number: int | None, as_json: bool) -> None:
    """Show what verdicts on the work of USER did.

    The newest one, with each object and name; so far, if it goes on. Without USER and --number: a list
    of all verdicts, newest first, with who gave each, when and why.
    """
    where = daemon.mount_point(directory)
    if user is None and number is None:
        pages = _pages(where)
        if as_json:
            every: results.Reports = {"verdicts": [one for page in pages for one in page], "more": False}
            output.document(every)
            return
        output.paged(_listed(pages))
        return
    uid = None if user is None else users.find(user).uid
    with output.progress("reading") as move:
        facts: results.Report = daemon.ask_at(where, "report", {"uid": uid, "number": number}, move)
    if as_json:
        output.document(facts)
        return
    output.paged(_shown(facts))


def _pages(where: str) -> Iterator[list[results.Verdict]]:
    before: int | None = None
    while True:
        facts: results.Reports = daemon.ask_at(where, "reports", {"before": before})
        yield facts["verdicts"]
        if not facts["more"]:
            return
        before = facts["verdicts"][-1]["number"]


def _listed(pages: Iterator[list[results.Verdict]]) -> Iterator[str]:
    one = None
    for page in pages:
        for one in page:
            yield f"{one['number']:>6}  {_heading(one)}"
    if one is None:
        yield "no verdict was given"


def _heading(one: results.Verdict) -> str:
    """One line for a verdict."""
    part = f" ({one['part']})" if one["part"] else ""
    reason = f": {one['reason']}" if one["reason"] else ""
    going = "" if one["ended"] else "  (not finished)"
    counts = output.counts(one["counts"])
    return f"{one['at']}  {one['verdict']:<9}  {one['user']}{part}  by {one['by']}{reason}  {counts}{going}"


def _shown(facts: results.Report) -> Iterator[str]:
    yield _heading(facts)
    if facts["evidence"] is not None:
        yield f"evidence kept in {facts['evidence']}"
        if facts["readable"] != facts["evidence"]:
            yield f"    readable now at {facts['readable']}"
    for item in facts["items"]:
        yield output.merge_item(item)
