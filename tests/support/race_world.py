"""The tree of the race tests: what trusted users observe while a suspect hammers the same names.

`files`    what the suspect writes, replaces, renames, links and removes
`listed`   a directory that is listed while the suspect renames it and what is in it
`moving`   directories that the suspect renames, removes and changes
`home`     a shared directory that trusted processes work in
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support.mount import ALICE

#: The files of `files` that every process of the suspect's works on.
COMMON = [f"files/f{number}" for number in range(8)]

#: Files that only one process of the suspect's works on: what it did last must be there at the end.
LAST = [f"files/last{number}" for number in range(3)]

#: Names that main never has and that the suspect gives to things.
ABSENT = [
    *(f"files/{kind}{number}" for kind in ("new", "link", "dir", "soft", "pipe", "away") for number in range(4)),
    *(f"home/{kind}{number}" for kind in ("new", "dir") for number in range(2)),
    *(f"moving/x{number}" for number in range(3)),
    "listed-away",
    "listed/extra",
]

#: Everything that main has, directories first.
DIRECTORIES = ["files", "listed", "moving", "home", "home/deep", *(f"moving/m{number}" for number in range(3))]
FILES = [
    *COMMON,
    *LAST,
    "files/hard1",
    "files/hard2",
    *(f"listed/e{number}" for number in range(6)),
    *(f"moving/m{number}/inner" for number in range(3)),
    "home/deep/file",
]
LINKS = ["files/soft"]


def content(path: str, version: int = 0) -> bytes:
    """What a file has: telling by itself whose it is, of a length of its own."""
    line = f"{path} of main, version {version}\n".encode()
    size = 100 + 3001 * (int(hashlib.sha256(f"{path}{version}".encode()).hexdigest(), 16) % 12)
    return (line * (size // len(line) + 1))[:size]


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A new directory that every user can reach; removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="isofs-race-")).resolve()
    path.chmod(0o755)
    try:
        main = path / "main"
        main.mkdir()
        yield main
    finally:
        shutil.rmtree(path)


def build(root: Path) -> None:
    """Make the tree. Everything belongs to the suspect, so that nothing but isolation keeps it as it is."""
    for path in DIRECTORIES:
        (root / path).mkdir()
    for path in FILES:
        at = root / path
        if path == "files/hard2":
            os.link(root / "files/hard1", at)
            continue
        at.write_bytes(content(path))
        os.setxattr(at, "user.tag", path.encode())
        at.chmod(0o666)
        descriptor = os.open(at, os.O_RDONLY)
        os.fsync(descriptor)  # else the number of its blocks is not settled
        os.close(descriptor)
    (root / "files/soft").symlink_to("f0")
    for path in ["", *DIRECTORIES]:
        (root / path).chmod(0o777)
    for path in ["", *DIRECTORIES, *FILES, *LINKS]:
        os.chown(root / path, ALICE, ALICE, follow_symlinks=False)
    os.sync()


class Known(NamedTuple):
    """What must be observed of one name."""

    status: tuple[int, ...]
    content: bytes
    tag: bytes | None
    entries: tuple[tuple[str, int, int], ...]


def status(at: os.stat_result) -> tuple[int, ...]:
    """Everything that stat tells but the device and the access time."""
    return (
        at.st_ino,
        at.st_mode,
        at.st_nlink,
        at.st_uid,
        at.st_gid,
        at.st_rdev,
        at.st_size,
        at.st_blocks,
        at.st_blksize,
        at.st_mtime_ns,
        at.st_ctime_ns,
    )


STATUS_FIELDS = ("ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blocks", "blksize", "mtime_ns", "ctime_ns")


def described(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """Which fields of a status differ."""
    pairs = zip(STATUS_FIELDS, found, wanted, strict=True)
    return ", ".join(f"{name} {a} instead of {b}" for name, a, b in pairs if a != b)


def entries(at: str | int) -> tuple[tuple[str, int, int], ...]:
    """The entries of a directory: names, types as the directory has them, inode numbers."""
    with os.scandir(at) as found:
        return tuple(sorted((entry.name, _type(entry), entry.inode()) for entry in found if entry.name != ".isofs"))


def _type(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return stat.S_IFLNK
    return stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else stat.S_IFREG


def known(root: Path) -> dict[str, Known]:
    """Everything that there is to observe, as it is now."""
    found = {}
    for path in ["", *DIRECTORIES, *FILES, *LINKS]:
        at = root / path
        here = os.lstat(at)
        data, tag = b"", None
        names: tuple[tuple[str, int, int], ...] = ()
        if stat.S_ISREG(here.st_mode):
            data, tag = at.read_bytes(), os.getxattr(at, "user.tag")
        elif stat.S_ISLNK(here.st_mode):
            data = os.fsencode(os.readlink(at))
        else:
            names = entries(str(at))
        found[path] = Known(status(here), data, tag, names)
    return found


def backing(root: str) -> dict[str, tuple[object, ...]]:
    """All of main as it lies on the disk: every name with its attributes (but atime), content and xattrs."""
    found: dict[str, tuple[object, ...]] = {}
    for above, directories, files in os.walk(root):
        if above == root:
            directories[:] = [name for name in directories if name != ".isofs"]
        for name in ["", *directories, *files] if above == root else [*directories, *files]:
            at = os.path.join(above, name) if name else above
            here = os.lstat(at)
            data = b""
            if stat.S_ISREG(here.st_mode):
                with open(at, "rb") as file:
                    data = hashlib.sha256(file.read()).digest()
            elif stat.S_ISLNK(here.st_mode):
                data = os.fsencode(os.readlink(at))
            tags = tuple((tag, os.getxattr(at, tag)) for tag in os.listxattr(at, follow_symlinks=False))
            attributes = status(here)
            if at == root:  # the store is made in it, by the mount
                attributes = (here.st_ino, here.st_mode, here.st_uid, here.st_gid)
            found[os.path.relpath(at, root)] = (attributes, data, tags)
    return found
