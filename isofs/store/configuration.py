"""The operator's configuration as it lies in a store: a text that is replaced whole."""

from __future__ import annotations

import os

from isofs.errors import StoreUnusable
from isofs.store import whole

NAME = "config.toml"

#: Where another one is written first. What a kill leaves is removed at the next start.
_SCRATCH = "staging/config.toml"


def read(root: int, path: str) -> str:
    """What the store whose folder is open as `root` has; empty if nothing was configured.

    StoreUnusable, about the store's `path`, if it cannot be read.
    """
    try:
        opened = os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        with open(opened, encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise StoreUnusable(f"{path}/{NAME} cannot be read: {error}; mend it, or remove it") from error


def write(root: int, path: str, text: str) -> None:
    """Put another text in the place of what is there, durably. StoreUnusable if that cannot be done."""
    try:
        whole.replace(root, NAME, _SCRATCH, text)
    except OSError as error:
        raise StoreUnusable(f"{path}/{NAME} cannot be written: {error.strerror}") from error
