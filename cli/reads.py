"""isoctl reads: what a suspect may have copied out."""

from __future__ import annotations

from collections.abc import Iterator

import click

from isoctl import daemon, output, stores, users
from isofs.audit import reading, reads
from isofs.control import results


@click.command("reads")
@click.argument("user")
@stores.store_option
@output.json_option
@click.pass_obj
def reads_(directory: str | None, user: str, store: str | None, as_json: bool) -> None:
    """List what USER read while isolated, of what others made.

    That is what others made and USER opened for reading while isolated, or had open then: a line for
    each object, with when it was opened first, its size then, and by which program. Directories were
    listed. It stays when the verdict has fallen.
    """
    daemon.need_root()
    who = users.find(user)
    with reading.folder_of(stores.folder(directory, store)) as folder:
        found = [] if folder is None else [one for one in reads.all_sets(folder) if one.uid == who.uid]
    if as_json:
        facts: results.Reads = {"user": who.name, "reads": [_shown(one) for one in found]}
        output.document(facts)
        return
    output.paged(_lines(found))


def _shown(one: reads.Read) -> results.ReadObject:
    return {
        "subject": one.subject,
        "at": one.at,
        "path": one.path,
        "kind": one.kind,
        "inode": one.inode,
        "size": one.size,
        "program": one.program,
    }


def _lines(found: list[reads.Read]) -> Iterator[str]:
    for one in found:
        size = "" if one.size is None else output.size(one.size)
        yield f"{one.at}  S{one.subject}  {one.kind:<9}  {size:>8}  {one.path or '.'}  ({one.program})"
    if found:
        files = [one for one in found if one.kind == "file"]
        total = output.size(sum(one.size or 0 for one in files))
        yield f"{output.plural(len(files), 'file')} of {total}"
