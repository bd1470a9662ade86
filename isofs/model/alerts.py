"""Alerts of detectors: which user a line is about, and why, as a mapping says that the operator chose.

What a detector reports is partly what an attacker wrote. So a line that is no alert is no error, a field counts only
where the mapping looks for it, and of two fields of one name in an audit record the first counts, the kernel's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

#: The forms of lines: a JSON object each, or records of the kernel's audit.
FORMATS = ("json", "audit")

#: How a condition may compare: text, numbers, and regular expressions.
COMPARISONS = ("=", "!=", ">=", "<=", "~", "!~")

#: The longest reason that is kept, and the longest value in it.
_REASON, _VALUE = 500, 200

#: How detectors write that there is no user.
_UNSET = frozenset(("", "-1", "4294967295", "unset", "<NA>", "(null)", "null", "?"))

_CONDITION = re.compile(r"\s*([^\s=<>~!]+)\s*(!=|>=|<=|!~|=|~)\s*(.*?)\s*", re.DOTALL)

_RECORD = re.compile(r"(?:node=(\S+) )?type=(\S+) msg=audit\((\d+\.\d+):(\d+)\):(.*)", re.DOTALL)
_FIELD = re.compile(r"([A-Za-z_][\w-]*)=(?:\"([^\"]*)\"|([^\s'\"]*))")

#: Fields of audit records that are in hexadecimal, and not in quotes, where they hold something odd.
_ENCODED = frozenset(("acct", "cmd", "comm", "cwd", "data", "exe", "key", "name", "path", "proctitle"))
_HEXADECIMAL = re.compile(r"(?:[0-9A-F]{2})+")

#: What stands between the keys of a record that several audit rules made.
_BETWEEN_KEYS = "\x01"


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of a field: that one of its values compares so, or with an exclamation mark that none does."""

    field: str
    comparison: str
    value: str

    def __str__(self) -> str:
        return f"{self.field} {self.comparison} {self.value}"

    def holds(self, values: Sequence[str]) -> bool:
        compares = _COMPARES[self.comparison.lstrip("!")]
        return any(compares(value, self.value) for value in values) != self.comparison.startswith("!")


@dataclass(frozen=True, slots=True)
class Detector:
    """How the lines of a detector are read.

    format  one of `FORMATS`
    user    fields that name the user, by name or uid; the first that is there and set counts
    reason  fields whose values make the reason
    when    what must hold for a line to be an alert, all of it
    """

    format: str
    user: tuple[str, ...]
    reason: tuple[str, ...]
    when: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Alert:
    """Who is to be isolated, by name or uid, and why."""

    user: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A line that isolates nobody, and why it does not."""

    why: str


#: What is known without configuration. Each may be changed by a table of its name.
SHIPPED: Mapping[str, Mapping[str, object]] = {
    # The message that an active response gets. A failed login is nothing that its user did.
    "wazuh": {
        "format": "json",
        "user": (
            "parameters.alert.data.audit.auid",
            "parameters.alert.syscheck.audit.login_user.id",
            "parameters.alert.syscheck.audit.effective_user.id",
            "parameters.alert.data.srcuser",
            "parameters.alert.data.dstuser",
        ),
        "reason": (
            "parameters.alert.rule.description",
            "parameters.alert.rule.id",
            "parameters.alert.rule.level",
            "parameters.alert.id",
        ),
        "when": (
            "command = add",
            "parameters.alert.rule.level >= 10",
            "parameters.alert.rule.groups !~ ^(authentication_fail|invalid_login)",
        ),
    },
    "falco": {
        "format": "json",
        "user": ("output_fields.user.loginuid", "output_fields.user.uid", "output_fields.user.name"),
        "reason": ("rule", "priority", "output_fields.proc.cmdline", "output_fields.fd.name", "time"),
        "when": ("source = syscall", "priority ~ ^(Emergency|Alert|Critical)$"),
    },
    # What rules with a key such as isofs-payroll report: auditctl -w DIR -p wa -k isofs-payroll
    "auditd": {
        "format": "audit",
        "user": ("auid", "uid"),
        "reason": ("key", "comm", "exe", "serial"),
        "when": ("type = SYSCALL", "key ~ ^isofs"),
    },
}


def condition(text: str) -> Condition:
    """The condition that a text such as `rule.level >= 10` is. ValueError says why it is none."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise ValueError(f"must be FIELD {'|'.join(COMPARISONS)} VALUE, not {text!r}")
    field, comparison, value = found.groups()
    if comparison in (">=", "<=") and _number(value) is None:
        raise ValueError(f"{comparison} compares numbers, and {value!r} is none")
    if comparison in ("~", "!~"):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from None
    return Condition(field, comparison, value)


def alert(name: str, detector: Detector, line: str) -> Alert | Ignored:
    """What a line of the detector of this name says."""
    fields = _READERS[detector.format](line)
    if isinstance(fields, Ignored):
        return fields
    for one in detector.when:
        if not one.holds(fields(one.field)):
            return Ignored(f"not so: {one}")
    user = next((value for field in detector.user for value in fields(field) if value not in _UNSET), None)
    if user is None:
        return Ignored(f"no user in {', '.join(detector.user)}")
    return Alert(user, _reason(name, detector, fields))


def _reason(name: str, detector: Detector, fields: _Fields) -> str:
    """The detector, the first field as it is, and the others with what they are called."""
    words: list[str] = []
    for field in detector.reason:
        values = ", ".join(value for value in fields(field) if value not in _UNSET)
        if values:
            label = ".".join(field.split(".")[-2:]) + " " if words else ""
            words.append(label + (values if len(values) <= _VALUE else values[: _VALUE - 3] + "..."))
    return (f"{name}: " + ("; ".join(words) or "no reason given"))[:_REASON]


_Fields = Callable[[str], Sequence[str]]


def _json(line: str) -> _Fields | Ignored:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return Ignored("not a JSON object")
    return lambda field: tuple(_texts(value, field.split(".")))


def _texts(value: object, keys: Sequence[str]) -> Iterator[str]:
    """What is found below keys, of which several may be one key with dots in it: `output_fields` and `user.name`."""
    if not keys:
        for one in value if isinstance(value, list) else [value]:
            text = _text(one)
            if text is not None:
                yield text
    elif isinstance(value, dict):
        for count in range(len(keys), 0, -1):
            below = ".".join(keys[:count])
            if below in value:
                yield from _texts(value[below], keys[count:])


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) else None


def _audit(line: str) -> _Fields | Ignored:
    found = _RECORD.fullmatch(line.strip())
    if found is None:
        return Ignored("not an audit record")
    node, kind, time, serial, body = found.groups()
    values = {"type": [kind], "time": [time], "serial": [serial]} | ({"node": [node]} if node else {})
    for name, quoted, bare in _FIELD.findall(body):
        if name in _ENCODED and _HEXADECIMAL.fullmatch(bare):
            quoted = bytes.fromhex(bare).decode(errors="replace")
        values.setdefault(name, (quoted or bare).split(_BETWEEN_KEYS))
    return lambda field: values.get(field, ())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _at_least(value: str, bound: str) -> bool:
    found, least = _number(value), _number(bound)
    return found is not None and least is not None and found >= least


_READERS: Mapping[str, Callable[[str], _Fields | Ignored]] = {"json": _json, "audit": _audit}

_COMPARES: Mapping[str, Callable[[str, str], bool]] = {
    "=": lambda value, other: value == other,
    ">=": _at_least,
    "<=": lambda value, other: _at_least(other, value),
    "~": lambda value, pattern: re.search(pattern, value) is not None,
}
