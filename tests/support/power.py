"""A disk whose power can be cut: a file system in an image, of which only what was synced is there afterwards.

The ext4 ioctl that shuts a file system down makes it forget what is not on the disk. Its journal commits changes of
names every few seconds, whoever asked for it, and long before the contents and the database's log need to be there;
`cut(names=True)` does that first, which is the worst moment there is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isofs.engine.state import Filesystem
from isofs.errors import StoreUnusable
from support.engine import killed

#: EXT4_IOC_SHUTDOWN, with EXT4_GOING_FLAGS_NOLOGFLUSH: not even the journal is written.
_SHUTDOWN, _NOW = 0x8004587D, struct.pack("I", 2)

#: Small, so that it is copied quickly: a fresh copy for every cut.
_SIZE = 16 << 20


@dataclass
class Disk:
    """An image, mounted at a directory."""

    image: Path
    directory: Path

    @classmethod
    def made(cls, image: Path, directory: Path) -> Disk:
        with image.open("wb") as file:
            file.truncate(_SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
        directory.mkdir()
        disk = cls(image, directory)
        disk.mount()
        return disk

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.directory)], check=True)

    def umount(self) -> None:
        """Switch it off. What it has is in the image then, also while some process's mount namespace still has it."""
        if self.directory.is_mount():
            subprocess.run(["sync", "-f", str(self.directory)], check=False, capture_output=True)  # not after a cut
            subprocess.run(["umount", "-l", str(self.directory)], check=True)

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """The directory `main` on it."""
        self.mount()
        try:
            yield self.directory / "main"
        finally:
            self.umount()

    def copied(self, image: Path) -> Disk:
        """A copy of the image, while it is not mounted, to be mounted in its stead."""
        image.unlink(missing_ok=True)
        shutil.copyfile(self.image, image)
        return Disk(image, self.directory)

    def cut(self, fs: Filesystem, *, names: bool) -> None:
        """Cut the power of a machine that runs an engine, and switch it on again."""
        with self._open() as root:
            if names:
                os.mkdir("witness", dir_fd=root)
                os.rmdir("witness", dir_fd=root)
                os.fsync(root)
            fcntl.ioctl(root, _SHUTDOWN, _NOW)
        with contextlib.suppress(StoreUnusable):
            killed(fs)
        # A copy: some process's mount namespace may have the old one for a moment longer.
        self.image.with_suffix(".cut").unlink(missing_ok=True)
        shutil.copyfile(self.image, self.image.with_suffix(".cut"))
        subprocess.run(["umount", "-l", str(self.directory)], check=True)
        self.image = self.image.with_suffix(".cut")
        self.mount()

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        root = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield root
        finally:
            os.close(root)


@contextlib.contextmanager
def made(folder: Path) -> Iterator[Disk]:
    """An empty disk, not mounted any more at the end."""
    disk = Disk.made(folder / "image", folder / "disk")
    try:
        yield disk
    finally:
        disk.umount()
