"""isoctl mount: put isofs over a directory."""

from __future__ import annotations

import click

from isoctl import daemon, output
from isofs.control import mounts


@click.command()
@click.argument("directory", metavar="DIR")
@click.option("--store", metavar="PATH", help="Keep versions there instead of in DIR/.isofs.")
@click.option("--foreground", is_flag=True, help="Serve until unmounted instead of returning.")
@output.json_option
def mount(directory: str, store: str | None, foreground: bool, as_json: bool) -> None:
    """Mount over DIR, and return when the mount answers.

    Takes away what a dead daemon left mounted there first, and says so.
    """
    daemon.need_root()
    # The whole of isofs: no other command needs it.
    from isofs import service

    where = mounts.real(directory)
    facts = service.start(where, None if store is None else mounts.real(store), foreground)
    if as_json:
        output.document(facts)
    elif not foreground:
        if facts["repaired"]:
            output.line(f"took away the mount of a dead daemon at {facts['mount']}")
        output.line(f"mounted {facts['mount']} (store {facts['store']})")
