"""When a line of a log was written, in the forms that logs have.

Times of different forms are not compared with each other, so each comes with the name of its form.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

_MONTHS = {name: at for at, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}

#: A syslog line has no year. All of them are put into one leap year and brought near each other by `near`.
_YEAR = 2000
_YEAR_LENGTH = 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Moment:
    """A time in seconds, comparable with others of the same form."""

    form: str
    seconds: float

    def near(self, other: Moment | None) -> Moment:
        """The same time, where its form has no year: in the year that brings it nearest to `other`."""
        if self.form != "syslog" or other is None or other.form != self.form:
            return self
        years = round((other.seconds - self.seconds) / _YEAR_LENGTH)
        return Moment(self.form, self.seconds + years * _YEAR_LENGTH)


def moment(line: bytes) -> Moment | None:
    """The time that a line of a log begins with (in the common log format: that it has), or None."""
    for form, pattern, read in _FORMS:
        match = pattern.match(line)
        if match is not None:
            try:
                return Moment(*read(form, match))
            except (ValueError, OverflowError):
                return None  # looks like a time, but is none: the 31st of June
    return None


def _iso(form: str, match: re.Match[bytes]) -> tuple[str, float]:
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    at = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC).timestamp()
    at += max(0, second - 59) + _fraction(match[7])
    if match[8] is None:
        return "local " + form, at  # of a zone that is not told
    return form, at - _zone(match[8]).total_seconds()


def _common_log(form: str, match: re.Match[bytes]) -> tuple[str, float]:
    day, month, year, hour, minute, second = match.groups()[:6]
    zone = timezone(_zone(match[7]))
    return form, datetime(
        int(year), _MONTHS[month], int(day), int(hour), int(minute), min(int(second), 59), tzinfo=zone
    ).timestamp()


def _syslog(form: str, match: re.Match[bytes]) -> tuple[str, float]:
    day, hour, minute, second = (int(part) for part in match.groups()[1:5])
    return form, datetime(_YEAR, _MONTHS[match[1]], day, hour, minute, min(second, 59), tzinfo=UTC).timestamp()


def _epoch(form: str, match: re.Match[bytes]) -> tuple[str, float]:
    digits = match[1]
    return form, int(digits) / 10 ** (len(digits) - 10) + _fraction(match[2])


def _fraction(digits: bytes | None) -> float:
    return float(b"0." + digits) if digits else 0.0


def _zone(text: bytes) -> timedelta:
    if text in (b"Z", b"z"):
        return timedelta(0)
    digits = text[1:].replace(b":", b"")
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or b"0"))
    return -size if text.startswith(b"-") else size


_MONTH = b"(" + b"|".join(_MONTHS) + b")"
_CLOCK = rb"(\d\d):(\d\d):(\d\d)"
_FORMS: list[tuple[str, re.Pattern[bytes], Callable[[str, re.Match[bytes]], tuple[str, float]]]] = [
    (  # 2024-05-01T10:00:00.5Z, [2024-05-01 10:00:00,123], <34>1 2024-05-01T..., 2024/05/01 10:00:00
        "iso",
        re.compile(
            rb"(?:<\d{1,3}>\d? ?)?\[?(\d{4})[-/](\d\d)[-/](\d\d)[T ]"
            + _CLOCK
            + rb"(?:[.,](\d{1,9}))?(?: ?(Z|z|[+-]\d\d(?::?\d\d)?)\b)?"
        ),
        _iso,
    ),
    # May  1 10:00:00 host program: ...
    ("syslog", re.compile(rb"(?:<\d{1,3}>)?" + _MONTH + rb" +(\d{1,2}) " + _CLOCK + rb"\b"), _syslog),
    # 1714557600, [1714557600.123], 1714557600123; #1714557600 as shells write it into their histories
    ("epoch", re.compile(rb"[#\[]?(\d{10}|\d{13}|\d{16}|\d{19})(?:\.(\d{1,9}))?(?=[\s\],:]|$)"), _epoch),
    # 192.0.2.1 - - [01/May/2024:10:00:00 +0200] "GET / ...
    (
        "common",
        re.compile(rb"\S+ \S+ [^\[]{1,80} ?\[(\d\d)/" + _MONTH + rb"/(\d{4}):" + _CLOCK + rb" ([+-]\d{4})\]"),
        _common_log,
    ),
]
