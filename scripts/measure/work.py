"""The work that is measured. Each piece is done by a process of its own, in a directory of its own.

A chain is work that builds on each other: what unpacks a tree leaves it for what walks it.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

MIB = 1 << 20
BLOCK = 4096


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    files: int = 2600
    tree: int = 100 * MIB
    big: int = 512 * MIB
    calls: int = 2000
    looks: int = 20_000
    sources: int = 24


QUICK = Scale(files=600, tree=20 * MIB, big=64 * MIB, calls=600, looks=5000, sources=8)


@dataclass(frozen=True)
class Assets:
    """What the work starts from, made once, outside of what is measured."""

    tree: Path
    repository: Path
    sources: Path


@dataclass(frozen=True)
class Context:
    """Where a piece of work is done, how much, and from what."""

    place: Path
    scale: Scale
    assets: Assets


@dataclass(frozen=True)
class Step:
    """One piece of work. `cold` drops the kernel's caches before; `reads` is work that changes nothing.

    A step without a name is preparation. `calls` is how many calls it makes, for times per call.
    """

    name: str
    do: Callable[[Context], None]
    reads: bool = False
    cold: bool = False
    calls: Callable[[Scale], int] | None = None


def _command(context: Context, *words: str) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "GIT_CONFIG_KEY_1": "gc.auto",
        "GIT_CONFIG_VALUE_1": "0",
    }
    subprocess.run(words, cwd=context.place, env=environment, check=True, stdout=subprocess.DEVNULL)


def _untar(archive: str, context: Context) -> None:
    _command(context, "tar", "xf", str(getattr(context.assets, archive)))


def walk(context: Context) -> None:
    stack = [str(context.place)]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)


def _files(place: Path) -> Iterator[str]:
    """Directory after directory, as `tar` and `grep -r` find them."""
    return (os.path.join(above, name) for above, _, names in os.walk(place) for name in names)


def _read_all(context: Context) -> None:
    for path in _files(context.place):
        descriptor = os.open(path, os.O_RDONLY)
        while os.read(descriptor, MIB):
            pass
        os.close(descriptor)


def _remove_tree(context: Context) -> None:
    for entry in list(os.scandir(context.place)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def _git_status(context: Context) -> None:
    _command(context, "git", "-C", "repository", "status", "--porcelain")


def _git_checkout(context: Context) -> None:
    _command(context, "git", "-C", "repository", "checkout", "-q", "other")


def _make(context: Context) -> None:
    _command(context, "make", "-s", "-j2", "-C", "sources")


def _write_big(context: Context) -> None:
    data = random.Random(1).randbytes(MIB)
    descriptor = os.open(context.place / "big", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for _ in range(context.scale.big // MIB):
        os.write(descriptor, data)
    os.close(descriptor)


def _read_big(context: Context) -> None:
    descriptor = os.open(context.place / "big", os.O_RDONLY)
    while os.read(descriptor, MIB):
        pass
    os.close(descriptor)


def _random_io(flags: int, context: Context) -> None:
    rng, data = random.Random(2), bytes(BLOCK)
    blocks = context.scale.big // BLOCK
    descriptor = os.open(context.place / "big", flags)
    for _ in range(context.scale.calls):
        at = rng.randrange(blocks) * BLOCK
        if flags == os.O_RDONLY:
            os.pread(descriptor, BLOCK, at)
        else:
            os.pwrite(descriptor, data, at)
    os.close(descriptor)


def _append(context: Context) -> None:
    data = bytes(100)
    descriptor = os.open(context.place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for _ in range(context.scale.calls):
        os.write(descriptor, data)
    os.close(descriptor)


def _create(context: Context, share: int = 0, shares: int = 1) -> None:
    data = bytes(100)
    for number in range(share, context.scale.calls, shares):
        descriptor = os.open(context.place / f"f{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(descriptor, data)
        os.close(descriptor)


def _stat(context: Context) -> None:
    path = str(context.place / "f0")
    for _ in range(context.scale.looks):
        os.stat(path)


def _open_close(context: Context, share: int = 0, shares: int = 1) -> None:
    for number in range(share, context.scale.calls, shares):
        os.close(os.open(context.place / f"f{number}", os.O_RDONLY))


def _rename(context: Context) -> None:
    for number in range(context.scale.calls):
        os.rename(context.place / f"f{number}", context.place / f"g{number}")


def _unlink(context: Context) -> None:
    for number in range(context.scale.calls):
        os.unlink(context.place / f"g{number}")


def _several(what: Callable[[Context, int, int], None], processes: int, context: Context) -> None:
    children = []
    for share in range(processes):
        pid = os.fork()
        if not pid:
            try:
                what(context, share, processes)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    failed = [pid for pid in children if os.waitpid(pid, 0)[1]]
    if failed:
        raise RuntimeError("a process of several failed")


def _calls(scale: Scale) -> int:
    return scale.calls


CHAINS: dict[str, Sequence[Step]] = {
    "tree": [
        Step("untar", partial(_untar, "tree")),
        Step("walk, cold", walk, reads=True, cold=True),
        Step("walk, warm", walk, reads=True),
        Step("read all, cold", _read_all, reads=True, cold=True),
        Step("read all, warm", _read_all, reads=True),
        Step("remove the tree", _remove_tree),
    ],
    "git": [
        Step("", partial(_untar, "repository")),
        Step("git status", _git_status, reads=True),
        Step("git checkout", _git_checkout),
    ],
    "compile": [
        Step("", partial(_untar, "sources")),
        Step("make -j2", _make),
    ],
    "big": [
        Step("sequential write", _write_big),
        Step("sequential read, cold", _read_big, reads=True, cold=True),
        Step("sequential read, warm", _read_big, reads=True),
        Step("random 4 KiB read", partial(_random_io, os.O_RDONLY), reads=True, cold=True, calls=_calls),
        Step("random 4 KiB write", partial(_random_io, os.O_RDWR), calls=_calls),
    ],
    "small": [
        Step("append 100 bytes", _append, calls=_calls),
        Step("create", _create, calls=_calls),
        Step("stat", _stat, reads=True, calls=lambda scale: scale.looks),
        Step("open/close", _open_close, reads=True, calls=_calls),
        Step("open/close by 2", partial(_several, _open_close, 2), reads=True, calls=_calls),
        Step("open/close by 8", partial(_several, _open_close, 8), reads=True, calls=_calls),
        Step("rename", _rename, calls=_calls),
        Step("unlink", _unlink, calls=_calls),
        Step("create by 2", partial(_several, _create, 2), calls=_calls),
        Step("", _remove_tree),
        Step("create by 8", partial(_several, _create, 8), calls=_calls),
    ],
}


def timed(step: Step, context: Context, uid: int) -> float:
    """Do a piece of work in a process of this user; how long it took, in seconds."""
    if step.cold:
        drop_caches(context.place)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.umask(0o022)
            began = time.perf_counter()
            step.do(context)
            os.write(writer, str(time.perf_counter() - began).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader) as answer:
        took = answer.read()
    if os.waitpid(pid, 0)[1] or not took:
        raise RuntimeError(f"{step.name or 'preparation'} failed in {context.place}")
    return float(took)


def drop_caches(place: Path) -> None:
    """Let the kernel forget contents, entries and inodes."""
    subprocess.run(["sync", "--file-system", str(place)], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("3")
