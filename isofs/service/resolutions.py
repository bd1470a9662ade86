"""Asking resolvers about what both sides changed: in threads, while others are served."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from isofs.engine.state import Filesystem, View
from isofs.fuse.cache import KernelCache
from isofs.merge import apply, config, resolving
from isofs.merge.config import Config
from isofs.merge.plan import is_conflict, plan
from isofs.merge.resolving import Resolution
from isofs.model.records import MAIN, Op
from isofs.store import configuration

#: What the content that a resolver made is called, after the content that it was made of.
_SUFFIX = ".merged"


def rules(fs: Filesystem) -> Config:
    """The rules by which files are merged now. BadConfiguration if the store has some that are none."""
    return config.parse(fs.store.configuration(), os.path.join(fs.store.path, configuration.NAME))


async def ask(
    fs: Filesystem,
    cache: KernelCache,
    view: View,
    using: Config,
    found: dict[Op, Resolution],
    progress: Callable[[int, int], None],
    *,
    write: bool = False,
) -> None:
    """Put into `found` what resolvers make of every conflict of a view.

    `write`: what they merged lies beside the subject's own contents then, for a merge that begins at once;
    `resolving.remove_unused` takes away what that does not take up.
    """
    contested = [one.op for one in plan(view.sid, apply.states(fs, view)) if is_conflict(one)]
    name = fs.subjects[view.sid].name
    for done, op in enumerate(contested):
        progress(done, len(contested))
        node = fs.by_op[op].nodes.get(MAIN)
        if node is not None and node.handles:
            await cache.forget_data(node.id)  # what is mapped and not written back yet is main's as well
        with resolving.gathered(fs, view, op, using) as sides:
            if sides is not None:
                to = fs.store.content(view.sid, f"{sides.version.content}{_SUFFIX}") if write else None
                found[op] = await trio.to_thread.run_sync(resolving.propose, sides, using, name, to)
