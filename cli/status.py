"""isoctl status: the mount, and who is isolated on it."""

from __future__ import annotations

import time

import click

from isoctl import daemon, output, proposals, users
from isofs.control import results, wire

#: Limits whose names are no words of users.
_WORDS = {"handles": "open files"}


@click.command()
@output.json_option
@click.pass_obj
def status(directory: str | None, as_json: bool) -> None:
    """Show the mount and who is isolated on it.

    Of each suspect: since when and why, how much is isolated, what of its limits is taken, which parts were decided
    before, and what waits for a decision.
    """
    facts: results.Status = daemon.ask(directory, "status", {})
    if as_json:
        output.document(facts)
        return
    _show_state(facts["degraded"])
    output.line(f"mount   {facts['mount']}")
    output.line(f"store   {facts['store']}")
    output.line(f"daemon  pid {facts['pid']}, version {facts['version']}, since {facts['since']}")
    if facts["configuration"] is not None:
        output.line(f"CONFIGURATION  {facts['configuration']}")
        output.line(
            "    no verdict is carried out until `isoctl config edit` mends it; the rest goes by what was right before"
        )
    if facts["attic"]["entries"]:
        entries = output.plural(facts["attic"]["entries"], "thing")
        output.line(f"attic   {entries} that merges replaced or deleted, {output.size(facts['attic']['bytes'])}")
    _show_together(facts["quota"])
    if not facts["subjects"] and not facts["degraded"]:
        output.line("nobody is isolated")
    now = wire.moment(time.time())
    for subject in facts["subjects"]:
        _show(subject, now)
    if facts["proposals"]:
        output.line("to be confirmed by a second person (`isoctl confirm USER`):")
    for proposal in facts["proposals"]:
        proposals.show(proposal, indent="    ")


def _show_together(taken: results.TakenTogether) -> None:
    if "bytes" in taken["near"]:
        used = f"{output.size(taken['bytes'])} of {output.size(taken['bytes_limit'])}"
        output.line(f"SPACE   suspects together take {used}: at the limit none of them can write more")
    if "reserve" in taken["near"]:
        free = f"{output.size(max(0, taken['free']))} are free, {output.size(taken['reserve'])} are left to main"
        output.line(f"SPACE   {free}: below that suspects can write no more")
    if taken["bases_left_out"]:
        copies = output.plural(taken["bases_left_out"], "file")
        output.line(f"SPACE   what main had of {copies} was not kept: merges of them need a decision")


def _show_taken(taken: results.Taken) -> None:
    output.line(
        f"    takes {output.size(taken['bytes'])} of {output.size(taken['bytes_limit'])}, "
        f"{taken['objects']} of {output.plural(taken['objects_limit'], 'object')}, "
        f"{taken['handles']} of {output.plural(taken['handles_limit'], 'open file')}"
    )
    if taken["near"]:
        words = ", ".join(_WORDS.get(name, name) for name in taken["near"])
        output.line(f"    NEAR A LIMIT: {words}; beyond it calls fail: `isoctl config edit`, table [quota]")


def _show_state(degraded: results.Degraded | None) -> None:
    if degraded is None:
        output.line("state   ok")
        return
    since = f", since {degraded['since']}" if degraded["since"] else ""
    output.line(f"state   degraded: {degraded['reason']}{since}")
    if degraded["suspects"] == "read only":
        output.line("        suspects can read, and change nothing; everybody else goes on")
        return
    uids = degraded["shut_out"]
    who = "everybody but root" if uids is None else ", ".join(map(users.name_of, uids)) or "nobody"
    output.line(f"        shut out: {who}; mend the store, then unmount and mount again")


def _show(subject: results.Subject, now: str) -> None:
    reason = f": {subject['reason']}" if subject["reason"] else ""
    output.line(f"{subject['user']} (uid {subject['uid']})  {subject['state']} since {subject['since']}{reason}")
    output.line(f"    {output.counts(subject['changed'])}; {output.size(subject['bytes'])}")
    if subject["stopped"]:
        output.line(f"    STOPPED HALF WAY, the log in the store says why: {_again(subject)} goes on with it")
    _show_taken(subject["quota"])
    for part in subject["parts"]:
        asked = f": {part['asked']}" if part["asked"] else ""
        output.line(f"    {output.plural(part['objects'], 'object')} decided {part['since']}{asked}")
    if subject["review"] is not None and subject["review"] <= now:
        output.line(f"    to review since {subject['review']}")
    if subject["conflicts"]:
        waiting = output.plural(subject["conflicts"], "conflict")
        output.line(f"    {waiting} to decide: `isoctl conflicts {subject['user']}`")


def _again(subject: results.Subject) -> str:
    verdicts = {"merging": "innocent", "discarding": "malicious"}
    if subject["state"] not in verdicts:  # it was on a part
        return "the next verdict"
    return f"`isoctl {verdicts[subject['state']]} {subject['user']}`"
