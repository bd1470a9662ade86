"""Settling conflicts by hand: what waits, and what an operator chose for it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import trio

from isofs.control import wire
from isofs.engine import changes as changed
from isofs.engine import tree, views
from isofs.engine.state import Filesystem, View
from isofs.errors import Busy, CallError, ConflictsRemain, IsofsError, NoSubject, UsageError
from isofs.fuse.cache import KernelCache
from isofs.merge import config, contested, resolving
from isofs.merge.config import Config
from isofs.merge.contested import Choice, Given, Waiting
from isofs.merge.report import Report
from isofs.merge.resolvers.base import Both, Merged, Proposal, Unresolved
from isofs.merge.resolving import Resolution, Sides
from isofs.model.records import MAIN, Op, SubjectId
from isofs.service import answers, processes, resolutions
from isofs.service.answers import Result
from isofs.service.reports import about
from isofs.service.serving import in_slices
from isofs.store import inodes
from isofs.store.inodes import Place

log = logging.getLogger(__name__)

Args = Mapping[str, object]
Progress = Callable[[int, int], None]

#: Seconds of work at a stretch, before others are served.
_SLICE = 0.005

#: Bytes of a caller's file that can be kept for somebody else to confirm.
_MOST_KEPT = 4 << 20

#: How many of a resolver's reasons an error gives.
_REASONS = 3


def conflicts(fs: Filesystem, uid: int | None, readable: Callable[[str | None], str | None]) -> Result:
    """What waits, of one user or of all. `readable` says where root finds now what the store keeps."""
    return {"conflicts": [_conflict(fs, one, readable) for one in contested.waiting(fs, uid)]}


def _conflict(fs: Filesystem, one: Waiting, readable: Callable[[str | None], str | None]) -> Result:
    subject, obj, decided = fs.subjects[one.sid], fs.by_op[one.op], fs.waiting[one.sid].decisions.get(one.op)
    kept = None
    if one.version.content is not None:
        kept = os.path.join(fs.store.path, "versions", str(one.sid), one.version.content)
    return {
        "user": subject.name,
        "uid": subject.uid,
        "since": subject.since,
        "path": wire.path_text(one.path),
        "kind": changed.kind_word(obj.kind),
        "reason": decided.reason if decided is not None else "",
        "main": answers.vector(fs.vector(obj)),
        "suspect": answers.vector(one.version.vector),
        "version": kept,
        "readable": readable(kept),
    }


def _chosen(fs: Filesystem, args: Args) -> list[Waiting]:
    """What a call names by user and path. NoSubject or UsageError if nothing of that waits."""
    uid, user = wire.argument(args, "uid", int), wire.argument(args, "user", str)
    path = wire.argument(args, "path", str)
    if next(contested.waiting(fs, uid), None) is None:
        raise NoSubject(f"nothing of {user} waits for a decision; isoctl status shows who is isolated")
    found = contested.chosen(fs, uid, wire.path_bytes(path))
    if not found:
        raise UsageError(f"nothing of {user} waits at {path}; isoctl conflicts {user} shows what does, and where")
    return found


def _single(fs: Filesystem, args: Args) -> Waiting:
    """The one file that a call names."""
    one, *others = _chosen(fs, args)
    if others:
        raise UsageError(f"{len(others) + 1} conflicts are below {args['path'] or 'the root'}: name one of them")
    contested.check(fs, one, None)
    return one


def check(fs: Filesystem, args: Args) -> None:
    """Raise what `resolve` would, as far as it can be told without asking anybody."""
    way = _way(args)
    if way == "take":
        choice = _choice(wire.argument(args, "take", str))
        for one in _chosen(fs, args):
            contested.check(fs, one, choice)
    else:
        _single(fs, args)
        if way == "using":
            _rules(args)


async def content(args: Args) -> bytes:
    """What the caller's file has in it. UsageError if that is more than can be kept for a second person."""

    def read() -> bytes:
        with open(Caller.of(args).open(os.O_RDONLY), "rb") as file:
            return file.read(_MOST_KEPT + 1)

    found = await trio.to_thread.run_sync(read)
    if len(found) > _MOST_KEPT:
        raise UsageError(f"a file that waits for a second person has {_MOST_KEPT >> 20} MiB at most: use --take")
    return found


def _way(args: Args) -> str:
    ways = [name for name in ("take", "descriptor", "using") if args.get(name) is not None]
    if len(ways) != 1:
        raise UsageError("a conflict is settled by take, descriptor or using, and one of them")
    return ways[0]


async def resolve(fs: Filesystem, cache: KernelCache, mount: str, args: Args, progress: Progress) -> Result:
    """Settle conflicts by one side's version (`take`), by a file of the caller's (`pid`, `descriptor`), or by a
    resolver (`using`, `options`)."""
    way, report = _way(args), Report(about(args))
    if way == "take":
        found, choice = _chosen(fs, args), _choice(wire.argument(args, "take", str))
        for one in found:
            contested.check(fs, one, choice)
        await settle(fs, cache, found, choice, report, progress)
    elif way == "descriptor":
        one, source = _single(fs, args), Caller.of(args)
        with staged(fs) as content:
            await trio.to_thread.run_sync(receive, source, content)
            await settle(fs, cache, [one], Given(content), report, progress)
    else:
        one, rules = _single(fs, args), _rules(args)
        with staged(fs) as content:
            resolution = await _proposed(fs, cache, mount, one, rules, content)
            await settle(fs, cache, [one], _taken(one, rules, resolution, content), report, progress)
    subject = fs.subjects[found[0].sid if way == "take" else one.sid]
    log.warning("conflicts of %s were settled: %s", subject.name, report.counts)
    return {
        "user": subject.name,
        "counts": report.counts,
        "items": [answers.item(item) for item in report.items],
        "conflicts": sum(1 for _ in contested.waiting(fs, subject.uid)),
    }


async def keep_both(
    fs: Filesystem, cache: KernelCache, sid: SubjectId, found: Mapping[Op, Resolution], report: Report
) -> None:
    """After a merge: put beside main's what the configuration says shall stay beside it."""
    both = {op for op, resolution in found.items() if isinstance(resolution.proposal, Both)}
    waiting = [one for one in contested.waiting(fs, fs.subjects[sid].uid) if one.sid == sid and one.op in both]
    if waiting:
        await settle(fs, cache, waiting, Choice.BOTH, report, lambda done, total: None)


def _choice(word: str) -> Choice:
    try:
        return Choice(word)
    except ValueError:
        raise UsageError(f"what can be taken is {', '.join(Choice)}, not {word!r}") from None


async def settle(
    fs: Filesystem,
    cache: KernelCache,
    found: list[Waiting],
    choice: Choice | Given,
    report: Report,
    progress: Progress,
) -> None:
    """Carry out one choice for all that was found; whoever calls the file system is served in between."""
    last, objects = trio.current_time(), [fs.by_op[one.op] for one in found]
    try:
        for done, one in enumerate(found, 1):
            try:
                contested.settle_one(fs, one, choice, report)
            except (OSError, CallError) as error:
                shown, why = wire.path_text(one.path), os.strerror(error.errno or errno.EIO)
                raise IsofsError(f"{shown} could not be settled, and waits as before: {why}") from None
            progress(done, len(found))
            if trio.current_time() - last > _SLICE:
                await trio.lowlevel.checkpoint()
                last = trio.current_time()
    finally:
        await in_slices(contested.finish_steps(fs, {one.sid for one in found}, report))
    await cache.drained()
    # What was written into a file with several names lies under pages that the kernel keeps.
    for node in [node for obj in objects for node in obj.nodes]:
        await cache.forget_data(node.id)


@dataclass(frozen=True, slots=True)
class Caller:
    """A file that a process has open: its descriptor there."""

    pid: int
    descriptor: int

    @classmethod
    def of(cls, args: Args) -> Caller:
        return cls(wire.argument(args, "pid", int), wire.argument(args, "descriptor", int))

    def open(self, flags: int) -> int:
        """Open the same file anew, for what the caller has it open for: more than that, root alone might.

        UsageError for anything but a regular file: that could keep us waiting.
        """
        try:
            with processes.descriptor_of(self.pid, self.descriptor) as theirs:
                if not stat.S_ISREG(os.fstat(theirs).st_mode):
                    raise UsageError("what the content is read from, or written to, must be a regular file")
                have, want = (bits & (os.O_ACCMODE | os.O_PATH) for bits in (fcntl.fcntl(theirs, fcntl.F_GETFL), flags))
                if have not in (want, os.O_RDWR):
                    raise UsageError("the caller's file is not open for what it is to be used for")
                return os.open(f"/proc/self/fd/{theirs}", flags | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else "there is no such process"
            raise UsageError(f"the caller's file cannot be opened: {why}") from None


@contextlib.contextmanager
def staged(fs: Filesystem) -> Iterator[Place]:
    """A place for a content on its way; what was not taken from there is removed."""
    place = fs.store.staged()
    try:
        yield place
    finally:
        inodes.remove(place)


def receive(source: Caller, to: Place) -> None:
    """Copy the caller's file, in a thread; it is on the disk then."""
    reader = source.open(os.O_RDONLY)
    try:
        inodes.copy_content(reader, to, 0o600)
        written = os.open(to.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=to.directory)
        try:
            os.fsync(written)
        finally:
            os.close(written)
    except OSError as error:
        raise IsofsError(f"the file could not be copied: {error.strerror}; nothing was changed") from None
    finally:
        os.close(reader)


def _rules(args: Args) -> Config:
    """One rule for every file: the resolver that was asked for, with its options."""
    words = dict(text.partition("=")[::2] for text in wire.texts(args, "options"))
    return Config((config.asked(wire.argument(args, "using", str), words),))


async def _proposed(
    fs: Filesystem, cache: KernelCache, mount: str, one: Waiting, rules: Config, to: Place
) -> Resolution:
    """What the resolver makes of both sides; a merged content, with merged attributes, is found at `to`."""
    view, device = fs.waiting[one.sid], await resolutions.device_of(mount)
    resolution = await resolutions.ask_one(fs, cache, view, one.op, rules, device, to)
    if resolution is None:
        raise _one_sided(one)
    if not resolving.stands(fs, view, resolution):
        raise Busy(f"{wire.path_text(one.path)} was changed in main meanwhile, and nothing was settled: run it again")
    return resolution


def _one_sided(one: Waiting) -> UsageError:
    return UsageError(f"main has deleted {wire.path_text(one.path)}, so nothing can be merged: take one side's")


def _taken(one: Waiting, rules: Config, resolution: Resolution, content: Place) -> Choice | Given:
    """What a proposal comes to. ConflictsRemain if it is none."""
    proposal = resolution.proposal
    if isinstance(proposal, Both):
        return Choice.BOTH
    if not isinstance(proposal, Merged):
        raise _unresolved(one, rules, proposal)
    if resolution.content is None:  # both sides ended equal
        return Choice.MAIN
    return Given(content, "; ".join(proposal.reasons), proposal.review, dressed=True)


def _unresolved(one: Waiting, rules: Config, proposal: Unresolved) -> ConflictsRemain:
    wanted, reasons = rules.rules[0].using.name, list(proposal.reasons)
    if wanted != "same":  # which answers where the rule does not fit
        reasons = [reason for reason in reasons if not reason.startswith("same:")] or [f"{wanted} cannot read it"]
    more = [f"and {len(reasons) - _REASONS} more"] if len(reasons) > _REASONS else []
    return ConflictsRemain(f"{wire.path_text(one.path)} waits as before: {'; '.join([*reasons[:_REASONS], *more])}")


async def markers(fs: Filesystem, cache: KernelCache, args: Args, progress: Progress) -> Result:
    """Write what a resolver makes of both contents into a file of the caller's, with markers where it left them open.

    Of what waits at a path, or of a suspect's `object` by its number in a plan. Changes nothing else.
    """
    one = _single(fs, args) if args.get("object") is None else _isolated(fs, args)
    rules, to = _rules(args), Caller.of(args)
    view, name = fs.view_of(one.sid), fs.subjects[one.sid].name
    assert view is not None
    await resolutions.write_back(fs, cache, one.op)
    was = seen(fs, view, one.op)
    with resolving.gathered(fs, view, one.op, rules) as sides:
        if sides is None:
            raise _one_sided(one)
        using, proposal = await trio.to_thread.run_sync(_read_and_propose, sides, rules, name)
    content = _marked(proposal)
    if content is None:
        refused = proposal if isinstance(proposal, Unresolved) else Unresolved((f"{using} makes no markers",))
        raise _unresolved(one, rules, refused)
    await trio.to_thread.run_sync(_send, to, content)
    return {
        "user": name,
        "path": wire.path_text(one.path),
        "marked": isinstance(proposal, Unresolved),
        "reasons": list(proposal.reasons),
        "seen": was,
    }


def _isolated(fs: Filesystem, args: Args) -> Waiting:
    """A file of a suspect's, by the number of the object."""
    uid, op = wire.argument(args, "uid", int), wire.argument(args, "object", int)
    view = fs.views.get(fs.suspects.get(uid, MAIN))
    version = None if view is None else view.version(op)
    if view is None or version is None:
        raise UsageError("the user has changed that no more: look at it anew")
    obj = fs.by_op[op]
    one = Waiting(view.sid, views.path(fs, MAIN, obj) or views.path(fs, view.sid, obj) or b"?", version)
    contested.check(fs, one, None)
    return one


def seen(fs: Filesystem, view: View, op: Op) -> str:
    """What tells whether either side of a file has changed since."""
    version, marks = view.version(op), list[str]()
    with contextlib.suppress(OSError, CallError):
        places = [tree.place(fs, fs.by_op[op])]
        if version is not None and version.content is not None:
            places.append(fs.store.content(view.sid, version.content))
        for at in map(inodes.lstat, places):
            marks.append(f"{at.st_ino}:{at.st_ctime_ns}:{at.st_size}")
    return " ".join(marks)


def _read_and_propose(sides: Sides, rules: Config, name: str) -> tuple[str, Proposal]:
    """What the resolver makes of the contents, whatever their attributes, unless they are more than it takes."""
    using = rules.rules[0].using
    refusal = using.refuses_unread(sides.size, base=sides.base is not None)
    if refusal is not None:
        return using.name, Unresolved((refusal,))
    return resolving.propose_content(sides, rules, name)


def _marked(proposal: Proposal) -> bytes | None:
    match proposal:
        case Merged(content):
            return content
        case Unresolved(_, marked):
            return marked
    return None


def _send(to: Caller, content: bytes) -> None:
    try:
        with open(to.open(os.O_WRONLY | os.O_TRUNC), "wb") as file:
            file.write(content)
    except OSError as error:
        raise IsofsError(f"the content with markers could not be written: {error.strerror}") from None
