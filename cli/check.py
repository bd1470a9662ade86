"""isoctl check: whether what must always hold does, and what can be done if it doesn't."""

from __future__ import annotations

import click

from isoctl import daemon, output, stores
from isofs.control import mounts, results
from isofs.errors import Busy, Exit, UsageError


@click.command()
@click.option("--repair", is_flag=True, help="Repair what can be, one by one.")
@click.option("--yes", is_flag=True, help="With --repair: don't ask.")
@stores.store_option
@output.json_option
@click.pass_obj
def check(directory: str | None, repair: bool, yes: bool, store: str | None, as_json: bool) -> None:
    """Check every invariant on the store, and change nothing.

    Works on a directory that isn't mounted too, if --mount names it.

    With --repair, each problem is shown with what would be done about it, and you are asked. No
    content is ever removed: what belongs to nothing goes to the folder rescued in the store, and a
    damaged database is kept. Back the store up first: isoctl backup.

    DIR must not be mounted for that, with one exception: if the store failed while it was mounted,
    and works again, --repair lets those work on who were shut out.
    """
    if yes and not repair:
        raise UsageError("--yes goes with --repair")
    if repair:
        repaired = _repaired(directory, store, yes, as_json)
        words = [f"repaired {output.plural(len(repaired['repaired']), 'problem')}"]
        if repaired["kept"] is not None:
            words.append(f"the damaged database is kept in the store as {repaired['kept']}")
        _show(repaired, words, as_json)
    else:
        checked = _checked(directory, store)
        _show(checked, [f"checked {output.counts(checked['checked'])}"], as_json)


def _show(facts: results.Checked | results.Repaired, words: list[str], as_json: bool) -> None:
    if as_json:
        output.document(facts)
    else:
        for problem in facts["problems"]:
            output.line(_sentence(problem))
        for line in words:
            output.line(line)
    if not facts["ok"]:
        output.warn(f"{output.plural(len(facts['problems']), 'problem')} found")
        raise click.exceptions.Exit(Exit.PROBLEMS)


def _repaired(directory: str | None, store: str | None, yes: bool, as_json: bool) -> results.Repaired:
    daemon.need_root()
    if directory is None:
        raise UsageError("name the directory: isoctl --mount DIR check --repair")
    where = mounts.real(directory)
    is_mounted = any(mount.directory == where for mount in mounts.mounted())
    failed = _failed(where, store) if is_mounted else None
    if not yes and not output.can_ask():
        raise UsageError("there is no terminal to ask on: give --yes to repair everything")
    everything = yes

    def wanted(one: results.Repair) -> bool:
        nonlocal everything
        if everything:
            if not as_json:
                output.line(f"{_sentence(one)}: {one['repair']}")
            return True
        click.echo(output.quoted(_sentence(one)), err=True)
        answer = click.prompt(
            output.quoted(f"  {one['repair']}? (yes, no, all)"),
            type=click.Choice(["yes", "no", "all"]),
            show_choices=False,
            err=True,
        )
        everything = answer == "all"
        return bool(answer != "no")

    if failed is not None:
        if not wanted(failed):
            left: results.Problem = {"invariant": "I1", "subject": None, "path": None, "problem": failed["problem"]}
            return {"ok": False, "repaired": [], "problems": [left], "kept": None}
        done: results.Repaired = daemon.ask_at(where, "bring_back", {})
        return done
    # The whole of isofs: only a store at rest needs it.
    from isofs.service import resting

    return resting.repair(where, None if store is None else mounts.real(store), wanted)


def _failed(where: str, store: str | None) -> results.Repair:
    """What can be repaired while it is mounted: a store that failed and works again."""
    stores.need_omitted(where, store)
    status: results.Status = daemon.ask_at(where, "status", {})
    degraded = status["degraded"]
    if degraded is None or degraded["suspects"] != "shut out":
        raise Busy(f"{where} is mounted: isoctl umount {where}, and repair then")
    reason = degraded["reason"]
    return {"invariant": "I1", "subject": None, "path": None, "problem": reason, "repair": results.RETURN}


def _checked(directory: str | None, store: str | None) -> results.Checked:
    where, mounted = stores.mounted_or_at_rest(directory, store)
    if mounted:
        facts: results.Checked = daemon.ask_at(where, "check", {})
        return facts
    daemon.need_root()
    # The whole of isofs: only a check without a daemon needs it.
    from isofs.service import resting

    return resting.check(where, None if store is None else mounts.real(store))


def _sentence(problem: results.Problem | results.Repair) -> str:
    place = ", ".join(word for word in (problem["subject"], problem["path"]) if word)
    return f"{problem['invariant']}: {problem['problem']}" + (f" ({place})" if place else "")
