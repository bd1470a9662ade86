"""Asking resolvers about what both sides changed: in threads, while others are served."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import trio

from isofs.engine.slices import Slices
from isofs.engine.state import Filesystem, Obj, View
from isofs.fuse.cache import KernelCache
from isofs.merge import apply, resolving
from isofs.merge.config import Config
from isofs.merge.plan import is_conflict, plan
from isofs.merge.resolvers.base import Unresolved
from isofs.merge.resolving import Resolution
from isofs.model.records import MAIN, Op
from isofs.service import locks, processes
from isofs.store.inodes import Place

#: Seconds that a lock may last before its file stays a conflict, and between two looks at it.
PATIENCE, _LOOK = 10.0, 0.05

#: What the content that a resolver made is called, after the content that it was made of.
_SUFFIX = ".merged"


async def let_go(
    fs: Filesystem,
    view: View,
    contested: Sequence[Op],
    using: Config,
    mount: str,
    progress: Callable[[int, int], None],
) -> None:
    """Wait for programs that have files locked for writing of which resolvers will be asked, `PATIENCE` for each."""
    device = await device_of(mount) if contested else (0, 0)
    for done, op in enumerate(contested):
        progress(done, len(contested))
        with trio.move_on_after(PATIENCE):
            # The kernel tells nobody when a lock goes, and meanwhile the user may have taken the version back.
            while op in view.versions and _locked(fs, fs.by_op[op], using, device):  # noqa: ASYNC110
                await trio.sleep(_LOOK)


async def ask(
    fs: Filesystem,
    cache: KernelCache,
    view: View,
    contested: Iterable[Op],
    using: Config,
    mount: str,
    found: dict[Op, Resolution],
    progress: Callable[[int, int], None],
    *,
    write: bool = False,
) -> None:
    """Put into `found` what resolvers make of conflicts of a view, those that they were not asked about before.

    `write`: what they merged lies beside the subject's own contents then, for a merge that begins at once;
    `resolving.remove_unused` takes away what that does not take up.
    """
    asked = [op for op in contested if op not in found]
    device = await device_of(mount) if asked else (0, 0)
    for done, op in enumerate(asked):
        progress(done, len(asked))
        if op not in view.versions:
            continue  # taken back meanwhile
        to = fs.store.content(view.sid, f"{view.versions[op].content}{_SUFFIX}") if write else None
        resolution = await ask_one(fs, cache, view, op, using, device, to)
        if resolution is not None:
            found[op] = resolution


async def ask_one(
    fs: Filesystem, cache: KernelCache, view: View, op: Op, using: Config, device: tuple[int, int], to: Place | None
) -> Resolution | None:
    """What a resolver makes of one conflict, a merged file at `to`; None where one side has nothing to read.

    A file that a program has locked for writing is in the midst of a change, and left alone.
    """
    await write_back(fs, cache, op)
    with resolving.gathered(fs, view, op, using) as sides:
        if sides is None:
            return None
        if _locked(fs, fs.by_op[op], using, device):
            return Resolution(sides, Unresolved(("a program has it locked for writing",)), "same")
        return await trio.to_thread.run_sync(resolving.propose, sides, using, fs.subjects[view.sid].name, to)


async def write_back(fs: Filesystem, cache: KernelCache, op: Op) -> None:
    """What is mapped and not written back yet is main's as well."""
    obj = fs.by_op.get(op)
    node = None if obj is None else obj.node(MAIN)
    if node is not None and node.handles:
        await cache.forget_data(node.id)


async def device_of(mount: str) -> tuple[int, int]:
    return await trio.to_thread.run_sync(processes.device_of, mount)


def contested(fs: Filesystem, view: View) -> Slices[list[Op]]:
    """Every object of a view that is in conflict now."""
    found = []
    for state in apply.states(fs, view):
        found += [one.op for one in plan(view.sid, [state]) if is_conflict(one)]
        yield
    return found


def _locked(fs: Filesystem, obj: Obj, using: Config, device: tuple[int, int]) -> bool:
    node = obj.node(MAIN)
    inodes = {obj.ino} if node is None else {obj.ino, node.id}
    return bool(locks.locked(device, inodes)) or resolving.has_lock_file(fs, obj, using)
