"""The command's end of the control socket: one call, and its answer or its error."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping

from isofs.control import wire
from isofs.errors import BY_CODE, IsofsError, NoAnswer, NotAllowed, UsageError

#: How long the daemon may say nothing, in seconds. It sends progress as long as a call goes on.
SILENCE = 30.0


class Unreachable(NoAnswer):
    """Nobody listens at the socket: there is no daemon, or it is dead."""


def call(
    socket_path: str,
    name: str,
    args: Mapping[str, object],
    *,
    progress: Callable[[int, int], None] | None = None,
    timeout: float = SILENCE,
) -> dict[str, object]:
    """Ask the daemon at `socket_path` for the call `name`, and return its result.

    The error of the daemon is raised as the class that its code names; NoAnswer where there is no
    daemon, or it ends without an answer, or says nothing for `timeout` seconds.
    """
    request = wire.encode(wire.Request(name, args))
    try:
        for reply in _replies(socket_path, request, timeout):
            match reply:
                case wire.Progress(done, total):
                    if progress is not None:
                        progress(done, total)
                case wire.Result(result):
                    return dict(result)
                case wire.Failure(code, message):
                    raise BY_CODE.get(code, IsofsError)(message)
    except TimeoutError:
        raise NoAnswer(f"the daemon at {socket_path} said nothing for {timeout:g} s") from None
    except ConnectionResetError:
        pass
    raise NoAnswer(f"the daemon at {socket_path} ended without an answer")


def _replies(socket_path: str, request: bytes, timeout: float) -> Iterator[wire.Reply]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(socket_path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise Unreachable(f"no daemon answers at {socket_path}") from error
        except PermissionError as error:
            raise NotAllowed("only root, and the groups that root gave a role, may control isofs") from error
        except BlockingIOError as error:
            raise NoAnswer(f"the daemon at {socket_path} doesn't accept more callers") from error
        # A daemon that turns a caller away hangs up before it reads; what it said is still there.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        with connection.makefile("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    return
                yield _reply(line)


def _reply(line: bytes) -> wire.Reply:
    try:
        return wire.parse_reply(line)
    except UsageError as error:
        raise NoAnswer(f"the daemon's answer isn't understood: {error}") from error
