"""The table of roles, and the list of who is never isolated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from isofs.control.peers import Peer
from isofs.errors import BadConfiguration, NotAllowed, UsageError
from isofs.service import never
from isofs.service.proposals import ALONE, VERDICTS
from isofs.service.roles import NEEDS, Groups, Role, check, held
from isofs.settings import document
from isofs.settings.access import Access
from isofs.settings.settings import settings

WATCHERS, DECIDERS = 7001, 7002
GROUPS = Groups(WATCHERS, DECIDERS)


def peer(uid: int, *groups: int, gid: int = 100, login: int | None = None) -> Peer:
    return Peer(1, uid, gid, frozenset(groups), login, "isoctl")


@pytest.mark.parametrize(
    ("who", "role"),
    [
        (peer(0), Role.ROOT),
        (peer(1001), Role.NONE),
        (peer(1001, WATCHERS), Role.OBSERVE),
        (peer(1001, gid=WATCHERS), Role.OBSERVE),
        (peer(1001, DECIDERS), Role.DECIDE),
        (peer(1001, WATCHERS, gid=DECIDERS), Role.DECIDE),
        (peer(1001, 0, gid=0), Role.NONE),
        (peer(1009, DECIDERS), Role.NONE),
        (peer(1001, DECIDERS, login=1009), Role.NONE),
        (peer(1009, DECIDERS, login=1001), Role.NONE),
        (peer(0, login=1009), Role.ROOT),
    ],
)
def test_the_role_follows_from_the_groups_and_a_suspect_has_none(who: Peer, role: Role) -> None:
    assert held(who, GROUPS, {1009}) is role
    assert held(who, Groups(), {1009}) is (role if role is Role.ROOT else Role.NONE)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("call", [*NEEDS, "umount", "attic_purge", "nonsense", ""])
def test_each_call_needs_its_role(call: str, role: Role) -> None:
    if role is not Role.NONE and role >= NEEDS.get(call, Role.ROOT):
        check(role, call, {})
    else:
        with pytest.raises(NotAllowed):
            check(role, call, {})


def test_every_decision_waits_for_two_persons_or_gives_nothing_free() -> None:
    """Whoever adds a call has to say which; `decide` is refused then, as what nobody can propose is."""
    decisions = {call for call, role in NEEDS.items() if role is Role.DECIDE}
    assert decisions - {"decide"} == {*VERDICTS, *ALONE}


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("malicious", {"uid": 1, "no_evidence": True}),
        ("malicious", {"uid": 1, "evidence": "/etc/cron.d/x"}),
        ("decide", {"uid": 1, "main": [1], "evidence": "/etc/cron.d/x"}),
        ("resolve", {"uid": 1, "using": "external", "options": ["command=id"]}),
        ("markers", {"uid": 1, "using": "external", "options": ["command=id"]}),
    ],
)
def test_what_reaches_beyond_the_mount_is_roots(call: str, args: Mapping[str, object]) -> None:
    check(Role.ROOT, call, args)
    with pytest.raises(NotAllowed, match="only root"):
        check(Role.DECIDE, call, args)


def test_who_is_never_isolated(tmp_path: Path) -> None:
    defs = tmp_path / "login.defs"
    never.check(1000, Access(), str(defs))
    for uid, access, why in (
        (0, Access(system_accounts=False), "root"),
        (999, Access(), r"system account \(below 1000\).*access\.system_accounts"),
        (4001, Access(never=("4001",)), "4001 is never.*access.never"),
        (1, Access(never=("daemon",), system_accounts=False), "daemon is never.*access.never"),
    ):
        with pytest.raises(NotAllowed, match=why):
            never.check(uid, access, str(defs))
    never.check(999, Access(system_accounts=False), str(defs))
    for uid in (-1, 2**32 - 1, 10**30):
        with pytest.raises(UsageError, match="not a uid"):
            never.check(uid, Access(), str(defs))


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("", 1000),
        ("UID_MIN 500\n", 500),
        ("# UID_MIN 500\n UID_MIN\t\t 2000  # people\nUID_MAX 3000\n", 2000),
        ("UID_MIN 1000\nSYS_UID_MAX 499\n", 500),
        ("UID_MIN many\n\xff\n", 1000),
    ],
)
def test_the_machine_says_which_accounts_are_its_own(tmp_path: Path, text: str, first: int) -> None:
    defs = tmp_path / "login.defs"
    defs.write_bytes(text.encode("latin-1"))
    assert never.first_of_people(str(defs)) == first


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('observe = "no-such-group"', "observe names 'no-such-group', and there is no such group"),
        ('decide = "a\\u0000b"', "decide names"),
        ("decide = 7", "decide must be a text"),
        ('never = ["root", "no-such-user"]', "never names 'no-such-user', and there is no such user"),
        ('never = ["4294967295"]', "never names 4294967295, which is not a uid"),
        ("two_person = 1", "two_person must be true or false"),
    ],
)
def test_groups_and_users_that_do_not_exist_are_an_error(line: str, why: str) -> None:
    with pytest.raises(BadConfiguration) as refused:
        settings(document.read(f"attic_days = 3\n[access]\n{line}\n", "c.toml"))
    assert str(refused.value).startswith(f"c.toml, line 3: {why}")


def test_groups_and_users_that_exist_are_taken() -> None:
    text = '[access]\nobserve = "daemon"\ndecide = "root"\nnever = ["root", "4001"]\n'
    found = settings(document.read(text)).access
    assert found == Access(observe="daemon", decide="root", never=("root", "4001"))
