"""isoctl log-level: how much the daemon logs from now on."""

from __future__ import annotations

import click

from isoctl import daemon, output
from isofs.control import results


@click.command("log-level")
@click.argument("level", required=False, type=click.Choice(("debug", "info", "warning", "error")))
@output.json_option
@click.pass_obj
def log_level(directory: str | None, level: str | None, as_json: bool) -> None:
    """Log what is at least as important as LEVEL, or show the level.

    It lasts until the daemon ends. For good: `isoctl config edit`, the setting service.log.
    """
    facts: results.LogLevel = daemon.ask(directory, "log_level", {} if level is None else {"level": level})
    if as_json:
        output.document(facts)
    else:
        output.line(f"{facts['level']} (configured: {facts['configured']})")
