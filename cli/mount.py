"""isoctl mount: put isofs over a directory."""

from __future__ import annotations

import contextlib

import click

from isoctl import completing, daemon, output
from isofs.control import mounts, results


@click.command()
@click.argument("directory", metavar="DIR", shell_complete=completing.directories)
@click.option(
    "--store",
    metavar="PATH",
    shell_complete=completing.directories,
    help="Keep versions there instead of in DIR/.isofs.",
)
@click.option("--foreground", is_flag=True, help="Serve until unmounted instead of returning.")
@output.json_option
def mount(directory: str, store: str | None, foreground: bool, as_json: bool) -> None:
    """Mount over DIR, say so when the mount answers, and return.

    Takes away what a dead daemon left mounted there first, and says so.
    """
    daemon.need_root()
    from isofs.service import starting  # no other command needs it

    def ready(facts: results.Mounted) -> None:
        # Whoever started a mount may not care to hear of it, and it serves all the same.
        with contextlib.suppress(BrokenPipeError):
            _show(facts, as_json)

    where = mounts.real(directory)
    starting.start(where, None if store is None else mounts.real(store), foreground, ready)


def _show(facts: results.Mounted, as_json: bool) -> None:
    if as_json:
        output.document(facts)
        return
    if facts["repaired"]:
        output.line(f"took away the mount of a dead daemon at {facts['mount']}")
    output.line(f"mounted {facts['mount']} (store {facts['store']})")
