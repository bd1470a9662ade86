"""What a suspect changed only attributes of has main's data, until the suspect changes those or main loses them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isofs.engine import accounting, recovery, trusted, usage
from isofs.engine.checks import check
from isofs.engine.quota import Limit, Limits
from isofs.engine.state import Caller
from isofs.merge import apply
from isofs.model.records import Version
from support.contest import Contest
from support.engine import Kernel, Walker
from support.kill_daemon import Deadly
from support.kill_engine import open_engine

SIZE = 1 << 20
ACL = bytes.fromhex("0200000001000600ffffffff02000600e903000004000400ffffffff10000600ffffffff20000400ffffffff")


def set_acl(user: Walker) -> None:
    user.set_xattr(b"file", "system.posix_acl_access", ACL)


CHANGES: dict[str, Callable[[Walker], object]] = {
    "mode": lambda user: user.chmod(b"file", 0o600),
    "owner": lambda user: user.chown(b"file", 1011, 100),
    "time": lambda user: user.utime(b"file", 10**18),
    "attribute": lambda user: user.set_xattr(b"file", "user.a", b"1"),
    "no attribute": lambda user: user.remove_xattr(b"file", "user.there"),
    "access list": set_acl,
}


@pytest.fixture
def contest(tmp_path: Path) -> Iterator[Contest]:
    """file has 1 MiB and an extended attribute."""
    made = Contest(tmp_path / "main", {"file": os.urandom(SIZE)})
    (made.path / "file").chmod(0o644)
    os.setxattr(made.path / "file", "user.there", b"1")
    yield made
    assert check(made.fs) == []
    made.close()


def alice(contest: Contest) -> Walker:
    """alice, also after a start."""
    return Walker(Kernel(contest.fs), contest.suspects["alice"].caller)


def version(contest: Contest) -> Version:
    (found,) = contest.fs.views[1].versions.values()
    return found


def blocks(contest: Contest) -> int:
    return sum(content.lstat().st_blocks for content in (contest.path / ".isofs/versions/1").iterdir())


def state(path: Path) -> tuple[object, ...]:
    """All of a file of main's, but for when it was read."""
    at = path.stat()
    names = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    return at.st_ino, at.st_mode, at.st_uid, at.st_gid, at.st_mtime_ns, at.st_ctime_ns, names, path.read_bytes()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_attributes_copies_no_data(contest: Contest, change: Callable[[Walker], object]) -> None:
    user, main = alice(contest), state(contest.path / "file")
    before = user.stat(b"file"), user.xattrs(b"file")
    change(user)
    assert blocks(contest) == 0
    assert version(contest).attributes
    assert user.read(b"file") == (contest.path / "file").read_bytes()
    if change is not set_acl:
        assert (user.stat(b"file"), user.xattrs(b"file")) != before
    assert state(contest.path / "file") == main
    account = contest.fs.views[1].account
    usage.settle(contest.fs, contest.fs.views[1])
    assert account.used == 0


def test_main_s_data_are_seen_under_the_suspect_s_attributes(contest: Contest) -> None:
    user = alice(contest)
    user.chmod(b"file", 0o600)
    user.utime(b"file", 10**18)
    opened = user.open(b"file", os.O_RDONLY)
    contest.bob.write(b"file", b"new", os.O_WRONLY)
    assert user.read(b"file")[:4] == (contest.path / "file").read_bytes()[:4]
    contest.bob.truncate(b"file", 3)
    contest.bob.chmod(b"file", 0o444)
    seen = user.stat(b"file")
    assert (seen.mode, seen.size, seen.mtime) == (0o600, 3, None), "the time is that of main's change"
    assert opened.read() == user.read(b"file") == b"new"
    user.utime(b"file", 10**18 + 1)
    assert user.stat(b"file").mtime == 10**18 + 1
    assert blocks(contest) == 0
    opened.close()


def test_nobody_s_data_get_a_set_id_bit_that_they_did_not_have_when_it_was_set(contest: Contest) -> None:
    user = alice(contest)
    user.chmod(b"file", 0o6755)
    assert user.stat(b"file").mode == 0o6755
    contest.bob.write(b"file", b"new", os.O_WRONLY)
    assert user.stat(b"file").mode == 0o755
    user.utime(b"file", 10**18)
    assert user.stat(b"file").mode == 0o755
    contest.innocent()
    assert stat.S_IMODE((contest.path / "file").stat().st_mode) == 0o755


@pytest.mark.parametrize("how", ["write", "truncate", "empty", "open file"])
def test_the_suspect_s_change_of_data_comes_to_nobody_else(contest: Contest, how: str) -> None:
    user = alice(contest)
    opened = user.open(b"file", os.O_RDWR)
    user.chmod(b"file", 0o600)
    user.set_xattr(b"file", "user.a", b"1")
    contest.bob.write(b"file", b"new", os.O_WRONLY)
    main, expected = state(contest.path / "file"), bytearray((contest.path / "file").read_bytes())
    if how == "write":
        user.write(b"file", b"ALICE", os.O_WRONLY, 1)
    elif how == "open file":
        opened.write(1, b"ALICE")
    else:
        user.truncate(b"file", 5) if how == "truncate" else user.open(b"file", os.O_WRONLY | os.O_TRUNC).close()
    expected[1:6] = b"ALICE" if how in ("write", "open file") else expected[1:6]
    expected = expected if how in ("write", "open file") else expected[: 5 if how == "truncate" else 0]
    assert user.read(b"file") == opened.read() == expected
    assert state(contest.path / "file") == main
    assert user.stat(b"file").mode == 0o600
    assert user.xattrs(b"file") == {"user.there": b"1", "user.a": b"1"}
    assert not version(contest).attributes
    contest.bob.write(b"file", b"newer", os.O_WRONLY)
    assert user.read(b"file") == expected
    opened.close()


def renamed_over(bob: Walker) -> None:
    """By what stays two objects: the other has two names."""
    bob.write(b"two", b"2", os.O_WRONLY | os.O_CREAT)
    bob.link(b"two", b"three")
    bob.rename(b"file", b"two")


def made_anew(bob: Walker) -> None:
    bob.unlink(b"file")
    bob.write(b"file", b"another", os.O_WRONLY | os.O_CREAT)


LOSSES: dict[str, Callable[[Walker], object]] = {
    "deleted": lambda bob: bob.unlink(b"file"),
    "renamed": lambda bob: bob.rename(b"file", b"other"),
    "made anew": made_anew,
    "renamed over": renamed_over,
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_what_main_loses_stays_the_suspect_s(contest: Contest, loss: Callable[[Walker], object]) -> None:
    user, data = alice(contest), (contest.path / "file").read_bytes()
    user.chmod(b"file", 0o600)
    opened = user.open(b"file", os.O_RDONLY)
    loss(contest.bob)
    assert (user.read(b"file"), user.stat(b"file").mode) == (data, 0o600)
    assert opened.read() == data
    opened.close()


def test_what_replaces_it_by_a_rename_are_the_data(contest: Contest) -> None:
    """As after a save in place: the object lives on."""
    user = alice(contest)
    user.chmod(b"file", 0o600)
    opened = user.open(b"file", os.O_RDONLY)
    old = opened.read()
    contest.bob.write(b"new", b"saved", os.O_WRONLY | os.O_CREAT)
    contest.bob.rename(b"new", b"file")
    assert (user.read(b"file"), user.stat(b"file").mode) == (b"saved", 0o600)
    assert opened.read() == old
    opened.close()


def test_where_there_is_no_room_the_suspect_loses_it_as_well(contest: Contest, monkeypatch: pytest.MonkeyPatch) -> None:
    user = alice(contest)
    user.chmod(b"file", 0o600)
    user.rename(b"file", b"mine")
    monkeypatch.setattr(accounting, "spare", lambda fs, size: False)
    contest.bob.unlink(b"file")
    assert user.listdir(b"") == contest.bob.listdir(b"") == {}


def test_what_main_lost_unseen_is_lost(contest: Contest) -> None:
    alice(contest).chmod(b"file", 0o600)
    contest.start_again()
    (contest.path / "file").unlink()
    contest.start_again()
    assert alice(contest).listdir(b"") == {}
    assert not contest.fs.views[1].versions


def test_attributes_are_left_if_power_is_cut_when_data_were_given(contest: Contest) -> None:
    """The database is as it was before, but names are as they are now."""
    user, data = alice(contest), (contest.path / "file").read_bytes()
    user.chmod(b"file", 0o600)
    (bare,) = (contest.path / ".isofs/versions/1").iterdir()
    bare.rename(bare.with_name(bare.name.partition(".")[0]))
    contest.start_again()
    again = alice(contest)
    assert (again.stat(b"file").mode, again.read(b"file")) == (0o600, data)


STEPS: list[tuple[Callable[[Contest], object], set[tuple[int, bytes]]]] = [
    (lambda contest: contest.suspects["alice"].chmod(b"file", 0o600), {(0o666, b"main"), (0o600, b"main")}),
    (
        lambda contest: contest.suspects["alice"].write(b"file", b"ALICE", os.O_WRONLY),
        {(0o600, b"main"), (0o600, b"ALICE")},
    ),
    (lambda contest: contest.bob.unlink(b"file"), {(0o600, b"main")}),
    (lambda contest: contest.innocent(), {(0o600, b"main")}),
]


@pytest.mark.parametrize("step", range(len(STEPS)))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_leaves_what_was_or_what_is(tmp_path: Path, step: int, when: str) -> None:
    """At each commit: nothing is in between."""
    allowed = STEPS[step][1]
    for at in range(1, 100):
        directory = tmp_path / str(at)
        was_killed = _killed(directory, step, at, when)
        fs = open_engine(directory)
        user = Walker(Kernel(fs), Caller(1011, 100, 9, 0o022))
        assert (user.stat(b"file").mode, user.read(b"file")) in allowed
        assert check(fs) == []
        recovery.close_filesystem(fs)
        if not was_killed:
            break
    assert at > 1


def _killed(directory: Path, step: int, at: int, when: str) -> bool:
    """Make the steps in a process of its own that kills itself at that commit of the last; whether it did."""
    child = os.fork()
    if child == 0:
        contest = Contest(directory, {"file": b"main"})
        for before in range(min(step, 1)):
            STEPS[before][0](contest)
        Deadly(at, when).arm()
        STEPS[step][0](contest)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("main", ["unchanged", "written", "saved", "renamed"])
def test_an_innocent_verdict_merges_the_attributes_alone(contest: Contest, main: str) -> None:
    user = alice(contest)
    user.chmod(b"file", 0o600)
    user.set_xattr(b"file", "user.a", b"1")
    if main == "written":
        contest.bob.write(b"file", b"new", os.O_WRONLY)
    elif main == "saved":
        contest.bob.write(b"new", b"saved", os.O_WRONLY | os.O_CREAT)
        contest.bob.rename(b"new", b"file")
    elif main == "renamed":
        contest.bob.rename(b"file", b"other")
    path = contest.path / ("other" if main == "renamed" else "file")
    data = path.read_bytes()
    assert [item.action for item in contest.planned()] == [item.action for item in contest.innocent().items]
    assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.getxattr(path, "user.a") == b"1"
    assert not contest.fs.waiting


def test_attributes_that_both_changed_are_merged_one_by_one(contest: Contest) -> None:
    user = alice(contest)
    user.chmod(b"file", 0o600)
    contest.bob.set_xattr(b"file", "user.b", b"2")
    contest.bob.truncate(b"file", 3)
    contest.innocent()
    path = contest.path / "file"
    assert path.stat().st_size == 3
    assert (stat.S_IMODE(path.stat().st_mode), os.getxattr(path, "user.b")) == (0o600, b"2")


@pytest.mark.parametrize("seen", [True, False])
def test_main_s_data_stay_also_where_no_base_was_kept(
    contest: Contest, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    """Of a file that is too large for one, or one that was written behind the mount."""
    monkeypatch.setattr(trusted, "BASE_LIMIT", 10)
    alice(contest).chmod(b"file", 0o600)
    if seen:
        contest.bob.write(b"file", b"new", os.O_WRONLY)
    else:
        (contest.path / "file").write_bytes(b"new")
    data = (contest.path / "file").read_bytes()
    assert [item.action for item in contest.innocent().items] == ["took"]
    assert (contest.path / "file").read_bytes() == data
    assert stat.S_IMODE((contest.path / "file").stat().st_mode) == 0o600


def test_what_both_set_otherwise_waits_with_data_of_its_own(contest: Contest) -> None:
    alice(contest).chmod(b"file", 0o600)
    contest.bob.chmod(b"file", 0o640)
    data = (contest.path / "file").read_bytes()
    contest.innocent()
    assert contest.waiting() == [data]
    assert stat.S_IMODE((contest.path / "file").stat().st_mode) == 0o640


def test_lines_that_main_added_before_the_suspect_did_are_not_added_twice(tmp_path: Path) -> None:
    contest = Contest(tmp_path / "main", {"x.log": b"1\n"})
    user = alice(contest)
    user.chmod(b"x.log", 0o600)
    for number in (b"2\n", b"4\n"):
        contest.bob.write(b"x.log", number, os.O_WRONLY | os.O_APPEND)
        if number == b"2\n":
            user.write(b"x.log", b"3\n", os.O_WRONLY | os.O_APPEND)
    contest.innocent()
    assert (contest.path / "x.log").read_bytes() == b"1\n2\n4\n3\n"
    contest.close()


def test_a_malicious_verdict_leaves_main_as_it_is(contest: Contest) -> None:
    user = alice(contest)
    user.chmod(b"file", 0o600)
    opened = user.open(b"file", os.O_RDONLY)
    main = state(contest.path / "file")
    apply.malicious(contest.fs, 1)
    assert state(contest.path / "file") == main
    assert opened.read() == (contest.path / "file").read_bytes()
    opened.close()


def test_bytes_are_asked_for_when_data_are_needed(contest: Contest) -> None:
    user = alice(contest)
    accounting.set_limits(contest.fs, Limits(each=Limit(bytes=SIZE // 2)))
    user.chmod(b"file", 0o600)
    with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
        user.write(b"file", b"ALICE", os.O_WRONLY)
    assert user.stat(b"file").mode == 0o600
    assert user.read(b"file") == (contest.path / "file").read_bytes()
    user.truncate(b"file", 0)
    assert user.read(b"file") == b""
