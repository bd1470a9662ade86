"""Manual pages: every command and option is in its page, and nothing in a page is a request by accident."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from isoctl.main import main
from isoctl.man import pages
from isofs.errors import Exit
from support.command import refused
from support.mount import isoctl

PAGES = {page.name: page.source for page in pages(main)}

#: The requests of man(7) that pages are made of.
REQUESTS = {".TH", ".SH", ".TP", ".PP", ".nf", ".fi"}


def commands(command: click.Command = main, name: str = "isoctl") -> dict[str, click.Command]:
    """Every command by the name of its page."""
    found = {name: command}
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            found |= commands(inner, f"{name}-{inner.name}")
    return found


def plain(source: str) -> str:
    """What a page says, without what says how."""
    return re.sub(r"\\f[BRI]|\\&", "", source).replace("\\-", "-").replace("\\e", "\\")


def test_every_command_has_a_page() -> None:
    assert set(PAGES) == set(commands())


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_all_that_help_says(name: str) -> None:
    page = plain(PAGES[name])
    command = commands()[name]
    words = " ".join(page.split())
    assert f"{name} - " in page
    for paragraph in (command.help or "").replace("\b", "").split("\n\n"):
        assert " ".join(paragraph.replace("`", "").split()) in words
    for option in (one for one in command.params if isinstance(one, click.Option)):
        for form in (*option.opts, *option.secondary_opts):
            assert re.search(rf"^.*{re.escape(form)}\b", page, re.MULTILINE), form
        assert " ".join((option.help or "").replace("`", "").split()) in words
    if isinstance(command, click.Group):
        for inner in command.commands:
            assert f"{name}-{inner}(8)" in page


@pytest.mark.parametrize("name", PAGES)
def test_every_line_is_text_or_a_known_request(name: str) -> None:
    for line in PAGES[name].splitlines():
        assert line
        if line[0] in ".'":
            assert line.split()[0] in REQUESTS, line
        assert re.sub(r"\\(?:f[BR]|[-&e])", "", line).count("\\") == 0, line


def test_the_main_page_has_the_exit_codes_and_the_environment() -> None:
    page = plain(PAGES["isoctl"])
    for code in Exit:
        assert f"\n.TP\n{code.value}\n" in page
    assert "ISOFS_MOUNT" in page


def test_formatters_take_the_pages(tmp_path: Path) -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("there is no groff here")
    files = []
    for name, source in PAGES.items():
        (tmp_path / name).write_text(source)
        files.append(str(tmp_path / name))
    done = subprocess.run([groff, "-man", "-ww", "-Tascii", *files], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "--handles [kill|refuse|leave]" in re.sub(r".\x08|\x1b\[[0-9;]*m", "", done.stdout)


def test_the_command_writes_them(tmp_path: Path) -> None:
    for _ in range(2):
        done = isoctl("man", str(tmp_path), "--json")
        assert (done.code, done.json["directory"]) == (0, f"{tmp_path}/man8")
        assert {path.name for path in (tmp_path / "man8").iterdir()} == {f"{name}.8" for name in PAGES}
        assert sorted(done.json["pages"]) == sorted(f"{name}.8" for name in PAGES)
    assert (tmp_path / "man8" / "isoctl-suspect.8").read_text() == PAGES["isoctl-suspect"]
    (tmp_path / "file").write_text("")
    refused(isoctl("man", str(tmp_path / "file")), Exit.USAGE, "cannot be written")
