"""What came out, as a table of ratios and as a plot."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from statistics import median

from work import Scale, Step

HOST = "host"
#: Whose median isofs is to reach.
PEERS = ("bindfs", "fuse-overlayfs", "unionfs-fuse")
_COLOURS = {
    "overlayfs": "#9e9e9e",
    "bindfs": "#6baed6",
    "fuse-overlayfs": "#3182bd",
    "unionfs-fuse": "#08519c",
    "pyfuse3 alone": "#bdb76b",
    "isofs": "#d62728",
    "isofs, audit": "#ff7f0e",
    "isofs, crowd": "#ff9896",
    "suspect reads": "#e377c2",
    "suspect works": "#9467bd",
}
_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass
class Results:
    """Seconds by work and contender, one for each round."""

    scale: Scale
    names: list[str]
    steps: dict[str, Step] = field(default_factory=dict)
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, step: Step, contender: str, seconds: float) -> None:
        self.steps[step.name] = step
        self.seconds[step.name, contender].append(seconds)

    def ratio(self, work: str, contender: str) -> float | None:
        """The median of a contender's times, to the host's."""
        own, host = self.seconds.get((work, contender)), self.seconds.get((work, HOST))
        return median(own) / median(host) if own and host else None

    def peers(self, work: str) -> float | None:
        """The median of the peers' ratios."""
        found = [r for name in PEERS if (r := self.ratio(work, name)) is not None]
        return median(found) if found else None

    def spread(self, work: str, contender: str) -> float:
        """Half of what lies between the fastest and the slowest round, to the median."""
        own = self.seconds[work, contender]
        return (max(own) - min(own)) / 2 / median(own)


def table(results: Results) -> str:
    """Ratios to the host, in Markdown; the host's own time in front, isofs to the peers' median at the end."""
    names = [name for name in results.names if name != HOST]
    lines = [
        "| work | host | " + " | ".join(names) + " | isofs / peers |",
        "|---|---:|" + "---:|" * (len(names) + 1),
    ]
    for work, step in results.steps.items():
        cells = [_time(results, step)]
        for name in names:
            ratio = results.ratio(work, name)
            cells.append("" if ratio is None else f"{ratio:.2f} ±{results.spread(work, name):.0%}")
        own, peers = results.ratio(work, "isofs"), results.peers(work)
        cells.append(f"{own / peers:.2f}" if own and peers else "")
        lines.append(f"| {work} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _time(results: Results, step: Step) -> str:
    seconds = median(results.seconds[step.name, HOST])
    if step.calls is not None:
        return f"{seconds / step.calls(results.scale) * 1e6:.1f} µs"
    return f"{seconds * 1000:.0f} ms"


def plot(results: Results) -> str:
    """Ratios to the host on a logarithmic scale, a row for each piece of work, as SVG."""
    names = [name for name in results.names if name != HOST]
    left, width, row, top = 190, 620, 22, 60
    x: float
    ratios = [r for work in results.steps for name in names if (r := results.ratio(work, name)) is not None]
    high = math.ceil(math.log10(max(ratios, default=10)) * 2) / 2
    low = math.floor(math.log10(min(ratios, default=1)) * 2) / 2

    def across(ratio: float) -> float:
        return left + (math.log10(ratio) - low) / (high - low) * width

    height = top + row * len(results.steps) + 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 30}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, name in enumerate(names):
        x, y = 20 + (number % 5) * 160, 18 + number // 5 * 18
        out.append(f'<circle cx="{x}" cy="{y - 4}" r="5" fill="{_COLOURS[name]}"/>')
        out.append(f'<text x="{x + 9}" y="{y}">{escape(name)}</text>')
    for tick in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500):
        if 10**low <= tick <= 10**high:
            x = across(tick)
            out.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{top - 10}" y2="{height - 25}" stroke="#ddd"/>')
            out.append(f'<text x="{x:.0f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>')
    for number, work in enumerate(results.steps):
        y = top + row * number + 8
        out.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(work)}</text>')
        for name in names:
            ratio = results.ratio(work, name)
            if ratio is not None:
                colour = _COLOURS[name]
                out.append(f'<circle cx="{across(ratio):.1f}" cy="{y}" r="5" fill="{colour}" fill-opacity="0.8"/>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def insert(page: Path, text: str) -> None:
    """Put what was measured between its marks in a page."""
    before = page.read_text()
    marks = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    page.write_text(marks.sub(lambda _: f"{_BEGIN}\n\n{text}\n\n{_END}", before))
