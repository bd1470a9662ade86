"""What recorded alerts of detectors mean, and that nothing that an attacker writes into one means more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isofs.model.alerts import SHIPPED, Alert, Detector, Ignored, alert, condition
from isofs.settings.alerts import shipped

RECORDED = Path(__file__).parent / "alerts"


def read(name: str, file: str) -> list[Alert | Ignored]:
    # Not splitlines: a record has control characters in it.
    lines = (RECORDED / file).read_text().removesuffix("\n").split("\n")
    return [alert(name, shipped(name), line) for line in lines]


def mapping(**changed: object) -> Detector:
    given = {"format": "json", "user": ("user",), "reason": ("why",), "when": (), **changed}
    return Detector(**given)  # type: ignore[arg-type]


def test_wazuh() -> None:
    payroll, plans, sudo, brute, login, low, ended, nobody = read("wazuh", "wazuh.jsonl")
    assert payroll == Alert(
        "1001",
        "wazuh: Audit: Payroll was read by /usr/bin/tar.; rule.id 100210; rule.level 12; alert.id 1772616077.918273",
    )
    assert isinstance(plans, Alert)
    assert plans.user == "1002"
    assert isinstance(sudo, Alert)
    assert sudo.user == "carol"
    assert isinstance(login, Alert)
    assert login.user == "dave"
    assert brute == Ignored("not so: parameters.alert.rule.groups !~ ^(authentication_fail|invalid_login)")
    assert low == Ignored("not so: parameters.alert.rule.level >= 10")
    assert ended == Ignored("not so: command = add")
    assert isinstance(nobody, Ignored)
    assert nobody.why.startswith("no user in ")


def test_falco() -> None:
    packed, encrypted, container, notice, cluster, nobody = read("falco", "falco.jsonl")
    assert packed == Alert(
        "1001",
        "falco: Shared files packed up; priority Critical; proc.cmdline tar cz payroll; "
        "fd.name /srv/share/payroll/2026.ods; time 2026-03-04T09:21:17.402118833Z",
    )
    assert isinstance(encrypted, Alert)
    assert encrypted.user == "1002"
    assert isinstance(container, Alert)
    assert container.user == "carol"
    assert notice == Ignored("not so: priority ~ ^(Emergency|Alert|Critical)$")
    assert cluster == Ignored("not so: source = syscall")
    assert isinstance(nobody, Ignored)


def test_auditd() -> None:
    """Only the records of calls that a rule marked; a program's name that looks like fields is none."""
    payroll, cwd, path, title, end, plans, other, login = read("auditd", "auditd.log")
    assert payroll == Alert("1001", "auditd: isofs-payroll; comm tar; exe /usr/bin/tar; serial 90211")
    assert plans == Alert("1002", "auditd: isofs-plans, watch; comm a auid=0 uid=0; exe /usr/bin/mv; serial 90544")
    assert {type(one) for one in (cwd, path, title, end, other, login)} == {Ignored}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "not a JSON object"),
        ("{", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ('{"user": ' + "9" * 5000 + "}", "not a JSON object"),
        ("{}", "no user in user"),
        ('{"user": null}', "no user in user"),
        ('{"user": {"name": "alice"}}', "no user in user"),
        ('{"user": -1}', "no user in user"),
    ],
)
def test_lines_that_are_no_alerts(line: str, why: str) -> None:
    assert alert("d", mapping(), line) == Ignored(why)


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("f = a", "a", True),
        ("f = a", "ab", False),
        ("f = 10", 10, True),
        ("f = true", True, True),
        ("f=a = b", "a = b", True),
        ("f != a", "a", False),
        ("f != a", None, True),
        ("f >= 10", 10, True),
        ("f >= 10", "9.5", False),
        ("f >= 10", "12", True),
        ("f >= 10", "many", False),
        ("f >= 10", "nan", False),
        ("f <= 1.5", 1, True),
        ("f <= 1.5", 2, False),
        ("f ~ ^a|z$", "xyz", True),
        ("f ~ ^a", "ba", False),
        ("f ~ a", ["x", "a"], True),
        ("f !~ a", ["x", "a"], False),
        ("f !~ a", ["x"], True),
        ("f !~ a", None, True),
    ],
)
def test_conditions(text: str, value: object, holds: bool) -> None:
    found = alert("d", mapping(when=(condition(text),)), json.dumps({"f": value, "user": "alice"}))
    assert isinstance(found, Alert) == holds


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must be FIELD"),
        ("level", "must be FIELD"),
        ("a b = c", "must be FIELD"),
        ("f >= high", "'high' is none"),
        ("f ~ (", "no regular expression"),
    ],
)
def test_conditions_that_are_none(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        condition(text)


def test_fields_whose_names_have_dots() -> None:
    """As Falco has them; what is named so itself comes before what is found below."""
    line = json.dumps({"a": {"b.c": "1", "b": {"c": "2"}}, "a.b": {"c": "3"}})
    assert alert("d", mapping(user=("a.b.c",)), line) == Alert("3", "d: no reason given")
    assert alert("d", mapping(user=("a.b.c",), when=(condition("a.b.c = 2"),)), line) == Alert(
        "3", "d: no reason given"
    )


def test_reasons_are_bounded() -> None:
    found = alert("d", mapping(reason=("x", "y", "z")), json.dumps({"user": 1} | dict.fromkeys("xyz", "v" * 10_000)))
    assert isinstance(found, Alert)
    assert len(found.reason) <= 500
    assert found.reason.startswith("d: vvv")


@given(st.sampled_from(sorted(SHIPPED)), st.text() | st.recursive(st.text(), lambda x: st.lists(x)).map(json.dumps))
def test_no_line_is_a_crash(name: str, line: str) -> None:
    assert isinstance(alert(name, shipped(name), line), Alert | Ignored)


@given(st.text(st.characters(exclude_characters='"', exclude_categories=["Cc", "Cs", "Zs"]), min_size=1))
def test_the_kernels_fields_come_first(text: str) -> None:
    """Whatever a later field of a record holds, quoted or as a user program wrote it."""
    record = f'type=SYSCALL msg=audit(1.0:1): auid=1001 key="isofs" comm="{text} auid=7 key=x" msg=\'auid=7 {text}\''
    found = alert("auditd", shipped("auditd"), record)
    assert isinstance(found, Alert)
    assert found.user == "1001"
