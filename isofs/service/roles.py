"""Who may make which call: a table, and how a caller's role follows from its groups."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from isofs.control.peers import Peer
from isofs.errors import NotAllowed


class Role(enum.IntEnum):
    """What a caller may do; each includes those before it."""

    NONE = 0
    OBSERVE = 1
    DECIDE = 2
    ROOT = 3


#: The role that each call needs. What is not here needs root: a call is opened to others on purpose, or not at all.
NEEDS: Mapping[str, Role] = {
    "status": Role.OBSERVE,
    "changes": Role.OBSERVE,
    "diff": Role.OBSERVE,
    "plan": Role.OBSERVE,
    "conflicts": Role.OBSERVE,
    "attic": Role.OBSERVE,
    "report": Role.OBSERVE,
    "reports": Role.OBSERVE,
    "check": Role.OBSERVE,
    "log": Role.OBSERVE,
    "reads": Role.OBSERVE,
    "proposals": Role.OBSERVE,
    "suspects": Role.OBSERVE,
    "suspect": Role.DECIDE,
    "alert": Role.DECIDE,
    "detector": Role.DECIDE,
    "innocent": Role.DECIDE,
    "malicious": Role.DECIDE,
    "decide": Role.DECIDE,
    "resolve": Role.DECIDE,
    "markers": Role.DECIDE,
    "confirm": Role.DECIDE,
    "withdraw": Role.DECIDE,
    "attic_restore": Role.DECIDE,
}

#: Arguments with which any call needs root, and what they choose.
_FOR_ROOT: Mapping[str, str] = {
    "no_evidence": "to discard without evidence",
    "evidence": "to choose where evidence is written",
}

#: The resolver that runs a command which the caller chooses.
_EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups that have a role; None where none has it."""

    observe: int | None = None
    decide: int | None = None

    @property
    def all(self) -> frozenset[int]:
        return frozenset(gid for gid in (self.observe, self.decide) if gid is not None)


def held(peer: Peer, groups: Groups, suspects: Collection[int]) -> Role:
    """The role of a caller. A suspect has none, whatever uid it calls as, unless that is root's."""
    if peer.uid == 0:
        return Role.ROOT
    if not peer.persons.isdisjoint(suspects):
        return Role.NONE
    if groups.decide is not None and peer.within(groups.decide):
        return Role.DECIDE
    if groups.observe is not None and peer.within(groups.observe):
        return Role.OBSERVE
    return Role.NONE


def check(role: Role, call: str, args: Mapping[str, object]) -> None:
    """NotAllowed if a call with these arguments needs more than the role."""
    if role is Role.NONE:
        raise NotAllowed("only root, and the groups that root gave a role, may control isofs")
    need = NEEDS.get(call, Role.ROOT)
    if role < need:
        raise NotAllowed(f"{call} is for {_WHO[need]}: your role is {role.name.lower()}")
    if role is Role.ROOT:
        return
    for name, what in _FOR_ROOT.items():
        if args.get(name):
            raise NotAllowed(f"only root may choose {what}: your role is {role.name.lower()}")
    if call in ("resolve", "markers") and args.get("using") == _EXTERNAL:
        raise NotAllowed("only root may choose a command to merge with: have it configured, or choose another resolver")


_WHO = {
    Role.OBSERVE: "those who may observe",
    Role.DECIDE: "those who may decide (the group in `access.decide`)",
    Role.ROOT: "root alone",
}
