"""What the control socket offers to detectors: how their alerts are read, and a suspicion that has a limit."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

import trio

from isofs.control import results, wire
from isofs.engine import suspicion
from isofs.engine.state import Filesystem
from isofs.errors import Already, HandlesOpen, NotAllowed, UsageError
from isofs.service import never
from isofs.service.answers import Result
from isofs.service.events import Event, Events, Kind
from isofs.service.live import Live

log = logging.getLogger(__name__)

Args = Mapping[str, object]
Progress = Callable[[int, int], None]
Suspect = Callable[[Args, Progress], Awaitable[Mapping[str, object]]]


class Alerts:
    """The calls of detectors on one mounted file system; `suspect` is what isolates."""

    def __init__(self, fs: Filesystem, suspect: Suspect, live: Live, events: Events) -> None:
        self._fs, self._suspect, self._live, self._events = fs, suspect, live, events
        #: When alerts isolated somebody, and of whom it was told that they did not, by uid; of trio's clock.
        self._isolated: list[float] = []
        self._told: dict[int, float] = {}

    def handlers(self) -> dict[str, Callable[[Args, Progress], Awaitable[Result]]]:
        return {"detector": self.detector, "alert": self.alert}

    async def detector(self, args: Args, progress: Progress) -> Result:
        """How the alerts of a detector are read."""
        name, known = wire.argument(args, "name", str), self._live.now.alerts.detectors
        if name not in known:
            raise UsageError(f"there is no detector {name!r}; there are: {', '.join(known)}")
        found = known[name]
        facts: results.Detector = {
            "name": name,
            "format": found.format,
            "user": list(found.user),
            "reason": list(found.reason),
            "when": list(found.when),
        }
        return dict(facts)

    async def alert(self, args: Args, progress: Progress) -> Result:
        """Isolate whom an alert is about, unless too many were of late; with `dry_run`, say what would be done."""
        uid, name = wire.argument(args, "uid", int), wire.argument(args, "user", str)
        dry = bool(wire.optional(args, "dry_run", bool))
        try:
            never.check(uid, self._live.now.access)
            suspicion.check(self._fs, uid, name)
            why = self._limit()
            if why is not None:
                self._limited(uid, name, why, args)
                return _outcome("limited", f"{name} is not isolated: {why}")
            if dry:
                return _outcome("would isolate", "")
            began = trio.current_time()
            self._isolated.append(began)  # before others are served
            try:
                await self._suspect(args, progress)
            except (Already, NotAllowed, HandlesOpen):  # after any other error the user is isolated, or may be
                self._isolated.remove(began)
                raise
        except Already as error:
            return _outcome("already", str(error))
        except NotAllowed as error:
            return _outcome("spared", str(error))
        return _outcome("isolated", "")

    def _limit(self) -> str | None:
        """Why alerts may isolate nobody now, or None."""
        settings = self._live.now.alerts
        now = trio.current_time()
        self._isolated = [at for at in self._isolated if now - at < settings.within]
        if len(self._isolated) < settings.most:
            return None
        return f"alerts isolated {len(self._isolated)} users within {settings.within} s, which is their limit"

    def _limited(self, uid: int, name: str, why: str, args: Args) -> None:
        """Log it, and tell of each user once within the time."""
        reason = wire.optional(args, "reason", str) or ""
        log.error("%s (uid %d) is NOT isolated: %s; the alert: %s", name, uid, why, reason)
        now, within = trio.current_time(), self._live.now.alerts.within
        self._told = {one: at for one, at in self._told.items() if now - at < within}
        if uid not in self._told and not wire.optional(args, "dry_run", bool):
            self._told[uid] = now
            facts = {"what": "alerts", "problem": why, "user": name, "uid": uid, "reason": reason}
            self._events.tell(Event(Kind.FAILURE, facts))


def _outcome(outcome: str, why: str) -> Result:
    facts: results.Alerted = {"outcome": outcome, "why": why}
    return dict(facts)
