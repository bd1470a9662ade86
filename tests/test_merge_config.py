"""The configuration of merges: what is chosen for a file, and that an error names its line and its reason."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from isofs.errors import BadConfiguration
from isofs.merge.config import DEFAULTS, Config, defaults, described
from isofs.merge.resolvers.base import Inputs, UnknownResolver, resolver
from isofs.merge.resolvers.choosing import candidates
from isofs.service import live
from support.merging import database, letter, written

TEXT = b"b\na\n"


def parse(text: str, name: str = "the configuration") -> Config:
    return live.parse(text, name)[1]


def _chosen(text: str, path: bytes, content: bytes = TEXT) -> str:
    return parse(text).choose(Inputs(path, content, content + b"m", content + b"s")).using.name


@pytest.mark.parametrize(
    ("path", "content", "using"),
    [
        (b"notes.txt", TEXT, "text"),
        (b"a/b/x.log", TEXT, "append"),
        (b"home/bob/.bash_history", TEXT, "append"),
        (b"home/bob/.gitignore", b"a\nb\n", "set"),
        (b"home/bob/.gitignore", b"a\nz\n", "text"),  # what is added makes it unsorted
        (b"home/bob/mail/lists/python", written("mbox", [letter(1)]), "mailbox"),
        (b"home/bob/mail/notes", TEXT, "text"),
        (b"app.db", database("CREATE TABLE t(a)"), "sqlite"),
        (b"app.db", TEXT, "text"),
        (b".ssh/authorized_keys", TEXT, "same"),
        (b"picture", b"\x89PNG\0", "same"),
        (b"\xff\xfe/x.log", TEXT, "append"),
    ],
)
def test_the_defaults(path: bytes, content: bytes, using: str) -> None:
    assert _chosen("", path, content) == using


def test_sorted_lists_are_sets() -> None:
    inputs = Inputs(b".gitignore", b"b\n", b"a\nb\n", b"b\nc\n")
    rule = parse("").choose(inputs)
    assert rule.using.name == "set"
    assert rule.propose(inputs) == resolver("set").function(inputs, {"order": "bytes"})


CONFIG = """
[[resolve]]
pattern = ["*.conf", "!special.conf", "/top"]
using = "keep-both"

[[resolve]]
pattern = "logs/**"
using = "append"
options = { order = "main-first" }

[[resolve]]
pattern = "*.json"
using = "external"
[resolve.options]
command = "merge-json %A %O %B"
timeout = 5
"""


@pytest.mark.parametrize(
    ("path", "using"),
    [
        (b"etc/a.conf", "keep-both"),
        (b"etc/special.conf", "text"),
        (b"top", "keep-both"),
        (b"below/top", "text"),
        (b"logs/a/b.conf", "keep-both"),
        (b"logs/a/b", "append"),
        (b"x.json", "external"),
    ],
)
def test_the_first_rule_that_matches_is_taken(path: bytes, using: str) -> None:
    assert _chosen(CONFIG, path) == using


def test_rules_know_their_lines_and_options() -> None:
    rules = parse(CONFIG).rules
    assert [rule.line for rule in rules[:4]] == [2, 6, 11, None]
    assert rules[2].using.settings(rules[2].options) == {"command": "merge-json %A %O %B", "timeout": 5}
    assert [rule.using.name for rule in candidates(rules, b"logs/a.conf")] == ["keep-both", "append", "text"]


def test_the_defaults_can_be_left_out() -> None:
    assert parse("").rules == defaults()
    assert parse("defaults = false").rules == ()
    assert _chosen("defaults = false", b"notes.txt") == "same"


OK = '[[resolve]]\npattern = "*"\nusing = "text"\n\n'


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (OK + "[[resolve]]\npattern = \n", 6, "invalid value"),
        (OK + "[[resolve", 5, "expected"),
        ('x = "', 1, ""),
        (OK + "[resolver]\n", 5, "no setting 'resolver'"),
        ("defaults = 1\n", 1, "true or false"),
        ("\nresolve = 3\n", 2, "[[resolve]]"),
        (OK + '[[resolve]]\nusing = "text"\n', 5, "needs 'pattern'"),
        (OK + '[[resolve]]\npattern = "*"\n', 5, "needs 'using'"),
        (OK + '[[resolve]]\npattern = "*"\nusing = "txt"\n', 7, "no resolver 'txt'; there are: append"),
        (OK + '[[resolve]]\npattern = "*"\nusing = 3\n', 7, "name of a resolver"),
        (OK + '[[resolve]]\nusing = "text"\npattern = []\n', 7, "glob"),
        (OK + '[[resolve]]\nusing = "text"\npattern = ["a", 3]\n', 7, "glob"),
        (OK + '[[resolve]]\nusing = "text"\npattern = "!"\n', 7, "pattern"),
        (OK + '[[resolve]]\npattern = "*"\nusing = "text"\nif = 1\n', 8, "no 'if'"),
        (OK + '[[resolve]]\npattern = "*"\nusing = "text"\noptions = { deep = 1 }\n', 8, "no option 'deep'"),
        (OK + '[[resolve]]\npattern = "*"\nusing = "set"\n[resolve.options]\norder = "up"\n', 9, "'bytes'"),
        (OK + '[[resolve]]\npattern = "*"\nusing = "set"\noptions = 3\n', 8, "must be a table"),
        (OK + '[[resolve]]\npattern = "*"\nusing = "external"\n', 5, "needs the option 'command'"),
        (
            OK + '[[resolve]]\npattern = "*"\nusing = "external"\noptions.command = "x"\noptions.timeout = 0\n',
            9,
            "at least 1",
        ),
        ('[[resolve]]\npattern = """\n[[resolve]]\n"""\nusing = "x"\n[[resolve]]\n', 5, "no resolver 'x'"),
    ],
)
def test_errors_name_the_line_and_the_reason(text: str, line: int, reason: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        parse(text, "merge.toml")
    assert str(caught.value).startswith(f"merge.toml, line {line}: ")
    assert reason in str(caught.value)


def test_what_can_be_named_is_described() -> None:
    assert set(described()) == {"append", "external", "keep-both", "mailbox", "mh", "same", "set", "sqlite", "text"}
    assert all(table["using"] in described() for table in tomllib.loads(DEFAULTS)["resolve"])
    with pytest.raises(UnknownResolver):
        resolver("none")


def test_the_documentation_has_every_resolver_default_and_option() -> None:
    page = (Path(__file__).parents[1] / "docs" / "merging.md").read_text()
    for name, one in described().items():
        assert f"| `{name}` |" in page
        assert all(f"| `{name}` | `{option}` |" in page for option in one.options)
    for rule in defaults():
        assert f"| {', '.join(f'`{pattern}`' for pattern in rule.patterns)} | `{rule.using.name}`" in page
    example = page.split("```toml\n")[1].split("```")[0]
    assert [rule.using.name for rule in parse(example).rules[:3]] == ["append", "set", "external"]
