"""Between the plan and its application: resolvers propose what becomes of what both sides changed.

`gather` looks at the tree and opens what there is to read, `propose` reads and merges and may be left to a thread,
`stands` says whether main is still what was read. A proposal with a content becomes a decision like any other when the
merge begins (`isofs.merge.apply`); whatever else it is stays a conflict.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from isofs.engine import tree, views
from isofs.engine.state import Filesystem, Obj, View
from isofs.errors import CallError
from isofs.merge.config import Config
from isofs.merge.plan import is_conflict
from isofs.merge.resolvers.attributes import Attributes, merge_attributes
from isofs.merge.resolvers.base import LIMIT, UNREAD, Inputs, Merged, Proposal, Unresolved
from isofs.merge.resolvers.choosing import Rule, candidates
from isofs.model.reconcile import Outcome
from isofs.model.records import MAIN, Decided, Op, Version, content_name
from isofs.model.vectors import G
from isofs.store import inodes
from isofs.store.inodes import Place

#: Bytes that are compared at a time where contents are too large to be held.
_CHUNK = 1 << 20

#: Why a proposal is not taken.
OVERTAKEN = "main changed it while it was being merged"

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Side:
    """One of the states that a merge starts from: its attributes, and what can be read of it (-1: nothing)."""

    at: os.stat_result
    attributes: Attributes
    descriptor: int


@dataclass(frozen=True, slots=True)
class Sides:
    """The states of one object that both sides changed. `companions` are files beside it, by what ends their names."""

    op: Op
    path: bytes
    version: Version
    main: Side
    suspect: Side
    base: Side | None
    companions: Mapping[bytes, bytes]

    @property
    def size(self) -> int:
        """Of the largest content."""
        sides = (self.main, self.suspect) if self.base is None else (self.main, self.suspect, self.base)
        return max(int(side.at.st_size) for side in sides)


@dataclass(frozen=True, slots=True)
class Resolution:
    """What was proposed for one object, by which resolver, and of which states.

    `content` names the file in the subject's folder with the merged content and attributes, None if there is none to
    write: the proposal is none, or a state that is there already.
    """

    sides: Sides
    proposal: Proposal
    using: str
    content: str | None = None


#: For a merge that asks no resolver.
UNRESOLVED: Mapping[Op, Resolution] = MappingProxyType({})


@contextlib.contextmanager
def gathered(fs: Filesystem, view: View, op: Op, rules: Config) -> Iterator[Sides | None]:
    """The states of an object in conflict, open for reading meanwhile; None where one side has nothing to read."""
    with contextlib.ExitStack() as closing:
        yield _gather(fs, view, op, rules, closing)


def _gather(fs: Filesystem, view: View, op: Op, rules: Config, closing: contextlib.ExitStack) -> Sides | None:
    version = view.version(op)
    if version is None or version.content is None or not fs.by_op[op].ino:
        return None  # also what a user who need not wait took back meanwhile
    obj = fs.by_op[op]
    kept = fs.base_of(version)
    try:
        main = _side(tree.located(fs, obj)[0], closing)
        suspect = _side(fs.store.content(view.sid, version.content), closing)
        if version.bare:
            suspect = replace(
                suspect, at=tree.dressed(suspect.at, main.at, version.fingerprint), descriptor=main.descriptor
            )
        base = None if kept is None else _side(fs.store.base(kept.content), closing)
    except (OSError, CallError):
        return None
    path = views.path(fs, MAIN, obj) or views.path(fs, view.sid, obj) or b""
    return Sides(op, path, version, main, suspect, base, dict(_beside(fs, view, obj, path, rules)))


def _side(place: Place, closing: contextlib.ExitStack) -> Side:
    at, descriptor = inodes.lstat(place), -1
    if stat.S_ISREG(at.st_mode):
        descriptor = os.open(place.name, _READ, dir_fd=place.directory)
        closing.callback(os.close, descriptor)
    target = os.readlink(place.name, dir_fd=place.directory) if stat.S_ISLNK(at.st_mode) else b""
    return Side(
        at, Attributes(stat.S_IMODE(at.st_mode), at.st_uid, at.st_gid, inodes.xattrs(place), target), descriptor
    )


def _beside(fs: Filesystem, view: View, obj: Obj, path: bytes, rules: Config) -> Iterator[tuple[bytes, bytes]]:
    """What is beside the object in either view, of which some resolver says that the content needs it."""
    endings = {ending for rule in candidates(rules.rules, path) for ending in rule.using.companions}
    for sid in (MAIN, view.sid):
        for directory, name in views.parents(fs, sid, obj):
            for ending in endings:
                with contextlib.suppress(OSError, CallError):
                    if views.child(fs, sid, directory, name + ending) is not None:
                        yield ending, name + ending


def has_lock_file(fs: Filesystem, obj: Obj, rules: Config) -> bool:
    """Whether main has a lock file beside the object, as programs that write files of its kind make them."""
    for directory, name in views.parents(fs, MAIN, obj):
        for rule in candidates(rules.rules, name):
            for ending in rule.using.lock_files:
                with contextlib.suppress(OSError, CallError):
                    if tree.child(fs, directory, name + ending) is not None:
                        return True
    return False


def propose(sides: Sides, rules: Config, suspect_name: str, to: Place | None = None) -> Resolution:
    """What the first rule that fits makes of the states. Blocks: it reads, merges, and writes what came out `to` there.

    Without `to` nothing is written.
    """
    base = None if sides.base is None else sides.base.attributes
    joined = merge_attributes(base, sides.main.attributes, sides.suspect.attributes)
    if isinstance(joined, str):
        return Resolution(sides, Unresolved((joined,)), "attributes")
    asked = candidates(rules.rules, sides.path)
    limit = max((rule.using.limit for rule in asked if rule.using.limit < UNREAD), default=0)
    if sides.main.descriptor < 0 or sides.size > max(limit, LIMIT):
        return _propose_unread(sides, asked, joined.attributes)
    using, proposal = propose_content(sides, rules, suspect_name)
    if isinstance(proposal, Merged) and joined.reasons:
        proposal = replace(proposal, reasons=(*proposal.reasons, *joined.reasons), review=True)
    if not isinstance(proposal, Merged) or to is None:
        return Resolution(sides, proposal, using)
    _write(proposal.content, joined.attributes, to)
    return Resolution(sides, proposal, using, os.fsdecode(to.name))


def propose_content(sides: Sides, rules: Config, suspect_name: str) -> tuple[str, Proposal]:
    """What the first rule that fits makes of the contents of a file, by the name of its resolver. Blocks."""
    base = None if sides.base is None else _read(sides.base)
    inputs = Inputs(sides.path, base, _read(sides.main), _read(sides.suspect), "main", suspect_name)
    rule = rules.choose(inputs)
    needed = tuple(name for ending, name in sorted(sides.companions.items()) if ending in rule.using.companions)
    return rule.using.name, rule.propose(replace(inputs, companions=needed))


def _propose_unread(sides: Sides, rules: Sequence[Rule], attributes: Attributes) -> Resolution:
    """Of what has no content, or too much to be held: equal sides, and resolvers that look at nothing."""
    main, suspect = sides.main, sides.suspect
    equal = main.at.st_rdev == suspect.at.st_rdev and _equal(main.descriptor, suspect.descriptor)
    if equal and attributes == suspect.attributes:
        return Resolution(sides, Merged(b"", ("both sides ended equal",)), "same")
    if main.descriptor < 0:
        return Resolution(sides, Unresolved(("only files are merged",)), "same")
    if not rules:
        return Resolution(sides, Unresolved(("no rule is for it",)), "same")
    rule = rules[0]
    refusal = rule.using.refuses_unread(sides.size, base=sides.base is not None)
    if refusal is not None:
        return Resolution(sides, Unresolved((refusal,)), rule.using.name)
    inputs = Inputs(sides.path, None, b"", b"", "main", "suspect")
    return Resolution(sides, rule.using.function(inputs, rule.using.settings(rule.options)), rule.using.name)


def _read(side: Side) -> bytes:
    with open(side.descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


def _equal(one: int, other: int) -> bool:
    """Whether two open files have the same bytes; two that can't be opened have none."""
    at = 0
    while one >= 0:
        left, right = os.pread(one, _CHUNK, at), os.pread(other, _CHUNK, at)
        if left != right:
            return False
        if not left:
            break
        at += len(left)
    return True


def _write(content: bytes, attributes: Attributes, to: Place) -> None:
    """A file with this content and these attributes, on the disk: main's will be replaced by it."""
    inodes.remove(to)
    inodes.make(to, stat.S_IFREG | 0o600)
    with open(os.open(to.name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=to.directory), "wb") as file:
        file.write(content)
        file.flush()
        inodes.set_attributes(to, stat.S_IFREG | attributes.mode, attributes.uid, attributes.gid, attributes.xattrs)
        os.fsync(file.fileno())


def stands(fs: Filesystem, view: View, resolution: Resolution) -> bool:
    """Whether both sides are still what the resolver read."""
    sides = resolution.sides
    version = view.version(sides.op)
    if version is None or not _is_read(version, sides.version):
        return False
    try:
        at = tree.located(fs, fs.by_op[sides.op])[1]
    except (OSError, CallError):
        return False
    main = sides.main.at
    return (at.st_ino, at.st_ctime_ns, at.st_size) == (main.st_ino, main.st_ctime_ns, main.st_size)


def _is_read(version: Version, read: Version) -> bool:
    """Whether a version is the one that was read. It may have got main's data meanwhile, which were read as its own."""
    given = read.bare and version.content == content_name(read.op) and version.attributes
    if not given:
        return version == read
    return version == replace(read, content=version.content, fingerprint=version.fingerprint)


def decided(fs: Filesystem, view: View, decision: Decided, resolution: Resolution | None) -> Decided:
    """The decision about an object, with what was proposed for it if both sides changed it."""
    if resolution is None or not is_conflict(decision):
        return decision
    if not stands(fs, view, resolution):
        return replace(decision, reason=OVERTAKEN)
    proposal = resolution.proposal
    reason = "; ".join(proposal.reasons)
    if not isinstance(proposal, Merged):
        return replace(decision, reason=f"{decision.reason}: {reason}")
    return replace(
        decision,
        outcome=Outcome.TAKE.value,
        reason=f"{decision.reason}: {reason}",
        review=proposal.review,
        content=resolution.content,
        seen=resolution.sides.main.at.st_mtime_ns,
    )


def remove_unused(fs: Filesystem, view: View, resolutions: Mapping[Op, Resolution]) -> None:
    """Remove the merged contents that no decision needs."""
    for op, resolution in resolutions.items():
        decision = view.decisions.get(op)
        needed = decision is not None and decision.content == resolution.content
        if resolution.content is not None and not needed and view.sid in fs.store.known_folders():
            inodes.remove(fs.store.content(view.sid, resolution.content))


def overtaken(fs: Filesystem, obj: Obj, decision: Decided) -> bool:
    """Whether main changed since a resolver read it, and it was not the merge that changed it.

    Writing shows in its time, all else is counted. (Its change time tells less: the attic's link to it moves that.)
    """
    vector = fs.origins[decision.op].vector
    if vector is not None and vector.get(decision.sid) == "m":
        return False  # cut off when it had begun
    try:
        written = tree.located(fs, obj)[1].st_mtime_ns != decision.seen
    except (OSError, CallError):
        return True
    return written or (vector is not None and vector.get(G) != decision.merged.get(G))
