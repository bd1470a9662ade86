"""The operator's configuration as it lies in a store: a text that is replaced whole."""

from __future__ import annotations

import contextlib
import os

from isofs.errors import StoreUnusable

NAME = "config.toml"

#: Where another one is written first. What a kill leaves is removed at the next start.
_SCRATCH = b"staging/config.toml"


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
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_SCRATCH, dir_fd=root)
        opened = os.open(_SCRATCH, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=root)
        with open(opened, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(_SCRATCH, NAME, src_dir_fd=root, dst_dir_fd=root)
        os.fsync(root)
    except OSError as error:
        raise StoreUnusable(f"{path}/{NAME} cannot be written: {error.strerror}") from error
