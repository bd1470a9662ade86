"""The daemon's end of the control socket: it asks who may call, carries out calls, and outlives clients.

A call that has begun is finished whatever becomes of its client, and is given some time to finish
even when the server is cancelled; no client can end the server.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from isofs.control import endpoint, wire
from isofs.control.accepting import EXHAUSTED, accept
from isofs.control.peers import Peer, peer_of
from isofs.errors import Busy, IsofsError, NotAllowed, UsageError

log = logging.getLogger(__name__)

#: How a handler tells how far it is: done, total. It never waits; only the latest state is sent.
#: It belongs to the thread of the server: elsewhere, call it through `trio.from_thread.run_sync`.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was admitted: what is asked for, by whom, and whom to tell how far it is."""

    args: Mapping[str, object]
    progress: Progress
    peer: Peer


#: What carries out one call: its result.
Handler = Callable[[Call], Awaitable[Mapping[str, object]]]

#: What carries out one call whoever makes it: its arguments and its progress in, its result out, to be awaited.
Plain = Callable[[Mapping[str, object], Progress], Any]

#: Raises NotAllowed if the peer may not make the request.
Admit = Callable[[Peer, wire.Request], None]

#: Hears of every request once: when it was carried out or refused, before the peer hears of it.
Record = Callable[[Peer, wire.Request, wire.Result | wire.Failure], None]


def plain(handlers: Mapping[str, Plain]) -> dict[str, Handler]:
    """Handlers for which it does not matter who calls."""

    def handler(carry_out: Plain) -> Handler:
        return lambda call: carry_out(call.args, call.progress)

    return {name: handler(carry_out) for name, carry_out in handlers.items()}


def root_alone(peer: Peer, request: wire.Request) -> None:
    """Admit root, and nobody else."""
    if peer.uid != 0:
        raise NotAllowed("only root may control isofs")


def unrecorded(peer: Peer, request: wire.Request, outcome: wire.Result | wire.Failure) -> None:
    """Record nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long (in seconds) and how much the server puts up with.

    idle       between two requests of a connection
    patience   for a client to read one line
    heartbeat  without a word to a client whose call goes on
    grace      for the calls that go on when the server is cancelled
    connections  of root, and of all others together, so that nobody keeps root out
    share      connections of one user who is not root
    """

    idle: float = 60.0
    patience: float = 30.0
    heartbeat: float = 5.0
    grace: float = 10.0
    connections: int = 32
    share: int = 8


LIMITS = Limits()

#: Seconds of writing an answer at a stretch, before others are served.
_SLICE = 0.005


async def serve(
    socket_path: str,
    handlers: Mapping[str, Handler],
    *,
    admit: Admit = root_alone,
    record: Record = unrecorded,
    groups: Collection[int] = (),
    limits: Limits = LIMITS,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer the calls at `socket_path` that are admitted until cancelled; started once the socket listens.

    Root and the members of `groups` can reach the socket. Already, if another daemon listens there.
    An IsofsError of a handler is answered as what it is; every other exception is logged and answered
    as `internal`.
    """
    server = _Server(handlers, admit, record, limits)
    with endpoint.listening(socket_path, groups) as listener:
        sockets = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.hurry_when_cancelled)
            task_status.started()
            await accept(sockets, server.connection, nursery)


class _Server:
    def __init__(self, handlers: Mapping[str, Handler], admit: Admit, record: Record, limits: Limits) -> None:
        self._handlers, self._admit, self._record = handlers, admit, record
        self._limits = limits
        self._connections = Counter[int]()
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
        try:
            async with stream:
                peer = await self._peer(stream)
                if peer is not None:
                    with self._counted(peer.uid):
                        await self._converse(stream, peer)
        except (trio.BrokenResourceError, trio.TooSlowError):
            log.debug("a control client left without hearing the answer")
        except Exception:
            log.exception("a control connection failed")

    async def _peer(self, stream: trio.SocketStream) -> Peer | None:
        """Who is there; None, once told so, if that cannot be asked for now."""
        try:
            return peer_of(stream.socket)
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            await self._send(stream, _line(Busy(f"the daemon cannot tell who calls: {error.strerror}: try again")))
            return None

    @contextlib.contextmanager
    def _counted(self, uid: int) -> Iterator[None]:
        self._connections[uid] += 1
        try:
            yield
        finally:
            self._connections[uid] -= 1
            self._connections += Counter()  # forgets who has none

    def _full(self, uid: int) -> bool:
        if uid == 0:
            return self._connections[0] > self._limits.connections
        others = self._connections.total() - self._connections[0]
        return self._connections[uid] > self._limits.share or others > self._limits.connections

    async def _converse(self, stream: trio.SocketStream, peer: Peer) -> None:
        if self._full(peer.uid):
            await self._send(stream, _line(Busy("too many control connections: try again")))
            return
        lines = _Lines(stream)
        try:
            while (line := await self._next(lines)) is not None:
                await self._carry_out(stream, peer, line)
        except UsageError as error:
            # The end of the line isn't known, so nothing that follows can be understood.
            await self._send(stream, _line(error))

    async def _next(self, lines: _Lines) -> bytes | None:
        """The next request line; None when the client leaves or says nothing for too long."""
        # A line that is here already would not wait, and a cancelled server must not begin a call.
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(self._limits.idle):
            return await lines.receive()
        return None

    async def _carry_out(self, stream: trio.SocketStream, peer: Peer, line: bytes) -> None:
        with trio.CancelScope(shield=True) as scope:
            self._calls.add(scope)
            try:
                state = _State()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._work, peer, line, state)
                    try:
                        await self._tell(stream, state)
                    except (trio.BrokenResourceError, trio.TooSlowError) as error:
                        state.unheard = error
                if state.unheard is not None:
                    raise state.unheard
            finally:
                self._calls.discard(scope)

    async def _work(self, peer: Peer, line: bytes, state: _State) -> None:
        try:
            request = wire.parse_request(line)
        except UsageError as error:
            state.finish(_line(error))
            return
        outcome: wire.Result | wire.Failure = wire.Failure("internal", "the daemon ended before it was done")
        try:
            reply, outcome = await self._answer(peer, request, state.report)
        finally:
            try:
                self._record(peer, request, outcome)
            except Exception:
                log.exception("the control call %r could not be recorded", request.call)
        state.finish(reply)

    async def _answer(
        self, peer: Peer, request: wire.Request, report: Progress
    ) -> tuple[bytes, wire.Result | wire.Failure]:
        """The line with the answer, and what is in it."""
        try:
            self._admit(peer, request)
            handler = self._handlers.get(request.call)
            if handler is None:
                raise UsageError(f"there is no call {request.call!r}")
            result = wire.Result(await handler(Call(request.args, report, peer)))
            return await _encoded(result), result
        except IsofsError as error:
            failure = wire.Failure(error.code, str(error))
        except Exception as error:
            log.exception("the control call %r failed", request.call)
            failure = wire.Failure("internal", f"the daemon failed: {error!r}")
        return wire.encode(failure), failure

    async def _tell(self, stream: trio.SocketStream, call: _State) -> None:
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


class _State:
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


def _line(error: IsofsError) -> bytes:
    return wire.encode(wire.Failure(error.code, str(error)))


async def _encoded(result: wire.Result) -> bytes:
    """The line of a result. Whoever calls the file system is served while a long one is written."""
    found, last = list[bytes](), trio.current_time()
    for piece in wire.pieces(result):
        found.append(piece)
        if trio.current_time() - last > _SLICE:
            await trio.lowlevel.checkpoint()
            last = trio.current_time()
    return b"".join(found)
