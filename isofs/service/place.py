"""Where the mount is shown, and taken away from when the daemon is told to end: never both at once."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Collection, Iterator

import trio

from isofs.errors import Busy
from isofs.fuse import entrance, loop, mounting
from isofs.fuse.mounting import Session

log = logging.getLogger(__name__)

_ENDS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def ends_later() -> Iterator[Collection[int]]:
    """Signals that would end the daemon are only noted, so that no mount stays behind that nobody serves."""
    noted: list[int] = []
    before = {number: signal.signal(number, lambda number, _: noted.append(number)) for number in _ENDS}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Place:
    """The place of one mount. Once the daemon is `leaving`, nothing is shown there any more.

    `ended` are the signals that came before anybody could `leave_on_signal`.
    """

    def __init__(self, session: Session, ended: Collection[int]) -> None:
        self._session, self._ended = session, ended
        self._lock = trio.Lock()
        self._tree = -1
        self.leaving = False

    async def take_out(self) -> None:
        """Have the mount ready to be shown, and in the way of nobody."""
        self._tree = await entrance.take_out(self._session)

    async def show(self) -> None:
        """Show the mount, unless it is shown already."""
        async with self._lock:
            if self._tree >= 0 and not self.leaving:
                await trio.to_thread.run_sync(mounting.show, self._session, self._tree)
                self.close()

    def close(self) -> None:
        """Let go of the mount, which ends if it was not shown."""
        if self._tree >= 0:
            os.close(self._tree)
            self._tree = -1

    async def leave_on_signal(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """SIGTERM and SIGINT unmount; a mount in use is detached and served no longer."""
        with trio.open_signal_receiver(*_ENDS) as signals:
            task_status.started()
            if self._ended:
                await self._leave()
            async for _ in signals:
                await self._leave()

    async def _leave(self) -> None:
        self.leaving = True
        async with self._lock:
            self.close()
            try:
                if not await self.unmount():
                    loop.stop()  # it was not shown yet; or it was taken away before, and somebody is in it still
            except Busy:
                log.warning("%s is in use and is detached", self._session.directory)
                await self.unmount("lazy")
                loop.stop()

    async def unmount(self, how: str | None = None) -> bool:
        """Unless somebody uses the mount: `lazy` goes on serving who does, `force` does not. Whether there was one."""
        lazily = how in ("lazy", "force")
        there = await trio.to_thread.run_sync(lambda: mounting.unmount(self._session, lazily=lazily))
        if how == "force":
            loop.stop()
        return there
