"""isoctl doctor: whether isofs can work here."""

from __future__ import annotations

import os

import click

from isoctl import completing, daemon, output, stores
from isofs.control import mounts, results
from isofs.errors import Exit, IsofsError, NoMount


@click.command()
@click.argument("where", metavar="[DIR]", required=False, shell_complete=completing.directories)
@click.option(
    "--store",
    metavar="PATH",
    shell_complete=completing.directories,
    help="Where the store of DIR is or would be, if not in DIR/.isofs.",
)
@click.option("--no-write", is_flag=True, help="Leave out what must be tried on a file.")
@output.json_option
@click.pass_obj
def doctor(directory: str | None, where: str | None, store: str | None, no_write: bool, as_json: bool) -> None:
    """Find out whether isofs can work here, and how it could.

    Without DIR: the machine, and the mount that other commands would mean. With DIR, which need not
    be mounted: also whether isofs can work there. Changes nothing; what file systems can do is tried on files
    without a name.
    """
    from isofs.service import doctor, machine

    found, running = _meant(directory if where is None else where)
    if found is not None and running is not None:
        stores.need_omitted(found, store)
    path = None if store is None else mounts.real(store)
    seen = machine.look(
        found, path, write=not no_write and os.geteuid() == 0, daemon=running and machine.Daemon(*running)
    )
    findings = doctor.diagnose(seen)
    problems = sum(one.level is doctor.Level.PROBLEM for one in findings)
    facts: results.Diagnosis = {
        "ok": not problems,
        "directory": found,
        "findings": [{"check": f.check, "level": f.level, "text": f.text, "fix": f.fix} for f in findings],
    }
    if as_json:
        output.document(facts)
    else:
        for one in facts["findings"]:
            _show(one)
    if problems:
        output.warn(f"{output.plural(problems, 'problem')} found")
        raise click.exceptions.Exit(Exit.PROBLEMS)


def _meant(explicit: str | None) -> tuple[str | None, tuple[int, str, str] | None]:
    """The directory that is meant, if any; and if it is mounted, its daemon, its store, and what is wrong with that."""
    if explicit is None:
        try:
            where = daemon.mount_point(None)
        except NoMount:
            return None, None
    else:
        where = mounts.real(explicit)
    if all(mount.directory != where for mount in mounts.mounted()):
        return where, None
    facts: results.Status = daemon.ask_at(where, "status", {})
    try:
        checked: results.Checked = daemon.ask_at(where, "check", {})
        problems = "; ".join(dict.fromkeys(one["problem"] for one in checked["problems"]))
    except IsofsError as error:
        problems = str(error)
    return where, (facts["pid"], facts["store"], problems)


def _show(finding: results.Finding) -> None:
    output.line(f"{finding['level']:<8} {finding['check']}: {finding['text']}")
    if finding["fix"] is not None:
        output.line(f"         {finding['fix']}")
