"""The marks of risk: every rule by a table, and all of them on a mount."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from isofs.engine.facts import SAMPLE
from isofs.model import risks
from isofs.model.risks import ENOUGH, MASS_NUMBER, Facts, Side, Totals
from support.mount import ALICE, BOB, Mounted, Person, as_user

FILE = Side(stat.S_IFREG | 0o644, 1, 1)
LINK = Side(stat.S_IFLNK | 0o777, 1, 1, target=b"x")
DIRECTORY = Side(stat.S_IFDIR | 0o755, 1, 1)
TEXT = b"It was a bright cold day in April, and the clocks were striking thirteen.\n" * 20
NOISE = Random(1).randbytes(4 * SAMPLE)


def with_mode(mode: int, side: Side = FILE) -> Side:
    return replace(side, mode=side.mode | mode)


def modified(old: Side, new: Side, path: bytes = b"f") -> Facts:
    return Facts("modified", path, old, new)


def added(new: Side, path: bytes = b"f", old: Side | None = None, replaced: int | None = None) -> Facts:
    return Facts("added", path, old, new, replaced)


def read(old: bytes, new: bytes) -> Facts:
    return modified(replace(FILE, sample=old), replace(FILE, sample=new))


CASES: list[tuple[Facts, list[str]]] = [
    (modified(FILE, FILE), []),
    (added(FILE), []),
    (added(DIRECTORY), []),
    (Facts("deleted", b"f", FILE, None), []),
    (Facts("modified", b"f", None, None), []),
    (modified(FILE, with_mode(0o4000)), ["setuid"]),
    (modified(with_mode(0o4000), with_mode(0o4000)), []),
    (added(with_mode(0o4111)), ["setuid", "new-executable"]),
    (added(with_mode(0o4111), old=with_mode(0o4111)), ["setuid", "new-executable"]),
    (modified(FILE, with_mode(0o2000)), ["setgid"]),
    (modified(DIRECTORY, with_mode(0o2000, DIRECTORY)), []),
    (added(with_mode(0o2000, DIRECTORY)), []),
    (modified(FILE, replace(FILE, capabilities=b"c")), ["capabilities"]),
    (modified(replace(FILE, capabilities=b"c"), replace(FILE, capabilities=b"d")), ["capabilities"]),
    (modified(replace(FILE, capabilities=b"c"), FILE), []),
    (modified(FILE, with_mode(0o100)), ["exec"]),
    (modified(FILE, with_mode(0o001)), ["exec"]),
    (modified(with_mode(0o100), with_mode(0o111)), []),
    (modified(DIRECTORY, with_mode(0o111, DIRECTORY)), []),
    (added(with_mode(0o010)), ["new-executable"]),
    (modified(FILE, replace(FILE, uid=2)), ["owner"]),
    (modified(FILE, replace(FILE, gid=2)), ["owner"]),
    (added(FILE, old=replace(FILE, uid=2)), []),
    (modified(FILE, replace(FILE, acl=b"a")), ["acl"]),
    (modified(DIRECTORY, replace(DIRECTORY, acl=b"a")), ["acl"]),
    (added(LINK), []),
    (added(replace(LINK, target=b"/etc/passwd")), ["link-leaves"]),
    (added(replace(LINK, target=b"../x"), b"d/l"), []),
    (added(replace(LINK, target=b"../../x"), b"d/l"), ["link-leaves"]),
    (added(replace(LINK, target=b"a/../../x")), ["link-leaves"]),
    (added(replace(LINK, target=b"a//./../b/..")), []),
    (modified(replace(LINK, target=b"/a"), replace(LINK, target=b"/a")), []),
    (modified(LINK, replace(LINK, target=b"/a")), ["link-leaves"]),
    (Facts("renamed", b"l", replace(LINK, target=b"../x"), replace(LINK, target=b"../x")), ["link-leaves"]),
    (added(LINK, replaced=stat.S_IFREG), ["type"]),
    (added(FILE, b".hidden"), ["dotfile"]),
    (added(FILE, b"d/.hidden"), ["dotfile"]),
    (added(FILE, b".d/seen"), []),
    (added(FILE, b"home/.bashrc"), ["startup", "dotfile"]),
    (Facts("deleted", b".profile", FILE, None), ["startup", "dotfile"]),
    (read(TEXT, NOISE), ["encrypted"]),
    (read(TEXT, NOISE[:ENOUGH]), ["encrypted"]),
    (read(TEXT, NOISE[: ENOUGH - 1]), []),
    (read(TEXT, TEXT + b"more"), []),
    (read(NOISE, NOISE[::-1]), []),
    (read(b"", NOISE), []),
    (read(TEXT + b"\0", NOISE), []),
    (modified(FILE, replace(FILE, sample=NOISE)), []),
    (added(replace(FILE, sample=NOISE), b"f.locked", replace(FILE, sample=TEXT)), ["encrypted"]),
]


@pytest.mark.parametrize(("facts", "expected"), CASES)
def test_the_rules(facts: Facts, expected: list[str]) -> None:
    assert list(risks.marks(facts)) == expected


def test_every_rule_has_a_case_and_words() -> None:
    assert {name for _, expected in CASES for name in expected} == {rule.name for rule in risks.RULES}
    names = [rule.name for rule in risks.RULES] + [rule.name for rule in risks.WHOLE]
    assert len(set(names)) == len(names) == len(risks.WORDS)


@pytest.mark.parametrize(
    "path",
    [
        ".bashrc",
        "a/.profile",
        ".zshrc",
        ".ssh/authorized_keys",
        ".ssh/rc",
        "x.service",
        "a/b.timer",
        "crontab",
        "etc/cron.d/x",
        "var/spool/cron/crontabs/alice",
        "etc/rc.local",
        ".git/hooks/pre-commit",
        "a/.git/config",
        ".gitattributes",
        "sitecustomize.py",
        "venv/lib/x.pth",
        ".vimrc",
        ".config/autostart/x.desktop",
        ".vscode/tasks.json",
        ".github/workflows/ci.yml",
    ],
)
def test_what_runs_unasked(path: str) -> None:
    assert risks.is_startup(path.encode())


@pytest.mark.parametrize(
    "path", ["bashrc", "x.bashrc", "mycrontab", ".gitignore", ".git/HEAD", "service", "a.pth.txt", "Makefile", ".ssh"]
)
def test_what_does_not(path: str) -> None:
    assert not risks.is_startup(path.encode())


def test_a_name_with_a_newline_hides_nothing() -> None:
    assert risks.is_startup(b"a\nb/.ssh/x\ny")
    assert not risks.is_startup(b".bashrc\n")


@pytest.mark.parametrize(
    ("deleted", "renamed", "modified", "expected"),
    [
        (0, 0, 0, ()),
        (MASS_NUMBER, 0, 0, ("mass-deletion",)),
        (MASS_NUMBER - 1, 0, 0, ()),
        (MASS_NUMBER, 0, 3 * MASS_NUMBER, ("mass-deletion",)),
        (MASS_NUMBER, 0, 3 * MASS_NUMBER + 1, ()),
        (0, MASS_NUMBER, 0, ("mass-renaming",)),
        (MASS_NUMBER, MASS_NUMBER, 0, ("mass-deletion", "mass-renaming")),
    ],
)
def test_mass(deleted: int, renamed: int, modified: int, expected: tuple[str, ...]) -> None:
    totals = Totals()
    for change, count in (("deleted", deleted), ("renamed", renamed), ("modified", modified)):
        for _ in range(count):
            totals.add(change)
    assert risks.whole(totals) == expected


@pytest.mark.mount
def test_the_marks_of_a_mount(mount: Mounted, person: Callable[[int], Person]) -> None:
    """What alice did is marked for what it is, in changes and in diff; what she only worked on is not."""
    alice, bob = person(ALICE), person(BOB)
    text = TEXT.decode()
    for name in ("plain", "ransomed", "locked", "became-link", "tool", "chgrp"):
        alice.write(name, text)
    alice.mkdir("many")
    for number in range(MASS_NUMBER):
        alice.write(f"many/{number}", "x")
    mount.facts("suspect", str(ALICE))
    assert bob.read("plain") == text
    alice.append("plain", "more\n")
    alice.remove("became-link")
    alice.remove("locked")
    mine, noise = str(mount.path), NOISE

    def work() -> None:
        for name in ("ransomed", "locked.enc"):
            with open(f"{mine}/{name}", "wb") as file:
                file.write(noise)
        os.symlink("/etc/shadow", f"{mine}/became-link")
        os.chmod(f"{mine}/tool", 0o4755)
        os.setxattr(f"{mine}/chgrp", "system.posix_acl_access", _acl(61002))
        for number in range(MASS_NUMBER):
            os.unlink(f"{mine}/many/{number}")
        with open(f"{mine}/.bashrc", "w") as file:
            file.write("evil")
        os.chmod(f"{mine}/.bashrc", 0o755)

    as_user(ALICE, work)
    facts = mount.facts("changes", str(ALICE))
    assert facts["risks"] == ["mass-deletion"]
    marked = {c["path"]: c["risks"] for c in facts["changes"] if c["risks"]}
    assert marked == {
        "ransomed": ["encrypted"],
        "locked.enc": ["encrypted"],
        "became-link": ["type", "link-leaves"],
        "tool": ["setuid", "exec"],
        "chgrp": ["acl"],
        ".bashrc": ["startup", "new-executable", "dotfile"],
    }
    shown = mount.isoctl("changes", str(ALICE)).out
    assert "tool  [setuid, exec]\n" in shown
    assert "risk  mass-deletion: many deletions\n" in shown
    diff = mount.facts("diff", str(ALICE), "tool", "plain")
    assert {e["path"]: e["risks"] for e in diff["entries"]} == {"tool": ["setuid", "exec"], "plain": []}
    assert diff["risks"] == ["mass-deletion"]
    assert "# tool  [setuid, exec]\n" in mount.isoctl("diff", str(ALICE), "tool").out


def _acl(uid: int) -> bytes:
    """An access control list of Linux that lets another user write."""
    none = 0xFFFFFFFF
    rows = [(0x01, 6, none), (0x02, 6, uid), (0x04, 4, none), (0x10, 6, none), (0x20, 4, none)]
    return (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + who.to_bytes(4, "little") for tag, bits, who in rows
    )
