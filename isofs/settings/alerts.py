"""What alerts of detectors may do, and how each detector's are read; and when suspects are to be looked at again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from isofs.model.alerts import FORMATS, SHIPPED, condition
from isofs.model.alerts import Detector as Reading
from isofs.settings.kinds import Kind, Refused, choice, duration, number, read_table, rest, setting, shown_table, texts


def _refusal(text: str) -> str | None:
    try:
        condition(text)
    except ValueError as why:
        return str(why)
    return None


@dataclass(frozen=True)
class Detector:
    """How the alerts of one detector are read: see `isofs.model.alerts`."""

    format: str = setting(choice(*FORMATS), "form of its lines")
    user: tuple[str, ...] = setting(texts(), "fields that name the user; the first that is there and set counts")
    reason: tuple[str, ...] = setting(texts(), "fields that make the reason")
    when: tuple[str, ...] = setting(texts((), _refusal), "conditions that must hold, as `rule.level >= 10`")

    def reading(self) -> Reading:
        return Reading(self.format, self.user, self.reason, tuple(map(condition, self.when)))


_SHIPPED: Mapping[str, Detector] = {name: Detector(**values) for name, values in SHIPPED.items()}  # type: ignore[arg-type]


def _detectors() -> Kind[Mapping[str, Detector]]:
    """Tables by name. Of one that is shipped, what is left out is as it is shipped, and all of those not named."""

    def read(value: object) -> Mapping[str, Detector]:
        assert isinstance(value, dict)
        found = dict(_SHIPPED)
        for name, given in value.items():
            try:
                one = read_table(Detector, {**shown_table(_SHIPPED.get(name, Detector())), **given})
            except Refused as why:
                raise Refused(why.why, [name, *why.keys]) from None
            if not one.user:
                raise Refused("user must name a field at least", [name])
            found[name] = one
        return found

    return Kind(_SHIPPED, read, lambda value: {name: shown_table(one) for name, one in value.items()})


@dataclass(frozen=True)
class Alerts:
    """What alerts may do; a table below it is a detector's."""

    review: int = setting(duration("24 h"), "time after which a suspect is to be looked at again; 0 for never")
    most: int = setting(number(5, low=1), "users that alerts may isolate within a time")
    within: int = setting(duration("10 min"), "that time")
    detectors: Mapping[str, Detector] = rest(_detectors(), "how the alerts of this detector are read")


def shipped(name: str) -> Reading:
    """How the alerts of a detector that is known without configuration are read."""
    return _SHIPPED[name].reading()
