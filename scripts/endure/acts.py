"""What people do to files: chosen by what is there, and done again after a crash without harm."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

#: More entries than that are not made in one tree.
MOST = 60


@dataclass(frozen=True)
class Act:
    """One thing that somebody does: a call, on one or two paths below a root."""

    call: str
    path: str
    to: str = ""
    data: bytes = b""
    number: int = 0


class Row(NamedTuple):
    """Everything about a thing but times and numbers."""

    mode: int
    links: int
    owner: int
    content: bytes
    labels: dict[str, bytes]


#: What is below a directory.
Tree = dict[str, Row]


def choose(rng: random.Random, root: str, prefix: str = "n", *, within: bool = False) -> Act:
    """Something that can be done to the tree at a root as it is; `within` the directories there, not to them."""
    found = [entry for entry in _entries(root) if not within or "/" in entry[0]]
    tops = [name.name for name in os.scandir(root)] if within else [""]
    directories = [*sorted(tops), *(path for path, mode in found if stat.S_ISDIR(mode))]
    files = [path for path, mode in found if stat.S_ISREG(mode)]
    new = os.path.join(rng.choice(directories), f"{prefix}{rng.randrange(10**9)}")
    if not files or (len(found) < MOST and rng.random() < 0.4):
        call = rng.choice(["write", "write", "write", "mkdir", "symlink", "save"])
        return Act(call, new, data=rng.randbytes(rng.choice([0, 10, 5000, 70000])))
    file, any_one = rng.choice(files), rng.choice(found)[0]
    call = rng.choice(["write", "append", "save", "truncate", "chmod", "label", "rename", "over", "link", "remove"])
    match call:
        case "rename" if new.startswith(any_one + "/"):
            return Act("write", file, data=b"instead")
        case "rename":
            return Act(call, any_one, new)
        case "over":
            return Act(call, file, rng.choice(files))
        case "link":
            return Act(call, file, new)
        case "remove":
            return Act(call, any_one)
        case _:
            number = rng.randrange(100_000) if call in ("append", "truncate") else rng.choice([0o666, 0o777, 0o606])
            return Act(call, file, data=rng.randbytes(rng.randrange(2000)), number=number)


def _entries(root: str) -> Iterator[tuple[str, int]]:
    return ((path, at.st_mode) for path, at in _statuses(root))


def _statuses(root: str) -> Iterator[tuple[str, os.stat_result]]:
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted([*names, *files]):
            path = os.path.join(directory, name)
            yield os.path.relpath(path, root), os.lstat(path)


def do(act: Act, path: str, to: str) -> None:
    """Do it to what is at `path`."""
    _ACTS[act.call](act, path, to)


def was_done(act: Act, error: OSError, to: str) -> bool:
    """Whether an act that may have been done already fails because it was: what it makes is there, or gone."""
    if error.errno == errno.EEXIST:
        return act.call in ("mkdir", "symlink", "link")
    moved = act.call in ("rename", "over") and os.path.lexists(to)
    return error.errno == errno.ENOENT and (act.call == "remove" or moved)


def _write(act: Act, path: str, to: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(act.data)


def _append(act: Act, path: str, to: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, act.data, act.number)
    finally:
        os.close(descriptor)


def _save(act: Act, path: str, to: str) -> None:
    with open(path + "~", "wb", buffering=0) as file:
        file.write(act.data)
    os.rename(path + "~", path)


def _remove(act: Act, path: str, to: str) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


_ACTS: dict[str, Callable[[Act, str, str], None]] = {
    "write": _write,
    "append": _append,
    "save": _save,
    "truncate": lambda act, path, to: os.truncate(path, act.number),
    "chmod": lambda act, path, to: os.chmod(path, act.number),
    "label": lambda act, path, to: os.setxattr(path, "user.label", act.data[:100]),
    "mkdir": lambda act, path, to: os.mkdir(path, 0o777),
    "symlink": lambda act, path, to: os.symlink(act.data[:20].hex() or "nowhere", path),
    "rename": lambda act, path, to: os.rename(path, to),
    "over": lambda act, path, to: os.rename(path, to),
    "link": lambda act, path, to: os.link(path, to),
    "remove": _remove,
}


def ravage(rng: random.Random, root: str) -> bool:
    """Do some damage anywhere; whether it could be done."""
    try:
        found = list(_entries(root))
        files = [path for path, mode in found if stat.S_ISREG(mode)]
        if not files:
            return False
        file, other = rng.choice(files), rng.choice(found)[0]
        call = rng.choice(["write", "append", "save", "truncate", "chmod", "label", "rename", "over", "link", "remove"])
        to = rng.choice(files) if call == "over" else os.path.join(os.path.dirname(other), f"evil{rng.randrange(999)}")
        act = Act(call, other if call in ("rename", "remove") else file, to, b"evil", rng.choice([0o777, 0o4777, 0]))
        do(act, os.path.join(root, act.path), os.path.join(root, to))
    except OSError:
        return False
    return True


def tree(root: str) -> Tree:
    """Everything below a root."""
    found: Tree = {}
    for path, at in _statuses(root):
        full = os.path.join(root, path)
        if stat.S_ISLNK(at.st_mode):
            content, labels = os.fsencode(os.readlink(full)), {}
        else:
            content = b"" if stat.S_ISDIR(at.st_mode) else _digest(full)
            labels = {name: os.getxattr(full, name) for name in sorted(os.listxattr(full))}
        found[path] = Row(at.st_mode, at.st_nlink, at.st_uid, content, labels)
    return found


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


#: What calls fail with whose daemon is killed, or whose verdict takes long.
PASSING = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ESTALE, errno.EBUSY)
