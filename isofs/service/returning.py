"""What the control socket offers of a store that failed and works again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

import trio

from isofs.control import results
from isofs.engine import returning
from isofs.engine.state import Filesystem
from isofs.errors import Busy
from isofs.service import answers

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


class Returning:
    """The call that ends a failure. `lock` is held while a verdict is carried out, or a backup made."""

    def __init__(self, fs: Filesystem, lock: trio.Lock, directory: str) -> None:
        self._fs, self._lock, self._directory = fs, lock, directory

    def handlers(self) -> dict[str, Callable[[Mapping[str, object], Progress], Awaitable[answers.Result]]]:
        return {"bring_back": self.bring_back}

    async def bring_back(self, args: Mapping[str, object], progress: Progress) -> answers.Result:
        """Use the store again, for whoever was shut out, if it can be used and every invariant holds."""
        async with self._lock:
            if self._fs.failure is None:
                raise Busy(f"{self._directory} is mounted: isoctl umount {self._directory}, and repair then")
            reason = self._fs.failure.reason
            problems = [answers.problem(self._fs, one) for one in returning.bring_back(self._fs, self._directory)]
        made: list[results.Repair] = []
        if not problems:
            log.warning("the store is in use again, and who was shut out works on")
            made = [{"invariant": "I1", "subject": None, "path": None, "problem": reason, "repair": results.RETURN}]
        done: results.Repaired = {"ok": not problems, "repaired": made, "problems": problems, "kept": None}
        return dict(done)
