"""The scripted session by real users on a mount, as far as its daemon lives."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isofs.control import client, mounts
from isofs.engine.state import Caller
from isofs.errors import NoAnswer
from support.host import Host
from support.kill_session import USERS, Operator, Session, play
from support.trees import Tree, tree


class _There(Host):
    """The mount, whose new files need not be given to anybody."""

    def _give(self, at: bytes) -> None:
        pass


class User:
    """A user of the mount, played by this process: each call is made under the user's uid."""

    def __init__(self, root: Path, uid: int) -> None:
        self._uid = uid
        self._host = _There(os.fsencode(root), Caller(uid, uid, os.getpid()))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._host, name)

        def under_uid(*args: Any) -> Any:
            os.setegid(self._uid)
            os.seteuid(self._uid)
            try:
                return call(*args)
            finally:
                os.seteuid(0)
                os.setegid(0)

        return under_uid


def _session(root: Path) -> Session:
    socket = mounts.socket_for(str(root))

    def ask(name: str, **more: object) -> Callable[[int], None]:
        def call(uid: int) -> None:
            user = next(user for user, number in USERS.items() if number == uid)
            client.call(socket, name, {"uid": uid, "user": user, **more})

        return call

    operator = Operator(ask("suspect", reason="test"), ask("innocent"), ask("malicious"))
    return Session(operator, **{name: User(root, uid) for name, uid in USERS.items()})


def in_child(work: Callable[[], object]) -> Any:
    """What `work` returns in a child process, which keeps nothing of the mount open."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            os.setgroups([])
            os.umask(0o022)
            with os.fdopen(writer, "wb") as file:
                pickle.dump(work(), file)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child failed"
    return pickle.loads(data)


def play_until_death(root: Path) -> tuple[int, str]:
    """Play the session until a call fails; how many calls were answered, and the failure."""

    def work() -> tuple[int, str]:
        answered = 0
        try:
            for _ in play(_session(root)):
                answered += 1
        except (OSError, NoAnswer):
            return answered, traceback.format_exc()
        return answered, "no call failed"

    found: tuple[int, str] = in_child(work)
    return found


def trees(root: Path) -> dict[str, Tree]:
    """What every user sees."""
    found: dict[str, Tree] = in_child(lambda: {name: tree(User(root, uid)) for name, uid in USERS.items()})
    return found
