"""docs/threat-model.md names for every promise and every attack the tests that try it: they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "threat-model.md").read_text()

_NAMED = re.compile(r"`(test_\w+\.py)(?:::(\w+))?`")


def section(title: str) -> str:
    """What the page says below a heading."""
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def rows() -> list[list[str]]:
    """The rows of the tables of tests, without their headings."""
    lines = [line for line in section("Who tries to break them").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[1] != "test"]


def test_every_test_named_exists() -> None:
    named = _NAMED.findall(PAGE)
    assert len(named) > 50
    missing = []
    for file, function in named:
        tree = ast.parse((TESTS / file).read_text()) if (TESTS / file).exists() else ast.parse("")
        functions = {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}
        if not functions or (function and function not in functions):
            missing.append(f"{file}::{function}")
    assert not missing


def test_every_row_names_a_test() -> None:
    found = rows()
    assert len(found) > 20
    assert [row[0] for row in found if not _NAMED.search(row[1])] == []


def test_every_promise_has_a_row() -> None:
    promises = re.findall(r"^(\d+)\. ", section("What is promised"), re.MULTILINE)
    assert promises == [str(number) for number in range(1, len(promises) + 1)]
    assert [row[0] for row in rows() if row[0].isdigit()] == promises


def test_every_attack_of_the_attackers_is_named() -> None:
    """The other way round: no test of the module of attacks is left out."""
    tree = ast.parse((TESTS / "test_mount_attacks.py").read_text())
    there = {one.name for one in tree.body if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")}
    assert there == {
        function for file, function in _NAMED.findall(PAGE) if file == "test_mount_attacks.py" and function
    }
