"""Where commands find the folder of a store, mounted or not."""

from __future__ import annotations

import os

import click

from isoctl import completing, daemon
from isofs.control import mounts, results
from isofs.errors import NoMount, UsageError

store_option = click.option(
    "--store",
    metavar="PATH",
    shell_complete=completing.directories,
    help="Where the store is, if --mount DIR isn't mounted.",
)


def need_omitted(where: str, store: str | None) -> None:
    """UsageError if the store of a mounted directory was named."""
    if store is not None:
        raise UsageError(f"{where} is mounted, and its daemon knows its store: omit --store")


def mounted_or_at_rest(directory: str | None, store: str | None) -> tuple[str, bool]:
    """The directory that a command means, and whether it is mounted; then its store must not be named."""
    where = None if directory is None else mounts.real(directory)
    if where is not None and all(mount.directory != where for mount in mounts.mounted()):
        return where, False
    where = daemon.mount_point(directory)
    need_omitted(where, store)
    return where, True


def folder(directory: str | None, store: str | None) -> str:
    """The folder of a mount's store, or of one whose directory isn't mounted, as it can be reached now."""
    where = None if directory is None else mounts.real(directory)
    mounted = {mount.directory for mount in mounts.mounted()}
    if store is None and (where is None or where in mounted):
        where = daemon.mount_point(directory)
        facts: results.Status = daemon.ask_at(where, "status", {})
        # A mount hides the store that lies under it from all but its daemon.
        within = mounts.within(where, facts["store"])
        return f"/proc/{facts['pid']}/root{facts['store']}" if within else facts["store"]
    if where is not None and where in mounted:
        need_omitted(where, store)
    # What starts a daemon is needed for a store without one only.
    from isofs.service.starting import store_path

    path = store_path(where or "/", None if store is None else mounts.real(store))
    if not os.path.isdir(os.path.join(path, "evidence")):
        raise NoMount(f"there is no store at {path}: give the right --mount or --store")
    return path
