"""The configuration as it is now: read again before every control call, so that an edit counts at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from isofs.errors import BadConfiguration, StoreUnusable
from isofs.merge import config
from isofs.merge.config import Config
from isofs.settings import document
from isofs.settings.settings import Settings, settings
from isofs.store import configuration
from isofs.store.folder import Store

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


def parse(text: str, name: str) -> tuple[Settings, Config]:
    """The settings and the rules of merges in a configuration. BadConfiguration names the line and the reason."""
    read = document.read(text, name)
    return settings(read), config.rules(read)


class Live:
    """What is configured, for as long as the daemon runs.

    While the configuration has an `error`, `now` is what was right before, or the defaults at the start: people go on
    working. What decides about somebody asks `rules`, and is refused.
    """

    def __init__(self, store: Store) -> None:
        self.now = Settings()
        self.error: BadConfiguration | StoreUnusable | None = None
        self._store = store
        self._rules = Config(config.defaults())
        self._text: str | None = None
        self._subscribers: list[Callable[[Settings], None]] = []
        self.refresh()

    def subscribe(self, callback: Callable[[Settings], None]) -> None:
        """Have `callback` called with the settings whenever they become others. It must not wait, nor fail."""
        self._subscribers.append(callback)

    def rules(self) -> Config:
        """The rules by which files are merged. Raises the `error`, if there is one."""
        self.refresh()
        if self.error is not None:
            raise self.error
        return self._rules

    def refresh(self) -> None:
        """Look whether the configuration is another one."""
        try:
            text = self._store.configuration()
            if text == self._text:
                return
            self._text = text
            found, self._rules = parse(text, os.path.join(self._store.path, configuration.NAME))
        except (BadConfiguration, StoreUnusable) as error:
            if str(error) != str(self.error):
                log.error("%s; what was right before is gone by", error)
            self.error = error
            return
        self.error = None
        if found != self.now:
            self.now = found
            for callback in self._subscribers:
                callback(found)

    def fresh(self, handler: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """A handler that goes by what is configured when it is called."""

        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            self.refresh()
            return await handler(*args, **kwargs)

        return call
