"""What the demo plays on: real users, a copy of a real tree, isoctl; and all of it gone at the end."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pickle
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

GROUP = "isofs-demo"
#: People look into each other's repositories.
_GIT_CONFIG = {"safe.directory": "*", "init.defaultBranch": "main", "gc.auto": "0"}
_REMARK = "for the demo of isofs"
#: Of the library: caches, programs, tests, and what would only make the demo longer.
_LEFT_OUT = ["__pycache__", "*.so", "*.so.*", "*.a", "site-packages", "dist-packages", "test", "tests", "_tests"]
_LEFT_OUT += [
    "config-*",
    "distutils",
    "encodings",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "tkinter",
    "turtledemo",
]
#: Of what is installed.
_PACKAGES = ["attr", "click", "idna", "packaging", "pathspec", "pluggy", "sortedcontainers", "trio"]
_LIMIT = 120
_DAEMON_LIMIT = 30


class Trouble(Exception):
    """The demo can't go on, for a reason that says nothing about isofs."""


@dataclass(frozen=True)
class Person:
    """A user of the machine who works in the shared tree, with files for everyone in the group."""

    name: str
    uid: int
    gid: int
    home: Path

    def sh(self, script: str, cwd: Path) -> str:
        """Run a script, as this user, that must succeed; what it printed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=cwd,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=_LIMIT,
            check=False,
            **self._identity,
        )
        if done.returncode:
            raise Trouble(f"{self.name} could not do this (exit code {done.returncode}): {script}\n{done.stderr}")
        printed: str = done.stdout
        return printed

    def shell(self, cwd: Path) -> Shell:
        """A shell of this user that stays open."""
        return Shell(
            subprocess.Popen(
                ["bash"],
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                **self._identity,
            )
        )

    def do(self, call: Callable[[], T]) -> T:
        """What a call returns, when made in a process of this user."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os.setgroups([])
                os.setgid(self.gid)
                os.setuid(self.uid)
                with open(writer, "wb") as answer:
                    try:
                        pickle.dump(call(), answer)
                    except Exception as error:
                        pickle.dump(error, answer)
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as answer:
            result = answer.read()
        os.waitpid(child, 0)
        found = pickle.loads(result)
        if isinstance(found, Exception):
            raise found
        value: T = found
        return value

    @property
    def _identity(self) -> dict[str, Any]:
        names = {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name, "LC_ALL": "C.UTF-8"}
        git = {f"GIT_{role}_{what}": self.name for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        for number, (key, value) in enumerate(_GIT_CONFIG.items()):
            git |= {"GIT_CONFIG_COUNT": str(number + 1), f"GIT_CONFIG_KEY_{number}": key}
            git |= {f"GIT_CONFIG_VALUE_{number}": value}
        return {
            "user": self.uid,
            "group": self.gid,
            "extra_groups": [],
            "umask": 0o002,
            "env": {"PATH": "/usr/local/bin:/usr/bin:/bin", **names, **git},
        }


class Shell:
    """A shell that does one thing after the other."""

    _END = "--end--"

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, script: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{script}\necho {self._END} $?\n")
        self._process.stdin.flush()
        said: list[str] = []
        for line in self._process.stdout:
            if line.startswith(self._END):
                if line != f"{self._END} 0\n":
                    raise Trouble(f"{script} ended with {line.split()[-1]}: {''.join(said)}")
                return "".join(said)
            said.append(line)
        raise Trouble(f"the shell ended at: {script}")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True)
class Answer:
    """How a command ended, what it printed, and how long it took."""

    code: int
    text: str
    seconds: float


@dataclass
class Stage:
    """The place of the demo: the shared tree, and who works in it."""

    place: Path
    gid: int
    daemon: int = 0

    @property
    def shared(self) -> Path:
        return self.place / "shared"

    @property
    def twin(self) -> Path:
        return self.place / "twin"

    @property
    def store(self) -> Path:
        return self.shared / ".isofs"

    def isoctl(self, *words: str) -> Answer:
        """Run isoctl as the administrator does."""
        command = [sys.executable, "-m", "isoctl.main", *words]
        began = time.monotonic()
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            timeout=_LIMIT,
            check=False,
        )
        return Answer(done.returncode, done.stdout, time.monotonic() - began)

    def facts(self, *words: str) -> Any:
        """What isoctl says with --json."""
        answer = self.isoctl("--mount", str(self.shared), *words, "--json")
        if answer.code:
            raise Trouble(f"isoctl {' '.join(words)}: {answer.text}")
        return json.loads(answer.text)


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A place with a copy of the Python library in it; gone at the end, with the users and the mount."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_only_one())
        gid = stack.enter_context(_group())
        place = Path(tempfile.mkdtemp(prefix="isofs-demo.", dir="/var/tmp"))
        stack.callback(shutil.rmtree, place)
        place.chmod(0o755)
        made = Stage(place, gid)
        stack.callback(_unmounted, made)
        yield made


@contextlib.contextmanager
def person(on: Stage, name: str) -> Iterator[Person]:
    """A user of the machine in the group of the demo, for as long as the demo takes."""
    account = f"demo-{name}"
    home = on.place / name
    with contextlib.suppress(KeyError):
        # Left by a demo that was killed.
        if pwd.getpwnam(account).pw_gecos != _REMARK:
            raise Trouble(f"there is a user {account} already, and it is not the demo's")
        _system("userdel", account)
    options = {"home-dir": str(home), "shell": "/usr/sbin/nologin", "gid": str(on.gid), "comment": _REMARK}
    _system(
        "useradd",
        "--no-create-home",
        "--key",
        "SUB_UID_COUNT=0",
        "--key",
        "SUB_GID_COUNT=0",
        *(f"--{k}={v}" for k, v in options.items()),
        account,
    )
    try:
        uid = pwd.getpwnam(account).pw_uid
        home.mkdir(mode=0o700)
        os.chown(home, uid, on.gid)
        yield Person(account, uid, on.gid, home)
    finally:
        _end_all_of(pwd.getpwnam(account).pw_uid)
        _system("userdel", account)


def fill(tree: Path, alice: Person, bob: Person) -> None:
    """Copy the interpreter's own library and some packages, for two people who share them."""
    ignored, packages = shutil.ignore_patterns(*_LEFT_OUT), Path(sysconfig.get_path("purelib"))
    shutil.copytree(sysconfig.get_path("stdlib"), tree / "library", symlinks=True, ignore=ignored)
    for package in _PACKAGES:
        shutil.copytree(packages / package, tree / "packages" / package, symlinks=True, ignore=ignored)
    for name, owner in (("library", alice), ("packages", bob)):
        for directory, _, files in os.walk(tree / name):
            os.chown(directory, owner.uid, owner.gid)
            os.chmod(directory, 0o2775)
            for file in files:
                path = os.path.join(directory, file)
                os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
                if not os.path.islink(path):
                    os.chmod(path, os.stat(path).st_mode & 0o111 | 0o664)
    os.chown(tree, 0, alice.gid)
    os.chmod(tree, 0o2775)


def gone(stage: Stage, people: Sequence[Person]) -> Iterator[str]:
    """What is still there of a demo that has ended."""
    if stage.place.exists():
        yield f"{stage.place} is still there"
    if str(stage.place) in Path("/proc/mounts").read_text():
        yield "something is still mounted"
    if Path(f"/proc/{stage.daemon}").exists():
        yield f"the daemon {stage.daemon} is still running"
    names = {user.pw_name for user in pwd.getpwall()}
    yield from (f"the user {one.name} is still there" for one in people if one.name in names)
    if GROUP in {group.gr_name for group in grp.getgrall()}:
        yield f"the group {GROUP} is still there"


@contextlib.contextmanager
def _only_one() -> Iterator[None]:
    """Whatever is left of another demo is left for good, as there is only one at a time."""
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind("\0isofs-demo")
        except OSError:
            raise Trouble("another demo is running on this machine") from None
        yield


@contextlib.contextmanager
def _group() -> Iterator[int]:
    if GROUP not in {group.gr_name for group in grp.getgrall()}:
        _system("groupadd", "--system", GROUP)
    try:
        yield grp.getgrnam(GROUP).gr_gid
    finally:
        _system("groupdel", GROUP)


def _end_all_of(uid: int) -> None:
    """End what a user of the demo still runs, where the demo was interrupted."""
    limit = time.monotonic() + _LIMIT
    while running := [int(path.name) for path in Path("/proc").glob("[0-9]*") if _owner(path) == uid]:
        if time.monotonic() > limit:
            raise Trouble(f"these processes don't end: {running}")
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except FileNotFoundError:
        return None


def _unmounted(stage: Stage) -> None:
    """Take the mount away, whoever is in it, and wait for the end of its daemon."""
    while os.path.ismount(stage.shared):
        subprocess.run(["umount", "--lazy", str(stage.shared)], check=True)
    limit = time.monotonic() + _DAEMON_LIMIT
    while stage.daemon and Path(f"/proc/{stage.daemon}").exists() and time.monotonic() < limit:
        time.sleep(0.05)
    with contextlib.suppress(OSError):  # another daemon's socket is there
        os.rmdir("/run/isofs")


def _system(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Trouble(f"{' '.join(command)}: {done.stderr.strip()}")


def _interrupted(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)
