"""The documentation hangs together: its links lead somewhere, and it names every command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from isoctl.main import main

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def _anchors(page: Path) -> set[str]:
    """What headings of a page are called in links."""
    headings = re.findall(r"^#+ +(.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        if not to.exists() or (anchor and anchor not in _anchors(to)):
            missing.append(target)
    assert not missing


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set[Path](), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text()):
            to = (page.parent / target).resolve()
            to = to / "README.md" if to.is_dir() else to
            if to.suffix == ".md" and to.exists() and to not in reached:
                todo.append(to)
    assert set(PAGES) - reached == set()


def test_every_command_is_listed() -> None:
    page = (ROOT / "docs/commands.md").read_text()
    assert [name for name in main.commands if f"`isoctl {name}" not in page] == []


def test_the_tour_has_every_module_of_the_engine() -> None:
    tour = (ROOT / "docs/tour.md").read_text()
    listed = re.search(r"^    isofs/engine/(.*?)^    \w", tour, re.MULTILINE | re.DOTALL)
    assert listed is not None
    modules = {path.stem for path in (ROOT / "isofs/engine").glob("*.py")} - {"__init__"}
    assert modules - set(re.findall(r"\w+", listed[1])) == set()
