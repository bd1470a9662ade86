"""The configuration of merges: which files are merged by which resolver, and the defaults."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from isofs.errors import UsageError
from isofs.merge import external, resolvers
from isofs.merge.resolvers.base import Inputs, Resolver, UnknownResolver, Value, registered, resolver
from isofs.merge.resolvers.choosing import Rule, choose
from isofs.settings import document
from isofs.settings.document import Document

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

_TABLE = re.compile(r"^[ \t]*\[\[[ \t]*resolve[ \t]*\]\]", re.MULTILINE)
_KEYS = ("pattern", "using", "options")


@dataclass(frozen=True)
class Config:
    """The rules in their order, the defaults behind those of the configuration."""

    rules: tuple[Rule, ...]

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
    return rules(document.read(text, name))


def rules(of: Document) -> Config:
    """The configuration of merges in a document, which may say other things besides."""
    return Config(tuple(_rules(of)) + (defaults() if of.values.get("defaults", True) else ()))


def defaults() -> tuple[Rule, ...]:
    """The rules that apply without a configuration."""
    return tuple(
        Rule(rule.patterns, rule.using, rule.options) for rule in _rules(document.read(DEFAULTS, "the defaults"))
    )


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


def _rules(of: Document) -> Iterator[Rule]:
    if not isinstance(of.values.get("defaults", True), bool):
        raise of.refusal(["defaults"], f"defaults must be true or false, not {of.values['defaults']!r}")
    tables = of.values.get("resolve", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise of.refusal(["resolve"], "resolve must be tables: [[resolve]]")
    starts = _starts(of.text) if tables else []
    for at, table in enumerate(tables):
        start = starts[at] if at < len(starts) else 0
        line = of.text.count("\n", 0, start) + 1
        try:
            yield _rule(table, line)
        except _Refused as why:
            where = of.line_from(why.key, start, line) if why.key is not None else line
            raise of.refusal_at(where, why.why) from None


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


def _starts(text: str) -> list[int]:
    """Where each [[resolve]] begins. One in a string that goes over several lines is none."""
    return [match.start() for match in _TABLE.finditer(text) if _is_whole(text[: match.start()])]


def _is_whole(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


#: Imported for what they register.
_REGISTERED = (external, resolvers)
