"""Verdicts of two persons: one proposes, another confirms, and only then is anything carried out.

A proposal says what was asked for, and what the user had changed at that moment. If that is not what it was when
somebody confirms it, nothing happens, unless that is confirmed as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial

from isofs.control import results, wire
from isofs.control.peers import Peer
from isofs.control.server import Call, Handler, Plain
from isofs.engine import digests
from isofs.engine.state import Filesystem
from isofs.errors import Already, Busy, NoSubject, NotAllowed, Unconfirmed
from isofs.model.records import Drop, Proposal, Put, Subject, SubjectState
from isofs.service import partly, settling
from isofs.service.access import Access, name_of, true_args
from isofs.service.live import Live
from isofs.service.roles import NEEDS, Role
from isofs.store import proposals

log = logging.getLogger(__name__)

#: The calls that wait for a second person.
VERDICTS = ("innocent", "malicious", "resolve")

#: Of the other calls for those who decide, those that one person may always make: they give nothing of anybody free.
ALONE = ("suspect", "alert", "detector", "markers", "confirm", "withdraw", "attic_restore")

#: So many changed paths are named in an error.
_SHOWN = 5

#: What a caller says of itself: who confirms, later, is another one.
_OF_THE_CALLER = ("uid", "by", "pid", "descriptor")


class Proposals:
    """The calls on proposals, and the verdicts that become ones if `two_person` is configured."""

    def __init__(self, fs: Filesystem, live: Live, access: Access, carry_out: Mapping[str, Plain]) -> None:
        self._fs, self._live, self._access, self._carry_out = fs, live, access, carry_out
        self._expected: dict[int, str | None] = {}  # by the uid whose verdict is being carried out: the digest

    def handlers(self) -> dict[str, Handler]:
        verdicts: dict[str, Handler] = {name: partial(self._verdict, name) for name in VERDICTS}
        for name in self._carry_out:
            if NEEDS.get(name) is Role.DECIDE and name not in (*VERDICTS, *ALONE):
                verdicts[name] = partial(self._alone, name)
        own: dict[str, Handler] = {"proposals": self.waiting, "confirm": self.confirm, "withdraw": self.withdraw}
        return {**verdicts, **own, "status": self.status}

    def agreed(self, subject: Subject) -> None:
        """Unconfirmed if a verdict that two persons agreed on is about to be carried out on something else.

        To be called when the subject can change nothing more.
        """
        expected = self._expected.get(subject.uid)
        if expected is not None and digests.marks(self._fs, subject.uid)[0] != expected:
            raise Unconfirmed(
                f"{subject.name} changed something in this very moment, and nothing was carried out: "
                f"look at it, then confirm it again, with --anyway"
            )

    async def _verdict(self, name: str, call: Call) -> Mapping[str, object]:
        args = await true_args(call)
        uid = wire.argument(args, "uid", int)
        if self._live.now.access.two_person and not self._begun(name, args):
            await self._propose(name, args, call.peer)
        self._check_not_busy(uid)
        result: Mapping[str, object] = await self._carry_out[name](args, call.progress)
        self._remove(uid)
        return result

    async def _alone(self, name: str, call: Call) -> Mapping[str, object]:
        """A verdict that cannot be proposed; with `dry` it is none."""
        dry = wire.optional(call.args, "dry", bool)
        if self._live.now.access.two_person and not dry:
            raise NotAllowed(f"{name} cannot wait for a second person, whom `access.two_person` asks for")
        result: Mapping[str, object] = await self._carry_out[name](await true_args(call), call.progress)
        if not dry:
            self._remove(wire.argument(call.args, "uid", int))
        return result

    async def _propose(self, name: str, args: Mapping[str, object], peer: Peer) -> None:
        """Keep what is asked for, if it can be carried out as far as that can be told now; raises Unconfirmed."""
        uid, by, content = wire.argument(args, "uid", int), await name_of(peer.person), None
        subject = self._subject(uid)
        if name == "resolve":
            settling.check(self._fs, args)
            if args.get("descriptor") is not None:
                content = await settling.content(args)
        elif (asked := partly.asked(args) if name == "innocent" else partly.accepted(args)) is not None:
            await partly.found(self._fs, subject, asked)
        self._check_not_busy(uid)
        before = proposals.about(self._fs.store.database, uid)
        if before is not None and before.persons.isdisjoint(peer.persons):
            raise Already(
                f"{before.by} has proposed something about {subject.name}, since {before.at}: "
                f"confirm that, or withdraw it (`isoctl proposals` shows it)"
            )
        kept = {key: value for key, value in args.items() if key not in _OF_THE_CALLER}
        now = wire.moment(time.time())
        digest, seen = digests.marks(self._fs, uid)
        self._fs.store.write([Put(Proposal(uid, now, by, peer.persons, name, kept, content, digest, seen))])
        log.warning("%s proposes %s for %s", by, name, subject.name)
        raise Unconfirmed(
            f"proposed, and nothing is carried out yet: another person does it with `isoctl confirm {subject.name}`"
        )

    def _begun(self, name: str, args: Mapping[str, object]) -> bool:
        """Whether this goes on with what was confirmed, began, and was cut off."""
        subject = self._subject(wire.argument(args, "uid", int))
        if subject.part_of is not None or partly.asked(args) is not None:
            return False
        begun = {"innocent": SubjectState.MERGING, "malicious": SubjectState.DISCARDING}
        return subject.state is begun.get(name)

    async def confirm(self, call: Call) -> Mapping[str, object]:
        """Carry out what another person proposed; with `anyway`, though the user has changed something since."""
        uid, anyway = wire.argument(call.args, "uid", int), wire.optional(call.args, "anyway", bool)
        by, peer = await name_of(call.peer.person), call.peer
        proposal = self._about(uid)
        self._check_not_busy(uid)
        self._check_persons(proposal, peer)
        user = self._subject(uid).name
        digest, seen = digests.marks(self._fs, uid)
        if digest != proposal.digest and not anyway:
            changed = [wire.path_text(path) for path in digests.differing(self._fs, uid, proposal.seen, seen)]
            raise Unconfirmed(
                f"{user} has changed something since it was proposed ({_named(changed)}), and nothing was carried out: "
                f"look at it, then `isoctl confirm {user} --anyway`"
            )
        args = {**proposal.args, "uid": uid, "by": f"{proposal.by}, confirmed by {by}"}
        if peer.uid == 0:  # whose paths are what they seem
            args["pid"] = peer.pid
        log.warning("%s confirms what %s proposed for %s", by, proposal.by, user)
        with self._carrying(uid, None if anyway else digest), _held(proposal.content) as given:
            result = await self._carry_out[proposal.call](args | given, call.progress)
        self._remove(uid)
        confirmed: results.Confirmed = {
            "user": user,
            "call": proposal.call,
            "by": proposal.by,
            "confirmed_by": by,
            "result": dict(result),
        }
        return dict(confirmed)

    def _check_persons(self, proposal: Proposal, peer: Peer) -> None:
        if not proposal.persons.isdisjoint(peer.persons):
            raise NotAllowed("you proposed it yourself: another person has to confirm it")
        if not (proposal.persons - {0}).isdisjoint(self._access.suspects()):
            raise NotAllowed(f"{proposal.by}, who proposed it, is a suspect by now: withdraw it, and propose it anew")

    @contextlib.contextmanager
    def _carrying(self, uid: int, digest: str | None) -> Iterator[None]:
        self._expected[uid] = digest
        try:
            yield
        finally:
            del self._expected[uid]

    def _check_not_busy(self, uid: int) -> None:
        if uid in self._expected:
            raise Busy("what was proposed is being carried out: wait for its end")

    async def withdraw(self, call: Call) -> Mapping[str, object]:
        """Remove a proposal, whoever made it."""
        uid, by = wire.argument(call.args, "uid", int), await name_of(call.peer.person)
        proposal = self._about(uid)
        self._check_not_busy(uid)
        told = self._told(proposal)
        self._remove(uid)
        log.warning("%s withdraws what %s proposed for %s", by, proposal.by, told["user"])
        return dict(told)

    async def waiting(self, call: Call) -> Mapping[str, object]:
        listed: results.Proposals = {"proposals": self._all()}
        return dict(listed)

    async def status(self, call: Call) -> Mapping[str, object]:
        """The status, with what waits for a second person."""
        found: Mapping[str, object] = await self._carry_out["status"](call.args, call.progress)
        return {**found, "two_person": self._live.now.access.two_person, "proposals": self._all()}

    def _all(self) -> list[results.Proposal]:
        if self._fs.failure is not None:
            return []  # nobody can decide anything without the store
        return [self._told(proposal) for proposal in proposals.waiting(self._fs.store.database)]

    def _told(self, proposal: Proposal) -> results.Proposal:
        view = next(digests.views_of(self._fs, proposal.uid), None)
        user = str(proposal.uid) if view is None else self._fs.subjects[view.sid].name
        content = proposal.content
        return {
            "user": user,
            "uid": proposal.uid,
            "at": proposal.at,
            "by": proposal.by,
            "call": proposal.call,
            "words": _words(proposal, user),
            "reason": str(proposal.args.get("reason") or ""),
            "content": None
            if content is None
            else {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()},
            "changed": digests.marks(self._fs, proposal.uid)[0] != proposal.digest,
        }

    def _about(self, uid: int) -> Proposal:
        found = proposals.about(self._fs.store.database, uid)
        if found is None:
            raise NoSubject(f"nothing is proposed about user {uid}: see `isoctl proposals`")
        return found

    def _subject(self, uid: int) -> Subject:
        for view in digests.views_of(self._fs, uid):
            return self._fs.subjects[view.sid]
        raise NoSubject(f"user {uid} is not a suspect; isoctl status shows who is")

    def _remove(self, uid: int) -> None:
        found = proposals.about(self._fs.store.database, uid)
        if found is not None:
            self._fs.store.write([Drop(found)])


def forget_ended(fs: Filesystem) -> None:
    """Remove what is proposed about nobody any more: it was carried out, and the daemon killed right after."""
    ended = [p for p in proposals.waiting(fs.store.database) if next(digests.views_of(fs, p.uid), None) is None]
    if ended:
        fs.store.write([Drop(proposal) for proposal in ended])


@contextlib.contextmanager
def _held(content: bytes | None) -> Iterator[dict[str, object]]:
    """The arguments that lead a call to a content, as if a caller had it open."""
    if content is None:
        yield {}
        return
    with open(os.memfd_create("content", os.MFD_CLOEXEC), "w+b") as file:
        file.write(content)
        file.flush()
        yield {"pid": os.getpid(), "descriptor": file.fileno()}


def _named(paths: list[str]) -> str:
    shown = [path or "something removed" for path in paths[:_SHOWN]]
    more = [f"and {len(paths) - _SHOWN} more"] if len(paths) > _SHOWN else []
    return ", ".join([*shown, *more]) or "the suspicion is another one"


def _words(proposal: Proposal, user: str) -> list[str]:
    """The command that was proposed, as it was typed but for objects that were chosen one by one."""
    args, words = proposal.args, [proposal.call, user]
    if proposal.call == "resolve":
        words.append(str(args.get("path")))
    for name in ("only", "except", "accept", "take", "using", "options", "evidence"):
        given = args.get(name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None:
                words += ["--option" if name == "options" else f"--{name}", str(value)]
    if args.get("no_evidence"):
        words.append("--no-evidence")
    if isinstance(chosen := args.get("objects"), list):
        words.append(f"({len(chosen)} chosen by hand)")
    if proposal.content is not None:
        words += ["--with", "FILE"]
    return words
