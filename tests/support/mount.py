"""A mounted isofs for tests: the real command, real processes under real uids, and nothing left behind."""

from __future__ import annotations

import codecs
import contextlib
import errno
import json
import os
import pickle
import re
import select
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from isoctl.main import main as program
from isofs.control import client, mounts

#: Users of the tests. They need not exist in the password file.
ALICE, BOB, CAROL, DAVE = 61001, 61002, 61003, 61004

#: Seconds after which a call is taken to hang.
PATIENCE = 60


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def isoctl(*words: str, timeout: float = PATIENCE, uid: int = 0, groups: tuple[int, ...] = ()) -> Result:
    """Run `isoctl` as a user would, in a process of its own; but it needs not start an interpreter and load modules."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            _be_isoctl(words, out.fileno(), err.fileno(), uid, groups)
        process = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(process, select.POLLIN)
            ended = poll.poll(timeout * 1000)
            if not ended:
                os.kill(pid, 9)
            status = os.waitpid(pid, 0)[1]
            assert ended, f"isoctl {' '.join(words)} hangs"
        finally:
            os.close(process)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="surrogateescape"))
        return Result(os.waitstatus_to_exitcode(status), *texts)


def _be_isoctl(words: tuple[str, ...], out: int, err: int, uid: int, groups: tuple[int, ...]) -> NoReturn:
    code = 70
    try:
        if uid:
            codecs.lookup("ascii")  # Python itself need not be readable for other users
            os.setgroups(groups)
            os.setgid(uid)
            os.setuid(uid)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in enumerate((nothing, out, err)):
            os.dup2(descriptor, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        try:
            program.main(list(words))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


@dataclass(frozen=True)
class Mounted:
    """A mount over `path`; the daemon may be killed and started again."""

    path: Path

    def isoctl(self, *words: str, uid: int = 0, groups: tuple[int, ...] = ()) -> Result:
        return isoctl("--mount", str(self.path), *words, uid=uid, groups=groups)

    def facts(self, *words: str) -> Any:
        """The JSON that a command prints; the command must succeed."""
        done = self.isoctl(*words, "--json")
        assert done.code == 0, done
        return done.json

    def mount(self, *options: str) -> None:
        done = isoctl("mount", str(self.path), *options)
        assert done.code == 0, done

    def umount(self) -> None:
        done = isoctl("umount", str(self.path))
        assert done.code == 0, done

    @property
    def pid(self) -> int:
        return int(self.ask("status")["pid"])

    def kill(self) -> None:
        """SIGKILL the daemon and wait for its end."""
        pid = self.pid
        descriptor = os.pidfd_open(pid)
        try:
            os.kill(pid, 9)
            os.waitid(os.P_PIDFD, descriptor, os.WEXITED) if _is_child(pid) else _wait_gone(descriptor)
        finally:
            os.close(descriptor)

    def state(self) -> Any:
        """What `status` says, but for how much is free, which others change."""
        facts = self.facts("status")
        del facts["quota"]["free"]
        return facts

    def ask(self, call: str, **args: object) -> Any:
        """The daemon's result of a call, without a command in between."""
        return client.call(mounts.socket_for(str(self.path)), call, args)

    @property
    def backing(self) -> Path:
        """The directory that was mounted over, as the daemon has it."""
        return Path(f"/proc/{self.pid}/root{self.path}")

    def check(self) -> None:
        """Every invariant holds."""
        found = self.ask("check")
        assert found["ok"], found["problems"]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what comes about by itself."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def _is_child(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1]) == os.getpid()


def _wait_gone(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(30_000), "the daemon did not end"


@contextlib.contextmanager
def mounted(path: Path, *options: str) -> Iterator[Mounted]:
    """Mount over a directory; at the end it is unmounted, whatever happened, and its daemon gone."""
    mount = Mounted(path)
    mount.mount(*options)
    try:
        yield mount
        mount.check()
        mount.umount()
    finally:
        subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)


@contextlib.contextmanager
def store_elsewhere(place: Path) -> Iterator[str]:
    """The path of a store that is not there yet, on a file system of its own."""
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(elsewhere)], check=True)
    try:
        yield str(elsewhere / "store")
    finally:
        subprocess.run(["umount", "-l", str(elsewhere)], check=True)


def as_user(uid: int, call: Callable[[], Any], *, gid: int | None = None, groups: tuple[int, ...] = ()) -> Any:
    """Run `call` in a child process under a uid; returns what it returns, raises OSError with its errno.

    The result must be JSON. The child sees the caller's memory as it was.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            os.setgroups(list(groups))
            os.setgid(uid if gid is None else gid)
            os.setuid(uid)
            try:
                answer: dict[str, Any] = {"value": call()}
            except OSError as error:
                answer = {"errno": error.errno}
            except BaseException as error:
                answer = {"failure": repr(error)}
            with os.fdopen(writer, "w") as file:
                json.dump(answer, file)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    answer = json.loads(text)
    if "errno" in answer:
        raise OSError(answer["errno"], os.strerror(answer["errno"]))
    if "failure" in answer:
        raise AssertionError(answer["failure"])
    return answer["value"]


def sh(uid: int, script: str, cwd: Path | str = "/") -> Result:
    """Run a shell script under a uid."""
    done = subprocess.run(
        ["sh", "-c", script],
        user=uid,
        group=uid,
        extra_groups=[],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        umask=0o022,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def trees_base() -> Path:
    """A new directory that every user can reach, for trees to mount over. Whoever asks for it removes it."""
    path = Path(tempfile.mkdtemp(prefix="isofs-test-", dir="/var/tmp"))
    path.chmod(0o755)
    return path


def mounts_below(path: Path) -> list[str]:
    """The mount points at or below a directory, the latest first."""
    found = []
    for line in filter(None, Path("/proc/self/mountinfo").read_bytes().split(b"\n")):
        name = line.split(b" ")[4]
        point = os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), name))
        if point == str(path) or point.startswith(f"{path}/"):
            found.append(point)
    return found[::-1]


def daemons_below(path: Path) -> list[int]:
    """The daemons that serve a directory at or below this one."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            if b"isofs.service.daemon" in words and any(w.startswith(os.fsencode(path) + b"/") for w in words):
                found.append(int(entry))
    return found


class Worker:
    """A process under a uid that makes one call after another and keeps open what it opened.

    `worker(function, *args)` returns what the function returns there, and raises OSError with its errno.
    """

    def __init__(
        self,
        uid: int,
        *,
        gid: int | None = None,
        groups: tuple[int, ...] = (),
        cwd: Path | str = "/",
        umask: int = 0o022,
    ) -> None:
        self.uid = uid
        mine, theirs = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _work(theirs[0], mine[1], uid, uid if gid is None else gid, groups, cwd, umask)
        os.close(theirs[0])
        os.close(mine[1])
        self._answers, self._orders = os.fdopen(mine[0], "rb"), os.fdopen(theirs[1], "wb")
        self._process = os.pidfd_open(self.pid)
        self._answer()

    def __call__(self, function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        self.begin(function, *args, **keywords)
        return self._answer()

    def begin(self, function: Callable[..., Any], *args: Any, **keywords: Any) -> None:
        """Start a call; `end` waits for its end and returns what it returned."""
        pickle.dump((function, args, keywords), self._orders)
        self._orders.flush()

    def end(self) -> Any:
        return self._answer()

    @property
    def working(self) -> bool:
        """Whether the call that was begun is still going on."""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        return not poll.poll(0)

    def _answer(self) -> Any:
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), f"a call of user {self.uid} hangs"
        try:
            kind, value = pickle.load(self._answers)
        except EOFError:
            raise AssertionError(f"process {self.pid} of user {self.uid} ended") from None
        if kind == "errno":
            raise OSError(value, os.strerror(value))
        assert kind == "value", value
        return value

    @property
    def alive(self) -> bool:
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        return not poll.poll(0)

    @property
    def ended(self) -> bool:
        """Whether the process ends in the next seconds: who is killed lets go of its files a moment before."""
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        return bool(poll.poll(10_000))

    def close(self) -> None:
        """End the process; it closes what it has open."""
        with contextlib.suppress(OSError):
            self._orders.close()
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        if not poll.poll(10_000):
            os.kill(self.pid, 9)
        os.waitid(os.P_PIDFD, self._process, os.WEXITED)
        os.close(self._process)
        self._answers.close()


#: A call for a process to make: the function, and its arguments without and with names.
_Order = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def _work(
    orders: int, answers: int, uid: int, gid: int, groups: tuple[int, ...], cwd: Path | str, umask: int
) -> NoReturn:
    try:
        low, high = sorted((orders, answers))
        os.closerange(3, low)
        os.closerange(low + 1, high)
        os.closerange(high + 1, os.sysconf("SC_OPEN_MAX"))
        os.umask(umask)
        os.setgroups(list(groups))
        os.setgid(gid)
        os.setuid(uid)
        with os.fdopen(orders, "rb") as reader, os.fdopen(answers, "wb") as writer:
            order: _Order = os.chdir, (cwd,), {}
            while True:
                pickle.dump(_outcome(*order), writer)
                writer.flush()
                order = pickle.load(reader)
    finally:
        os._exit(0)


def _outcome(function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[str, Any]:
    try:
        return "value", function(*args, **keywords)
    except OSError as error:
        return "errno", error.errno
    except BaseException:
        return "failure", traceback.format_exc()


def _write(path: str, data: bytes, flags: int) -> None:
    opened = os.open(path, os.O_WRONLY | flags, 0o666)
    try:
        os.write(opened, data)
    finally:
        os.close(opened)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _status(path: str) -> tuple[int, ...]:
    at = os.lstat(path)
    return (at.st_mode, at.st_uid, at.st_gid, at.st_nlink, at.st_size, at.st_mtime_ns)


def _names(path: str) -> list[str]:
    return sorted(os.listdir(path))


def _tree(path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _names(path):
        kind = stat.S_IFMT(os.lstat(f"{path}/{name}").st_mode)
        if kind == stat.S_IFDIR:
            found[name] = _tree(f"{path}/{name}")
        elif kind == stat.S_IFLNK:
            found[name] = "-> " + os.readlink(f"{path}/{name}")
        elif kind == stat.S_IFREG:
            found[name] = _read(f"{path}/{name}").decode()
        else:
            found[name] = kind
    return found


class Person(Worker):
    """A user at work in one directory: paths are relative to it, contents are text, new files are for everybody."""

    def __init__(self, uid: int, root: Path, *, groups: tuple[int, ...] = ()) -> None:
        super().__init__(uid, groups=groups, umask=0)
        self.root = root

    def path(self, name: str) -> str:
        return str(self.root / name)

    def write(self, name: str, text: str) -> None:
        """As `>` in a shell."""
        self(_write, self.path(name), text.encode(), os.O_CREAT | os.O_TRUNC)

    def append(self, name: str, text: str) -> None:
        """As `>>` in a shell."""
        self(_write, self.path(name), text.encode(), os.O_CREAT | os.O_APPEND)

    def save(self, name: str, text: str) -> None:
        """As an editor: write another file and rename it over the old one."""
        self.write(name + "~", text)
        self.rename(name + "~", name)

    def read(self, name: str) -> str:
        return str(self(_read, self.path(name)).decode())

    def names(self, name: str = "") -> list[str]:
        return list(self(_names, self.path(name)))

    def tree(self, name: str = "") -> dict[str, Any]:
        """Everything in a directory: contents, link targets, and dictionaries for directories."""
        return dict(self(_tree, self.path(name)))

    def status(self, name: str) -> tuple[int, ...]:
        """Mode, owner, group, link count, size and modification time."""
        return tuple(self(_status, self.path(name)))

    def exists(self, name: str) -> bool:
        return bool(self(os.path.lexists, self.path(name)))

    def mkdir(self, name: str, mode: int = 0o777) -> None:
        self(os.mkdir, self.path(name))
        self(os.chmod, self.path(name), mode)

    def rmdir(self, name: str) -> None:
        self(os.rmdir, self.path(name))

    def remove(self, name: str) -> None:
        self(os.unlink, self.path(name))

    def rename(self, old: str, new: str) -> None:
        self(os.rename, self.path(old), self.path(new))

    def link(self, old: str, new: str) -> None:
        self(os.link, self.path(old), self.path(new))

    def symlink(self, target: str, name: str) -> None:
        self(os.symlink, target, self.path(name))

    def chmod(self, name: str, mode: int) -> None:
        self(os.chmod, self.path(name), mode)

    def utime(self, name: str, mtime_ns: int) -> None:
        self(os.utime, self.path(name), ns=(mtime_ns, mtime_ns))


#: A modification time from this on is the clock's; whoever sets one explicitly sets an earlier one.
CLOCK = 1_500_000_000_000_000_000


def _tried(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except OSError as error:
        return f"errno {errno.errorcode.get(error.errno or 0)}"


def portrait(root: str, skip: str = "") -> dict[str, Any]:
    """Everything about everything below a directory, as its caller may see it, to compare it with another one.

    By path: type and mode, owner, group, link count, modification time if somebody set it, what is in it, extended
    attributes, and the names of the same inode. `skip` is a path that is left out.
    """
    found: dict[str, Any] = {}
    same: dict[int, list[str]] = {}
    todo = [""]
    while todo:
        above = todo.pop()
        names = _tried(lambda at=f"{root}/{above}": sorted(os.listdir(at)))  # type: ignore[misc]
        if isinstance(names, str):
            found[above + "/"] = names
            continue
        for name in names:
            path = f"{above}/{name}" if above else name
            if path == skip:
                continue
            at = _tried(lambda path=path: os.lstat(f"{root}/{path}"))  # type: ignore[misc]
            if isinstance(at, str):
                found[path] = at
                continue
            if stat.S_ISDIR(at.st_mode):
                todo.append(path)
            else:
                same.setdefault(at.st_ino, []).append(path)
            found[path] = _row(f"{root}/{path}", at)
    for names in same.values():
        for name in names:
            found[name].append(names)
    return found


def _row(full: str, at: os.stat_result) -> list[Any]:
    mtime = at.st_mtime_ns if at.st_mtime_ns < CLOCK else None
    row: list[Any] = [oct(at.st_mode), at.st_uid, at.st_gid, at.st_nlink, mtime]
    if stat.S_ISREG(at.st_mode):
        row.append(at.st_size)
        row.append(_tried(lambda: _read(full)))
    if stat.S_ISLNK(at.st_mode):
        row.append(os.readlink(full))
    else:
        row.append(_tried(lambda: {n: os.getxattr(full, n) for n in sorted(os.listxattr(full)) if not _raw_acl(n)}))
    return row


def _raw_acl(name: str) -> bool:
    """What XFS lists for root beside the name that ACLs have everywhere, and the mount does not."""
    return name.startswith("trusted.SGI_ACL_")
