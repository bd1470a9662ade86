"""Asking resolvers about what both sides changed: in threads, while others are served."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from isofs.engine.state import Filesystem, Obj, View
from isofs.fuse.cache import KernelCache
from isofs.merge import apply, config, resolving
from isofs.merge.config import Config
from isofs.merge.plan import is_conflict, plan
from isofs.merge.resolvers.base import Unresolved
from isofs.merge.resolving import Resolution
from isofs.model.records import MAIN, Op
from isofs.service import locks, processes
from isofs.store import configuration

#: Seconds that a lock may last before its file stays a conflict, and between two looks at it.
PATIENCE, _LOOK = 10.0, 0.05

#: What the content that a resolver made is called, after the content that it was made of.
_SUFFIX = ".merged"


def rules(fs: Filesystem) -> Config:
    """The rules by which files are merged now. BadConfiguration if the store has some that are none."""
    return config.parse(fs.store.configuration(), os.path.join(fs.store.path, configuration.NAME))


async def let_go(fs: Filesystem, view: View, using: Config, mount: str, progress: Callable[[int, int], None]) -> None:
    """Wait for programs that have files locked for writing of which resolvers will be asked, `PATIENCE` for each."""
    contested = _contested(fs, view)
    device = await _device(mount) if contested else (0, 0)
    for done, op in enumerate(contested):
        progress(done, len(contested))
        with trio.move_on_after(PATIENCE):
            while _locked(fs, fs.by_op[op], using, device):  # noqa: ASYNC110  # the kernel tells nobody when it goes
                await trio.sleep(_LOOK)


async def ask(
    fs: Filesystem,
    cache: KernelCache,
    view: View,
    using: Config,
    mount: str,
    found: dict[Op, Resolution],
    progress: Callable[[int, int], None],
    *,
    write: bool = False,
) -> None:
    """Put into `found` what resolvers make of every conflict of a view.

    A file that a program has locked for writing is in the midst of a change, and left alone. `write`: what they merged
    lies beside the subject's own contents then, for a merge that begins at once; `resolving.remove_unused` takes away
    what that does not take up.
    """
    contested = _contested(fs, view)
    device = await _device(mount) if contested else (0, 0)
    name = fs.subjects[view.sid].name
    for done, op in enumerate(contested):
        progress(done, len(contested))
        node = fs.by_op[op].nodes.get(MAIN)
        if node is not None and node.handles:
            await cache.forget_data(node.id)  # what is mapped and not written back yet is main's as well
        with resolving.gathered(fs, view, op, using) as sides:
            if sides is not None and _locked(fs, fs.by_op[op], using, device):
                found[op] = Resolution(sides, Unresolved(("a program has it locked for writing",)), "same")
            elif sides is not None:
                to = fs.store.content(view.sid, f"{sides.version.content}{_SUFFIX}") if write else None
                found[op] = await trio.to_thread.run_sync(resolving.propose, sides, using, name, to)


async def _device(mount: str) -> tuple[int, int]:
    return await trio.to_thread.run_sync(processes.device_of, mount)


def _contested(fs: Filesystem, view: View) -> list[Op]:
    return [one.op for one in plan(view.sid, apply.states(fs, view)) if is_conflict(one)]


def _locked(fs: Filesystem, obj: Obj, using: Config, device: tuple[int, int]) -> bool:
    node = obj.nodes.get(MAIN)
    inodes = {obj.ino} if node is None else {obj.ino, node.id}
    return bool(locks.locked(device, inodes)) or resolving.has_lock_file(fs, obj, using)
