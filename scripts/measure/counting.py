"""How many requests reach the daemon for a call of each kind: it does not depend on the machine."""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from contenders import SUSPECT, TRUSTED, Trouble, directories, isoctl, unmounted

from isofs.fuse.adapter import Adapter, answered
from isofs.service import daemon

KINDS = (
    "lookup",
    "getattr",
    "setattr",
    "readlink",
    "mknod",
    "mkdir",
    "symlink",
    "unlink",
    "rmdir",
    "rename",
    "link",
    "open",
    "create",
    "read",
    "write",
    "flush",
    "fsync",
    "release",
    "opendir",
    "readdir",
    "releasedir",
    "getxattr",
    "listxattr",
    "setxattr",
    "removexattr",
)
_Handler = Callable[..., Coroutine[Any, Any, Any]]

_COUNT = struct.Struct("=Q")
_FILES = 40

#: Requests that the kernel sends without letting the caller wait.
_NOT_WAITED_FOR = ("release", "releasedir")


def serve(directory: str, store: str, counts: str) -> None:
    """Serve a mount as the daemon does, and count the requests in a file that others have mapped."""
    with open(counts, "r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    for number, kind in enumerate(KINDS):
        handler = getattr(Adapter, kind)
        inner = getattr(handler, "__wrapped__", handler)  # what records calls asks it itself
        setattr(Adapter, kind, answered(_counted(inner, memory, number * _COUNT.size)))
    daemon.serve(directory, store, lambda _: None)


def _counted(handler: _Handler, memory: mmap.mmap, at: int) -> _Handler:
    @functools.wraps(handler)
    def count(*args: Any) -> Coroutine[Any, Any, Any]:
        _COUNT.pack_into(memory, at, _COUNT.unpack_from(memory, at)[0] + 1)
        return handler(*args)

    return count


@contextlib.contextmanager
def counted(at: Path) -> Iterator[tuple[Path, Callable[[], list[int]]]]:
    """A mount, and what tells how many requests of each kind there have been."""
    [files] = directories(at, "files")
    counts = at / "counts"
    counts.write_bytes(bytes(_COUNT.size * len(KINDS)))
    command = [sys.executable, __file__, str(files), str(files / ".isofs"), str(counts)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd="/")
    try:
        limit = time.monotonic() + 30
        while not os.path.ismount(files):
            if process.poll() is not None or time.monotonic() > limit:
                raise Trouble("the counting daemon does not mount")
            time.sleep(0.02)
        yield files, lambda: [n for (n,) in _COUNT.iter_unpack(counts.read_bytes())]
    finally:
        unmounted(files)
        process.wait(30)


def _write(flags: int, data: bytes = b"x") -> Callable[[str], None]:
    def do(path: str) -> None:
        descriptor = os.open(path, flags, 0o644)
        os.write(descriptor, data)
        os.close(descriptor)

    return do


def _read(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.read(descriptor, 10)
    os.close(descriptor)


make_file = _write(os.O_WRONLY | os.O_CREAT, bytes(100))


#: By name, what is called on each of some files, in this order; the files were made before by the same user.
CALLS: dict[str, Callable[[str], object]] = {
    "stat": os.stat,
    "open, close": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "open, read, close": _read,
    "the same again": _read,
    "open, append, close": _write(os.O_WRONLY | os.O_APPEND),
    "open (O_TRUNC), write, close": _write(os.O_WRONLY | os.O_TRUNC),
    "open (O_RDWR), write, close": _write(os.O_RDWR),
    "stat after a write": os.stat,
    "chmod": lambda path: os.chmod(path, 0o600),
    "utime": os.utime,
    "truncate": lambda path: os.truncate(path, 3),
    "stat of what is not there": lambda path: os.path.exists(path + "?"),
    "the same once more": lambda path: os.path.exists(path + "?"),
    "create, write, close": lambda path: _write(os.O_WRONLY | os.O_CREAT | os.O_EXCL)(path + "n"),
    "symlink": lambda path: os.symlink("target", path + "s"),
    "readlink": lambda path: os.readlink(path + "s"),
    "link": lambda path: os.link(path, path + "l"),
    "rename": lambda path: os.rename(path + "n", path + "r"),
    "rename over": lambda path: os.rename(path + "r", path + "l"),
    "unlink": lambda path: os.unlink(path + "l"),
    "mkdir": lambda path: os.mkdir(path + "d"),
    "list an empty directory": lambda path: os.listdir(path + "d"),
    "rmdir": lambda path: os.rmdir(path + "d"),
}


def table(at: Path) -> str:
    """Requests by call, of a trusted user and of a suspect, as a table in Markdown."""
    with counted(at) as (files, counts):
        trusted = _requests(files / "trusted", TRUSTED, counts)
        isoctl("--mount", str(files), "suspect", str(SUSPECT))
        suspect = _requests(files / "suspect", SUSPECT, counts)
    lines = ["| call | requests of a trusted user | requests of a suspect, on what is its own |", "|---|---|---|"]
    lines += [f"| {name} | {trusted[name]} | {suspect[name]} |" for name in CALLS]
    return "\n".join(lines)


def _requests(place: Path, uid: int, counts: Callable[[], list[int]]) -> dict[str, str]:
    place.mkdir()
    os.chown(place, uid, uid)
    paths = [str(place / f"f{n}") for n in range(_FILES)]
    as_user(uid, make_file, paths)
    found = {}
    for name, call in CALLS.items():
        before = _settled(counts)
        as_user(uid, call, paths)
        after = _settled(counts)
        found[name] = _told([b - a for a, b in zip(before, after, strict=True)])
    return found


def _settled(counts: Callable[[], list[int]]) -> list[int]:
    """The counts, when what nobody waits for has arrived too."""
    now = counts()
    while True:
        time.sleep(0.03)
        before, now = now, counts()
        if before == now:
            return now


def _told(more: list[int]) -> str:
    """Requests per call, in words; those that are made once for many calls are left out."""
    parts = []
    for kind, count in zip(KINDS, more, strict=True):
        each = count / _FILES
        if each >= 0.1:
            star = "*" if kind in _NOT_WAITED_FOR else ""
            times = "" if round(each, 1) == 1 else f" {each:.1f}".replace(".0", "")
            parts.append(f"{kind}{star}{times}")
    return ", ".join(parts) or "none"


def as_user(uid: int, call: Callable[[str], object], paths: list[str]) -> None:
    """Make a call on each path, in a process of this user."""
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            for path in paths:
                call(path)
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise Trouble("a call failed")


if __name__ == "__main__":
    serve(*sys.argv[1:4])
