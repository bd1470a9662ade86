"""All settings: a field for each table of the configuration, and those that stand before the first table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from isofs.settings.access import Access
from isofs.settings.alerts import Alerts
from isofs.settings.audit import Audit
from isofs.settings.document import Document
from isofs.settings.hooks import Hooks
from isofs.settings.kinds import Kind, Refused, number, read_table, setting
from isofs.settings.quota import Quota
from isofs.settings.service import Service

#: What is read elsewhere, by whoever merges (`isofs.merge.config`).
OF_MERGES = ("defaults", "resolve")

#: Days: a hundred years.
_LONGEST = 36525


@dataclass(frozen=True)
class Settings:
    """What is configured, and the defaults of what is not. A table is a field like `quota: Quota = Quota()`."""

    attic_days: int = setting(
        number(30, low=1, high=_LONGEST), "days that the attic keeps what merges replaced or deleted"
    )
    report_days: int = setting(number(90, low=1, high=_LONGEST), "days that reports of verdicts are kept")
    access: Access = Access()
    alerts: Alerts = Alerts()
    audit: Audit = Audit()
    hooks: Hooks = Hooks()
    quota: Quota = Quota()
    service: Service = Service()


@dataclass(frozen=True, slots=True)
class Line:
    """A setting as it is shown: its keys joined by dots, its value, whether that is the default, what it is for."""

    key: str
    value: object
    default: bool
    about: str


def settings(document: Document) -> Settings:
    """The settings in a document. BadConfiguration names the line and the reason of the first that is off."""
    known = {f.name: f for f in fields(Settings)}
    values: dict[str, Any] = {}
    for key, value in document.values.items():
        if key in OF_MERGES:
            continue
        if key not in known:
            there = ", ".join([*known, *OF_MERGES])
            raise document.refusal([key], f"there is no setting {key!r}; there are: {there}")
        try:
            kind: Kind[Any] | None = known[key].metadata.get("kind")
            values[key] = kind.read(value) if kind else read_table(type(known[key].default), value)
        except Refused as why:
            words = why.why if why.keys else f"{key} {why.why}"
            raise document.refusal([key, *why.keys], words) from None
    return Settings(**values)


def lines(of: Settings) -> Iterator[Line]:
    """Every setting, in the order of the tables."""
    for outer in fields(of):
        value = getattr(of, outer.name)
        if "kind" in outer.metadata:
            yield _line(outer.name, outer.metadata, value)
        else:
            for inner in fields(value):
                found = getattr(value, inner.name)
                if "rest" in inner.metadata:
                    yield from _lines_below(outer.name, inner.metadata, found)
                else:
                    yield _line(f"{outer.name}.{inner.name}", inner.metadata, found)


def _lines_below(table: str, metadata: Any, values: Mapping[str, Any]) -> Iterator[Line]:
    kind: Kind[Any] = metadata["kind"]
    shown = cast(Mapping[str, object], kind.shown(values))
    for name, value in shown.items():
        yield Line(f"{table}.{name}", value, values[name] == kind.default.get(name), metadata["about"])


def _line(key: str, metadata: Any, value: Any) -> Line:
    kind: Kind[Any] = metadata["kind"]
    return Line(key, kind.shown(value), value == kind.default, metadata["about"])
