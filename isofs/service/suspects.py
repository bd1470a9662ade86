"""Who is isolated, told without looking at what they changed: for whoever waits for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from isofs.control import results
from isofs.engine.state import Filesystem
from isofs.model.records import SubjectState
from isofs.service.answers import Result

Args = Mapping[str, object]
Progress = Callable[[int, int], None]


class Suspects:
    """The call on one mounted file system."""

    def __init__(self, fs: Filesystem) -> None:
        self._fs = fs

    def handlers(self) -> dict[str, Callable[[Args, Progress], Awaitable[Result]]]:
        return {"suspects": self.suspects}

    async def suspects(self, args: Args, progress: Progress) -> Result:
        found: dict[str, results.Suspect] = {}  # somebody whose conflicts wait may be a suspect again
        for one in self._fs.subjects.values():
            if one.state is not SubjectState.ENDED:
                found[one.name] = {"user": one.name, "uid": one.uid, "state": one.state.value}
        return {"suspects": list(found.values())}
