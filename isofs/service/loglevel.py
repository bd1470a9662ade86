"""How much the daemon logs: what is configured, or what the operator said since."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from isofs.control import wire
from isofs.errors import UsageError
from isofs.service import logs
from isofs.service.live import Live
from isofs.settings.settings import Settings

Args = Mapping[str, object]
Progress = Callable[[int, int], None]


class LogLevel:
    """The call on the level of the log, which lasts until the configuration says another one, or the daemon ends."""

    def __init__(self, live: Live) -> None:
        self._configured = live.now.service.log
        logs.level(self._configured)
        live.subscribe(self._changed)

    def _changed(self, settings: Settings) -> None:
        if settings.service.log != self._configured:
            self._configured = settings.service.log
            logs.level(self._configured)

    def handlers(self) -> dict[str, Callable[[Args, Progress], Awaitable[Mapping[str, object]]]]:
        return {"log_level": self.set}

    async def set(self, args: Args, progress: Progress) -> dict[str, object]:
        """Log what is at least as important as `level`, or only tell the level that counts."""
        level = wire.optional(args, "level", str)
        if level is not None:
            if level not in logs.LEVELS:
                raise UsageError(f"a level is one of {', '.join(logs.LEVELS)}, not {level!r}")
            logs.level(level)
        return {
            "level": logging.getLevelName(logging.getLogger().getEffectiveLevel()).lower(),
            "configured": self._configured,
        }
