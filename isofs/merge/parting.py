"""Which of a suspect's changes are merged when not all are: what is wanted, and what that cannot do without. Pure.

What takes time with the number of changes goes in slices (`isofs.engine.slices`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pathspec

from isofs.engine.slices import Slices
from isofs.errors import UsageError
from isofs.model.records import Op

#: By object, those without which it cannot be merged.
Needs = Mapping[Op, Collection[Op]]


@dataclass(frozen=True, slots=True)
class Piece:
    """An object that a suspect changed, with all its names: it is merged as one, or stays as one.

    `paths` are those of the change, in the suspect's view and in main. `needs` are the objects without which it cannot
    be merged.
    """

    op: Op
    paths: tuple[bytes, ...]
    is_dir: bool = False
    needs: frozenset[Op] = frozenset()


@dataclass(frozen=True, slots=True)
class Wish:
    """The objects that somebody wants to be merged, and those that must not be.

    Those that are `settled` are merged though they are in conflict: somebody decided what becomes of that. Those that
    go `beside` are merged though main has given their names to something else: somebody decided that they get others.
    """

    wanted: frozenset[Op]
    barred: frozenset[Op] = frozenset()
    settled: frozenset[Op] = frozenset()
    beside: frozenset[Op] = frozenset()


@dataclass(frozen=True, slots=True)
class Parting:
    """What is merged, and why not just what was wanted.

    `along` are the objects that come along though nobody wanted them, each with one that needs it. `left` are those
    that were wanted and stay, each with the one that must not be merged: itself, or what it cannot do without.
    """

    chosen: frozenset[Op] = frozenset()
    along: Mapping[Op, Op] = field(default_factory=dict)
    left: Mapping[Op, Op] = field(default_factory=dict)


def part(pieces: Iterable[Piece], wanted: Collection[Op], barred: Collection[Op]) -> Slices[Parting]:
    """What is merged of what is wanted: all that needs nothing that is barred, and what it needs."""
    needs = {piece.op: piece.needs for piece in pieces}
    needed_by: dict[Op, set[Op]] = defaultdict(set)
    for op, others in needs.items():
        for other in others:
            needed_by[other].add(op)
    stays = yield from _reached(barred, needed_by)
    taken = yield from _reached(set(wanted) - stays.keys(), needs)
    along = {op: of for op, (_, of) in taken.items() if op not in wanted}
    return Parting(frozenset(taken), along, {op: stays[op][0] for op in sorted(wanted) if op in stays})


def apart(pieces: Collection[Piece], unwanted: Collection[Op]) -> Slices[Parting]:
    """What can be discarded alone of what is unwanted: all that nothing needs that stays.

    `left` are those that something needs, each with what stays and does so.
    """
    needs = {piece.op: piece.needs for piece in pieces}
    stays = yield from _reached(needs.keys() - set(unwanted), needs)
    left = {op: stays[op][0] for op in sorted(unwanted) if op in stays}
    return Parting(frozenset(op for op in unwanted if op not in stays), left=left)


def _reached(starts: Iterable[Op], ways: Needs) -> Slices[dict[Op, tuple[Op, Op]]]:
    """All that can be reached, with where the way to it began and its last step but one."""
    found = {op: (op, op) for op in sorted(starts)}
    ahead = list(found)
    while ahead:
        at = ahead.pop()
        for to in sorted(ways.get(at, ())):
            if to not in found:
                found[to] = (found[at][0], at)
                ahead.append(to)
        yield
    return found


def in_groups(needs: Needs) -> Slices[list[list[Op]]]:
    """The objects in groups, each of which needs nothing but itself and the groups before it; none could be smaller.

    These are the strongly connected components, as Tarjan's algorithm finds them.
    """
    groups: list[list[Op]] = []
    lowest: dict[Op, int] = {}
    path: list[Op] = []
    placed: set[Op] = set()
    for start in needs:
        ahead: list[tuple[Op, int, int, Iterator[Op]]] = []
        to = None if start in lowest else start
        while to is not None or ahead:
            if to is not None:
                ahead.append((to, len(lowest), len(path), iter(sorted(needs.get(to, ())))))
                lowest[to] = len(lowest)
                path.append(to)
            at, number, depth, others = ahead[-1]
            to = None
            for other in others:
                if other not in lowest:
                    to = other
                    break
                if other not in placed:
                    lowest[at] = min(lowest[at], lowest[other])
            if to is None:
                ahead.pop()
                if ahead:
                    lowest[ahead[-1][0]] = min(lowest[ahead[-1][0]], lowest[at])
                if lowest[at] == number:
                    groups.append(path[depth:])
                    placed.update(path[depth:])
                    del path[depth:]
        yield
    return groups


def wish(pieces: Sequence[Piece], only: Sequence[str], excepted: Sequence[str]) -> Slices[Wish]:
    """What globs name: what any of `only` does, or everything without `only`, less what any of `excepted` does.

    Globs are those of a `.gitignore`, `!` included. UsageError for one that is none, or that names nothing.
    """
    for glob in (*only, *excepted):
        if not (yield from _named(pieces, [glob.removeprefix("!")])):
            raise UsageError(f"{glob} names nothing that was changed")
    barred = yield from _named(pieces, excepted)
    wanted = (yield from _named(pieces, only)) if only else frozenset(piece.op for piece in pieces)
    return Wish(wanted - barred, barred)


def _named(pieces: Sequence[Piece], globs: Sequence[str]) -> Slices[frozenset[Op]]:
    """The objects of which a path matches. A glob that ends with a slash is a directory's, and of all that is in it."""
    try:
        every = pathspec.GitIgnoreSpec.from_lines(globs)
        directories = pathspec.GitIgnoreSpec.from_lines([g for g in globs if g.endswith("/") or g.startswith("!")])
    except ValueError as error:
        raise UsageError(f"no glob: {error}") from None

    def matches(piece: Piece) -> bool:
        paths = [path.decode("utf-8", "surrogateescape") for path in piece.paths]
        if any(map(every.match_file, paths)):
            return True
        return piece.is_dir and any(directories.match_file(path + "/") for path in paths)

    found = []
    for piece in pieces:
        if matches(piece):
            found.append(piece.op)
        yield
    return frozenset(found)
