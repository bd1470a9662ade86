"""A mounted isofs for tests: the real command, real processes under real uids, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Users of the tests. They need not exist in the password file.
ALICE, BOB, CAROL, DAVE = 61001, 61002, 61003, 61004


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def isoctl(*words: str, timeout: float = 60) -> Result:
    """Run `isoctl` as a user would."""
    command = [sys.executable, "-m", "isoctl.main", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd="/", check=False)
    return Result(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Mounted:
    """A mount over `path`; the daemon may be killed and started again."""

    path: Path

    def isoctl(self, *words: str) -> Result:
        return isoctl("--mount", str(self.path), *words)

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
        return int(self.facts("status")["pid"])

    def kill(self) -> None:
        """SIGKILL the daemon and wait for its end."""
        pid = self.pid
        descriptor = os.pidfd_open(pid)
        try:
            os.kill(pid, 9)
            os.waitid(os.P_PIDFD, descriptor, os.WEXITED) if _is_child(pid) else _wait_gone(descriptor)
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """Every invariant holds."""
        done = self.isoctl("check", "--json")
        assert done.code == 0, done


def _is_child(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1]) == os.getpid()


def _wait_gone(descriptor: int) -> None:
    import select

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
