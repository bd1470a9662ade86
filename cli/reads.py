"""isoctl reads: what a suspect may have copied out."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping

import click

from isoctl import daemon, output, stores, users
from isofs.audit import reading, reads
from isofs.control import results

_WHY = {
    "off": "the audit trail was off",
    "lost": "there was no room for all records",
    "not written": "the audit trail could not be written",
}


@click.command("reads")
@click.argument("user")
@stores.store_option
@output.json_option
@click.pass_obj
def reads_(directory: str | None, user: str, store: str | None, as_json: bool) -> None:
    """List what USER read while isolated, of what others made.

    That is what others made and USER opened for reading while isolated, or had open then: a line for
    each object, with when it was opened first, its size then, and by which program; how often it was
    opened until when, and how many bytes were read. Directories were listed. It stays when the verdict
    has fallen. At the end is when nothing was recorded.
    """
    who = users.find(user)
    with _found(directory, store) as (found, gaps):
        wanted = (one for one in found if one["uid"] == who.uid)
        if as_json:
            facts: results.Reads = {"user": who.name, "reads": list(wanted), "gaps": gaps}
            output.document(facts)
        else:
            output.paged(itertools.chain(_lines(wanted), map(gap_line, gaps)))


def total(directory: str | None, changes: results.Changes) -> results.ReadTotal:
    """What was read of what others made in the suspicion that changes are of, and when that was not recorded."""
    with _found(directory, None, changes["subject"]) as (found, gaps):
        facts = _nothing()
        for one in found:
            _add(facts, one)
    since = changes["since"].removesuffix("Z")
    facts["gaps"] = [gap for gap in gaps if gap["until"] is None or gap["until"] >= since]
    return facts


def total_line(facts: results.ReadTotal) -> str:
    """What read sets come to, for people."""
    told = f"{output.plural(facts['files'], 'file')} of {output.size(facts['size'])}"
    if not facts["files"]:
        return told
    counted = f"opened {_times(facts['opens'])}, {output.size(facts['read'])} read" if facts["opens"] else "not counted"
    return f"{told} ({counted}, {facts['first']} to {facts['last']})"


def _nothing() -> results.ReadTotal:
    return {"files": 0, "size": 0, "opens": 0, "read": 0, "first": None, "last": None, "gaps": []}


def _add(facts: results.ReadTotal, one: results.Read) -> None:
    if one["kind"] != "file":
        return
    last = one["last"] or one["at"]
    facts["files"] += 1
    facts["size"] += one["size"] or 0
    facts["opens"] += one["opens"] or 0
    facts["read"] += one["read"] or 0
    facts["first"] = min(facts["first"] or one["at"], one["at"])
    facts["last"] = max(facts["last"] or last, last)


@contextlib.contextmanager
def _found(
    directory: str | None, store: str | None, subject: int | None = None
) -> Iterator[tuple[Iterable[results.Read], list[results.Gap]]]:
    """Every read set, or one suspicion's: from the store, or from the daemon for whoever cannot enter that."""
    if os.geteuid() != 0 and store is None:
        pages = daemon.pages_at(daemon.mount_point(directory), "reads", {} if subject is None else {"subject": subject})
        first: results.ReadLines = next(pages)
        yield _parsed(itertools.chain([first], pages)), first["gaps"]
        return
    daemon.need_root()
    with reading.folder_of(stores.folder(directory, store)) as folder:
        if folder is None:
            yield (), []
        else:
            sets = reads.all_sets(folder) if subject is None else reads.read_by(folder, subject)
            yield sets, reads.gaps(folder, "")


def _parsed(pages: Iterator[results.ReadLines]) -> Iterator[results.Read]:
    for page in pages:
        for line in page["lines"]:
            if (one := reads.parsed(line.encode("utf-8", "surrogateescape"))) is not None:
                yield one


def _lines(found: Iterator[results.Read]) -> Iterator[str]:
    facts, one = _nothing(), None
    for one in found:
        size = "" if one["size"] is None else output.size(one["size"])
        yield f"{one['at']}  S{one['subject']}  {one['kind']:<9}  {size:>8}  {one['path'] or '.'}  ({how(one)})"
        _add(facts, one)
    if one is not None:
        yield total_line(facts)


def how(one: Mapping[str, object]) -> str:
    """By which program an object of a read set was opened, how often until when, and how much of it was read."""
    told, opens, read = [str(one.get("program"))], one.get("opens"), one.get("read")
    directory = one.get("kind") == "directory"
    if isinstance(opens, int) and opens > 1:
        told.append(f"{'listed' if directory else 'opened'} {_times(opens)}")
    if isinstance(read, int) and not directory:
        told.append(f"{output.size(read)} read")
    if one.get("last") not in (None, one.get("at")):
        told.append(f"last {one.get('last')}")
    return ", ".join(told)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def gap_line(gap: Mapping[str, object]) -> str:
    """A time in which reads were not recorded, as a line for people."""
    until = f"until {gap.get('until')}" if gap.get("until") else "on"
    return f"not recorded from {gap.get('since')} {until}: {_WHY.get(str(gap.get('why')), gap.get('why'))}"
