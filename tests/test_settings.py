"""Settings: values and their kinds, errors with line and reason, and a daemon that goes by them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from isofs.errors import BadConfiguration, IsofsError
from isofs.service.events import Event, Events, Kind
from isofs.service.live import Live
from isofs.settings import document, kinds
from isofs.settings.kinds import Refused, read_table, setting, shown_table
from isofs.settings.settings import Settings, lines, settings
from isofs.store.folder import Store, open_store


@dataclass(frozen=True)
class _Inner:
    level: int = setting(kinds.number(3, low=1, high=9), "how loud")


@dataclass(frozen=True)
class _Table:
    bytes: int = setting(kinds.size("10 GiB"), "how much")
    age: int = setting(kinds.duration("30 d"), "how long")
    on: bool = setting(kinds.flag(True), "whether")
    mode: str = setting(kinds.choice("slow", "fast"), "which")
    users: tuple[str, ...] = setting(kinds.texts(("root",)), "who")
    limits: Mapping[str, int] = setting(kinds.mapping(kinds.size("1 KiB")), "for whom how much")
    inner: Mapping[str, _Inner] = setting(kinds.tables(_Inner), "by name")


GIVEN = """
bytes = "1.5 MiB"
age = "90 min"
on = false
mode = "fast"
users = "alice"
limits.bob = 4096
inner.one.level = 5
"""


def _read(text: str) -> _Table:
    return read_table(_Table, dict(document.read(text).values))


def test_values_are_read_and_written_as_they_are_meant() -> None:
    found = _read(GIVEN)
    assert found == _Table(3 << 19, 5400, False, "fast", ("alice",), {"bob": 4096}, {"one": _Inner(5)})
    assert shown_table(found) == {
        "bytes": "1536 KiB",
        "age": "90 min",
        "on": False,
        "mode": "fast",
        "users": ["alice"],
        "limits": {"bob": "4 KiB"},
        "inner": {"one": {"level": 5}},
    }
    assert _read("") == _Table(10 << 30, 30 * 86400, True, "slow", ("root",), {}, {})


def test_what_is_shown_is_read_as_the_same() -> None:
    found = _read(GIVEN)
    assert read_table(_Table, shown_table(found)) == found


@pytest.mark.parametrize(
    ("text", "keys", "why"),
    [
        ('bytes = "much"', ["bytes"], "bytes must be a size, as 10 GiB, not 'much'"),
        ("bytes = -1", ["bytes"], "bytes must be a size"),
        ("bytes = true", ["bytes"], "bytes must be a size"),
        ('age = "3 weeks"', ["age"], "age must be a time"),
        ("on = 1", ["on"], "on must be true or false, not 1"),
        ('mode = "idle"', ["mode"], "mode must be one of slow, fast, not 'idle'"),
        ("users = [1]", ["users"], "users must be a text, not 1"),
        ("limits = 3", ["limits"], "limits must be a table, not 3"),
        ('limits.bob = "x"', ["limits", "bob"], "bob must be a size"),
        ("inner.one.level = 10", ["inner", "one", "level"], "level must be a whole number from 1 to 9, not 10"),
        ("inner.one.deep = 1", ["inner", "one", "deep"], "there is no setting 'deep'; there are: level"),
    ],
)
def test_what_cannot_be_is_refused_with_its_keys(text: str, keys: list[str], why: str) -> None:
    with pytest.raises(Refused) as caught:
        _read(text)
    assert list(caught.value.keys) == keys
    assert caught.value.why.startswith(why)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["quota", "users", "bob", "bytes"], 9),
        (["quota", "bytes"], 3),
        (["audit"], 5),
        (["audit", "on"], 6),
        (["x"], 1),
    ],
)
def test_errors_name_the_line_that_the_keys_lead_to(keys: list[str], line: int) -> None:
    text = 'bytes = 1\n[quota]\nbytes = 2\n\n["audit"]\non = 1\n# bytes =\n[quota.users.bob]\nbytes = 3\n'
    assert str(document.read(text, "c.toml").refusal(keys, "no")) == f"c.toml, line {line}: no"


@pytest.mark.parametrize("value", ["0", "-1", "true", '"7d"', "1.5", "99999999"])
def test_days_are_a_number_from_one_on(value: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        settings(document.read(f"defaults = true\nattic_days = {value}\n", "c.toml"))
    assert str(caught.value).startswith("c.toml, line 2: attic_days must be a whole number from 1 to 36525")


def test_every_setting_is_listed_with_what_it_is_for() -> None:
    found = {one.key: one for one in lines(settings(document.read("attic_days = 7")))}
    assert (found["attic_days"].value, found["attic_days"].default) == (7, False)
    assert all(one.about and one.default for key, one in found.items() if key != "attic_days")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def test_an_edit_counts_at_once_and_is_told(store: Store) -> None:
    live, told = Live(store), list[Settings]()
    live.subscribe(told.append)
    config = Path(store.path) / "config.toml"
    live.refresh()
    assert (live.now.attic_days, told) == (30, [])
    config.write_text("attic_days = 7")
    live.refresh()
    live.refresh()
    assert [one.attic_days for one in told] == [live.now.attic_days] == [7]
    store.close()


def test_with_an_error_the_last_settings_count_and_nobody_is_decided_about(store: Store) -> None:
    live, config = Live(store), Path(store.path) / "config.toml"
    config.write_text("attic_days = 7")
    live.refresh()
    config.write_text("attic_days = 0")
    with pytest.raises(IsofsError, match="line 1: attic_days"):
        live.rules()
    assert live.now.attic_days == 7
    config.unlink()
    assert live.rules()
    assert live.error is None
    assert live.now.attic_days == 30
    store.close()


def test_a_subscriber_that_fails_keeps_no_event_from_others() -> None:
    events, heard = Events(), list[Event]()

    def fails(event: Event) -> None:
        raise ValueError

    events.subscribe(fails)
    events.subscribe(heard.append)
    events.tell(Event(Kind.SUSPECT, {"user": "alice"}))
    assert [(event.kind, event.facts) for event in heard] == [("suspect", {"user": "alice"})]


def test_the_documentation_has_every_setting() -> None:
    page = (Path(__file__).parents[1] / "docs" / "settings.md").read_text()
    for one in lines(Settings()):
        if isinstance(one.value, dict):
            continue  # it is a table, and has a page
        value = json.dumps(one.value, ensure_ascii=False)
        assert f"| `{one.key}` | `{value}` | {one.about} |" in page
