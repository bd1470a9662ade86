"""The configuration of merges, in TOML: which files are merged by which resolver, and the defaults."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from isofs.errors import BadConfiguration, UsageError
from isofs.merge import external, resolvers
from isofs.merge.resolvers.base import Inputs, Resolver, UnknownResolver, Value, registered, resolver
from isofs.merge.resolvers.choosing import Rule, choose

#: The rules behind those of the configuration, in its own form.
DEFAULTS = """\
# Mailboxes of one file. A file that is none goes on to the next rules.
[[resolve]]
pattern = ["mbox", "*.mbox", "*.mbx", "*.mmdf", "*.babyl", "RMAIL", "**/mail/*", "**/Mail/*"]
using = "mailbox"

[[resolve]]
pattern = ".mh_sequences"
using = "mh"

# Logs and histories, to which programs only add.
[[resolve]]
pattern = ["*.log", ".*_history"]
using = "append"

[[resolve]]
pattern = ["*.db", "*.db3", "*.sqlite", "*.sqlite3"]
using = "sqlite"

# Lists of patterns, as long as all sides are sorted; the others are merged as text.
[[resolve]]
pattern = [".gitignore", ".dockerignore", ".eslintignore", ".prettierignore"]
using = "set"

# Files of which no line should be merged unseen.
[[resolve]]
pattern = ["authorized_keys", "authorized_keys2", "*.pem", "*.key", "passwd", "shadow", "group", "sudoers"]
using = "same"

[[resolve]]
pattern = "*"
using = "text"
"""

#: Days that the attic keeps what merges replaced or deleted, unless the configuration says otherwise.
ATTIC_DAYS = 30

_TABLE = re.compile(r"^[ \t]*\[\[[ \t]*resolve[ \t]*\]\]", re.MULTILINE)
_KEYS = ("pattern", "using", "options")
_SETTINGS = ("attic_days", "defaults", "resolve")

#: Days: a hundred years.
_LONGEST = 36525


@dataclass(frozen=True)
class Config:
    """The rules in their order, the defaults behind those of the configuration; how long the attic keeps things."""

    rules: tuple[Rule, ...]
    attic_days: int = ATTIC_DAYS

    def choose(self, inputs: Inputs) -> Rule:
        """The rule for a file."""
        return choose(self.rules, inputs)


class _Refused(Exception):
    """A semantic error: the key that it is about, if there is one, and why."""

    def __init__(self, key: str | None, why: str) -> None:
        super().__init__(why)
        self.key, self.why = key, why


def parse(text: str, name: str = "the configuration") -> Config:
    """The configuration that `text` is. What is wrong is a `BadConfiguration` that names the line and the reason."""
    own = tuple(_rules(text, name))
    document = _document(text, name)
    rules = own + (defaults() if document.get("defaults", True) else ())
    days = document.get("attic_days", ATTIC_DAYS)
    assert isinstance(days, int)
    return Config(rules, days)


def defaults() -> tuple[Rule, ...]:
    """The rules that apply without a configuration."""
    return tuple(Rule(rule.patterns, rule.using, rule.options) for rule in _rules(DEFAULTS, "the defaults"))


def asked(using: str, words: Mapping[str, str]) -> Rule:
    """The rule for every file that a command line asks for, its options as text. UsageError says what is off."""
    try:
        found = resolver(using)
        return Rule(("*",), found, _options(found, {name: _value(found, name, words[name]) for name in words}))
    except UnknownResolver as why:
        raise UsageError(str(why)) from None
    except _Refused as why:
        raise UsageError(why.why) from None


def _value(using: Resolver, name: str, text: str) -> Value:
    """An option's value as its kind, if the text is one of that."""
    kind = type(using.options[name].default) if name in using.options else str
    if kind is int and text.isascii() and text.isdecimal():
        return int(text)
    return {"true": True, "false": False}.get(text, text) if kind is bool else text


def described() -> Mapping[str, Resolver]:
    """Every resolver that a configuration can name."""
    return registered()


def _document(text: str, name: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # "... (at line 3, column 5)", or "(at end of document)"
        message = re.sub(r" \(at .*\)$", "", str(error))
        place = re.search(r"\(at line (\d+), column \d+\)$", str(error))
        line = int(place[1]) if place else text.count("\n") + (not text.endswith("\n"))
        raise BadConfiguration(f"{name}, line {max(line, 1)}: {message[:1].lower()}{message[1:]}") from None


def _rules(text: str, name: str) -> Iterator[Rule]:
    document = _document(text, name)
    for key, value in document.items():
        if key not in _SETTINGS:
            known = ", ".join(_SETTINGS)
            raise _at(name, _line_of(text, key, 0), f"there is no setting {key!r}; there are: {known}")
        if key == "defaults" and not isinstance(value, bool):
            raise _at(name, _line_of(text, key, 0), f"defaults must be true or false, not {value!r}")
        if key == "attic_days" and not (type(value) is int and 1 <= value <= _LONGEST):
            raise _at(name, _line_of(text, key, 0), f"attic_days must be a number of days from 1 on, not {value!r}")
    tables = document.get("resolve", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise _at(name, _line_of(text, "resolve", 0), "resolve must be tables: [[resolve]]")
    starts = _starts(text) if tables else []
    for at, table in enumerate(tables):
        start = starts[at] if at < len(starts) else 0
        line = text.count("\n", 0, start) + 1
        try:
            yield _rule(table, line)
        except _Refused as why:
            where = _line_of(text, why.key, start) if why.key is not None else line
            raise _at(name, where, why.why) from None


def _rule(table: Mapping[str, object], line: int) -> Rule:
    for key in table:
        if key not in _KEYS:
            raise _Refused(key, f"[[resolve]] has no {key!r}; it has: {', '.join(_KEYS)}")
    for key in ("pattern", "using"):
        if key not in table:
            raise _Refused(None, f"[[resolve]] needs {key!r}")
    given = table["pattern"] if isinstance(table["pattern"], list) else [table["pattern"]]
    patterns = tuple(pattern for pattern in given if isinstance(pattern, str) and pattern.strip())
    if not patterns or len(patterns) < len(given):
        raise _Refused("pattern", "pattern must be a glob as in a .gitignore, or a list of them")
    if not isinstance(table["using"], str):
        raise _Refused("using", f"using must be the name of a resolver, not {table['using']!r}")
    try:
        using = resolver(table["using"])
    except UnknownResolver as why:
        raise _Refused("using", str(why)) from None
    rule = Rule(patterns, using, _options(using, table.get("options", {})), line)
    try:
        rule.matches(b"any")
    except ValueError as why:
        raise _Refused("pattern", f"pattern: {why}") from None
    return rule


def _options(using: Resolver, options: object) -> dict[str, Value]:
    if not isinstance(options, dict):
        raise _Refused("options", f"options must be a table, not {options!r}")
    for key, value in options.items():
        if key not in using.options:
            known = f"it has: {', '.join(using.options)}" if using.options else "it has none"
            raise _Refused(key, f"{using.name} has no option {key!r}; {known}")
        refusal = using.options[key].refusal(value)
        if refusal is not None:
            raise _Refused(key, f"{using.name}: {key} {refusal}")
    for key, option in using.options.items():
        if option.required and not options.get(key):
            raise _Refused(None, f"{using.name} needs the option {key!r}")
    return options


def _at(name: str, line: int, why: str) -> BadConfiguration:
    return BadConfiguration(f"{name}, line {line}: {why}")


def _starts(text: str) -> list[int]:
    """Where each [[resolve]] begins. One in a string that goes over several lines is none."""
    return [match.start() for match in _TABLE.finditer(text) if _is_whole(text[: match.start()])]


def _is_whole(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _line_of(text: str, key: str, start: int) -> int:
    """The first line from `start` on that sets `key`; the line of `start` itself if none is found."""
    sets = re.compile(rf"(?:^|[{{,.\[])[ \t]*[\"']?{re.escape(key)}[\"']?[ \t]*(?:[=.]|\]\]?)", re.MULTILINE)
    match = sets.search(text, start)
    return text.count("\n", 0, start if match is None else match.start(0) + match[0].index(key)) + 1


#: Imported for what they register.
_REGISTERED = (external, resolvers)
