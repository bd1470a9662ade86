"""What is left to do when an answer is out: nobody waits for it, and often no request does."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class Afterwards:
    """Done between an answer and the next request that is read, by whoever reads it. Nothing runs in between.

    Until somebody reads, it is done at once.
    """

    __slots__ = ("left", "reading")

    def __init__(self) -> None:
        self.left: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        self.reading = False

    def add(self, act: Callable[..., None], *arguments: object) -> None:
        """Have this done when the call that is being answered is. It must not fail: that is nobody's error."""
        self.left.append((act, arguments))
        if not self.reading:
            self.do()

    def do(self) -> None:
        """Do what is left."""
        left, self.left = self.left, []
        for act, arguments in left:
            try:
                act(*arguments)
            except Exception:
                log.exception("what follows an answer failed")
