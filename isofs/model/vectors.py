"""Version vectors and Protocol 2: how they come to be and how they change (paper, section 6.1).

A vector is an immutable mapping of dimensions to values. The dimension `G` counts what trusted users did;
each suspect has a dimension of its own, named by the subject's number.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

#: The dimension of main.
G = 0

#: A dimension: `G`, or the number of a subject (from 1).
Dimension = int

#: A count of trusted modifications (in `G`) or 0; `'m'` for modified; `'d'` for deleted.
Value = int | Literal["m", "d"]


@dataclass(frozen=True, slots=True)
class Vector(Mapping[Dimension, Value]):
    """A version vector; `Vector.of({G: 0, 1: 'm'})`. Equal if the same dimensions have the same values."""

    items_: tuple[tuple[Dimension, Value], ...]

    @classmethod
    def of(cls, values: Mapping[Dimension, Value]) -> Vector:
        return cls(tuple(sorted(values.items())))

    def __getitem__(self, dimension: Dimension) -> Value:
        for known, value in self.items_:
            if known == dimension:
                return value
        raise KeyError(dimension)

    def __iter__(self) -> Iterator[Dimension]:
        return (dimension for dimension, _ in self.items_)

    def __len__(self) -> int:
        return len(self.items_)

    def __str__(self) -> str:
        names = (("G" if d == G else f"S{d}", v) for d, v in self.items_)
        return "<" + ", ".join(f"{name}:{value}" for name, value in names) + ">"

    def replace(self, dimension: Dimension, value: Value) -> Vector:
        """The same vector with one dimension set (and inserted where it was missing)."""
        return Vector.of({**dict(self.items_), dimension: value})

    def padded(self, other: Vector) -> Vector:
        """With every dimension that `other` has and this lacks inserted as 0 (last rule of Protocol 2)."""
        return Vector.of({**dict.fromkeys(other, 0), **dict(self.items_)})

    def renamed(self, dimension: Dimension, to: Dimension) -> Vector:
        """With the value of one dimension in another instead; the same where the dimension is missing."""
        return Vector.of({to if d == dimension else d: value for d, value in self.items_})

    @property
    def deleted(self) -> bool:
        """Whether this vector says that main is deleted (meaningful for main's vector)."""
        return self.get(G) == "d"


@functools.lru_cache(maxsize=1024)  # nearly all vectors that are written are like another
def to_json(vector: Vector) -> str:
    """One line of JSON; `from_json` gives the vector back."""
    return json.dumps({str(d): v for d, v in vector.items_}, separators=(",", ":"))


def from_json(text: str) -> Vector:
    """The vector that `to_json` wrote. Raises ValueError for anything else."""
    raw = json.loads(text)
    if not isinstance(raw, dict) or not all(
        v in ("m", "d") or (isinstance(v, int) and not isinstance(v, bool) and v >= 0) for v in raw.values()
    ):
        raise ValueError(f"not a version vector: {text!r}")
    return Vector.of({int(d): v for d, v in raw.items()})


def named(vector: Vector) -> dict[str, Value]:
    """The vector with the paper's names for its dimensions, for users: `{'G': 0, 'S1': 'm'}`."""
    return {("G" if d == G else f"S{d}"): v for d, v in vector.items_}


def value_dominates(one: Value, other: Value) -> bool:
    """Value domination (section 6.2): reflexive; larger numbers; 'm' over 0; everything over 'd'."""
    if one == other or other == "d":
        return True
    if isinstance(one, int) and isinstance(other, int):
        return one > other
    return one == "m" and other == 0


def dominates(one: Vector, other: Vector) -> bool:
    """Whether `one` dominates `other` in every dimension. Both are padded first."""
    padded, against = one.padded(other), other.padded(one)
    return all(value_dominates(padded[d], against[d]) for d in against)


def compatible(one: Vector, other: Vector) -> bool:
    """Whether one of two vectors dominates the other (section 6.2)."""
    return dominates(one, other) or dominates(other, one)


def merges(vector: Vector, subject: Dimension = G) -> int:
    """How many users' merged work a vector has, but for a subject's own: with `G`, what tells main's states apart."""
    return sum(value == "m" for dimension, value in vector.items_ if dimension not in (G, subject))


def isolate(main: Vector | None, subject: Dimension, state: Literal["m", "d"]) -> tuple[Vector, Vector]:
    """A suspect first changes an object: (main's vector, the suspect's vector).

    `state` is `'m'` for a modification, `'d'` for a deletion. Without a vector of main's, both start at
    `G:0` (Protocol 2, third and seventh rule); with one, the suspect's dimension is inserted into it as 0.
    """
    base = Vector.of({G: 0}) if main is None else main
    with_subject = base.replace(subject, 0)
    return with_subject, with_subject.replace(subject, state)


def delete_isolated(vector: Vector, subject: Dimension) -> Vector:
    """A suspect deletes the version that it has: its dimension becomes `'d'`."""
    return vector.replace(subject, "d")


def trusted_modification(main: Vector) -> Vector:
    """A trusted user modifies main: `G` increases by 1, the rest stays. ValueError if main is deleted."""
    count = main[G]
    if not isinstance(count, int):
        raise ValueError("main is deleted and cannot be modified")
    return main.replace(G, count + 1)


def trusted_deletion(main: Vector) -> Vector:
    """A trusted user deletes main: `G` becomes `'d'`; the vector and the origin point stay."""
    return main.replace(G, "d")
