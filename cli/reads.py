"""isoctl reads: what a suspect may have copied out."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping

import click

from isoctl import daemon, output, stores, users
from isofs.audit import reading, reads
from isofs.audit.reads import Read
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
    each object, with when it was opened first, its size then, and by which program. Directories were
    listed. It stays when the verdict has fallen. At the end is when nothing was recorded.
    """
    who = users.find(user)
    with _found(directory, store) as (found, gaps):
        wanted = (one for one in reads.once(found) if one.uid == who.uid)
        if as_json:
            facts: results.Reads = {"user": who.name, "reads": [_shown(one) for one in wanted], "gaps": gaps}
            output.document(facts)
        else:
            output.paged(itertools.chain(_lines(wanted), map(gap_line, gaps)))


def summary(directory: str | None, subject: int) -> str | None:
    """How much was read in a suspicion of what others made; None if no file was."""
    with _found(directory, None, subject) as (found, _):
        sizes = [one.size for one in reads.once(found) if one.subject == subject and one.kind == "file"]
    return _total(len(sizes), sum(size or 0 for size in sizes)) if sizes else None


def _total(files: int, size: int) -> str:
    return f"{output.plural(files, 'file')} of {output.size(size)}"


@contextlib.contextmanager
def _found(
    directory: str | None, store: str | None, subject: int | None = None
) -> Iterator[tuple[Iterator[Read], list[results.Gap]]]:
    """Every read set, and when there was none: from the store, or from the daemon for whoever cannot enter that.

    With a `subject`, those of others may be left out.
    """
    if os.geteuid() != 0 and store is None:
        pages = daemon.pages_at(daemon.mount_point(directory), "reads", {})
        first: results.ReadLines = next(pages)
        yield _parsed(itertools.chain([first], pages)), first["gaps"]
        return
    daemon.need_root()
    with reading.folder_of(stores.folder(directory, store)) as folder:
        if folder is None:
            yield iter(()), []
        else:
            gaps = reads.gaps(folder, "")
            sets = reads.all_sets(folder) if subject is None else reads.read_by(folder, subject)
            yield sets, [{"since": gap.since, "until": gap.until, "why": gap.why} for gap in gaps]


def _parsed(pages: Iterator[results.ReadLines]) -> Iterator[Read]:
    for page in pages:
        for line in page["lines"]:
            if (one := reads.parsed(line.encode("utf-8", "surrogateescape"))) is not None:
                yield one


def _shown(one: Read) -> results.ReadObject:
    return {
        "subject": one.subject,
        "at": one.at,
        "path": one.path,
        "kind": one.kind,
        "inode": one.inode,
        "size": one.size,
        "program": one.program,
    }


def _lines(found: Iterator[Read]) -> Iterator[str]:
    files = total = 0
    one = None
    for one in found:
        size = "" if one.size is None else output.size(one.size)
        yield f"{one.at}  S{one.subject}  {one.kind:<9}  {size:>8}  {one.path or '.'}  ({one.program})"
        files, total = files + (one.kind == "file"), total + (one.size or 0)
    if one is not None:
        yield _total(files, total)


def gap_line(gap: Mapping[str, object]) -> str:
    """A time in which reads were not recorded, as a line for people."""
    until = f"until {gap.get('until')}" if gap.get("until") else "on"
    return f"not recorded from {gap.get('since')} {until}: {_WHY.get(str(gap.get('why')), gap.get('why'))}"
