"""Text: a three-way merge by lines. What both sides did in one place, or in touching lines, is not merged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from isofs.merge.resolvers.base import Inputs, Merged, Options, Proposal, Unresolved, is_text, register, shown
from isofs.merge.resolvers.lines import Alignment, TooDifferent, align, split

#: Lines of one side from which a merge takes too long.
LINES = 200_000

Lines = Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the file: the lines that each has there. `line` is the first one's number in main, from 1."""

    base: Lines
    main: Lines
    suspect: Lines
    line: int

    @property
    def chosen(self) -> Lines | None:
        """What the two sides come to in this region; None if both changed it."""
        if self.main == self.suspect or self.suspect == self.base:
            return self.main
        return self.suspect if self.main == self.base else None


@register(
    "text",
    "three-way merge by lines; what both sides changed in one place is left unresolved",
    needs_base=True,
    fits=is_text,
    limit=16 << 20,
)
def merge_text(inputs: Inputs, options: Options) -> Proposal:
    """A clean merge, or the places that both sides changed."""
    assert inputs.base is not None
    base, main, suspect = split(inputs.base), split(inputs.main), split(inputs.suspect)
    if base is None or main is None or suspect is None:
        return Unresolved(("text: not all contents are text",))
    if max(map(len, (base, main, suspect))) > LINES:
        return Unresolved((f"text: more than {LINES} lines",))
    try:
        to_main, to_suspect = _alignments(base, main), _alignments(base, suspect)
    except TooDifferent:
        return Unresolved(("text: the sides differ in too many lines",))
    # Repeated lines can be aligned in more than one way. Only what comes out the same in all of them is taken.
    merges = [
        list(regions(base, main, suspect, mine, theirs)) for mine, theirs in itertools.product(to_main, to_suspect)
    ]
    for parts in merges:
        if clashes := [region for region in parts if region.chosen is None]:
            return Unresolved(tuple(_clash(inputs, region) for region in clashes[:10]), _marked(inputs, parts))
    contents = {b"".join(line for region in parts for line in region.chosen or ()) for parts in merges}
    if len(contents) > 1:
        return Unresolved(("text: repeated lines leave open where a change belongs",), _marked(inputs, merges[0]))
    return Merged(contents.pop(), (f"text: {inputs.main_name} and {inputs.suspect_name} changed different lines",))


def _alignments(base: Lines, side: Lines) -> list[Alignment]:
    """The earliest and the latest alignment, or the only one."""
    early, late = align(base, side), align(base, side, late=True)
    return [early] if early == late else [early, late]


def regions(base: Lines, main: Lines, suspect: Lines, to_main: Alignment, to_suspect: Alignment) -> Iterator[Region]:
    """The three contents, cut where a line is the same in all of them. Joined, they are the contents."""
    b = m = s = 0
    stable = [i for i in range(len(base)) if to_main[i] >= 0 and to_suspect[i] >= 0]
    # A run of stable lines is one that goes on in all three without a gap.
    for _, run in groupby(
        enumerate(stable), lambda at: (at[1] - at[0], to_main[at[1]] - at[0], to_suspect[at[1]] - at[0])
    ):
        at = [i for _, i in run]
        first, end = at[0], at[-1] + 1
        if (b, m, s) != (first, to_main[first], to_suspect[first]):
            yield Region(base[b:first], main[m : to_main[first]], suspect[s : to_suspect[first]], m + 1)
        same = base[first:end]
        yield Region(same, same, same, to_main[first] + 1)
        b, m, s = end, to_main[end - 1] + 1, to_suspect[end - 1] + 1
    if (b, m, s) != (len(base), len(main), len(suspect)):
        yield Region(base[b:], main[m:], suspect[s:], m + 1)


def _clash(inputs: Inputs, region: Region) -> str:
    told = shown((*region.main, *region.suspect, *region.base, b"")[0])
    return f"text: {inputs.main_name} and {inputs.suspect_name} both changed line {region.line} ({told})"


def _marked(inputs: Inputs, parts: Sequence[Region]) -> bytes | None:
    """Main's and the suspect's lines between markers where both changed them, in the form of `diff3 -m`."""
    if any(side.startswith((b"\xff\xfe", b"\xfe\xff")) for side in inputs.sides):
        return None  # markers would not be in its encoding
    end = b"\r\n" if inputs.main.split(b"\n", 1)[0].endswith(b"\r") else b"\n"
    out: list[bytes] = []
    for region in parts:
        if region.chosen is not None:
            out += region.chosen
            continue
        for mark, name, lines in (
            (b"<<<<<<<", inputs.main_name, region.main),
            (b"|||||||", "base", region.base),
            (b"=======", "", region.suspect),
        ):
            out.append(mark + (b" " + name.encode(errors="surrogateescape") if name else b"") + end)
            out += _ended(lines, end)
        out.append(b">>>>>>> " + inputs.suspect_name.encode(errors="surrogateescape") + end)
    return b"".join(out)


def _ended(lines: Lines, end: bytes) -> Lines:
    """The lines, the last of which is given an end if it has none."""
    return [*lines[:-1], lines[-1] + end] if lines and not lines[-1].endswith(b"\n") else lines
