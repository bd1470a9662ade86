"""Measure isofs beside everything else, and print what came out as ratios."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import assets
import counting
import effort
import extent
import report
import restart
import trail
import verdicts
from contenders import Contender, Trouble, contenders
from report import Results
from work import CHAINS, QUICK, Context, Scale, timed

_DOCS = Path(__file__).resolve().parents[2] / "docs"
#: What is measured of isofs alone.
_TABLES = ("calls", "effort", "trail", "extent", "verdicts", "restart")
#: Objects that the crowd has changed.
_CROWD, _QUICK_CROWD = 100_000, 5000


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: a few minutes")
    parser.add_argument("--only", action="append", metavar="WORK", help=f"of {', '.join([*CHAINS, *_TABLES])}")
    parser.add_argument("--of", action="append", metavar="NAME", help="only these contenders, beside the host")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (5; quick: 3)")
    parser.add_argument("--at", default="/dev/shm", metavar="DIR", help="where everything lies (%(default)s)")
    parser.add_argument("--write", action="store_true", help="write the table and the plot into docs/")
    args = parser.parse_args()
    if unknown := set(args.only or ()) - {*CHAINS, *_TABLES}:
        parser.error(f"no such work: {', '.join(unknown)}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    os.umask(0o022)
    at = Path(tempfile.mkdtemp(prefix="isofs-bench.", dir=args.at))
    at.chmod(0o755)
    try:
        text = _measure(args, at)
    except (Trouble, RuntimeError, KeyboardInterrupt) as trouble:
        print(f"\nbench: {trouble or 'interrupted'}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(at, ignore_errors=True)
    print(text)
    return 0


def _interrupted(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _measure(args: argparse.Namespace, at: Path) -> str:
    scale = QUICK if args.quick else Scale()
    rounds = args.rounds or (3 if args.quick else 5)
    chains = [name for name in CHAINS if not args.only or name in args.only]
    parts = []
    if chains:
        everyone = contenders(_QUICK_CROWD if args.quick else _CROWD)
        chosen = [c for c in everyone if not args.of or c.name == "host" or c.name in args.of]
        results = _side_by_side(chosen, chains, scale, rounds, at)
        parts.append(report.table(results))
        if args.write:
            (_DOCS / "performance.svg").write_text(report.plot(results))
    if not args.only or "calls" in args.only:
        parts.append(counting.table(at / "calls"))
    if not args.only or "effort" in args.only:
        parts.append(effort.table(at / "effort", rounds))
    if not args.only or "trail" in args.only:
        parts.append(trail.table(at / "trail", 12 * rounds))
    if not args.only or "extent" in args.only:
        parts.append(extent.table(at / "extent", 50_000 if args.quick else 1_000_000))
    if not args.only or "verdicts" in args.only:
        parts.append(verdicts.table(at / "verdicts", 5000 if args.quick else 100_000))
    if not args.only or "restart" in args.only:
        parts.append(restart.table(at / "restart", 10_000 if args.quick else 100_000, rounds))
    text = "\n\n".join(parts)
    if args.write:
        report.insert(_DOCS / "performance.md", text)
    return text


def _side_by_side(chosen: list[Contender], chains: list[str], scale: Scale, rounds: int, at: Path) -> Results:
    """Do all work with everyone mounted at once, in an order that differs from round to round."""
    (at / "assets").mkdir()
    made = assets.make(at / "assets", scale)
    results = Results(scale, [c.name for c in chosen])
    with contextlib.ExitStack() as stack:
        roots = {}
        for number, contender in enumerate(chosen):
            roots[contender.name] = stack.enter_context(contender.mount(at / str(number)))
        rng = random.Random()
        for number in range(rounds):
            began = time.monotonic()
            for chain in rng.sample(chains, len(chains)):
                for contender in rng.sample(chosen, len(chosen)):
                    place = roots[contender.name] / f"{chain}{number}"
                    _run_chain(contender, chain, Context(place, scale, made), results)
            print(f"round {number + 1} of {rounds}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return results


def _run_chain(contender: Contender, chain: str, context: Context, results: Results) -> None:
    os.mkdir(context.place)
    os.chown(context.place, contender.worker, contender.worker)
    for step in CHAINS[chain]:
        took = timed(step, context, contender.reader if step.reads else contender.worker)
        if step.name and (step.reads or not contender.only_reads):
            results.add(step, contender.name, took)
    # What a suspect made is not in this process's view: it is removed with its store.
    shutil.rmtree(context.place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
