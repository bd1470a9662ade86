"""Three-way merge of what belongs to a file beside its content: permissions, owner, extended attributes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

#: The access ACL and the mode are two forms of one thing: who changes one changes the other.
ACCESS_ACL = "system.posix_acl_access"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attributes:
    """Permission bits, owner, extended attributes (ACLs among them), and where a symbolic link leads."""

    mode: int
    uid: int
    gid: int
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    target: bytes = b""


def merge_attributes(base: Attributes | None, main: Attributes, suspect: Attributes) -> Attributes | str:
    """What both sides' changes come to; the reason in words if they changed one attribute differently.

    Each attribute is the side's that changed it. Without a base nobody knows who did: then both must have the same.
    """
    if main == suspect:
        return main
    if base is None:
        return "what both sides started from was not kept, and their attributes differ"
    sides, contested = (base, main, suspect), list[str]()

    def merged(name: str, value: Callable[[Attributes], T]) -> T:
        before, one, other = map(value, sides)
        if one != before and other not in (before, one):
            contested.append(name)
        return other if one == before else one

    mode, acl = merged("permissions", lambda side: (side.mode, side.xattrs.get(ACCESS_ACL)))
    xattrs = {} if acl is None else {ACCESS_ACL: acl}
    for name in sorted({name for side in sides for name in side.xattrs if name != ACCESS_ACL}):
        found = merged(name, _xattr(name))
        if found is not None:
            xattrs[name] = found
    uid, gid = merged("owner", lambda side: side.uid), merged("group", lambda side: side.gid)
    target = merged("target", lambda side: side.target)
    if contested:
        return f"main and the suspect both changed the {', the '.join(contested)}"
    return Attributes(mode, uid, gid, xattrs, target)


def _xattr(name: str) -> Callable[[Attributes], bytes | None]:
    return lambda side: side.xattrs.get(name)
