"""The kinds of values that settings have: what is accepted, what it becomes, and how it is shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")

_SIZES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50}
_SIZES.update({"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15})
_TIMES = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class Refused(Exception):
    """A value that a setting cannot have: the keys that lead to it from where it was read, and why."""

    def __init__(self, why: str, keys: Sequence[str] = ()) -> None:
        super().__init__(why)
        self.why, self.keys = why, tuple(keys)


@dataclass(frozen=True)
class Kind(Generic[T]):
    """How the value of a setting is read (`Refused` where it is none) and written, and what it is by default."""

    default: T
    read: Callable[[object], T]
    shown: Callable[[T], object] = lambda value: value


def setting(kind: Kind[T], about: str) -> T:
    """A field of a table: its kind, with its default, and what it is for, in a few words."""
    return field(default_factory=lambda: kind.default, metadata={"kind": kind, "about": about})


def rest(kind: Kind[Mapping[str, T]], about: str) -> Mapping[str, T]:
    """A field for all tables below its table that are no other field's: `[alerts.wazuh]` below `[alerts]`."""
    return field(default_factory=lambda: kind.default, metadata={"kind": kind, "about": about, "rest": True})


def flag(default: bool) -> Kind[bool]:
    return Kind(default, lambda value: _exactly(value, bool, "true or false"))


def number(default: int, *, low: int = 0, high: int | None = None) -> Kind[int]:
    """A whole number within bounds, which are themselves allowed."""
    bounds = f"from {low} on" if high is None else f"from {low} to {high}"

    def read(value: object) -> int:
        found = _exactly(value, int, f"a whole number {bounds}")
        if found < low or (high is not None and found > high):
            raise Refused(f"must be a whole number {bounds}, not {found}")
        return found

    return Kind(default, read)


def size(default: str) -> Kind[int]:
    """A number of bytes: `10 GiB`, or a whole number."""
    return Kind(
        _measure(default, _SIZES, "a size"), lambda value: _measure(value, _SIZES, "a size, as 10 GiB"), _in_bytes
    )


def duration(default: str) -> Kind[int]:
    """A time in seconds: `24 h`, or a whole number of seconds."""

    def read(value: object) -> int:
        return _measure(value, {"": 1, **_TIMES}, "a time, as 90 s, 15 min, 24 h or 30 d")

    return Kind(read(default), read, _in_time)


def text(default: str, check: Callable[[str], str | None] = lambda value: None) -> Kind[str]:
    """A text; `check` answers why it will not do, or None."""

    def read(value: object) -> str:
        found = _exactly(value, str, "a text")
        refusal = check(found)
        if refusal is not None:
            raise Refused(refusal)
        return found

    return Kind(default, read)


def texts(
    default: Sequence[str] = (), check: Callable[[str], str | None] = lambda value: None
) -> Kind[tuple[str, ...]]:
    """A list of texts, or a single one."""
    one = text("", check)

    def read(value: object) -> tuple[str, ...]:
        given = value if isinstance(value, list) else [value]
        return tuple(one.read(item) for item in given)

    return Kind(tuple(default), read, list)


def choice(default: str, *words: str) -> Kind[str]:
    """One of these words."""
    known = (default, *words)
    return text(default, lambda value: None if value in known else f"must be one of {', '.join(known)}, not {value!r}")


def mapping(of: Kind[T], default: Mapping[str, T] | None = None) -> Kind[Mapping[str, T]]:
    """A table whose keys the operator chooses."""

    def read(value: object) -> Mapping[str, T]:
        return {key: _under(key, of.read, item) for key, item in _table(value).items()}

    return Kind(default or {}, read, lambda value: {key: of.shown(item) for key, item in value.items()})


def tables(of: type[T], default: Mapping[str, T] | None = None) -> Kind[Mapping[str, T]]:
    """Tables of a kind, by names that the operator chooses: `[alerts.wazuh]`."""

    def read(value: object) -> Mapping[str, T]:
        return {key: _under(key, lambda given: read_table(of, given), item) for key, item in _table(value).items()}

    return Kind(default or {}, read, lambda value: {key: shown_table(item) for key, item in value.items()})


def read_table(of: type[T], given: object) -> T:
    """A frozen dataclass of settings from a table; what is left out has its default. Refused says what is off."""
    every = fields(cast(Any, of))
    known = {f.name: f.metadata["kind"] for f in every if "rest" not in f.metadata}
    others = next((f for f in every if "rest" in f.metadata), None)
    values, below = dict[str, Any](), dict[str, object]()
    for key, value in _table(given).items():
        if key in known:
            values[key] = _under(key, known[key].read, value)
        elif others is not None and isinstance(value, dict):
            below[key] = value
        else:
            raise Refused(f"there is no setting {key!r}; there are: {', '.join(known)}", [key])
    if others is not None and below:
        values[others.name] = others.metadata["kind"].read(below)
    return of(**values)


def shown_table(table: object) -> dict[str, object]:
    """The values of a table of settings as an operator would write them."""
    found: dict[str, object] = {}
    for f in fields(cast(Any, table)):
        value = f.metadata["kind"].shown(getattr(table, f.name))
        found |= value if "rest" in f.metadata else {f.name: value}
    return found


def _under(key: str, read: Callable[[object], T], value: object) -> T:
    try:
        return read(value)
    except Refused as why:
        if why.keys:
            raise Refused(why.why, [key, *why.keys]) from None
        raise Refused(why.why if why.why.startswith(f"{key} ") else f"{key} {why.why}", [key]) from None


def _table(value: object) -> dict[str, object]:
    return _exactly(value, dict, "a table")


def _exactly(value: object, kind: type[T], words: str) -> T:
    # To isinstance, true is a number.
    if type(value) is not kind:
        raise Refused(f"must be {words}, not {value!r}")
    return value


def _measure(value: object, units: Mapping[str, int], words: str) -> int:
    if type(value) is int and value >= 0:
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise Refused(f"must be {words}, not {value!r}")
    return round(float(match[1]) * units[match[2]])


def _in_bytes(value: int) -> object:
    for unit in ("PiB", "TiB", "GiB", "MiB", "KiB"):
        if value and value % _SIZES[unit] == 0:
            return f"{value // _SIZES[unit]} {unit}"
    return value


def _in_time(value: int) -> object:
    for unit in ("d", "h", "min"):
        if value and value % _TIMES[unit] == 0:
            return f"{value // _TIMES[unit]} {unit}"
    return f"{value} s"
