"""isoctl service: make isofs known to mount(8) and systemd."""

from __future__ import annotations

import click

from isoctl import daemon, output
from isofs.control import mounts, results

_root = click.option("--root", metavar="DIR", default="/", help="Work below DIR instead, for packages.")


@click.group()
def service() -> None:
    """Make isofs known to mount(8) and systemd.

    Then an entry of fstab mounts it, or a unit for each mount.
    """


@service.command()
@_root
@output.json_option
def install(root: str, as_json: bool) -> None:
    """Install the helper of mount(8) and the unit isofs@.service, which run this very isoctl.

    Doing it again changes nothing, or brings them up to date.
    """
    from isofs.service import installing

    daemon.need_root()
    _show(installing.install(root), as_json)


@service.command()
@_root
@output.json_option
def uninstall(root: str, as_json: bool) -> None:
    """Remove what `install` has put there."""
    from isofs.service import installing

    daemon.need_root()
    _show(installing.uninstall(root), as_json)


@service.command()
@click.argument("directory", metavar="DIR")
def unit(directory: str) -> None:
    """Print the name of the unit that mounts DIR, for systemctl."""
    from isofs.service import installing

    click.echo(installing.unit_name(mounts.real(directory)))


def _show(facts: results.Installed, as_json: bool) -> None:
    if as_json:
        output.document(facts)
        return
    for file in facts["files"]:
        output.line(f"{file['action']:<9}  {file['path']}")
    if facts["reloaded"]:
        output.line("systemd has read its units again")
