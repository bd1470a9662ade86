"""Mailboxes: the union of the messages of both sides, less what either of them deleted.

A message is known by its Message-ID; one without, or with one that a side has twice, by its content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from isofs.merge.resolvers.base import Inputs, Merged, Options, Proposal, Unresolved, register
from isofs.merge.resolvers.mailfiles import FORMATS, Flags, Format, Mailbox, Message, looks_like_one, parts

Messages = Mapping[Hashable, Message]


@dataclass(slots=True)
class Tally:
    """What a merge did, for its reasons."""

    added: int = 0
    deleted: int = 0
    flagged: int = 0
    review: list[str] = field(default_factory=list)


@register(
    "mailbox",
    "mbox, MMDF and Babyl files: the union of the messages less those that either side deleted, flags merged",
    needs_base=False,
    fits=lambda content, options: looks_like_one(content),
    limit=512 << 20,
    lock_files=(b".lock",),
)
def merge_mailboxes(inputs: Inputs, options: Options) -> Proposal:
    """Main's order, with the suspect's new messages after those that they followed, or at the end."""
    for form in FORMATS:
        main, suspect = form.read(inputs.main), form.read(inputs.suspect)
        base = Mailbox(b"", ()) if inputs.base is None else form.read(inputs.base)
        if main is not None and suspect is not None and base is not None:
            return _merge(inputs, form, base, main, suspect)
    return Unresolved(("mailbox: the sides are not mailboxes of one format",))


def _merge(inputs: Inputs, form: Format, base: Mailbox, main: Mailbox, suspect: Mailbox) -> Proposal:
    tally = Tally()
    messages = unite(base.messages, main.messages, suspect.messages, tally)
    prefix = _three_way(base.prefix, main.prefix, suspect.prefix) or main.prefix or suspect.prefix
    suffix = main.suffix or suspect.suffix
    together = parts(Mailbox(prefix, messages, suffix), form)
    content = b"".join((prefix, *together, suffix))
    again = form.read(content)
    if again is None or [one.raw for one in again.messages] != together:
        return Unresolved((f"mailbox: put together, the {form.name} messages would read as others",))
    reasons = [
        f"mailbox ({form.name}): {tally.added} messages of {inputs.suspect_name} added, {tally.deleted} deleted, "
        f"flags of {tally.flagged} changed",
        *(f"mailbox: {reason}" for reason in tally.review[:10]),
    ]
    if inputs.base is None:
        reasons.append("mailbox: without the base, what one side deleted looks like what the other added: it stays")
    return Merged(content, tuple(reasons), review=bool(tally.review) or inputs.base is None)


def unite(base: Sequence[Message], main: Sequence[Message], suspect: Sequence[Message], tally: Tally) -> list[Message]:
    """The messages of the merged mailbox."""
    repeated = {
        identity
        for side in (base, main, suspect)
        for identity, times in Counter(message.id for message in side).items()
        if times > 1
    }
    old, mine, theirs = (_known(side, repeated) for side in (base, main, suspect))
    merged: dict[Hashable, list[Message]] = {}
    for key, message in mine.items():
        if key in theirs:
            merged[key] = _both(old.get(key), message, theirs[key], tally)
        elif _stays(key, message, old, tally):
            merged[key] = [message]
    taken = [key for key, message in theirs.items() if key not in mine and _stays(key, message, old, tally)]
    tally.added = sum(key not in old for key in taken)
    tally.deleted = sum(key not in merged and key not in taken for key in old)
    return _in_order(merged, theirs, set(taken))


def _in_order(merged: dict[Hashable, list[Message]], theirs: Messages, taken: set[Hashable]) -> list[Message]:
    """Those `taken` go behind the message that they followed; what followed the last common one goes to the end."""
    behind: dict[Hashable | None, list[Message]] = {}
    anchor: Hashable | None = None
    waiting: list[Message] = []
    for key, message in theirs.items():
        if key in merged:
            if waiting:
                behind.setdefault(anchor, []).extend(waiting)
            anchor, waiting = key, []
        elif key in taken:
            waiting.append(message)
    ordered = behind.get(None, [])[:]
    for key, messages in merged.items():
        ordered += [*messages, *behind.get(key, [])]
    return ordered + waiting


def _known(messages: Sequence[Message], repeated: set[bytes | None]) -> dict[Hashable, Message]:
    """The messages by identity. Of equal ones without an id the first, the second and so on are the same."""
    seen: Counter[bytes] = Counter()
    known: dict[Hashable, Message] = {}
    for message in messages:
        if message.id is not None and message.id not in repeated:
            known[message.id] = message
            continue
        known[message.exact, seen[message.exact]] = message
        seen[message.exact] += 1
    return known


def _stays(key: Hashable, message: Message, old: Messages, tally: Tally) -> bool:
    """Whether a message that the other side lacks stays: it is new, or was changed since the other deleted it."""
    if key not in old:
        return True
    if message.substance == old[key].substance:
        return False
    tally.review.append(f"a message that one side changed and the other deleted comes back ({_told(message)})")
    return True


def _both(old: Message | None, mine: Message, theirs: Message, tally: Tally) -> list[Message]:
    if _bare(mine) == _bare(theirs):
        return [mine]
    if mine.substance == theirs.substance or (old is not None and theirs.substance == old.substance):
        one = _flagged(old, mine, theirs)
    elif old is not None and mine.substance == old.substance:
        one = _flagged(old, theirs, mine)
    else:
        one = None
    if one is not None:
        tally.flagged += one.flags != mine.flags
        return [one]
    tally.review.append(f"both sides have a message of one id with different contents: both stay ({_told(mine)})")
    return [mine, theirs]


def _flagged(old: Message | None, first: Message, second: Message) -> Message:
    """The first one, or the second if only that was touched, with the flags that both come to."""
    if old is not None and _bare(first) == _bare(old):
        first, second = second, first
    flags = merge_flags({} if old is None else old.flags, first.flags, second.flags)
    return first if flags == first.flags else first.with_flags(flags)


def _bare(message: Message) -> bytes:
    return message.raw.rstrip(b"\r\n")


def merge_flags(base: Flags, main: Flags, suspect: Flags) -> Flags:
    """Flag by flag: what either side set or took away since the base."""
    none: frozenset[bytes] = frozenset()
    merged = {}
    for name in {**main, **suspect}:
        old, mine, theirs = (side.get(name, none) for side in (base, main, suspect))
        flags = (mine & theirs) | (mine - old) | (theirs - old)
        if flags or (name in main and name in suspect and name == b"labels"):
            merged[name] = flags
    return merged


def _three_way(base: bytes, main: bytes, suspect: bytes) -> bytes:
    return suspect if main == base else main


def _told(message: Message) -> str:
    return "without an id" if message.id is None else message.id.decode(errors="backslashreplace")
