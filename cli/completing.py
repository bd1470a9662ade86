"""What shells complete words with: suspects, as the daemon knows them, and files. Quick, and silent whatever fails."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from isoctl import daemon
from isofs.control import client, mounts, results
from isofs.errors import IsofsError

#: Seconds that the daemon may take: somebody waits with a key pressed.
PATIENCE = 1.0


def suspects(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Who is isolated, or waits for a decision, on the mount that the words mean so far."""
    try:
        where = daemon.mount_point(context.find_root().params.get("directory"))
        found = client.call(mounts.socket_for(where), "suspects", {}, timeout=PATIENCE)
    except (IsofsError, OSError):
        return []
    facts: list[results.Suspect] = found["suspects"]  # type: ignore[assignment]
    # A name that a shell would read as something else is not proposed.
    return [
        CompletionItem(one["user"], help=one["state"])
        for one in facts
        if one["user"].startswith(incomplete) and all(c.isalnum() or c in "._-@+" for c in one["user"])
    ]


def files(_context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def directories(_context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="dir")]
