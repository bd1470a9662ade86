"""A real control server in a thread of its own, with handlers that a test gives it."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import trio

from isofs.control.server import LIMITS, Handler, Limits, Plain, Progress, plain, serve


@contextlib.contextmanager
def running(
    socket_path: str,
    handlers: Mapping[str, Plain],
    limits: Limits = LIMITS,
    personal: Mapping[str, Handler] = MappingProxyType({}),
    **more: Any,
) -> Iterator[None]:
    """Serve while the block runs; an error of the server itself is raised at its end.

    `personal` are handlers that hear who calls; `more` is what else `serve` takes.
    """
    started: queue.Queue[tuple[trio.lowlevel.TrioToken, trio.CancelScope] | None] = queue.Queue()
    failed: list[BaseException] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: listen(task_status))
            started.put((trio.lowlevel.current_trio_token(), nursery.cancel_scope))

    async def listen(task_status: trio.TaskStatus[None]) -> None:
        await serve(socket_path, {**plain(handlers), **personal}, **more, limits=limits, task_status=task_status)

    def thread() -> None:
        try:
            trio.run(main)
        except BaseException as error:
            failed.append(error)
            started.put(None)

    server = threading.Thread(target=thread)
    server.start()
    running_server = started.get()
    if running_server is None:
        server.join()
        raise failed[0]
    try:
        yield
    finally:
        token, scope = running_server
        with contextlib.suppress(trio.RunFinishedError):
            trio.from_thread.run_sync(scope.cancel, trio_token=token)
        server.join()
    if failed:
        raise failed[0]


def answering(result: Mapping[str, object]) -> Plain:
    """A handler that answers always the same."""

    async def handler(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
        return result

    return handler


def failing(error: Exception) -> Plain:
    """A handler that raises."""

    async def handler(args: Mapping[str, object], progress: Progress) -> Mapping[str, object]:
        raise error

    return handler
