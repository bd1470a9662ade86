"""isoctl plan: what an innocent verdict would do."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import click

from isoctl import completing, daemon, marks, output, partly, users
from isofs.control import results


@click.command()
@click.argument("user", shell_complete=completing.suspects)
@partly.options
@click.option("-v", "--vectors", is_flag=True, help="Show the version vectors as well.")
@output.json_option
@click.pass_obj
def plan(
    directory: str | None,
    user: str,
    only: tuple[str, ...],
    excepted: tuple[str, ...],
    vectors: bool,
    as_json: bool,
) -> None:
    """Show what `innocent` would do with the work of USER, and why. Changes nothing.

    With --only or --except, what it would do with the same globs, which are those of a .gitignore.

    How much by directory first, then every object and name. What a rule decides but somebody should look at is
    marked for review; what is worth a look has its marks in brackets.
    """
    facts: results.Planned = daemon.ask(
        directory, "plan", {"uid": users.subject(user).uid, **partly.arguments(only, excepted)}
    )
    if as_json:
        output.document(facts)
    else:
        output.paged(_text(facts, vectors))


def _text(facts: results.Planned, vectors: bool) -> Iterator[str]:
    yield f"{facts['user']}: {output.planned_counts(facts['counts'])}"
    directories: dict[str, Counter[str]] = defaultdict(Counter)
    for item in facts["items"]:
        directories[os.path.dirname(item["path"]) or "."][item["action"]] += 1
    for name, counts in sorted(directories.items()):
        yield f"    {name}: {output.planned_counts(counts)}"
    yield from marks.summarised((item["risks"] for item in facts["items"]), facts["risks"])
    for item in facts["items"]:
        yield output.merge_item(item, planned=True) + marks.after(item["risks"])
        if vectors:
            yield f"          main {_vector(item['main'])}; suspect {_vector(item['suspect'])}"
    yield from map(partly.along, facts["along"])
    yield from map(partly.left, facts["left"])


def _vector(vector: Mapping[str, object] | None) -> str:
    return "none" if vector is None else output.vector(vector)
