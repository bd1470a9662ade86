"""Who may call the daemon of one mount, as it is configured now; and what callers say of themselves."""

from __future__ import annotations

import grp
import logging
from collections.abc import Mapping

import trio

from isofs.control import endpoint, users, wire
from isofs.control.peers import Peer
from isofs.control.server import Call, Handler, Plain
from isofs.engine.state import Filesystem
from isofs.errors import IsofsError
from isofs.model.records import SubjectState
from isofs.service import roles
from isofs.service.live import Live
from isofs.service.roles import Groups, Role
from isofs.settings.settings import Settings

log = logging.getLogger(__name__)


class Access:
    """Admits calls by the groups of `[access]`, and keeps the socket reachable for just these groups."""

    def __init__(self, fs: Filesystem, live: Live, socket_path: str) -> None:
        self._fs, self._live, self._socket_path = fs, live, socket_path
        self.groups = groups_of(live.now)
        live.subscribe(self._changed)

    def admit(self, peer: Peer, request: wire.Request) -> None:
        """NotAllowed if the peer may not make this request now."""
        self._live.refresh()
        roles.check(self.role(peer), request.call, request.args)

    def role(self, peer: Peer) -> Role:
        failure = self._fs.failure
        unknown = failure is not None and failure.isolated is None  # who is isolated
        return roles.held(peer, Groups() if unknown else self.groups, self.suspects())

    def suspects(self) -> set[int]:
        """The users who decide nothing: those of whom something is isolated, or waits for a decision."""
        if self._fs.failure is not None:
            return set(self._fs.failure.isolated or ())
        return {s.uid for s in self._fs.subjects.values() if s.state is not SubjectState.ENDED}

    def _changed(self, settings: Settings) -> None:
        self.groups = groups_of(settings)
        try:
            endpoint.admit(self._socket_path, self.groups.all)
        except (OSError, IsofsError) as error:
            log.error("the groups of `[access]` cannot reach the control socket: %s", error)


def groups_of(settings: Settings) -> Groups:
    return Groups(_gid(settings.access.observe), _gid(settings.access.decide))


def _gid(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid if name else None
    except KeyError:  # gone since it was configured
        return None


def identified(handlers: Mapping[str, Plain]) -> dict[str, Handler]:
    """Handlers that hear of a caller what the kernel says, whatever its arguments say: who and which process it is.

    Root may act for others, and is believed.
    """

    def handler(carry_out: Plain) -> Handler:
        async def called(call: Call) -> Mapping[str, object]:
            result: Mapping[str, object] = await carry_out(await true_args(call), call.progress)
            return result

        return called

    return {name: handler(carry_out) for name, carry_out in handlers.items()}


async def true_args(call: Call) -> Mapping[str, object]:
    """The arguments of a call, with what the kernel says of the caller in the place of what it says itself."""
    if call.peer.uid == 0:
        return call.args
    true: dict[str, object] = {**call.args, "by": await name_of(call.peer.person), "pid": call.peer.pid}
    uid = call.args.get("uid")
    if type(uid) is int:
        true["user"] = await name_of(uid)
    return true


async def name_of(uid: int) -> str:
    """The name that goes with a uid, or the number where there is none; in a thread, since that may take long."""
    return await trio.to_thread.run_sync(users.name_of, uid)
