"""Small files of a store, each replaced whole: whatever happens, there is the one before or the new one."""

from __future__ import annotations

import contextlib
import os


def replace(root: int, name: str, scratch: str, text: str, *, durably: bool = True) -> None:
    """Put a text in the place of a file in the folder that is open as `root`; it is written as `scratch` first.

    Not `durably`: a power loss may bring back what was there before. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(scratch, dir_fd=root)
    opened = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=root)
    with open(opened, "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        if durably:
            os.fsync(file.fileno())
    os.rename(scratch, name, src_dir_fd=root, dst_dir_fd=root)
    if durably:
        os.fsync(root)
