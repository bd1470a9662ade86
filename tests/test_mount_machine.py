"""A real mount against directories of the host: the same calls by the same users, errno for errno.

Main has a twin, on which every call of a trusted user is made as well; the two are the same after every step. Each
suspect has a twin too, begun as a copy of main's. The tree has fixed directories at its top; a trusted call below
some that the suspect has not changed is made on the suspect's twin as well, and the view and its twin stay the same.
Where both change things below one, the twin is of no use any more (`torn`), and only main's side is compared.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from support.mount import ALICE, BOB, CAROL, DAVE, Mounted, Person, Worker, portrait

pytestmark = pytest.mark.mount

PEOPLE = (BOB, DAVE, ALICE, CAROL)
TOPS = ("p", "q", "r")

#: Groups that several people are in beside their own.
TEAM, CREW = 64001, 64002
GROUPS = {BOB: (TEAM,), DAVE: (CREW,), ALICE: (TEAM, CREW), CAROL: (CREW,)}

_OWNER, _USER, _OWNING, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32


def _acl(*entries: tuple[int, int, int]) -> bytes:
    """An access control list as the kernel takes it: entries of (kind, rights, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


#: One person more, one less, groups that share and groups that do not, and a list that says no more than a mode.
ACLS = (
    _acl((_OWNER, 7, 0), (_USER, 7, ALICE), (_OWNING, 5, 0), (_GROUP, 7, CREW), (_MASK, 7, 0), (_OTHER, 5, 0)),
    _acl((_OWNER, 6, 0), (_USER, 0, BOB), (_OWNING, 4, 0), (_MASK, 5, 0), (_OTHER, 4, 0)),
    _acl((_OWNER, 7, 0), (_OWNING, 0, 0), (_GROUP, 7, TEAM), (_GROUP, 1, CREW), (_MASK, 3, 0), (_OTHER, 0, 0)),
    _acl((_OWNER, 7, 0), (_OWNING, 5, 0), (_OTHER, 0, 0)),
)

_libc = ctypes.CDLL(None, use_errno=True)
_HERE = -100

#: What a worker process has open, by number.
_open: dict[int, int] = {}

#: A call: its name and arguments; paths are relative to a root.
Call = tuple[Any, ...]


def _write_at(path: str, flags: int, offset: int, data: bytes, mode: int) -> int:
    opened = os.open(path, flags, mode)
    try:
        return os.pwrite(opened, data, offset)
    finally:
        os.close(opened)


def _read_all(path: str) -> bytes:
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(opened, 1 << 16)
    finally:
        os.close(opened)


def _rename(old: str, new: str, flags: int) -> None:
    if _libc.renameat2(_HERE, os.fsencode(old), _HERE, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def _keep(number: int, path: str, flags: int) -> None:
    _open[number] = os.open(path, flags, 0o644)


def _facts(path: str) -> list[Any]:
    at = os.stat(path)
    return [oct(at.st_mode), at.st_uid, at.st_gid, at.st_nlink, at.st_size if not os.path.isdir(path) else None]


def _acl_name(default: int) -> str:
    return "system.posix_acl_default" if default else "system.posix_acl_access"


def perform(root: str, call: Call) -> Any:
    """Make one call below a root; returns what it returns, or its errno as a negative number."""
    name, *args = call
    at: list[Any] = [f"{root}/{arg}" if isinstance(arg, str) and name != "xattr" else arg for arg in args]
    calls: dict[str, Callable[[], Any]] = {
        "write": lambda: _write_at(*at),
        "read": lambda: _read_all(at[0]),
        "stat": lambda: _facts(at[0]),
        "list": lambda: sorted(os.listdir(at[0])),
        "mkdir": lambda: os.mkdir(at[0], at[1]),
        "rmdir": lambda: os.rmdir(at[0]),
        "unlink": lambda: os.unlink(at[0]),
        "rename": lambda: _rename(at[0], at[1], at[2]),
        "link": lambda: os.link(at[0], at[1], follow_symlinks=False),
        "symlink": lambda: os.symlink(os.path.basename(at[0]), at[1]),
        "fifo": lambda: os.mkfifo(at[0], at[1]),
        "chmod": lambda: os.chmod(at[0], at[1]),
        "chown": lambda: os.chown(at[0], -1, at[1]),
        "give": lambda: os.chown(at[0], at[1], -1),
        "acl": lambda: os.setxattr(at[0], _acl_name(at[1]), ACLS[at[2]]),
        "no acl": lambda: os.removexattr(at[0], _acl_name(at[1])),
        "read acl": lambda: os.getxattr(at[0], _acl_name(at[1])),
        "utime": lambda: os.utime(at[0], ns=(at[1], at[1]), follow_symlinks=False),
        "truncate": lambda: os.truncate(at[0], at[1]),
        "xattr": lambda: os.setxattr(f"{root}/{args[0]}", "user.mark", args[1].encode()),
        "no xattr": lambda: os.removexattr(at[0], "user.mark"),
        "open": lambda: _keep(args[0], at[1], args[2]),
        "pwrite": lambda: os.pwrite(_open[args[0]], args[1], args[2]),
        "pread": lambda: os.pread(_open[args[0]], 1 << 16, 0),
        "fchmod": lambda: os.fchmod(_open[args[0]], args[1]),
        "ftruncate": lambda: os.ftruncate(_open[args[0]], args[1]),
        "size": lambda: os.fstat(_open[args[0]]).st_size,
        "close": lambda: os.close(_open.pop(args[0])),
    }
    try:
        return calls[name]()
    except OSError as error:
        return -(error.errno or 0)


NAMES = st.sampled_from(("a", "b", "c"))
PATHS = st.one_of(
    st.builds("/".join, st.tuples(st.sampled_from(TOPS), NAMES)),
    st.builds("/".join, st.tuples(st.sampled_from(TOPS), NAMES, NAMES)),
)
MODES = st.sampled_from((0o666, 0o644, 0o600, 0o777, 0o755, 0o700, 0o2775, 0o1777, 0o444))
DATA = st.sampled_from((b"x", b"some text\n", b"y" * 5000))
OPENING = st.sampled_from(
    (os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.O_WRONLY | os.O_TRUNC | os.O_CREAT, os.O_RDWR)
)
TIMES = st.integers(0, 10**18)

CALLS: st.SearchStrategy[Call] = st.one_of(
    st.tuples(st.just("write"), PATHS, OPENING, st.sampled_from((0, 3, 9000)), DATA, MODES),
    st.tuples(st.sampled_from(("read", "stat", "list", "rmdir", "unlink", "no xattr")), PATHS),
    st.tuples(st.sampled_from(("mkdir", "mkdir", "chmod", "fifo")), PATHS, MODES),
    st.tuples(st.just("rename"), PATHS, PATHS, st.sampled_from((0, 0, 0, 1, 2))),
    st.tuples(st.sampled_from(("link", "symlink")), PATHS, PATHS),
    st.tuples(st.just("chown"), PATHS, st.sampled_from((*PEOPLE, TEAM, CREW, TEAM, CREW))),
    st.tuples(st.just("give"), PATHS, st.sampled_from(PEOPLE)),
    st.tuples(st.just("acl"), PATHS, st.sampled_from((0, 1, 1)), st.integers(0, len(ACLS) - 1)),
    st.tuples(st.sampled_from(("no acl", "read acl")), PATHS, st.sampled_from((0, 1))),
    st.tuples(st.just("utime"), PATHS, TIMES),
    st.tuples(st.just("truncate"), PATHS, st.sampled_from((0, 4, 6000))),
    st.tuples(st.just("xattr"), PATHS, st.sampled_from(("1", "2"))),
)

#: What a tree begins with, made by the people in turn.
FURNITURE: tuple[Call, ...] = (
    ("write", "p/a", os.O_WRONLY | os.O_CREAT, 0, b"some text\n", 0o666),
    ("write", "p/c", os.O_WRONLY | os.O_CREAT, 0, b"some text\n", 0o644),
    ("mkdir", "p/b", 0o777),
    ("write", "p/b/a", os.O_WRONLY | os.O_CREAT, 0, b"z" * 5000, 0o666),
    ("write", "q/a", os.O_WRONLY | os.O_CREAT, 3, b"x", 0o666),
    ("link", "q/a", "q/b"),
    ("mkdir", "q/c", 0o2777),
    ("symlink", "q/a", "q/c/a"),
    ("write", "q/c/b", os.O_WRONLY | os.O_CREAT, 0, b"x", 0o666),
    ("mkdir", "r/a", 0o1777),
    ("write", "r/a/a", os.O_WRONLY | os.O_CREAT, 0, b"x", 0o600),
    ("mkdir", "r/b", 0o700),
    ("xattr", "p/b/a", "1"),
    ("acl", "r/a", 1, 2),
    ("acl", "q/c", 1, 0),
    ("write", "q/c/c", os.O_WRONLY | os.O_CREAT, 0, b"x", 0o666),
    ("chown", "p/a", TEAM),
    ("mkdir", "q/c/d", 0o777),
    ("acl", "p/b", 1, 1),
    ("read acl", "q/c/c", 0),
    ("acl", "q/a", 0, 0),
    ("chmod", "r/a", 0o3777),
    ("chown", "p/b", CREW),
    ("write", "q/c/d/a", os.O_WRONLY | os.O_CREAT, 0, b"x", 0o660),
    ("chmod", "p/a", 0o2664),
    ("list", "q/c"),
    ("utime", "q/c", 10**17 + 1),
)

#: Ways in which files are kept open. Not for reading and writing: `suspect` kills who has such a file open.
KEPT = st.sampled_from((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_CREAT))


def tops(call: Call) -> set[str]:
    """The directories at the top that a call has to do with."""
    name, *args = call
    paths = args[:1] if name == "xattr" else [arg for arg in args if isinstance(arg, str)]
    return {path.split("/")[0] for path in paths}


def within(call: Call, where: list[str]) -> Call:
    """The same call below other directories at the top."""

    def moved(path: str) -> str:
        top, _, rest = path.partition("/")
        return f"{where[TOPS.index(top) % len(where)]}/{rest}"

    return tuple(moved(arg) if isinstance(arg, str) and "/" in arg else arg for arg in call)


READING = {"read", "stat", "list", "read acl", "pread", "size", "close"}


@dataclass
class View:
    """A suspect's twin: which directories at the top the suspect changed, and where the twin is of no use."""

    twin: Path
    changed: set[str] = field(default_factory=set)
    torn: set[str] = field(default_factory=set)

    def tear(self, more: set[str]) -> None:
        self.torn |= more


@dataclass
class Kept:
    """A file kept open by a user, on the mount and on a twin, and the directories at the top it may be in."""

    number: int
    uid: int
    twin: str
    tops: set[str]


@dataclass
class World:
    """What all examples share: the mount, the people, and where the twins are."""

    mount: Mounted
    twins: Path
    people: dict[int, Person]
    root: Worker


class Machine(RuleBasedStateMachine):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.mount = world, world.mount
        self.main = world.twins / "main"
        self.views: dict[int, View] = {}
        self.kept: list[Kept] = []
        self.ties: list[set[str]] = []  # directories at the top that may have names of the same file
        self.numbers = 0

    @initialize(suspects=st.sampled_from(((ALICE,), (CAROL,), (ALICE, CAROL), (CAROL, ALICE))))
    def begin(self, suspects: tuple[int, ...]) -> None:
        """A tree with something of everything, and a suspicion or two."""
        for root in (self.mount.path, self.main):
            root.mkdir(exist_ok=True)
            root.chmod(0o777)
            for top in TOPS:
                (root / top).mkdir()
                (root / top).chmod(0o777 if top != "r" else 0o3777)
        self.backing = str(self.mount.backing)
        for number, call in enumerate(FURNITURE):
            done = self._make(PEOPLE[number % len(PEOPLE)], call, tops(call))
            assert not (isinstance(done, int) and done < 0), call
        for uid in suspects:
            self._suspect(uid)

    def teardown(self) -> None:
        self._close_all()
        for uid in self.views:
            self.mount.ask("malicious", uid=uid)
        for root in (self.mount.path, *self.world.twins.iterdir()):
            for top in TOPS:
                shutil.rmtree(root / top, ignore_errors=True)
        for twin in self.world.twins.iterdir():
            shutil.rmtree(twin)
        left = self.mount.ask("check")
        assert left["ok"], left
        assert left["checked"]["objects"] == 0, left

    def _twin(self, uid: int) -> Path:
        return self.views[uid].twin if uid in self.views else self.main

    def _make(self, uid: int, call: Call, where: set[str]) -> Any:
        """Make a call on the mount and on the twins that it concerns, and compare; returns what it returns."""
        where = self._with_tied(where)
        person = self.world.people[uid]
        seen = person(perform, str(self.mount.path), call)
        expected = person(perform, str(self._twin(uid)), call)
        if len(tops(call)) > 1 and seen is None:
            self.ties.append(tops(call))
        view = self.views.get(uid)
        changes = call[0] not in READING
        if view is not None:
            if view.torn & where:
                assert seen != -5, call
                if changes:
                    view.torn |= where
                    view.changed |= where
                return seen
            if changes:
                view.changed |= where
        assert seen == expected, (uid, call)
        if view is None and changes:
            for other in self.views.values():
                self._follow(other, person, call, where)
        return seen

    def _with_tied(self, where: set[str]) -> set[str]:
        """A file may have other names elsewhere: what is changed here is changed there."""
        found = set(where)
        for tie in self.ties * 2:
            found |= tie if tie & found else set()
        return found

    def _follow(self, view: View, person: Person, call: Call, where: set[str]) -> None:
        """A trusted user's change: a suspect that changed nothing there sees it."""
        if where & (view.changed | view.torn):
            view.tear(where)
        else:
            person(perform, str(view.twin), call)

    @rule(uid=st.sampled_from(PEOPLE), calls=st.lists(CALLS, min_size=1, max_size=3))
    def calls_anywhere(self, uid: int, calls: list[Call]) -> None:
        for call in calls:
            self._make(uid, call, tops(call))

    @rule(uid=st.sampled_from((BOB, DAVE)), calls=st.lists(CALLS, min_size=1, max_size=3))
    def trusted_calls_apart(self, uid: int, calls: list[Call]) -> None:
        """Where no suspect has changed anything, so that their twins stay of use."""
        used = set[str]().union(*(view.changed | view.torn for view in self.views.values()))
        self._make_within(uid, calls, [top for top in TOPS if top not in used])

    @precondition(lambda self: self.views)
    @rule(last=st.booleans(), calls=st.lists(CALLS, min_size=3, max_size=8))
    def suspicious_calls(self, last: bool, calls: list[Call]) -> None:
        """Where the suspect's twin is of use."""
        uid = list(self.views)[-1 if last else 0]
        self._make_within(uid, calls, [top for top in TOPS if top not in self.views[uid].torn])

    def _make_within(self, uid: int, calls: list[Call], where: list[str]) -> None:
        for call in calls if where else ():
            call = within(call, where)
            self._make(uid, call, tops(call))

    @rule(uid=st.sampled_from(PEOPLE), path=PATHS, flags=KEPT)
    def keep_open(self, uid: int, path: str, flags: int) -> None:
        where = tops(("open", path))
        view = self.views.get(uid)
        if view is not None and view.torn & where:
            return
        if flags & os.O_CREAT:
            self._make(uid, ("write", path, flags, 0, b"", 0o644), where)
        person, twin = self.world.people[uid], self._twin(uid)
        self.numbers += 2
        seen = person(perform, str(self.mount.path), ("open", self.numbers, path, flags))
        expected = person(perform, str(twin), ("open", self.numbers + 1, path, flags))
        assert seen == expected, (uid, path, flags)
        if seen is None:
            self.kept.append(Kept(self.numbers, uid, str(twin), where))

    @rule(
        which=st.integers(0, 1000),
        call=st.sampled_from(
            (("pread",), ("size",), ("pwrite", b"kept", 2), ("ftruncate", 1), ("ftruncate", 7000), ("close",))
        ),
    )
    def use_kept(self, which: int, call: Call) -> None:
        if not self.kept:
            return
        kept = self.kept[which % len(self.kept)]
        person, view = self.world.people[kept.uid], self.views.get(kept.uid)
        name, *args = call
        seen = person(perform, "", (name, kept.number, *args))
        expected = person(perform, "", (name, kept.number + 1, *args))
        if name == "close":
            self.kept.remove(kept)
        if view is not None and view.torn:
            return
        assert seen == expected, (kept, call)
        if name in READING:
            return
        if view is not None:
            view.changed |= set(TOPS)
        for other in self.views.values():
            if other is not view and view is None:
                other.tear(set(TOPS))

    def _close_all(self) -> None:
        for kept in self.kept:
            for number in (kept.number, kept.number + 1):
                self.world.people[kept.uid](perform, "", ("close", number))
        self.kept = []

    def _suspect(self, uid: int) -> None:
        self._close_all()
        self.mount.ask("suspect", uid=uid, user=str(uid))
        view = self.views[uid] = View(self.world.twins / str(uid))
        view.twin.mkdir()
        view.twin.chmod(0o777)
        _copy(self.main, view.twin, TOPS)

    @precondition(lambda self: len(self.views) < 2)
    @rule()
    def suspect(self) -> None:
        self._suspect(ALICE if ALICE not in self.views else CAROL)

    @precondition(lambda self: any(view.changed | view.torn for view in self.views.values()))
    @rule(guilty=st.booleans(), last=st.booleans())
    def verdict(self, guilty: bool, last: bool) -> None:
        uids = [uid for uid, view in self.views.items() if view.changed | view.torn]
        uid = uids[-1 if last else 0]
        self._close_all()
        (self._malicious if guilty else self._innocent)(uid)

    def _malicious(self, uid: int) -> None:
        """Main is what it was (the invariant sees to that), and the suspect sees it."""
        self.mount.ask("malicious", uid=uid)
        shutil.rmtree(self.views.pop(uid).twin)

    def _innocent(self, uid: int) -> None:
        """Main is what the suspect saw, unless both had changed it: then nothing is known but that main is sound."""
        done = self.mount.ask("innocent", uid=uid)
        view = self.views.pop(uid)
        if view.torn:
            if done["conflicts"]:
                self.mount.ask("malicious", uid=uid)
            _copy(self.mount.path, self.main, TOPS)
        else:
            assert not done["conflicts"], done
            assert not any(item["as"] for item in done["items"]), done
            _copy(view.twin, self.main, TOPS)
        shutil.rmtree(view.twin)
        merged = view.changed | view.torn
        for other in self.views.values():
            if merged & (other.changed | other.torn):
                other.tear(merged)
            else:
                _copy(self.main, other.twin, tuple(sorted(merged)))

    @invariant()
    def main_is_its_twin(self) -> None:
        """Disclosure: for root through the mount, in the directory itself, and for a trusted user."""
        if not self.main.exists():
            return
        expected = portrait(str(self.main))
        assert self.world.root(portrait, str(self.mount.path)) == expected
        assert portrait(self.backing, ".isofs") == expected
        bob = self.world.people[BOB]
        assert bob(portrait, str(self.mount.path)) == bob(portrait, str(self.main))

    @invariant()
    def views_are_their_twins(self) -> None:
        """Consistency: what nobody else changed meanwhile is as the suspect left it."""
        for uid, view in self.views.items():
            person = self.world.people[uid]
            seen, expected = person(portrait, str(self.mount.path)), person(portrait, str(view.twin))
            assert _without(seen, view.torn) == _without(expected, view.torn)

    @invariant()
    def sound(self) -> None:
        if self.main.exists():
            self.mount.check()


def _without(tree: dict[str, Any], gone: set[str]) -> dict[str, Any]:
    return {path: row for path, row in tree.items() if path.split("/")[0] not in gone}


def _copy(source: Path, to: Path, names: tuple[str, ...]) -> None:
    """Make these directories of `to` what they are in `source`; links between them stay links."""
    if not names:
        return
    for name in names:
        shutil.rmtree(to / name, ignore_errors=True)
    subprocess.run(["cp", "-a", *(str(source / name) for name in names), str(to)], check=True)


def test_mount_and_host_agree(mount: Mounted, place: Path) -> None:
    """Two trusted users and two suspects at work, with verdicts in between."""
    twins = place / "twins"
    twins.mkdir()
    people = {uid: Person(uid, mount.path, groups=GROUPS[uid]) for uid in PEOPLE}
    world = World(mount, twins, people, Worker(0))
    try:
        run_state_machine_as_test(
            lambda: Machine(world),  # type: ignore[arg-type]  # it takes what makes one as well
            settings=settings(max_examples=9, stateful_step_count=30),
        )
    finally:
        for one in (*people.values(), world.root):
            one.close()
