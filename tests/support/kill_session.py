"""The scripted session of the kill tests: calls of two suspects and of trusted users, then both verdicts.

A user is anything with the calls of `support.vfs.Vfs`: on the unmounted engine or on a mount. Each yield says that
one call was answered; what was answered must survive whatever comes after.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from support.mount import ALICE, BOB, CAROL
from support.vfs import EXCHANGE

#: Everybody whose view is looked at, with their names in the session.
USERS = {"alice": ALICE, "bob": BOB, "carol": CAROL}

#: An old time, so that it is compared.
OLD = 1_200_000_000_000_000_000


class Operator(NamedTuple):
    """What the administrator does, by uid."""

    suspect: Callable[[int], object]
    innocent: Callable[[int], object]
    malicious: Callable[[int], object]


class Session(NamedTuple):
    """Who takes part."""

    operator: Operator
    alice: Any
    bob: Any
    carol: Any


def build(root: Path) -> None:
    """What main has before: everybody may do everything in it but change what belongs to others."""
    for name in ("docs", "conf", "pics", "attic", "hollow", "closet"):
        (root / name).mkdir()
    for name in ("report", "plan", "old", "saved", "shared", "twice", "both-delete", "notes"):
        _file(root / "docs" / name, f"{name} of main\n" * 20)
    os.link(root / "docs/notes", root / "docs/notes-link")
    for name in ("conf/a", "conf/b", "pics/p1", "pics/p2", "log", "closet/shirt"):
        _file(root / name, f"{name} of main\n" * 5)
    (root / "latest").symlink_to("docs/report")
    os.setxattr(root / "docs/plan", "user.origin", b"main")
    for above, directories, files in os.walk(root):
        for name in [*directories, *files]:
            at = os.path.join(above, name)
            owner = BOB if name in ("twice", "shared") else ALICE
            os.chown(at, owner, owner, follow_symlinks=False)
            if name in directories:
                os.chmod(at, 0o777)
        if ".isofs" in directories:
            directories.remove(".isofs")
    root.chmod(0o777)


def _file(at: Path, text: str) -> None:
    at.write_text(text)
    at.chmod(0o666)
    os.utime(at, ns=(OLD, OLD))


def _write(user: Any, path: bytes, data: bytes, flags: int = os.O_WRONLY) -> Iterator[None]:
    """Open, write, close: three calls."""
    opened = user.open(path, flags, 0o644)
    yield
    opened.write(0, data)
    yield
    opened.close()
    yield


def _save(user: Any, path: bytes, data: bytes) -> Iterator[None]:
    """As editors do: a new file, renamed over the old one."""
    new = os.path.join(os.path.dirname(path), b".new")
    yield from _write(user, new, data, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    user.rename(new, path)
    yield


def _each(*calls: Callable[[], object]) -> Iterator[None]:
    for call in calls:
        call()
        yield


def play(s: Session) -> Iterator[None]:
    """The whole session, a call at a time."""
    alice, bob, carol = s.alice, s.bob, s.carol
    yield from _each(lambda: s.operator.suspect(ALICE))
    yield from _suspect_changes(alice)
    yield from _each(lambda: s.operator.suspect(BOB))
    yield from _other_suspect_changes(bob)
    yield from _trusted_changes(carol)
    yield from _suspect_goes_on(alice, bob)
    yield from _each(lambda: s.operator.innocent(ALICE))
    yield from _write(carol, b"log", b"after the first verdict\n", os.O_WRONLY | os.O_APPEND)
    yield from _write(alice, b"docs/plan2", b"alice, trusted again\n")
    yield from _write(bob, b"docs/new-of-bob", b"bob goes on\n")
    yield from _each(lambda: s.operator.malicious(BOB))
    yield from _write(bob, b"log", b"bob, trusted again\n", os.O_WRONLY | os.O_APPEND)


def _suspect_changes(alice: Any) -> Iterator[None]:
    yield from _write(alice, b"docs/report", b"alice's report\n", os.O_WRONLY | os.O_TRUNC)
    yield from _write(alice, b"docs/new", b"made by alice\n", os.O_WRONLY | os.O_CREAT)
    yield from _each(
        lambda: alice.mkdir(b"box"),
        lambda: alice.mkdir(b"box/in"),
        lambda: alice.rename(b"docs/plan", b"docs/plan2"),
        lambda: alice.unlink(b"docs/old"),
        lambda: alice.unlink(b"docs/both-delete"),
        lambda: alice.rmdir(b"hollow"),
        lambda: alice.link(b"docs/notes", b"docs/notes3"),
        lambda: alice.symlink(b"docs/new", b"box/soft"),
        lambda: alice.mkfifo(b"box/pipe"),
        lambda: alice.set_xattr(b"docs/plan2", "user.seen", b"alice"),
        lambda: alice.remove_xattr(b"docs/plan2", "user.origin"),
        lambda: alice.utime(b"docs/plan2", OLD + 1),
        lambda: alice.truncate(b"conf/b", 7),
        lambda: alice.rename(b"conf/a", b"conf/b", EXCHANGE),
        lambda: alice.rename(b"pics", b"photos"),
        lambda: alice.chmod(b"photos", 0o755),
        lambda: alice.mkdir(b"both"),
        lambda: alice.unlink(b"closet/shirt"),
        lambda: alice.rmdir(b"closet"),
    )
    yield from _write(alice, b"docs/notes3", b"through the third name\n")
    yield from _write(alice, b"photos/p3", b"a new picture\n", os.O_WRONLY | os.O_CREAT)
    yield from _write(alice, b"attic/mine", b"in a directory that will go\n", os.O_WRONLY | os.O_CREAT)
    yield from _write(alice, b"both/hers", b"alice's\n", os.O_WRONLY | os.O_CREAT)
    yield from _write(alice, b"same", b"alice's same\n", os.O_WRONLY | os.O_CREAT)
    yield from _save(alice, b"docs/saved", b"saved by alice\n")


def _other_suspect_changes(bob: Any) -> Iterator[None]:
    yield from _save(bob, b"docs/saved", b"saved by bob\n")
    yield from _write(bob, b"docs/shared", b"bob's end\n", os.O_WRONLY | os.O_APPEND)
    yield from _write(bob, b"docs/report", b"bob's report\n", os.O_RDWR)
    yield from _each(
        lambda: bob.unlink(b"conf/a"),
        lambda: bob.mkfifo(b"bobs-pipe"),
        lambda: bob.rename(b"docs/twice", b"pics/twice"),
        lambda: bob.chmod(b"docs/shared", 0o600),
    )
    yield from _write(bob, b"docs/new-of-bob", b"made by bob\n", os.O_WRONLY | os.O_CREAT)


def _trusted_changes(carol: Any) -> Iterator[None]:
    yield from _save(carol, b"docs/saved", b"saved by carol\n")
    yield from _write(carol, b"log", b"carol was here\n", os.O_WRONLY | os.O_APPEND)
    yield from _write(carol, b"conf/b", b"carol's b\n")
    yield from _each(
        lambda: carol.unlink(b"docs/report"),
        lambda: carol.unlink(b"docs/both-delete"),
        lambda: carol.rename(b"docs/shared", b"docs/shared-moved"),
        lambda: carol.rmdir(b"attic"),
        lambda: carol.unlink(b"docs/notes-link"),
        lambda: carol.truncate(b"docs/twice", 3),
        lambda: carol.mkdir(b"both"),
        lambda: carol.rename(b"conf", b"settings"),
    )
    yield from _write(carol, b"both/theirs", b"carol's\n", os.O_WRONLY | os.O_CREAT)
    yield from _write(carol, b"same", b"carol's same\n", os.O_WRONLY | os.O_CREAT)
    yield from _write(carol, b"docs/report", b"a new report\n", os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def _suspect_goes_on(alice: Any, bob: Any) -> Iterator[None]:
    yield from _write(alice, b"attic/mine", b"still there\n", os.O_WRONLY | os.O_TRUNC)
    yield from _each(
        lambda: alice.rename(b"box/in", b"docs/in"),
        lambda: alice.unlink(b"box/pipe"),
        lambda: alice.unlink(b"docs/new"),
        lambda: bob.unlink(b"docs/report"),
        lambda: bob.rename(b"pics/p1", b"pics/p2"),
    )
    yield from _write(bob, b"settings/b", b"bob's b\n")
