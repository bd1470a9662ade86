"""What is known of a store that cannot be used, or takes no changes: plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failure:
    """Why and since when the file system does without its store, and the uids of who is `isolated`.

    None stands for everybody but root: nothing says who it is. `at_start` is whether the store could not even be read.
    """

    reason: str
    since: str
    isolated: frozenset[int] | None
    at_start: bool = False

    def shuts_out(self, uid: int) -> bool:
        """Whether a user might be isolated, and gets no answer."""
        return uid != 0 if self.isolated is None else uid in self.isolated

    @property
    def anybody(self) -> bool:
        """Whether anybody might be isolated."""
        return self.isolated is None or bool(self.isolated)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why and since when the store takes no changes, though nothing was missed so far."""

    reason: str
    since: str
