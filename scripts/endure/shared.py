"""The directory in which everybody works at once, each under names of their own; and what should be there.

Trusted users make directories in it, which everybody fills, and rename them meanwhile. Each has a mark, which stays:
the twins are kept by it. A link in the maker's twin leads from the mark to where the directory is.
"""

from __future__ import annotations

import os
import random
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass

from acts import Act, Tree

#: What never changes: the directories, beside the shared one itself, that those with a mark are in.
ROOMS = ("one", "two")

#: That many directories each trusted user makes.
_MOST = 3


@dataclass(frozen=True)
class Shared:
    """The directory in the mount, and where all twins are."""

    root: str
    twins: str

    def at(self, path: str) -> str:
        """Where something is now; `path` begins with a mark."""
        mark, _, rest = path.partition("/")
        return os.path.join(self.root, place(self.twins, mark), rest)

    def moved(self, path: str, was: str) -> bool:
        """Whether what was there a moment ago is elsewhere, because of its directory."""
        mark = path.partition("/")[0]
        above = os.path.join(self.root, place(self.twins, mark))
        if os.path.lexists(above) and self.at(path) == was:
            return False
        time.sleep(0.001)  # who moved it is about to say so
        return True


def place(twins: str, mark: str) -> str:
    """Where the directory with a mark is, below the shared one."""
    return os.readlink(os.path.join(twins, _maker(mark), "places", mark))


def places(twins: str) -> dict[str, str]:
    """Where all of them are, by mark."""
    marks = [mark for uid in os.listdir(twins) for mark in os.listdir(os.path.join(twins, uid, "places"))]
    return {mark: place(twins, mark) for mark in sorted(marks)}


def _maker(mark: str) -> str:
    return mark.partition("-")[0]


def arrange(rng: random.Random, uid: int, twins: str) -> tuple[str, Act]:
    """The mark of a directory of this maker, and what is to be done to it: below the shared one, not by its mark."""
    marks = sorted(os.listdir(os.path.join(twins, str(uid), "places")))
    new = len(marks) < _MOST
    mark = f"{uid}-{len(marks)}" if new else rng.choice(marks)
    to = os.path.join(rng.choice(["", *ROOMS]), f"{mark}.{rng.randrange(10**9)}")
    if new:
        return mark, Act("mkdir", to)
    call = rng.choice(["rename", "rename", "rename", "chmod", "label"])
    return mark, Act(call, place(twins, mark), to, rng.randbytes(9), rng.choice([0o777, 0o1777]))


def arranged(mark: str, act: Act, twins: str) -> None:
    """It was done: so it is to the twin."""
    mine = os.path.join(twins, _maker(mark))
    twin, link = os.path.join(mine, "shared", mark), os.path.join(mine, "places", mark)
    match act.call:
        case "mkdir":
            os.mkdir(twin, 0o777)
            os.symlink(act.path, link)
        case "rename":
            os.symlink(act.to, os.path.join(mine, "to"))
            os.rename(os.path.join(mine, "to"), link)
        case "chmod":
            os.chmod(twin, act.number)
        case "label":
            os.setxattr(twin, "user.label", act.data)


def together(trees: Mapping[int, Tree], where: Mapping[str, str], rooms: Tree) -> Tree:
    """What should be in the shared directory, of the twins of people: theirs by mark, and marks' places."""
    found = dict(rooms)
    for uid, tree in trees.items():
        for path, row in tree.items():
            mark, _, rest = path.partition("/")
            if rest or _maker(mark) == str(uid):
                found[os.path.join(where[mark], rest) if rest else where[mark]] = row
    return _linked(found)


def _linked(tree: Tree) -> Tree:
    """With the link counts that directories have when all of it is together."""
    within: dict[str, int] = {}
    for path, (mode, *_) in tree.items():
        if stat.S_ISDIR(mode):
            above = os.path.dirname(path)
            within[above] = within.get(above, 0) + 1
    empty = min(tree[room].links for room in ROOMS)
    counted = empty > 1  # some file systems don't count
    return {
        path: row._replace(links=empty + within.get(path, 0)) if counted and stat.S_ISDIR(row.mode) else row
        for path, row in tree.items()
    }
