"""A look at a store whose directory is not mounted."""

from __future__ import annotations

import os

from isofs.control import results
from isofs.engine import recovery
from isofs.service.answers import checked
from isofs.service.starting import check_directory, store_path
from isofs.store.folder import open_store


def check(directory: str, store: str | None) -> results.Checked:
    """Run the invariants on a store whose directory is not mounted. Changes nothing but what recovery must."""
    check_directory(directory)
    opened = open_store(store_path(directory, store), create=False)
    os.umask(0)
    try:
        fs = recovery.load(opened, directory)
    except BaseException:
        opened.close()
        raise
    try:
        return checked(fs)
    finally:
        recovery.close_filesystem(fs)
