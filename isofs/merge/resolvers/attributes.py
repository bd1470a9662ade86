"""Three-way merge of what belongs to a file beside its content: permissions, owner, extended attributes. Pure."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

#: The access ACL and the mode are two forms of one thing: who changes one changes the other.
ACCESS_ACL = "system.posix_acl_access"

CAPABILITY = "security.capability"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attributes:
    """Permission bits, owner, extended attributes (ACLs among them), and where a symbolic link leads."""

    mode: int
    uid: int
    gid: int
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    target: bytes = b""


@dataclass(frozen=True, slots=True)
class Joined:
    """What the attributes of two sides come to. `reasons` are what an operator had better know of it."""

    attributes: Attributes
    reasons: tuple[str, ...] = ()


def merge_attributes(base: Attributes | None, main: Attributes, suspect: Attributes) -> Joined | str:
    """What both sides' changes come to; the reason in words if they changed one attribute differently.

    Each attribute is the side's that changed it. Without a base nobody knows who did: then both must have the same.
    Where both changed owner or group, main's stay: who saves a file by a renaming makes it their own. Nobody gets
    rights by a merge that neither side gave: what the suspect wrote has a set-id bit or a capability only as the
    suspect's version has it.
    """
    if main == suspect:
        return Joined(main)
    if base is None:
        return "what both sides started from was not kept, and their attributes differ"
    sides, contested = (base, main, suspect), list[str]()

    def merged(name: str, value: Callable[[Attributes], T], differing: list[str]) -> T:
        before, one, other = map(value, sides)
        if one != before and other not in (before, one):
            differing.append(name)
        return other if one == before else one

    mode, acl = merged("permissions", lambda side: (side.mode, side.xattrs.get(ACCESS_ACL)), contested)
    xattrs = {} if acl is None else {ACCESS_ACL: acl}
    for name in sorted({name for side in sides for name in side.xattrs if name != ACCESS_ACL}):
        found = merged(name, _xattr(name), contested)
        if found is not None:
            xattrs[name] = found
    mains = list[str]()
    uid = merged("owner", lambda side: side.uid, mains)
    gid = merged("group", lambda side: side.gid, mains)
    target = merged("target", lambda side: side.target, contested)
    if contested:
        return f"main and the suspect both changed the {', the '.join(contested)}"
    joined = Attributes(mode, uid, gid, xattrs, target)
    safe = _without_rights(joined, suspect)
    reasons = [f"main's {name} stays" for name in mains]
    if safe != joined:
        reasons.append("set-id bits and capabilities are taken away")
    return Joined(safe, tuple(reasons))


def _without_rights(joined: Attributes, suspect: Attributes) -> Attributes:
    """The attributes less those that would let others act with rights that the suspect's version does not give."""
    mode = joined.mode
    for bit, mine, hers in ((stat.S_ISUID, joined.uid, suspect.uid), (stat.S_ISGID, joined.gid, suspect.gid)):
        if not suspect.mode & bit or mine != hers:
            mode &= ~bit
    xattrs = dict(joined.xattrs)
    if xattrs.get(CAPABILITY) != suspect.xattrs.get(CAPABILITY):
        xattrs.pop(CAPABILITY, None)
    return replace(joined, mode=mode, xattrs=xattrs)


def _xattr(name: str) -> Callable[[Attributes], bytes | None]:
    return lambda side: side.xattrs.get(name)
