"""What a merge left undecided, settled by hand: every kind of object, every choice, wholly or not at all."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isofs.engine import changes, checks, main, recovery, suspicion
from isofs.engine.changes import Against
from isofs.engine.state import Caller, Filesystem
from isofs.errors import UsageError
from isofs.merge import apply, contested
from isofs.merge.contested import Choice, Given
from isofs.merge.preview import preview
from isofs.merge.report import Report
from isofs.model.records import SubjectState
from isofs.model.vectors import G, Vector
from isofs.store import inodes
from isofs.store.folder import open_store
from isofs.store.inodes import Place
from support.cuts import cut_off
from support.engine import Kernel, Walker, killed
from support.host import Host
from support.trees import Item, Tree, differences, tree, without_times

ALICE, BOB, CAROL = (Caller(uid, 100, uid, 0o022) for uid in (1001, 1002, 1003))

#: What is given by `GIVEN`, and what stands for it among the choices.
CONTENT = b"what both should have written"
GIVEN = "given"

Act = Callable[[Walker, bytes], None]


def write(user: Walker, path: bytes) -> None:
    user.write(path, b"%d's content" % user.caller.uid, os.O_WRONLY | os.O_TRUNC)


def save(user: Walker, path: bytes) -> None:
    """As editors do."""
    write_new(user, b"d/.saved")
    user.rename(b"d/.saved", path)


def write_new(user: Walker, path: bytes) -> None:
    user.write(path, b"%d's new content" % user.caller.uid, os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def chmod(user: Walker, path: bytes) -> None:
    user.chmod(path, 0o700 + user.caller.uid % 8)


def lead_elsewhere(user: Walker, path: bytes) -> None:
    user.symlink(b"to-%d" % user.caller.uid, b"d/.link")
    user.rename(b"d/.link", path)


#: What both sides do, and to what.
CASES: dict[str, tuple[Act, bytes]] = {
    "written": (write, b"d/f"),
    "saved": (save, b"d/f"),
    "attributes": (chmod, b"d/f"),
    "two names": (write, b"d/two"),
    "symlink": (lead_elsewhere, b"d/link"),
    "fifo": (chmod, b"d/fifo"),
    "directory": (chmod, b"d/sub"),
}

WAYS = (*Choice, GIVEN)


def possible(case: str, way: str) -> bool:
    return way in ("main", "suspect") or case not in ("symlink", "fifo", "directory") or (way, case) in BESIDE


BESIDE = {("both", "symlink"), ("both", "fifo")}


class World:
    """An engine over a directory; alice is isolated, bob is not."""

    def __init__(self, path: Path) -> None:
        os.umask(0)
        self.path = path
        for name in ("", "d", "d/sub"):
            (path / name).mkdir(mode=0o777)
        for name in ("d/f", "d/two", "d/other"):
            (path / name).write_bytes(b"what main had, and it is longer than what anyone writes")
        os.link(path / "d/two", path / "second")
        os.symlink("nowhere", path / "d/link")
        os.mkfifo(path / "d/fifo")
        self.open()
        self.suspect(ALICE, "alice")

    def open(self) -> None:
        self.fs = recovery.open_filesystem(open_store(str(self.path / ".isofs")), str(self.path))
        kernel = Kernel(self.fs)
        self.alice, self.bob, self.carol = (Walker(kernel, caller) for caller in (ALICE, BOB, CAROL))

    def reopen(self) -> None:
        """Killed, and started again."""
        killed(self.fs)
        self.open()
        for sid in recovery.unfinished(self.fs):
            apply.resume(self.fs, sid)
        contested.resume(self.fs)

    def suspect(self, caller: Caller, name: str) -> int:
        return suspicion.suspect(self.fs, caller.uid, name, "", "2026-01-02T03:04:05Z").sid

    def contest(self, case: str) -> Item:
        """Both change the same, and alice is innocent. Returns what alice saw of it."""
        act, path = CASES[case]
        act(self.alice, path)
        act(self.bob, path)
        seen = tree(self.alice)[path]
        assert apply.innocent(self.fs, 1).conflicts == 1
        return seen

    def settle(self, path: bytes, way: str, uid: int = ALICE.uid) -> Report:
        report, found = Report(), contested.chosen(self.fs, uid, path)
        assert found
        for one in found:
            contested.settle_one(self.fs, one, self.choice(way), report)
        contested.finish(self.fs, {one.sid for one in found}, report)
        return report

    def choice(self, way: str) -> Choice | Given:
        if way != GIVEN:
            return Choice(way)
        place = self.fs.store.staged()
        Path(os.fsdecode(place.path)).write_bytes(CONTENT)
        return Given(place)

    def main(self) -> Tree:
        return without_times(tree(Host(os.fsencode(self.path))))

    def nothing_waits(self) -> None:
        """And nothing is left of it in the store."""
        assert {subject.state for subject in self.fs.subjects.values()} == {SubjectState.ENDED}
        assert (self.fs.origins, self.fs.bases, list(self.fs.waiting)) == ({}, {}, [])
        assert not os.listdir(self.path / ".isofs/versions")
        assert not os.listdir(self.path / ".isofs/bases")
        assert not os.listdir(self.path / ".isofs/staging")
        assert not checks.check(self.fs)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "main")
    yield world
    recovery.close_filesystem(world.fs)


def expected(before: Tree, seen: Item, path: bytes, way: str) -> Tree:
    """What main is after a choice, from what it was and from what alice saw."""
    after, seen = dict(before), without_times({path: seen})[path]
    if way == "main":
        return after
    if way == "both" and path in before:
        aside = path + b".isofs-alice"
        after[aside] = seen._replace(first=aside, stat=seen.stat._replace(nlink=1))
        return after
    if way == GIVEN:
        base = before.get(path, seen)
        seen = base._replace(content=CONTENT, stat=base.stat._replace(size=len(CONTENT)))
    names = [name for name, item in before.items() if path in before and item.first == before[path].first] or [path]
    directory = stat.S_ISDIR(seen.stat.kind)
    if directory and path not in before:
        after[b"d"] = after[b"d"]._replace(stat=after[b"d"].stat._replace(nlink=3))
    nlink = before[path].stat.nlink if path in before else 1 + directory
    for name in names:
        after[name] = seen._replace(first=names[0], stat=seen.stat._replace(nlink=nlink))
    return after


def remove(user: Walker, path: bytes) -> None:
    for name, item in tree(user).items():
        if item.first == tree(user)[path].first and name != path:
            user.unlink(name)
    if path == b"d/sub":
        user.rmdir(path)
    else:
        user.unlink(path)


CHOSEN = [(case, way) for case in CASES for way in WAYS if possible(case, way)]


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
@pytest.mark.parametrize(("case", "way"), CHOSEN)
def test_main_becomes_what_was_chosen(world: World, case: str, way: str, gone: bool) -> None:
    seen, path = world.contest(case), CASES[case][1]
    if gone:
        remove(world.bob, path)
    before = world.main()
    report = world.settle(path, way)
    assert not differences(world.main(), expected(before, seen, path, way))
    assert [item.path for item in report.items] == [path]
    world.nothing_waits()


REFUSED = [(case, way) for case in CASES for way in WAYS if not possible(case, way)]


@pytest.mark.parametrize(("case", "way"), REFUSED)
def test_a_choice_that_there_is_not_changes_nothing(world: World, case: str, way: str) -> None:
    world.contest(case)
    before, path = world.main(), CASES[case][1]
    with pytest.raises(UsageError, match=r"d/\w+ is a (directory|symlink|fifo)"):
        world.settle(path, way)
    assert world.main() == before
    assert [one.path for one in contested.waiting(world.fs)] == [path]
    assert not checks.check(world.fs)


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
@pytest.mark.parametrize(("case", "way"), [chosen for chosen in CHOSEN if chosen[0] not in ("saved", "attributes")])
def test_cut_off_anywhere_it_is_done_or_not_done(
    tmp_path: Path, case: str, way: str, gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right before and right after each write of the store. What is not done waits as before."""
    path = CASES[case][1]
    outcomes = set()
    for stop in itertools.count():
        world = World(tmp_path / str(stop))
        seen = world.contest(case)
        if gone:
            remove(world.bob, path)
        before = world.main()
        if not cut_off(stop, monkeypatch, lambda world=world: world.settle(path, way)):  # type: ignore[misc]
            recovery.close_filesystem(world.fs)
            break
        world.reopen()
        waits = [one.path for one in contested.waiting(world.fs)]
        outcomes.add(bool(waits))
        assert waits in ([], [path])
        assert not differences(world.main(), before if waits else expected(before, seen, path, way)), f"after {stop}"
        assert not checks.check(world.fs), f"after {stop}"
        if waits:
            world.settle(path, way)
            assert not differences(world.main(), expected(before, seen, path, way)), f"after {stop}"
        world.nothing_waits()
        recovery.close_filesystem(world.fs)
    assert outcomes == {True, False}
    assert stop > 3


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
@pytest.mark.parametrize("way", ["suspect", "both", GIVEN])
def test_a_full_disk_leaves_the_conflict_as_it_was(
    world: World, way: str, gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = world.contest("written")
    if gone:
        world.bob.unlink(b"d/f")
    before, rows = world.main(), dict(world.fs.waiting[1].versions)

    def full(source: Place, to: Place, flags: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(main, "renameat2", full)
        with pytest.raises(OSError, match="no space"):
            world.settle(b"d/f", way)
    for _ in range(2):
        assert world.main() == before
        assert world.fs.waiting[1].versions == rows
        assert not checks.check(world.fs)
        assert os.listdir(world.path / ".isofs/versions/1") == [rows[next(iter(rows))].content]
        world.reopen()
    world.settle(b"d/f", way)
    assert not differences(world.main(), expected(before, seen, b"d/f", way))
    world.nothing_waits()


@pytest.mark.parametrize("way", ["suspect", "both"])
def test_a_start_on_a_full_disk_leaves_what_was_chosen_for_the_next(
    world: World, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = world.contest("written")
    before = world.main()

    def full(source: Place, to: Place, flags: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    assert cut_off(1, monkeypatch, lambda: world.settle(b"d/f", way))
    with monkeypatch.context() as patch:
        patch.setattr(main, "renameat2", full)
        world.reopen()
    assert world.main() == before
    assert len(list(contested.waiting(world.fs))) == 1
    world.reopen()
    assert not differences(world.main(), expected(before, seen, b"d/f", way))
    world.nothing_waits()


# Where it comes back


def test_it_comes_back_beside_what_has_its_name_now(world: World) -> None:
    world.contest("written")
    world.bob.unlink(b"d/f")
    write_new(world.bob, b"d/f")
    (item,) = world.settle(b"d/f", "suspect").items
    assert (item.path, item.aside) == (b"d/f", b"d/f.isofs-alice")
    assert (world.path / "d/f").read_bytes() == b"1002's new content"
    assert (world.path / "d/f.isofs-alice").read_bytes().startswith(b"1001's content")
    world.nothing_waits()


def test_it_comes_back_in_the_root_if_its_directory_is_gone(world: World) -> None:
    world.contest("written")
    for name in list(tree(world.bob)):
        if name.startswith(b"d/"):
            remove(world.bob, name)
    world.bob.rmdir(b"d")
    world.reopen()
    world.settle(b"f", "suspect")
    assert (world.path / "f").read_bytes().startswith(b"1001's content")
    world.nothing_waits()


def test_it_goes_along_when_main_renames(world: World) -> None:
    world.contest("written")
    world.bob.rename(b"d", b"e")
    world.bob.rename(b"e/f", b"e/g")
    world.settle(b"e/g", "both")
    assert (world.path / "e/g.isofs-alice").read_bytes().startswith(b"1001's content")
    world.nothing_waits()


@pytest.mark.parametrize("restart", [False, True])
def test_what_main_deleted_while_it_waited_comes_back_with_the_next_verdict(world: World, restart: bool) -> None:
    """Nobody chose: `innocent` decides anew."""
    world.contest("written")
    world.bob.unlink(b"d/f")
    if restart:
        world.reopen()
    view = world.fs.waiting[1]
    planned = [one.item for one in preview(world.fs, view, apply.states(world.fs, view))]
    report = apply.innocent(world.fs, 1)
    assert [(item.path, item.action) for item in report.items] == [(b"d/f", "restored")]
    assert report.items == planned
    assert (world.path / "d/f").read_bytes().startswith(b"1001's content")
    world.nothing_waits()


def test_what_main_deleted_while_it_waited_can_be_discarded(world: World) -> None:
    world.contest("written")
    world.bob.unlink(b"d/f")
    before = world.main()
    apply.malicious(world.fs, 1)
    assert world.main() == before
    world.nothing_waits()


def test_what_is_deleted_while_it_is_merged_can_come_back(world: World) -> None:
    """A trusted user deletes what is in conflict after it was decided."""
    for user in (world.alice, world.bob):
        write(user, b"d/f")
    merge = apply.merge_steps(world.fs, 1, Report())
    next(merge, None)
    world.bob.unlink(b"d/f")
    for _ in merge:
        pass
    world.reopen()
    world.settle(b"d/f", "suspect")
    assert (world.path / "d/f").read_bytes().startswith(b"1001's content")
    world.nothing_waits()


def test_what_was_deleted_behind_the_mount_can_come_back(world: World) -> None:
    world.contest("written")
    (world.path / "d/f").unlink()
    world.reopen()
    world.settle(b"d/f", "suspect")
    assert (world.path / "d/f").read_bytes().startswith(b"1001's content")
    world.nothing_waits()


# Others


@pytest.mark.parametrize("way", WAYS)
def test_the_vector_is_the_one_that_protocol_3_gives(world: World, way: str) -> None:
    """Main's, with 'm' for whose it was. Who changed it as well has a conflict, as before."""
    carol = world.suspect(CAROL, "carol")
    write(world.carol, b"d/f")
    world.contest("written")
    (one,) = contested.waiting(world.fs)
    assert world.fs.origins[one.op].vector == Vector.of({G: 1, 1: 0, carol: 0})
    world.settle(b"d/f", way)
    assert world.fs.origins[one.op].vector == Vector.of({G: 1, 1: "m", carol: 0})
    assert not checks.check(world.fs)
    world.reopen()
    after = world.main()
    assert [item.action for item in apply.innocent(world.fs, carol).items] == ["conflict"]
    assert world.main() == after


def test_the_vector_of_what_comes_back(world: World) -> None:
    """Main's count is the version's again."""
    carol = world.suspect(CAROL, "carol")
    write(world.carol, b"d/f")
    world.contest("written")
    world.bob.unlink(b"d/f")
    (one,) = contested.waiting(world.fs)
    assert world.fs.origins[one.op].vector == Vector.of({G: "d", 1: 0, carol: 0})
    world.settle(b"d/f", "suspect")
    assert world.fs.origins[one.op].vector == Vector.of({G: 0, 1: "m", carol: 0})
    assert not checks.check(world.fs)


@pytest.mark.parametrize("case", ["written", "saved", "attributes", "two names", "symlink"])
@pytest.mark.parametrize("way", ["suspect", "both"])
def test_what_is_settled_is_no_change_behind_the_mount(world: World, case: str, way: str) -> None:
    """Main's inode is another then, or was changed; who has a version of it is not misled."""
    world.contest(case)
    carol = world.suspect(CAROL, "carol")
    CASES[case][0](world.carol, CASES[case][1])
    world.settle(CASES[case][1], way)
    states = list(apply.states(world.fs, world.fs.views[carol]))
    assert [state.exists for state in states if state.main is not None] == [True]
    assert not any(state.changed_unseen for state in states)


@pytest.mark.parametrize("order", [(ALICE.uid, CAROL.uid), (CAROL.uid, ALICE.uid)])
@pytest.mark.parametrize("ways", list(itertools.product(("main", "suspect", "both"), repeat=2)))
def test_two_suspects_in_conflict_on_one_file(world: World, order: tuple[int, int], ways: tuple[str, str]) -> None:
    """Settled in either order: what is taken last is main's, what was put beside is beside."""
    world.suspect(CAROL, "carol")
    write(world.carol, b"d/f")
    world.contest("written")
    apply.innocent(world.fs, 2)
    content = {b"": (world.path / "d/f").read_bytes()}
    kept = {
        view.sid: Path(os.fsdecode(world.fs.store.content(view.sid, version.content or "").path)).read_bytes()
        for view in world.fs.waiting.values()
        for version in view.versions.values()
    }
    for uid, way in zip(order, ways, strict=True):
        sid, name = (1, b"alice") if uid == ALICE.uid else (2, b"carol")
        world.settle(b"d/f", way, uid)
        assert not checks.check(world.fs)
        if way == "suspect":
            content[b""] = kept[sid]
        elif way == "both":
            content[b".isofs-" + name] = kept[sid]
        assert {n[3:]: i.content for n, i in world.main().items() if n.startswith(b"d/f") and n != b"d/fifo"} == content
    world.nothing_waits()


def test_a_directory_settles_all_that_is_below_it(world: World) -> None:
    for case in ("written", "two names", "symlink", "fifo", "directory"):
        act, path = CASES[case]
        act(world.alice, path)
        act(world.bob, path)
    seen = tree(world.alice)
    assert apply.innocent(world.fs, 1).conflicts == 5
    before = world.main()
    world.settle(b"d", "suspect")
    for path in (path for case, (_, path) in CASES.items() if case not in ("saved", "attributes")):
        before = expected(before, seen[path], path, "suspect")
    assert not differences(world.main(), before)
    world.nothing_waits()


def test_any_name_of_a_file_names_its_conflict(world: World) -> None:
    world.contest("two names")
    for name in (b"second", b"d/two", b"d", b""):
        assert len(contested.chosen(world.fs, ALICE.uid, name)) == 1
    for name in (b"d/f", b"d/tw", b"nothing", b"d/two/x"):
        assert not contested.chosen(world.fs, ALICE.uid, name)
    assert not contested.chosen(world.fs, BOB.uid, b"")


def test_the_oldest_version_of_one_object_comes_first(world: World) -> None:
    """A user who is isolated anew can leave two versions of one file."""
    world.contest("written")
    world.suspect(ALICE, "alice")
    world.alice.write(b"d/f", b"later", os.O_WRONLY | os.O_TRUNC)
    write(world.bob, b"d/f")
    assert apply.innocent(world.fs, 2).conflicts == 1
    assert [one.sid for one in contested.waiting(world.fs)] == [1, 2]
    world.settle(b"d/f", "both")
    assert (world.path / "d/f.isofs-alice").read_bytes().startswith(b"1001's content")
    world.settle(b"d/f", "suspect")
    assert (world.path / "d/f").read_bytes().startswith(b"later")
    world.nothing_waits()


def test_who_is_isolated_anew_stays_so(world: World) -> None:
    """Settling what waits of a user is no verdict on what the user does now."""
    world.contest("written")
    anew = world.suspect(ALICE, "alice")
    write_new(world.alice, b"hers")
    world.settle(b"d/f", "suspect")
    assert b"hers" not in world.main()
    write(world.alice, b"d/other")
    assert (world.path / "d/other").read_bytes().startswith(b"what main had")
    assert world.fs.subjects[anew].state is SubjectState.SUSPECT
    assert not checks.check(world.fs)


def test_trusted_users_go_on_with_what_they_have_open(world: World) -> None:
    """As after a save by somebody else: the old file, until they open it again."""
    world.contest("written")
    reader = world.bob.open(b"d/f", os.O_RDWR)
    before = reader.read()
    world.settle(b"d/f", "suspect")
    assert reader.read() == before
    reader.write(0, b"bob writes")
    assert reader.read() == b"bob writes" + before[10:]
    assert world.bob.read(b"d/f").startswith(b"1001's content")
    reader.close()
    world.nothing_waits()


def test_the_former_suspect_goes_on_with_what_she_has_open(world: World) -> None:
    for user in (world.alice, world.bob):
        write(user, b"d/f")
    hers = world.alice.open(b"d/f", os.O_RDWR)
    apply.innocent(world.fs, 1)
    his = hers.read()
    assert his.startswith(b"1002's content")
    world.settle(b"d/f", "suspect")
    assert hers.read() == his
    assert hers.write(0, b"more") == 4
    assert world.alice.read(b"d/f").startswith(b"1001's content")
    hers.close()
    world.nothing_waits()


# What it is compared with


def compared(fs: Filesystem, against: Against | None) -> tuple[bytes | None, bytes | None, bool]:
    (view,) = (*fs.views.values(), *fs.waiting.values())
    (line,) = changes.changes(fs, view)
    sides = changes.sides(fs, view, line, against)
    old, new = (
        None if place is None else Path(os.fsdecode(place.path)).read_bytes() for place in (sides.old, sides.new)
    )
    return old, new, sides.known


BEFORE = b"what main had, and it is longer than what anyone writes"


def test_against_what_she_started_from_and_against_main(world: World) -> None:
    world.alice.write(b"d/f", b"hers", os.O_WRONLY | os.O_TRUNC)
    for against in (None, *Against):
        assert compared(world.fs, against) == (BEFORE, b"hers", True)
    world.bob.write(b"d/f", b"his", os.O_WRONLY | os.O_TRUNC)
    for _ in range(2):
        assert compared(world.fs, None)[:2] == compared(world.fs, Against.BASE)[:2]
        assert compared(world.fs, Against.BASE)[2]
        assert (compared(world.fs, Against.BASE)[0] or b"")[:4] == BEFORE[:4]
        assert (compared(world.fs, Against.MAIN)[0] or b"")[:3] == b"his"
        apply.innocent(world.fs, 1)
    world.bob.unlink(b"d/f")
    assert compared(world.fs, Against.MAIN)[0] is None
    assert (compared(world.fs, Against.BASE)[0] or b"")[:4] == BEFORE[:4]


def test_what_was_not_kept_is_said_to_be_unknown(world: World) -> None:
    """Main changed behind the mount: nobody could keep a copy."""
    world.alice.write(b"d/f", b"hers", os.O_WRONLY | os.O_TRUNC)
    (world.path / "d/f").write_bytes(b"restored")
    world.reopen()
    assert compared(world.fs, Against.BASE) == (None, compared(world.fs, None)[1], False)
    assert compared(world.fs, Against.MAIN)[0] == compared(world.fs, None)[0] == b"restored"
    assert inodes.exists(world.fs.store.content(1, next(iter(world.fs.views[1].versions.values())).content or ""))
