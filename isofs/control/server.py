"""The daemon's end of the control socket: it admits root, carries out calls, and outlives clients.

A call that has begun is finished whatever becomes of its client, and is given some time to finish
even when the server is cancelled; no client can end the server.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import trio

from isofs.control import endpoint, wire
from isofs.errors import Busy, IsofsError, NotAllowed, UsageError

log = logging.getLogger(__name__)

#: How a handler tells how far it is: done, total. It never waits; only the latest state is sent.
#: It belongs to the thread of the server: elsewhere, call it through `trio.from_thread.run_sync`.
Progress = Callable[[int, int], None]

#: What carries out one call: its arguments and its progress in, its result out.
Handler = Callable[[Mapping[str, object], Progress], Awaitable[Mapping[str, object]]]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long (in seconds) and how much the server puts up with.

    idle       between two requests of a connection
    patience   for a client to read one line
    heartbeat  without a word to a client whose call goes on
    grace      for the calls that go on when the server is cancelled
    """

    idle: float = 60.0
    patience: float = 30.0
    heartbeat: float = 5.0
    grace: float = 10.0
    connections: int = 32


LIMITS = Limits()

_CREDENTIALS = struct.Struct("iII")


async def serve(
    socket_path: str,
    handlers: Mapping[str, Handler],
    *,
    limits: Limits = LIMITS,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer calls at `socket_path` until cancelled; started once the socket listens.

    Already, if another daemon listens there. An IsofsError of a handler is answered as what it is;
    every other exception is logged and answered as `internal`.
    """
    server = _Server(handlers, limits)
    with endpoint.listening(socket_path) as listener:
        sockets = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.hurry_when_cancelled)
            task_status.started()
            await trio.serve_listeners(server.connection, [sockets], handler_nursery=nursery)


class _Server:
    def __init__(self, handlers: Mapping[str, Handler], limits: Limits) -> None:
        self._handlers = handlers
        self._limits = limits
        self._connections = 0
        self._calls: set[trio.CancelScope] = set()

    async def hurry_when_cancelled(self) -> None:
        """Bound the time of the calls that go on, when the server is cancelled."""
        try:
            await trio.sleep_forever()
        finally:
            for call in self._calls:
                call.deadline = trio.current_time() + self._limits.grace

    async def connection(self, stream: trio.SocketStream) -> None:
        """Talk with one client until it leaves, bores or breaks the protocol's frame."""
        self._connections += 1
        try:
            async with stream:
                await self._converse(stream)
        except (trio.BrokenResourceError, trio.TooSlowError):
            log.debug("a control client left without hearing the answer")
        except Exception:
            log.exception("a control connection failed")
        finally:
            self._connections -= 1

    async def _converse(self, stream: trio.SocketStream) -> None:
        if _peer_uid(stream) != 0:
            await self._send(stream, _failure(NotAllowed("only root may control isofs")))
            return
        if self._connections > self._limits.connections:
            await self._send(stream, _failure(Busy("too many control connections: try again")))
            return
        lines = _Lines(stream)
        try:
            while (line := await self._next(lines)) is not None:
                await self._carry_out(stream, line)
        except UsageError as error:
            # The end of the line isn't known, so nothing that follows can be understood.
            await self._send(stream, _failure(error))

    async def _next(self, lines: _Lines) -> bytes | None:
        """The next request line; None when the client leaves or says nothing for too long."""
        # A line that is here already would not wait, and a cancelled server must not begin a call.
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(self._limits.idle):
            return await lines.receive()
        return None

    async def _carry_out(self, stream: trio.SocketStream, line: bytes) -> None:
        with trio.CancelScope(shield=True) as scope:
            self._calls.add(scope)
            try:
                call = _Call()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._work, line, call)
                    try:
                        await self._tell(stream, call)
                    except (trio.BrokenResourceError, trio.TooSlowError) as error:
                        call.unheard = error
                if call.unheard is not None:
                    raise call.unheard
            finally:
                self._calls.discard(scope)

    async def _work(self, line: bytes, call: _Call) -> None:
        call.finish(await self._answer(line, call.report))

    async def _answer(self, line: bytes, report: Progress) -> bytes:
        name = "?"
        try:
            request = wire.parse_request(line)
            name = request.call
            handler = self._handlers.get(name)
            if handler is None:
                raise UsageError(f"there is no call {name!r}")
            return wire.encode(wire.Result(await handler(request.args, report)))
        except IsofsError as error:
            return _failure(error)
        except Exception as error:
            log.exception("the control call %r failed", name)
            return wire.encode(wire.Failure("internal", f"the daemon failed: {error!r}"))

    async def _tell(self, stream: trio.SocketStream, call: _Call) -> None:
        """Send a call's progress as it comes or at every heartbeat, and its reply at last."""
        while call.reply is None or call.fresh:
            with trio.move_on_after(self._limits.heartbeat) as quiet:
                await call.news.wait()
            call.news = trio.Event()
            if call.fresh or quiet.cancelled_caught:
                call.fresh = False
                await self._send(stream, wire.encode(call.progress))
        await self._send(stream, call.reply)

    async def _send(self, stream: trio.SocketStream, line: bytes) -> None:
        with trio.fail_after(self._limits.patience):
            await stream.send_all(line)


class _Call:
    """Where a call that is being carried out has got to."""

    def __init__(self) -> None:
        self.progress = wire.Progress(0, 0)
        self.fresh = False
        self.reply: bytes | None = None
        self.unheard: Exception | None = None
        self.news = trio.Event()

    def report(self, done: int, total: int) -> None:
        self.progress = wire.Progress(done, total)
        self.fresh = True
        self.news.set()

    def finish(self, reply: bytes) -> None:
        self.reply = reply
        self.news.set()


class _Lines:
    """The lines that a client sends, none longer than a request may be."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def receive(self) -> bytes | None:
        """The next line with its newline, or None at the end; half a line at the end is dropped."""
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched) + 1
            if (end or len(self._buffer)) > wire.REQUEST_LIMIT:
                raise UsageError(f"the request is longer than {wire.REQUEST_LIMIT} bytes")
            if end:
                line = bytes(self._buffer[:end])
                del self._buffer[:end]
                return line
            searched = len(self._buffer)
            more = await self._stream.receive_some()
            if not more:
                return None
            self._buffer += more


def _peer_uid(stream: trio.SocketStream) -> int:
    """Who connected, as the kernel recorded it at that moment."""
    packed = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    assert isinstance(packed, bytes)
    _pid, uid, _gid = _CREDENTIALS.unpack(packed)
    return int(uid)


def _failure(error: IsofsError) -> bytes:
    return wire.encode(wire.Failure(error.code, str(error)))
