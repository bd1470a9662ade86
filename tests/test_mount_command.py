"""What an administrator meets with `isoctl mount` and `isoctl umount`, on real mounts."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isofs.control import mounts
from isofs.errors import Exit
from support.archives import contents
from support.command import as_it_is, error, refused
from support.mount import ALICE, BOB, Mounted, Person, Worker, as_user, isoctl, mounted, mounts_below, store_elsewhere
from test_store import another_version, not_a_database, open_to_others, truncated

pytestmark = pytest.mark.mount


@pytest.fixture
def tree(place: Path) -> Iterator[Path]:
    """A directory for everybody with a file in it, unmounted at the end."""
    path = place / "tree"
    path.mkdir()
    path.chmod(0o777)
    (path / "f").write_text("main\n")
    (path / "f").chmod(0o666)
    yield path
    for point in mounts_below(place):
        isoctl("umount", point)


@contextlib.contextmanager
def at_work(uid: int, path: Path) -> Iterator[Person]:
    person = Person(uid, path)
    try:
        yield person
    finally:
        person.close()


# What can't be mounted


def no_directory(tree: Path) -> Path:
    return tree / "none"


def a_file(tree: Path) -> Path:
    return tree / "f"


def below_a_file(tree: Path) -> Path:
    return tree / "f" / "x"


def a_link_to_nothing(tree: Path) -> Path:
    (tree / "link").symlink_to("nothing")
    return tree / "link"


@pytest.mark.parametrize("what", [no_directory, a_file, below_a_file, a_link_to_nothing])
def test_what_is_no_directory(tree: Path, what: Callable[[Path], Path]) -> None:
    directory = what(tree)
    before = as_it_is(tree)
    refused(isoctl("mount", str(directory)), Exit.NO_MOUNT, str(directory).replace("/link", "/nothing"))
    assert error(isoctl("mount", str(directory), "--json"))["code"] == "no_mount"
    assert as_it_is(tree) == before
    assert mounts_below(tree) == []


def test_what_is_mounted_already(tree: Path) -> None:
    """However it is called; it goes on as it was."""
    link = tree.parent / "link"
    link.symlink_to(tree)
    with mounted(tree) as mount:
        pid = mount.pid
        for name in (str(tree), f"{tree}/", str(link), f"{tree}/../tree"):
            refused(isoctl("mount", name), Exit.ALREADY, f"{tree} is mounted already")
        assert mount.pid == pid
        assert mounts_below(tree) == [str(tree)]


def test_mounts_within_mounts(tree: Path, place: Path) -> None:
    """A second way in would show what the first one hides, and isolate nobody of the first one's suspects."""
    (tree / "below").mkdir()
    bind = place / "bind"
    bind.mkdir()
    with mounted(tree) as mount:
        before = as_it_is(mount.backing, mounted=True)
        refused(isoctl("mount", str(tree / "below")), Exit.NOT_ALLOWED, f"below {tree},")
        refused(isoctl("mount", str(place)), Exit.NOT_ALLOWED, f"above {tree},")
        assert not (place / ".isofs").exists()
        subprocess.run(["mount", "--bind", str(tree), str(bind)], check=True)
        try:
            refused(isoctl("mount", str(bind / "below")), Exit.NOT_ALLOWED, f"below {bind},")
        finally:
            subprocess.run(["umount", str(bind)], check=True)
        assert mounts_below(place) == [str(tree)]
        assert as_it_is(mount.backing, mounted=True) == before


def test_mounts_side_by_side(place: Path) -> None:
    """One whose name begins with the other's isn't within it."""
    paths = [place / "a", place / "ab"]
    with contextlib.ExitStack() as stack:
        for path in paths:
            path.mkdir()
            stack.enter_context(mounted(path))
        assert sorted(mounts_below(place)) == [str(path) for path in paths]


# A daemon that was killed


def test_mount_repairs_what_a_killed_daemon_left(tree: Path) -> None:
    """It says so; views are as they were, and the socket is the new daemon's."""
    with mounted(tree) as mount, at_work(ALICE, tree) as alice, at_work(BOB, tree) as bob:
        mount.facts("suspect", str(ALICE))
        alice.write("f", "alice's\n")
        alice.mkdir("d")
        mount.kill()
        for words in (["status"], ["changes", str(ALICE)], ["innocent", str(ALICE)], ["check"]):
            refused(mount.isoctl(*words), Exit.NO_ANSWER, f"{tree} is dead: `isoctl mount {tree}` repairs")
        done = isoctl("mount", str(tree))
        assert (done.code, done.err) == (Exit.DONE, "")
        first, second = done.out.splitlines()
        assert first == f"replaced the mount of a dead daemon at {tree}"
        assert second == f"mounted {tree} (store {tree}/.isofs)"
        assert mounts_below(tree) == [str(tree)]
        assert alice.tree() == {"f": "alice's\n", "d": {}}
        assert bob.tree() == {"f": "main\n"}
        mount.kill()
        facts = isoctl("mount", str(tree), "--json").json
        assert facts["repaired"]
        assert (facts["mount"], facts["pid"], facts["degraded"]) == (str(tree), mount.pid, None)
        mount.ask("innocent", uid=ALICE)


def test_a_dead_mount_is_told_though_its_root_is_cached(tree: Path) -> None:
    """The kernel answers stat of it for an hour, whatever became of the daemon."""
    with mounted(tree) as mount:
        os.stat(tree)
        os.stat(tree)
        mount.kill()
        done = isoctl("umount", str(tree))
        assert (done.code, done.out) == (Exit.DONE, f"unmounted {tree}, whose daemon was dead\n")
        assert mounts_below(tree) == []
        mount.mount()


def test_sockets_of_dead_daemons_are_removed(tree: Path, place: Path) -> None:
    """By whatever looks for mounts, and by the next mount of the directory."""
    other = place / "other"
    other.mkdir()
    socket = Path(mounts.socket_for(str(tree)))
    with mounted(other) as living, mounted(tree) as mount:
        mount.kill()
        assert socket.exists()
        assert living.isoctl("status").code == Exit.DONE
        assert not socket.exists()
        mount.mount()
        mount.kill()
        assert socket.exists()
        mount.mount()
        assert mount.pid
        assert Path(mounts.socket_for(str(other))).exists()
    assert not socket.exists()


def test_the_folder_of_sockets_goes_with_the_last_one(tree: Path) -> None:
    """On a machine with a /run of its own and nothing else mounted."""
    isoctl_here = f"{sys.executable} -m isoctl.main"
    script = (
        f"set -e; mount -t tmpfs none /run; {isoctl_here} mount '{tree}'; ls /run/isofs/*.sock | wc -l; "
        f"{isoctl_here} umount '{tree}'; ls /run"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=60, cwd="/", check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"mounted {tree} (store {tree}/.isofs)", "1", f"unmounted {tree}"]


# Foreground


#: As where nothing is said about it: Python writes to a pipe when it has a block, or ends.
BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}


@contextlib.contextmanager
def foreground(tree: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "isoctl.main", "mount", str(tree), "--foreground", *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd="/", env=BUFFERED) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 60)
    assert ready, "nothing was said"
    return process.stdout.readline()


def test_the_foreground_says_when_it_is_ready(tree: Path) -> None:
    """To a pipe too, and at once; it ends in order with SIGTERM."""
    with foreground(tree) as process:
        assert line_of(process) == f"mounted {tree} (store {tree}/.isofs)\n"
        assert Mounted(tree).pid == process.pid
        assert mounts_below(tree) == [str(tree)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""
    assert mounts_below(tree) == []


def test_the_foreground_in_json(tree: Path) -> None:
    with foreground(tree, "--json") as process:
        lines = [line_of(process)]
        assert process.stdout is not None
        while lines[-1] != "}\n":
            lines.append(process.stdout.readline())
        facts = {"mount": str(tree), "store": f"{tree}/.isofs", "repaired": False, "pid": process.pid, "degraded": None}
        assert json.loads("".join(lines)) == facts
        assert isoctl("umount", str(tree)).code == Exit.DONE
        assert process.wait(30) == 0


def test_the_foreground_serves_though_nobody_listens(tree: Path) -> None:
    with foreground(tree) as process:
        assert process.stdout is not None
        process.stdout.close()
        while not mounts_below(tree):
            assert process.poll() is None
        assert (tree / "f").read_text() == "main\n"
        assert isoctl("umount", str(tree)).code == Exit.DONE
        assert process.wait(30) == 0


def test_the_foreground_fails_as_the_background_does(tree: Path) -> None:
    with mounted(tree):
        refused(isoctl("mount", str(tree), "--foreground"), Exit.ALREADY, "mounted already")


# Unmounting


def run_for_everybody(run: Path, directory: Path) -> str:
    run.mkdir(0o755)
    return f"{run} must be a directory"


def a_directory_for_a_socket(run: Path, directory: Path) -> str:
    run.mkdir(0o700)
    (run / Path(mounts.socket_for(str(directory))).name).mkdir()
    return "is in the way of the control socket"


@pytest.fixture
def socket_place() -> Iterator[Path]:
    """Where a socket's path is not too long."""
    with tempfile.TemporaryDirectory(dir="/run", prefix="isofs-test-") as path:
        yield Path(path)


@pytest.mark.parametrize("wrong", [run_for_everybody, a_directory_for_a_socket])
def test_what_fails_before_the_mount_is_shown(
    tree: Path, socket_place: Path, wrong: Callable[[Path, Path], str]
) -> None:
    """The daemon, in whose namespace the mount is already, does not wait for itself; nobody else ever saw it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777", "lower", str(tree)], check=True)  # as root of its mount
    try:
        (tree / "f").write_text("main\n")
        reason = wrong(run := socket_place / "run", tree)
        begin = "import sys; from isofs.control import mounts; mounts.RUN = sys.argv.pop(1);"
        begin += "from isofs.service import daemon; daemon._main()"
        words = [sys.executable, "-c", begin, str(run), str(tree), str(tree / ".isofs"), "--foreground"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == Exit.NOT_ALLOWED, done.stderr
        assert reason in done.stderr.splitlines()[-1]
        assert str(tree) not in mounts.points()
        assert (tree / "f").read_text() == "main\n"
        assert not (tree / ".isofs" / "isofs.db-wal").exists()  # the store was closed
    finally:
        subprocess.run(["umount", "-l", str(tree)], check=True)


def test_umount_of_a_mount_in_use_says_who_uses_it(tree: Path) -> None:
    """Nothing is changed: the daemon goes on, and its suspects are isolated."""
    with mounted(tree) as mount, at_work(ALICE, tree) as alice:
        mount.facts("suspect", str(ALICE))
        alice.write("f", "alice's\n")
        before = (mount.state(), as_it_is(mount.backing, mounted=True))
        holder = Worker(BOB, cwd=tree)
        try:
            program = Path(f"/proc/{holder.pid}/comm").read_text().strip()
            refused(
                isoctl("umount", str(tree)),
                Exit.BUSY,
                f"{tree} is in use: held by {program} ({holder.pid}) of {BOB}, cwd {tree}",
            )
            opened = alice(os.open, alice.path("f"), os.O_RDONLY)
            said = error(isoctl("umount", str(tree), "--json"))
            assert said["code"] == "busy"
            assert f"({alice.pid}) of {ALICE}, fd {opened} {tree}/f" in said["message"]
            alice(os.close, opened)
            assert (mount.state(), as_it_is(mount.backing, mounted=True)) == before
            assert (tree / "f").read_text() == "main\n"
            assert alice.read("f") == "alice's\n"
        finally:
            holder.close()


def test_umount_of_what_is_not_mounted(tree: Path) -> None:
    before = as_it_is(tree)
    for path in (tree, tree / "f", tree / "none"):
        refused(isoctl("umount", str(path)), Exit.NO_MOUNT, str(path))
    with mounted(tree):
        refused(isoctl("umount", str(tree / "f")), Exit.NO_MOUNT, str(tree / "f"))
        assert mounts_below(tree) == [str(tree)]
    refused(isoctl("umount", str(tree)), Exit.NO_MOUNT, str(tree))
    assert {name: row for name, row in as_it_is(tree).items() if not name.startswith(".isofs")} == before


# Stores


@pytest.mark.parametrize("damage", [another_version, not_a_database, truncated, open_to_others])
def test_a_store_that_cannot_be_used(tree: Path, damage: Callable[[Path], None]) -> None:
    """Neither mount nor check touch it; the mount is there all the same, for root alone, if it ever was a store."""
    damage(tree / ".isofs")
    before = as_it_is(tree)
    if damage is open_to_others:
        refused(isoctl("mount", str(tree)), Exit.STORE, f"{tree}/.isofs")
        refused(isoctl("mount", str(tree), "--foreground"), Exit.STORE, f"{tree}/.isofs")
    else:
        done = isoctl("mount", str(tree))
        assert (done.code, len(done.err.splitlines())) == (Exit.DONE, 1)
        assert done.err.startswith("isoctl: degraded: ")
        assert f"{tree}/.isofs" in done.err
        assert sorted(os.listdir(tree)) == ["f"]
        with pytest.raises(OSError, match="Input/output"):
            as_user(BOB, lambda: os.listdir(tree))
        assert isoctl("umount", str(tree)).code == Exit.DONE
    checked = isoctl("--mount", str(tree), "check")
    if damage in (truncated, not_a_database):
        assert checked.code == Exit.PROBLEMS
        assert checked.out.startswith("I1: ")
    else:
        refused(checked, Exit.STORE, f"{tree}/.isofs")
    assert mounts_below(tree) == []
    without_folders = {name: row for name, row in as_it_is(tree).items() if name in before}
    assert without_folders == before


def test_a_store_in_use(tree: Path, place: Path) -> None:
    store, other = place / "store", place / "other"
    other.mkdir()
    with mounted(tree, "--store", str(store)) as mount:
        pid = mount.pid
        refused(
            isoctl("mount", str(other), "--store", str(store)), Exit.STORE, "another isofs has the store", str(store)
        )
        refused(isoctl("--mount", str(other), "check", "--store", str(store)), Exit.STORE, "another isofs")
        assert mounts_below(other) == []
        assert mount.pid == pid


def test_a_store_where_people_would_reach_it(tree: Path, place: Path) -> None:
    other = place / "other"
    other.mkdir()
    with mounted(tree):
        refused(isoctl("mount", str(other), "--store", str(tree / "store")), Exit.USAGE, f"lie in {tree}")
        refused(isoctl("mount", str(other), "--store", str(other / "store")), Exit.USAGE, "would be visible")
        assert list(other.iterdir()) == []
        assert mounts_below(other) == []


def test_a_store_on_another_file_system(tree: Path, place: Path) -> None:
    """Work, both verdicts and a mount in between; nothing of the store is left in the tree."""
    with store_elsewhere(place) as store:
        with mounted(tree, "--store", store) as mount, at_work(ALICE, tree) as alice, at_work(BOB, tree) as bob:
            assert mount.facts("status")["store"] == store
            for text in ("first\n", "second\n"):
                mount.facts("suspect", str(ALICE))
                alice.append("f", text)
                alice.mkdir(f"d-{text.strip()}")
                alice.write(f"d-{text.strip()}/g", text)
                mount.umount()
                refused(isoctl("--mount", str(tree), "check"), Exit.STORE, "give the right --store")
                assert isoctl("--mount", str(tree), "check", "--store", store).code == Exit.DONE
                mount.mount("--store", store)
                assert bob.tree() == {"f": "main\n"}
                assert alice.read("f") == f"main\n{text}"
                if text == "first\n":
                    gone = mount.facts("malicious", str(ALICE), "--yes")
                    assert gone["evidence"] == gone["readable"]
                    assert contents(Path(gone["evidence"])) == {"f": b"main\nfirst\n", "d-first/g": b"first\n"}
                else:
                    mount.facts("innocent", str(ALICE))
            assert bob.tree() == alice.tree() == {"f": "main\nsecond\n", "d-second": {"g": "second\n"}}
        assert [p for p in as_it_is(tree) if p.startswith(".isofs/") and not p.endswith("staging")] == []
