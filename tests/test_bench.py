"""The benchmark can draw whatever it measures, and counts requests as the kernel sends them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

MEASURE = Path(__file__).parent.parent / "scripts" / "measure"


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The benchmark's modules, by name."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(str(MEASURE))
    yield {name: importlib.import_module(name) for name in ("contenders", "counting", "report")}
    for module in set(sys.modules) - known:
        monkeypatch.delitem(sys.modules, module)


def test_every_contender_has_a_colour(measure: dict[str, ModuleType]) -> None:
    """It would be noticed last, when everything has been measured."""
    names = {contender.name for contender in measure["contenders"].contenders(0)}
    assert names - set(measure["report"]._COLOURS) == {"host"}


@pytest.mark.mount
def test_a_file_that_was_read_is_opened_and_nothing_else(
    measure: dict[str, ModuleType], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request that a trusted user waits for; a suspect's name and its directory are looked at as well."""
    counting = measure["counting"]
    chosen = ("stat", "open, close", "open, read, close", "the same again")
    monkeypatch.setattr(counting, "CALLS", {name: counting.CALLS[name] for name in chosen})
    _, _, *lines = counting.table(base).splitlines()
    assert lines == [
        "| stat | getattr | lookup, getattr |",
        "| open, close | open, release* | lookup, getattr, open, release* |",
        "| open, read, close | open, read, release* | lookup, getattr, open, read, release* |",
        "| the same again | open, release* | lookup, getattr, open, release* |",
    ]
