"""Lines: how a content is split into them without losing a byte, and how two sequences of them are aligned.

The alignment is a longest common subsequence after Myers (*An O(ND) Difference Algorithm*, 1986), on what is left
when an equal beginning and lines that only one side has are taken away. Its effort is bounded, because a suspect may
have chosen the input.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from typing import TypeVar

#: Steps after which two sequences are given up as too different (some seconds).
EFFORT = 4_000_000

#: For each element of the first sequence its place in the second, or -1.
Alignment = list[int]


T = TypeVar("T", str, bytes)


class TooDifferent(Exception):
    """Aligning two sequences would take too long."""


def split(content: bytes) -> list[bytes] | None:
    """The lines of `content`, each with its end; joined, they are `content`. None if it is not text.

    UTF-16 is told by its byte order mark; in everything else a line ends at the byte 10, whatever the encoding.
    """
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if content.startswith(mark):
            try:
                lines = _split(content.decode(encoding, "surrogatepass"), "\n")
                encoded = [line.encode(encoding, "surrogatepass") for line in lines]
            except UnicodeError:
                return None
            return encoded if b"".join(encoded) == content else None
    return None if b"\0" in content else _split(content, b"\n")


def _split(content: T, end: T) -> list[T]:
    lines = content.split(end)
    last = lines.pop()
    return [line + end for line in lines] + ([last] if last else [])


def align(first: Sequence[Hashable], second: Sequence[Hashable], *, late: bool = False) -> Alignment:
    """A longest common subsequence. Of several it is the one that matches early, or late."""
    if late:
        mirrored = align(first[::-1], second[::-1])
        return [-1 if at < 0 else len(second) - 1 - at for at in reversed(mirrored)]
    found = [-1] * len(first)
    begin = 0
    while begin < min(len(first), len(second)) and first[begin] == second[begin]:
        found[begin] = begin
        begin += 1
    # Equal ends are not taken away likewise: of two places for a line that would choose the late one.
    left, right = range(begin, len(first)), range(begin, len(second))
    common = {first[i] for i in left} & {second[j] for j in right}
    kept_left = [i for i in left if first[i] in common]
    kept_right = [j for j in right if second[j] in common]
    numbers = {line: number for number, line in enumerate(common)}
    pairs = _common([numbers[first[i]] for i in kept_left], [numbers[second[j]] for j in kept_right])
    for i, j in pairs:
        found[kept_left[i]] = kept_right[j]
    return found


def _common(first: list[int], second: list[int]) -> list[tuple[int, int]]:
    """The pairs of a longest common subsequence, in any order."""
    n, m = len(first), len(second)
    if not n or not m:
        return []
    # Diagonal k of the furthest points lies at place k of the array; negative ones count from its end.
    furthest, trace, effort = array("i", [0]) * (2 * (n + m) + 3), [], 0
    for distance in range(n + m + 1):
        effort += distance + 1
        if effort > EFFORT:
            raise TooDifferent
        trace.append(_window(furthest, distance + 1))
        for k in range(-distance, distance + 1, 2):
            down = k == -distance or (k != distance and furthest[k - 1] < furthest[k + 1])
            x = furthest[k + 1] if down else furthest[k - 1] + 1
            y = x - k
            while x < n and y < m and first[x] == second[y]:
                x, y = x + 1, y + 1
            furthest[k] = x
            if x >= n and y >= m:
                return _walk_back(trace, n, m)
    raise AssertionError("the last distance reaches every end")


def _window(furthest: array[int], reach: int) -> array[int]:
    """The diagonals from -reach to reach, in the same order of places."""
    return furthest[: reach + 1] + furthest[-reach:]


def _walk_back(trace: list[array[int]], x: int, y: int) -> list[tuple[int, int]]:
    pairs = []
    for distance in range(len(trace) - 1, 0, -1):
        furthest, k = trace[distance], x - y
        down = k == -distance or (k != distance and furthest[k - 1] < furthest[k + 1])
        before = k + 1 if down else k - 1
        before_x = furthest[before]
        begin = before_x if down else before_x + 1  # where the run of matches on this diagonal began
        pairs += [(i, i - k) for i in range(begin, x)]
        x, y = before_x, before_x - before
    pairs += [(i, i) for i in range(x)]
    return pairs
