"""Resolvers: what becomes of a file that both sides changed. Pure; `base` says what one is."""

from __future__ import annotations

from isofs.merge.resolvers import append, database, lineset, mailbox, maildirs, simple, text

# Imported, so that they are registered.
__all__ = [
    "append",
    "database",
    "lineset",
    "mailbox",
    "maildirs",
    "simple",
    "text",
]
