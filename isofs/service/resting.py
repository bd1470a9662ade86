"""What is done with a store whose directory is not mounted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from isofs.control import results
from isofs.engine import recovery
from isofs.service import backup as backups
from isofs.service import newfile
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


def backup(directory: str, store: str | None, file: str, progress: Callable[[int, int], None]) -> results.BackedUp:
    """Write a backup of a store whose directory is not mounted to a new file."""
    check_directory(directory)
    path = store_path(directory, store)
    with newfile.in_file(os.fsencode(file), os.getpid(), path, "another file") as where:
        opened = open_store(path, create=False)
        try:
            return backups.write(opened, where, directory, contextlib.nullcontext, progress)
        finally:
            opened.close()
