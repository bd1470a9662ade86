"""The settings of alerts and hooks: what is shipped, what changes it, and what is refused."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from isofs.errors import BadConfiguration
from isofs.model.alerts import SHIPPED, Condition
from isofs.service.events import Kind
from isofs.settings import document
from isofs.settings.settings import Settings, lines, settings


def read(text: str) -> Settings:
    return settings(document.read(text, "c.toml"))


def test_what_is_shipped_works_without_configuration() -> None:
    found = read("").alerts
    assert list(found.detectors) == ["wazuh", "falco", "auditd"]
    assert found.detectors["auditd"].reading().when == (
        Condition("type", "=", "SYSCALL"),
        Condition("key", "~", "^isofs"),
    )
    assert (found.review, found.most, found.within) == (86400, 5, 600)


def test_the_documentation_shows_what_is_shipped() -> None:
    page = (Path(__file__).parents[1] / "docs" / "hooks.md").read_text()
    (block,) = (text for text in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[alerts." in text)
    shown = tomllib.loads(block)["alerts"]
    assert [(name, sorted(table)) for name, table in shown.items()] == [
        (name, ["format", "reason", "user", "when"]) for name in SHIPPED
    ]
    assert read(block) == read("")


def test_the_documentation_has_every_hook() -> None:
    page = (Path(__file__).parents[1] / "docs" / "hooks.md").read_text()
    for kind in Kind:
        assert f"| `on_{kind}` |" in page
        assert re.search(rf"^\| `{kind}` \| `", page, re.MULTILINE), "its keys are not told"
        assert hasattr(Settings().hooks, f"on_{kind}")


def test_a_table_changes_what_it_names_of_what_is_shipped() -> None:
    before = read("").alerts.detectors
    found = read('[alerts]\nmost = 2\n[alerts.falco]\nwhen = ["priority = Alert"]\n[alerts.own]\nuser = "who"\n').alerts
    assert found.most == 2
    assert list(found.detectors) == ["wazuh", "falco", "auditd", "own"]
    assert found.detectors["falco"].when == ("priority = Alert",)
    assert found.detectors["falco"].user == before["falco"].user
    assert found.detectors["wazuh"] == before["wazuh"]
    assert (found.detectors["own"].format, found.detectors["own"].user) == ("json", ("who",))


def test_they_are_listed_by_detector() -> None:
    found = {one.key: one for one in lines(read("[alerts.falco]\nreason = 'rule'\n"))}
    assert found["alerts.review"].value == "1 d"
    assert (found["alerts.falco"].default, found["alerts.wazuh"].default) == (False, True)
    assert found["hooks.on_suspect"].value == []


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("[alerts]\nmost = 0", 2, "most must be a whole number from 1 on"),
        ("[alerts]\nfalco = 3", 2, "there is no setting 'falco'; there are: review, most, within"),
        ("[alerts.own]\nformat = 'json'", 1, "user must name a field at least"),
        ("[alerts.falco]\nformat = 'xml'", 2, "format must be one of json, audit"),
        ("[alerts.falco]\nwhen = ['a >= b']", 2, "when >= compares numbers, and 'b' is none"),
        ("[alerts.falco]\nwhen = 'a'", 2, "when must be FIELD"),
        ("[alerts.falco]\nusers = 'a'", 2, "there is no setting 'users'"),
        ("[hooks]\non_suspect = 'notify'", 2, "on_suspect must be the absolute path of a program"),
        ("[hooks]\non_suspect = ['notify', '/x']", 2, "on_suspect must be the absolute path of a program"),
        ("[hooks]\non_suspect = [3]", 2, "on_suspect must be a text"),
        ('[hooks]\non_suspect = "/x\\u0000"', 2, "on_suspect must not have a null character in it"),
        ("[hooks]\non_leave = '/x'", 2, "there is no setting 'on_leave'"),
        ("[hooks]\ntimeout = 'long'", 2, "timeout must be a time"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(text: str, line: int, why: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        read(text)
    assert str(caught.value).startswith(f"c.toml, line {line}: {why}")


def test_hooks() -> None:
    found = read("[hooks]\non_suspect = '/bin/a'\non_verdict = ['/bin/b', '-x']\non_quota = ''\n").hooks
    assert (found.on_suspect, found.on_verdict, found.on_quota) == (("/bin/a",), ("/bin/b", "-x"), ())
    assert found.timeout == 30
