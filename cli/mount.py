"""isoctl mount: put isofs over a directory."""

from __future__ import annotations

import contextlib

import click

from isoctl import completing, daemon, output
from isofs.control import mounts, results
from isofs.errors import UsageError


@click.command()
@click.argument("directory", metavar="DIR", shell_complete=completing.directories)
@click.option(
    "--store",
    metavar="PATH",
    shell_complete=completing.directories,
    help="Keep versions there instead of in DIR/.isofs.",
)
@click.option("--foreground", is_flag=True, help="Serve until unmounted instead of returning.")
@click.option("--supervised", is_flag=True, help="Have the daemon back at once when it dies or hangs.")
@click.option("--watchdog", type=float, metavar="SECONDS", help="When a silent daemon hangs, for --supervised (60).")
@click.option(
    "--trust-everybody", is_flag=True, help="If the store is unusable, let everybody at main: nobody is isolated."
)
@output.json_option
@click.pass_context
def mount(
    ctx: click.Context,
    directory: str,
    store: str | None,
    foreground: bool,
    supervised: bool,
    watchdog: float | None,
    trust_everybody: bool,
    as_json: bool,
) -> None:
    """Mount over DIR, say so when the mount answers, and return.

    Replaces what a dead daemon left mounted there, and says so. With a store that is damaged or of another
    version it mounts all the same: whoever is isolated gets errors, everybody else works on.
    """
    daemon.need_root()
    from isofs.service import starting  # no other command needs it

    if watchdog is not None and not (supervised and watchdog >= 1):
        raise UsageError("--watchdog is for --supervised, and at least 1 second")

    def ready(facts: results.Mounted) -> None:
        # Whoever started a mount may not care to hear of it, and it serves all the same.
        with contextlib.suppress(BrokenPipeError):
            _show(facts, as_json)

    where = mounts.real(directory)
    how = starting.How(foreground, supervised, watchdog, trust_everybody)
    ctx.exit(starting.start(where, None if store is None else mounts.real(store), how, ready))


def _show(facts: results.Mounted, as_json: bool) -> None:
    degraded = facts["degraded"]
    if degraded is not None:
        output.warn(f"degraded: {degraded['reason']}; isoctl status says who is shut out")
    if as_json:
        output.document(facts)
        return
    if facts["repaired"]:
        output.line(f"replaced the mount of a dead daemon at {facts['mount']}")
    output.line(f"mounted {facts['mount']} (store {facts['store']})")
