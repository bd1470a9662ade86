"""Cutting something off at a call, as a kill does: at a write of the store, if nothing else is said."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from isofs.store.folder import Store


class CutError(Exception):
    """The moment of a kill."""


def cut_off(
    stop: int, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], of: Any = Store, name: str = "write"
) -> bool:
    """Act, and be cut off before the call of number `stop // 2` (even) or after it (odd). Whether that came."""
    call, calls = getattr(of, name), itertools.count()

    def cut(*args: Any, **kwargs: Any) -> Any:
        number, answer = next(calls), None
        if number < stop // 2 or stop % 2:
            answer = call(*args, **kwargs)
        if number == stop // 2:
            raise CutError
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(of, name, cut)
        try:
            act()
        except CutError:
            return True
    return False
