"""The benchmark can draw whatever it measures: it finds out last, when everything has been measured."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

MEASURE = Path(__file__).parent.parent / "scripts" / "measure"


def test_every_contender_has_a_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    known = set(sys.modules)
    monkeypatch.syspath_prepend(str(MEASURE))
    names = {contender.name for contender in importlib.import_module("contenders").contenders(0)}
    drawn = set(importlib.import_module("report")._COLOURS)
    for module in set(sys.modules) - known:
        monkeypatch.delitem(sys.modules, module)
    assert names - drawn == {"host"}
