"""isoctl backup and restore: a copy of the store in one file, and a store made of one."""

from __future__ import annotations

import os

import click

from isoctl import completing, daemon, output, stores
from isofs.control import mounts, results, wire


@click.command()
@click.argument("file", shell_complete=completing.files)
@stores.store_option
@output.json_option
@click.pass_obj
def backup(directory: str | None, file: str, store: str | None, as_json: bool) -> None:
    """Write a copy of the store to FILE.

    FILE must not be there yet. People go on working; a suspect may wait for a moment. The copy is of
    one moment, and is read back. It has everything that was isolated or kept, but nothing of what
    everyone sees: that lies in the directory itself.
    """
    daemon.need_root()
    path = mounts.real(file)
    where, mounted = stores.mounted_or_at_rest(directory, store)
    with output.progress(f"writing {file}") as move:
        if mounted:
            args = {"file": wire.path_text(os.fsencode(path)), "pid": os.getpid()}
            facts: results.BackedUp = daemon.ask_at(where, "backup", args, move)
        else:
            # The whole of isofs: only a store at rest needs it.
            from isofs.service import resting

            facts = resting.backup(where, None if store is None else mounts.real(store), path, move)
    if as_json:
        output.document(facts)
        return
    output.line(f"wrote {facts['file']}: {output.plural(facts['members'], 'file')}, {output.size(facts['bytes'])}")


@click.command()
@click.argument("file", shell_complete=completing.files)
@click.argument("store", metavar="PATH")
@output.json_option
def restore(file: str, store: str, as_json: bool) -> None:
    """Make a store at PATH of the backup in FILE.

    Nothing may be at PATH: move a store that is there away first, and never remove it before you
    have looked at the new one.
    """
    daemon.need_root()
    from isofs.service import backup as backups

    with output.progress(f"unpacking {file}") as move:
        facts = backups.restore(file, mounts.real(store), move)
    if as_json:
        output.document(facts)
        return
    output.line(f"made {facts['store']} of {output.plural(facts['members'], 'file')} from {facts['at']}")
