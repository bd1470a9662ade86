"""Partial verdicts in random histories: the suspect sees the same before and after, main gets what was chosen."""

from __future__ import annotations

import os
import random
import stat
from typing import Any

import pytest

from isofs.engine.slices import at_once
from isofs.errors import UsageError
from isofs.merge import partial, split
from isofs.merge.parting import wish
from isofs.merge.report import Report
from support import verdicts
from support.histories import Step, cut, episodes, history
from support.host import copy_of
from support.model import Thing
from support.trees import Tree, differences, tree
from test_engine_histories import failure
from test_engine_machine import PATHS, SINCE, SUSPICIOUS, TRUSTED, Machine, _forgiven, told

#: More for a longer look: ISOFS_HISTORIES=5000.
COUNT = int(os.environ.get("ISOFS_HISTORIES", "8"))
STEPS = 60

GLOBS = ["*", "a", "b", "c", "/a", "a/", "b/*", "/a/b/**", "!a/b", "*a*", "c/**"]


class PartingMachine(Machine):
    """Users at work, and verdicts on parts of what they did."""

    def __init__(self) -> None:
        self.things: dict[int, Thing] = {}
        super().__init__()

    def part(self, index: int, only: list[str], excepted: list[str]) -> None:
        """Merge what globs name of what one of the suspects did."""
        if not self.world.views:
            return
        self._note_things()
        views = list(self.world.views.values())
        view = views[index % len(views)]
        engine = self.fs.views[view.sid]
        pieces = at_once(partial.pieces(self.fs, engine))
        try:
            wanted = at_once(wish(pieces, only, excepted))
        except UsageError:
            return
        self.part_of(view.sid, at_once(partial.partial(self.fs, engine, pieces, wanted)))

    def _note_things(self) -> None:
        self.things |= {obj.op: thing for thing, obj in self._pairs().items() if obj.op}

    def part_of(self, sid: int, found: partial.Partial) -> None:
        view = self.world.views[sid]
        seen, others = self._tree(view.uid), self._other_versions(view)
        report = Report()
        for _ in split.merge_steps(self.fs, split.merged(sid, "", SINCE), found, report):
            pass
        assert told(one.item for one in found.planned) == told(report.items)
        if found.chosen:
            merge = verdicts.partly(self.world, sid, {self.things[op] for op in found.chosen})
            assert not merge.contested
        found_now = without_directory_times(self._tree(view.uid))
        lines = differences(_forgiven(found_now, seen), without_directory_times(seen))
        assert not lines, "the suspect sees other than before\n" + "\n".join(lines)
        lines = differences(self._main(), tree(self._modelled(1001)))
        assert not lines, "main is not what the model's merge makes of it\n" + "\n".join(lines)
        assert others.items() <= self._other_versions(view).items(), "Synchronisation"
        copy_of(self.main, self.twin)
        self._follow_on_twin()

    def check_all(self) -> None:
        super().check_all()
        self._note_things()


def without_directory_times(seen: Tree) -> Tree:
    """A tree less when the names in directories last changed: that is when they came into main."""
    return {
        path: item._replace(stat=item.stat._replace(mtime=None)) if stat.S_ISDIR(item.stat.kind) else item
        for path, item in seen.items()
    }


def with_partial_verdicts(seed: int) -> list[Step]:
    """A history with a partial verdict now and then."""
    draw = random.Random(seed)
    steps = (episodes if seed % 2 else history)(seed, [*TRUSTED, *SUSPICIOUS], PATHS, STEPS)
    for at in sorted(draw.sample(range(10, STEPS), 6), reverse=True):
        only = draw.sample(GLOBS, draw.randint(0, 2))
        excepted = draw.sample(GLOBS, draw.randint(0 if only else 1, 2))
        given: dict[str, Any] = {"index": draw.randrange(16), "only": only, "excepted": excepted}
        steps.insert(at, ("part", given))
    return steps


@pytest.mark.parametrize("seed", range(COUNT))
def test_history(seed: int) -> None:
    steps = with_partial_verdicts(seed)
    error = failure(steps, PartingMachine)
    if error is not None:
        needed = cut(steps, lambda some: type(failure(some, PartingMachine)) is type(error))
        pytest.fail("\n".join(map(repr, needed)) + f"\n{failure(needed, PartingMachine)!r}")


#: What went wrong once, cut to the steps that it needs.
ONCE: dict[str, list[Step]] = {
    "a handle on the node of an earlier suspicion": [
        ("suspect", {"index": 10}),
        ("open", {"uid": 1004, "place": 3, "flags": os.O_WRONLY | os.O_APPEND}),
        ("decide", {"index": 14, "innocent": False}),
        ("suspect", {"index": 7}),
        ("use", {"index": 0, "what": ("write", 3)}),
        ("part", {"index": 12, "only": ["*a*"], "excepted": []}),
        ("use", {"index": 0, "what": ("write", 4)}),
    ],
}


@pytest.mark.parametrize("steps", ONCE.values(), ids=ONCE)
def test_what_went_wrong_once(steps: list[Step]) -> None:
    error = failure(steps, PartingMachine)
    if error is not None:
        raise error
