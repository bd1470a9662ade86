"""isoctl check: whether what must always hold does."""

from __future__ import annotations

import click

from isoctl import daemon, output
from isofs.control import mounts, results
from isofs.errors import Exit, UsageError


@click.command()
@click.option("--store", metavar="PATH", help="Where the store is, if --mount DIR isn't mounted.")
@output.json_option
@click.pass_obj
def check(directory: str | None, store: str | None, as_json: bool) -> None:
    """Check every invariant on the store, and change nothing.

    Works on a directory that isn't mounted too, if --mount names it.
    """
    daemon.need_root()
    facts = _checked(directory, store)
    if as_json:
        output.document(facts)
    else:
        for problem in facts["problems"]:
            output.line(_sentence(problem))
        output.line(f"checked {output.counts(facts['checked'])}")
    if not facts["ok"]:
        output.warn(f"{output.plural(len(facts['problems']), 'problem')} found")
        raise click.exceptions.Exit(Exit.PROBLEMS)


def _checked(directory: str | None, store: str | None) -> results.Checked:
    where = None if directory is None else mounts.real(directory)
    if where is None or any(mount.directory == where for mount in mounts.mounted()):
        where = daemon.mount_point(directory)
        if store is not None:
            raise UsageError(f"{where} is mounted, and its daemon knows its store: omit --store")
        facts: results.Checked = daemon.ask_at(where, "check", {})
        return facts
    # The whole of isofs: only a check without a daemon needs it.
    from isofs.service import resting

    return resting.check(where, None if store is None else mounts.real(store))


def _sentence(problem: results.Problem) -> str:
    place = ", ".join(word for word in (problem["subject"], problem["path"]) if word)
    return f"{problem['invariant']}: {problem['problem']}" + (f" ({place})" if place else "")
