"""Mailboxes that are directories, by the names in them: Maildir, whose names hold flags, and MH with its numbers.

A message is a file and as such merged by origin point like any other. What is left for here is what the names say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from isofs.merge.resolvers.base import Inputs, Merged, Options, Proposal, Unresolved, register

#: Where an MH folder says which of its messages are unseen, and the like.
SEQUENCES = b".mh_sequences"

#: A range of an MH sequence with more members than this is no folder's.
_LONGEST = 1_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A message of a Maildir: its unique name, the directory that it is in (`cur` or `new`) and its flags."""

    unique: bytes
    directory: bytes
    flags: frozenset[int]

    @property
    def path(self) -> bytes:
        """`cur/UNIQUE:2,FLAGS` or `new/UNIQUE`, the flags in the order of their letters."""
        if self.directory == b"new" and not self.flags:
            return b"new/" + self.unique
        return self.directory + b"/" + self.unique + b":2," + bytes(sorted(self.flags))


def entry(path: bytes) -> Entry | None:
    """The message at a path below a Maildir, or None if it is none."""
    directory, _, name = path.rpartition(b"/")
    if directory not in (b"cur", b"new") or not name or name.startswith(b"."):
        return None
    unique, _, info = name.partition(b":")
    return Entry(unique, directory, frozenset(info[2:] if info.startswith(b"2,") else b""))


@dataclass(frozen=True, slots=True)
class Kept:
    """A message of the merged Maildir: where it lies on the side that it is taken from, and its path from now on."""

    source: str  # main, suspect
    path: bytes
    becomes: bytes


def unite(base: Iterable[bytes], main: Iterable[bytes], suspect: Iterable[bytes]) -> list[Kept]:
    """The union of the messages of both Maildirs less those that either side deleted, with merged flags.

    The arguments are paths below the Maildir. A flag that one side set or took away since the base is set or
    taken away; a message that either side has looked at is in `cur`. Where the flags come to what main has,
    main's path stays as it is, letter for letter.
    """
    old, mine, theirs = (_entries(side) for side in (base, main, suspect))
    kept = []
    for unique in {**mine, **theirs}:
        here, there, before = mine.get(unique), theirs.get(unique), old.get(unique)
        if here is None or there is None:
            source, one = ("main", here) if here is not None else ("suspect", there)
            if one is not None and before is None:
                kept.append(Kept(source, one[0], one[0]))
            continue
        flags = _flags(before[1].flags if before else frozenset(), here[1].flags, there[1].flags)
        seen = b"cur" in (here[1].directory, there[1].directory)
        becomes = Entry(unique, b"cur" if seen else b"new", flags)
        kept.append(Kept("main", here[0], here[0] if becomes == here[1] else becomes.path))
    return kept


def _entries(paths: Iterable[bytes]) -> dict[bytes, tuple[bytes, Entry]]:
    found = ((path, entry(path)) for path in sorted(paths))
    return {one.unique: (path, one) for path, one in found if one is not None}


def _flags(base: frozenset[int], main: frozenset[int], suspect: frozenset[int]) -> frozenset[int]:
    return (main & suspect) | (main - base) | (suspect - base)


def renumber(main: Iterable[bytes], added: Iterable[bytes]) -> dict[bytes, bytes]:
    """New names for the suspect's new messages of an MH folder whose numbers main has given to other ones.

    They get the next numbers after all that are in use, in their order.
    """
    taken = {int(name) for name in main if is_number(name)}
    new = sorted((name for name in added if is_number(name)), key=int)
    clashing = [name for name in new if int(name) in taken]
    following = max(taken.union(map(int, new)), default=0) + 1
    return {name: b"%d" % (following + at) for at, name in enumerate(clashing)}


def is_number(name: bytes) -> bool:
    """Whether an MH folder's entry of this name is a message."""
    return name.isdigit() and not name.startswith(b"0") and len(name) < 19


def is_sequences(content: bytes) -> bool:
    """Whether every line of a content can be one of an `.mh_sequences`."""
    return all(b":" in line for line in content.splitlines())


def renumbered(content: bytes, numbers: Mapping[bytes, bytes]) -> bytes:
    """An `.mh_sequences` for messages that `renumber` gave other numbers; as it is if none of them is in it."""
    moved, found = {int(old): int(new) for old, new in numbers.items()}, read_sequences(content)
    if not any(members & moved.keys() for members in found.values()):
        return content
    return _written({name: {moved.get(one, one) for one in members} for name, members in found.items()})


def merge_sequences(base: bytes, main: bytes, suspect: bytes) -> bytes:
    """An MH folder's `.mh_sequences` from the three of them: message by message what either side changed."""
    old, mine, theirs = (read_sequences(side) for side in (base, main, suspect))
    none: set[int] = set()
    merged = {}
    for name in {**mine, **theirs}:
        before, here, there = (side.get(name, none) for side in (old, mine, theirs))
        merged[name] = (here & there) | (here - before) | (there - before)
    return _written(merged)


def _written(sequences: Mapping[bytes, set[int]]) -> bytes:
    lines = (name + b": " + _ranges(sorted(members)) + b"\n" for name, members in sequences.items() if members)
    return b"".join(lines)


@register(
    "mh",
    "the .mh_sequences of an MH folder: message by message what either side changed",
    needs_base=False,
    fits=lambda content, options: is_sequences(content),
)
def merge_mh(inputs: Inputs, options: Options) -> Proposal:
    """Main's sequences with the suspect's changes. Without a base both sides' members are united."""
    base = inputs.base or b""
    content = merge_sequences(base, inputs.main, inputs.suspect)
    if not content and (inputs.main or inputs.suspect) and not base:
        return Unresolved(("mh: neither side has sequences",))
    return Merged(content, ("mh: the sequences of both sides",), review=inputs.base is None)


def read_sequences(content: bytes) -> dict[bytes, set[int]]:
    """The sequences of an `.mh_sequences`. Ranges that are none, or absurdly long, are left out."""
    found: dict[bytes, set[int]] = {}
    for line in content.split(b"\n"):
        name, colon, members = line.partition(b":")
        if not colon:
            continue
        numbers = found.setdefault(name.strip(), set())
        for part in members.split():
            first, _, last = part.partition(b"-")
            if sum(map(len, found.values())) > _LONGEST:
                return found
            if is_number(first) and (not last or is_number(last)) and int(last or first) - int(first) < _LONGEST:
                numbers.update(range(int(first), int(last or first) + 1))
    return found


def _ranges(numbers: list[int]) -> bytes:
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return b" ".join(b"%d" % first if first == last else b"%d-%d" % (first, last) for first, last in parts)
