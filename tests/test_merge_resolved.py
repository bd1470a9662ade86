"""What resolvers make of both sides becomes main's, whole or not at all, and only of what main still is."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isofs.engine import checks, recovery
from isofs.merge import apply, config, resolving
from isofs.merge.report import Report
from isofs.merge.resolvers.attributes import Attributes, Joined, merge_attributes
from isofs.store.folder import open_store
from support.contest import Contest
from support.cuts import cut_off
from support.engine import Walker, killed

BASE = b"one\ntwo\nthree\nfour\nfive\n"
HERS = BASE.replace(b"five", b"alice's")
HIS = BASE.replace(b"one", b"bob's")
BOTH = HERS.replace(b"one", b"bob's")


class World(Contest):
    """Contest of one file, alice's and bob's."""

    def __init__(self, path: Path, *, links: int = 1) -> None:
        super().__init__(path, {"file": BASE})
        for number in range(1, links):
            os.link(path / "file", path / f"link-{number}")
        self.file, self.alice = path / "file", self.suspects["alice"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "main")
    yield world
    world.close()


def contest(world: World) -> None:
    world.write(world.alice, HERS)
    world.write(world.bob, HIS)


def test_both_sides_lines_are_merged(world: World) -> None:
    contest(world)
    planned = world.planned()
    report = world.innocent()
    assert world.file.read_bytes() == BOTH
    assert [(item.path, item.action) for item in report.items] == [(b"file", "merged")]
    assert report.items == planned
    assert not world.waiting()
    assert not os.listdir(world.path / ".isofs/versions")
    assert not checks.check(world.fs)


def test_the_merged_file_is_as_git_would_have_it(world: World, tmp_path: Path) -> None:
    contest(world)
    world.innocent()
    for name, content in (("his", HIS), ("base", BASE), ("hers", HERS)):
        (tmp_path / name).write_bytes(content)
    command = ["git", "merge-file", "-p", "his", "base", "hers"]
    git = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert world.file.read_bytes() == git.stdout


def test_attributes_are_merged_as_well(world: World) -> None:
    contest(world)
    world.alice.chmod(b"file", 0o755)
    world.bob.set_xattr(b"file", "user.his", b"1")
    world.innocent()
    assert world.file.stat().st_mode & 0o7777 == 0o755
    assert os.getxattr(world.file, "user.his") == b"1"


def test_what_both_saved_by_a_renaming_is_merged_and_stays_mains(world: World) -> None:
    """Who saves so makes the file their own, which is no reason to ask an operator."""
    for user, content in ((world.alice, HERS), (world.bob, HIS)):
        user.write(b"new", content, os.O_WRONLY | os.O_CREAT)
        user.rename(b"new", b"file")
    planned = world.planned()
    report = world.innocent()
    assert world.file.read_bytes() == BOTH
    assert world.file.stat().st_uid == world.bob.caller.uid
    assert [(item.action, item.review) for item in report.items] == [("merged", True)]
    assert report.items[0].reason.endswith("main's owner stays")
    assert report.items == planned


#: Of a file: mode, owner, group, capability. What both sides started from, main's, the suspect's, and what comes of it.
ALICE, ROOT, USERS, STAFF, CAN = 1011, 0, 100, 50, b"capability"
RIGHTS: dict[str, tuple[tuple[int, int, int, bytes], ...]] = {
    "main's owner would run what the suspect wrote": (
        (0o755, ALICE, USERS, b""),
        (0o755, ROOT, USERS, b""),
        (0o4755, ALICE, USERS, b""),
        (0o755, ROOT, USERS, b""),
    ),
    "main gave the bit to what it had": (
        (0o775, ROOT, USERS, b""),
        (0o4775, ROOT, USERS, b""),
        (0o775, ROOT, USERS, b""),
        (0o775, ROOT, USERS, b""),
    ),
    "the suspect's own bit, for the suspect's own file": (
        (0o755, ALICE, USERS, b""),
        (0o755, ALICE, USERS, b""),
        (0o4755, ALICE, USERS, b""),
        (0o4755, ALICE, USERS, b""),
    ),
    "both have it": (
        (0o4755, ALICE, USERS, b""),
        (0o4755, ALICE, USERS, b""),
        (0o4755, ALICE, USERS, b""),
        (0o4755, ALICE, USERS, b""),
    ),
    "another group": (
        (0o755, ALICE, USERS, b""),
        (0o755, ALICE, STAFF, b""),
        (0o2755, ALICE, USERS, b""),
        (0o755, ALICE, STAFF, b""),
    ),
    "main gave a capability to what it had": (
        (0o775, ROOT, USERS, b""),
        (0o775, ROOT, USERS, CAN),
        (0o775, ROOT, USERS, b""),
        (0o775, ROOT, USERS, b""),
    ),
    "writing took the capability away": (
        (0o775, ROOT, USERS, CAN),
        (0o775, ROOT, USERS, CAN),
        (0o775, ROOT, USERS, b""),
        (0o775, ROOT, USERS, b""),
    ),
}


@pytest.mark.parametrize("case", RIGHTS)
def test_a_merge_gives_rights_to_nobody(case: str) -> None:
    base, main, suspect, result = (
        Attributes(mode, uid, gid, {"user.label": label, **({"security.capability": can} if can else {})})
        for label, (mode, uid, gid, can) in zip((b"1", b"2", b"1", b"2"), RIGHTS[case], strict=True)
    )
    joined = merge_attributes(base, main, suspect)
    assert isinstance(joined, Joined)
    assert joined.attributes == result


@pytest.mark.parametrize("contents", [True, False])
def test_an_attribute_that_both_changed_is_a_conflict(world: World, contents: bool) -> None:
    if contents:
        contest(world)
    world.alice.chmod(b"file", 0o755)
    world.bob.chmod(b"file", 0o600)
    report = world.innocent()
    assert [item.action for item in report.items] == ["conflict"]
    assert "both changed the permissions" in report.items[0].reason
    assert (world.file.read_bytes(), world.waiting()) == ((HIS, [HERS]) if contents else (BASE, [BASE]))
    assert not checks.check(world.fs)


def test_one_changed_the_attributes_and_one_the_content(world: World) -> None:
    world.alice.chmod(b"file", 0o755)
    world.write(world.bob, HIS)
    world.innocent()
    assert world.file.read_bytes() == HIS
    assert world.file.stat().st_mode & 0o7777 == 0o755


def test_both_sides_ended_equal(world: World) -> None:
    world.write(world.alice, HERS)
    world.write(world.bob, HERS)
    assert [item.action for item in world.innocent().items] == ["merged"]
    assert world.file.read_bytes() == HERS


def test_directories_that_ended_equal(world: World) -> None:
    world.bob.mkdir(b"d")
    world.alice.chmod(b"d", 0o700)
    world.bob.chmod(b"d", 0o700)
    assert [item.action for item in world.innocent().items] == ["merged"]
    assert (world.path / "d").stat().st_mode & 0o7777 == 0o700


def test_directories_that_differ_wait(world: World) -> None:
    world.bob.mkdir(b"d")
    world.alice.chmod(b"d", 0o700)
    world.bob.chmod(b"d", 0o711)
    assert [item.action for item in world.innocent().items] == ["conflict"]
    assert (world.path / "d").stat().st_mode & 0o7777 == 0o711
    assert not checks.check(world.fs)


def test_what_cannot_be_merged_waits_and_main_is_left_alone(world: World) -> None:
    contest(world)
    world.write(world.bob, HIS.replace(b"five", b"bob's too"))
    planned = world.planned()
    report = world.innocent()
    assert [item.action for item in report.items] == ["conflict"]
    assert report.items == planned
    assert world.file.read_bytes() == HIS.replace(b"five", b"bob's too")
    assert world.waiting() == [HERS]
    assert not checks.check(world.fs)


def test_the_configuration_says_who_is_asked(world: World) -> None:
    contest(world)
    rules = '[[resolve]]\npattern = "file"\nusing = "same"\n'
    assert [item.action for item in world.innocent(world.ask(rules=rules)).items] == ["conflict"]
    assert world.file.read_bytes() == HIS


Late = Callable[[World], None]

#: What a trusted user may do between what the resolver read and what the merge does.
LATER: list[Late] = [
    lambda world: world.write(world.bob, b"later\n"),
    lambda world: world.bob.chmod(b"file", 0o600),
    lambda world: world.bob.unlink(b"file"),
    lambda world: world.bob.rename(b"file", b"elsewhere"),
]


@pytest.mark.parametrize("late", LATER)
@pytest.mark.parametrize("begun", [False, True])
def test_what_main_became_meanwhile_is_not_replaced(world: World, late: Late, begun: bool) -> None:
    contest(world)
    found = world.ask()
    if not begun:
        late(world)
    merge = apply.merge_steps(world.fs, world.sid(), Report(), resolutions=found)
    if begun:
        list(apply.begin_merge(world.fs, world.sid(), Report(), found))  # others are served before the first object
        late(world)
    before = {path.name: path.read_bytes() for path in world.path.iterdir() if path.is_file()}
    for _ in merge:
        pass
    after = {path.name: path.read_bytes() for path in world.path.iterdir() if path.is_file()}
    assert after.items() >= before.items()
    assert HERS in [*after.values(), *world.waiting()]
    assert not checks.check(world.fs)


@pytest.mark.parametrize("links", [1, 2])
def test_a_merge_cut_off_anywhere_is_finished(tmp_path: Path, links: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right before and right after each write of the store."""
    for stop in itertools.count():
        world = World(tmp_path / str(stop), links=links)
        contest(world)
        found = world.ask()
        if not cut_off(stop, monkeypatch, lambda world=world, found=found: world.innocent(found)):  # type: ignore[misc]
            assert stop > 4
            world.close()
            return
        killed(world.fs)
        before = world.file.read_bytes()
        assert before in (HIS, BOTH)
        world.fs = recovery.open_filesystem(open_store(str(world.path / ".isofs")), str(world.path))
        unfinished = recovery.unfinished(world.fs)
        for sid in unfinished:
            apply.resume(world.fs, sid)
        if unfinished:
            assert [file.read_bytes() for file in world.path.iterdir() if file.is_file()] == [BOTH] * links
        assert not checks.check(world.fs), f"after {stop}"
        recovery.close_filesystem(world.fs)


def test_who_has_it_open_goes_on_with_main(world: World) -> None:
    opened = world.alice.open(b"file", os.O_RDWR)
    contest(world)
    world.innocent()
    assert opened.read() == BOTH
    opened.write(0, b"ALICE")
    assert world.file.read_bytes() == b"ALICE" + BOTH[5:]
    opened.close()


def test_what_a_database_needs_beside_it(world: World) -> None:
    world.bob.write(b"x.db", BASE, os.O_CREAT | os.O_WRONLY)
    world.write(world.alice, HERS, "x.db")
    world.write(world.bob, HIS, "x.db")
    world.alice.write(b"x.db-wal", b"hers", os.O_CREAT | os.O_WRONLY)
    rules = '[[resolve]]\npattern = "*.db"\nusing = "external"\noptions = { command = "true" }\n'
    assert [one.using for one in world.ask(rules=rules).values()] == ["external"]
    (found,) = (resolution.sides.companions for resolution in world.ask().values())
    assert found == {b"-wal": b"x.db-wal"}


def sparse(world: World, user: Walker, size: int, first: bytes) -> None:
    """A file of this size that begins in this way."""
    world.write(user, first)
    user.truncate(b"file", size)


@pytest.mark.parametrize(
    ("rules", "action", "reason"),
    [
        ("", "conflict", "text: what both sides started from was not kept"),
        ('[[resolve]]\npattern = "*"\nusing = "same"\n', "conflict", "same: main and suspect"),
        ('[[resolve]]\npattern = "*"\nusing = "mailbox"\n', "conflict", "same: main and alice"),
    ],
)
def test_what_is_too_large_is_not_read(world: World, rules: str, action: str, reason: str) -> None:
    size = 70 << 20
    sparse(world, world.bob, size, b"start")
    sparse(world, world.alice, size, HERS)
    sparse(world, world.bob, size, HIS)
    (item,) = world.innocent(world.ask(rules=rules)).items
    assert (item.action, reason in item.reason) == (action, True), item.reason


def test_large_files_that_ended_equal(world: World) -> None:
    size = 70 << 20
    sparse(world, world.bob, size, b"start")
    sparse(world, world.alice, size, HERS)
    sparse(world, world.bob, size, HERS)
    assert [item.action for item in world.innocent().items] == ["merged"]


def test_special_files_of_several_names(world: World) -> None:
    """They have no content that could be put into their inode."""
    world.bob.mkfifo(b"pipe")
    world.bob.link(b"pipe", b"another")
    world.alice.chmod(b"pipe", 0o640)
    assert [item.action for item in world.innocent().items] == ["took"]
    at = os.lstat(world.path / "another")
    assert (stat.S_ISFIFO(at.st_mode), stat.S_IMODE(at.st_mode), at.st_nlink) == (True, 0o640, 2)


def test_what_was_taken_back_before_it_was_looked_at(world: World) -> None:
    """While a plan is made the suspect goes on: of a version that is gone nobody is asked."""
    contest(world)
    view = world.fs.views[world.sid()]
    with resolving.gathered(world.fs, view, max(world.fs.origins) + 1, config.parse("")) as sides:
        assert sides is None
