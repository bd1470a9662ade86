"""Deciding about a suspect's work object by object, on a terminal; nothing is carried out before the end."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from isoctl import daemon, marks, output
from isoctl.diff import diff
from isofs.control import results
from isofs.errors import ConflictsRemain, UsageError

#: What each key stands for.
KEYS = {
    "t": "take",
    "k": "keep main's",
    "b": "both",
    "e": "edit",
    "s": "skip",
    "d": "view diff",
    "a": "all of this directory",
    "p": "previous",
    "q": "quit",
}

#: What settles a conflict, by key: in the words of `isoctl resolve --take`, or by hand.
_SETTLES = {"t": "suspect", "k": "main", "b": "both", "e": "edit"}


@dataclass(frozen=True)
class Thing:
    """An object that the suspect changed, and all that the merge would do with it."""

    number: int
    directory: str
    items: tuple[results.PlannedItem, ...]

    @property
    def conflict(self) -> bool:
        return any(item["action"] == "conflict" for item in self.items)

    @property
    def keys(self) -> str:
        return "tkbesdapq" if self.conflict else "tsdapq"


#: Gives the key that somebody chose for a thing, of those that are offered.
Ask = Callable[[Thing, str], str]


def things(items: Sequence[results.PlannedItem]) -> list[Thing]:
    """The objects of a plan, directory by directory."""
    found: dict[int, list[results.PlannedItem]] = {}
    for item in items:
        found.setdefault(item["object"], []).append(item)
    made = [Thing(number, os.path.dirname(of[0]["path"]), tuple(of)) for number, of in found.items()]
    return sorted(made, key=lambda thing: (thing.directory, thing.items[0]["path"]))


def decide(found: Sequence[Thing], ask: Ask, look: Callable[[Thing], None]) -> dict[int, str]:
    """The key for each thing, by its number: take, skip, or what settles a conflict. click.Abort for who quits.

    What is said of all of a directory is said of its conflicts too, but only to skip them: each is decided alone.
    """
    answers: dict[int, str] = {}
    whole: dict[str, str] = {}
    at = 0
    while at < len(found):
        thing = found[at]
        given = whole.get(thing.directory)
        key = given if given is not None and (given == "s" or not thing.conflict) else ask(thing, thing.keys)
        if key == "q":
            raise click.Abort
        if key == "d":
            look(thing)
        elif key == "p":
            at = max(0, at - 1)
            whole.pop(found[at].directory, None)
        elif key == "a":
            whole[thing.directory] = ask(thing, "ts")
        else:
            answers[thing.number] = key
            at += 1
    return answers


def interact(where: str, user: str, uid: int) -> int:
    """Ask about everything that a user changed, then carry it out. The number of conflicts that are left."""
    if not output.can_ask():
        raise UsageError("--interactive needs a terminal")
    planned: results.Planned = daemon.ask_at(where, "plan", {"uid": uid})
    found = things(planned["items"])

    def ask(thing: Thing, keys: str) -> str:
        for item in thing.items:
            output.line(output.merge_item(item) + marks.after(item["risks"]))
        offered = ", ".join(f"[{key}] {KEYS[key]}" for key in keys)
        name = thing.directory or "."
        text = offered if keys != "ts" else f"all of {output.quoted(name)}: {offered}"
        return str(click.prompt(text, type=click.Choice(list(keys)), show_choices=False, err=True))

    def look(thing: Thing) -> None:
        paths = tuple(os.path.join(where, item["path"]) for item in thing.items)
        click.get_current_context().invoke(diff, user=user, paths=paths)

    answers = decide(found, ask, look)
    counts = Counter(KEYS[key] for key in answers.values())
    output.line(f"{user}: {output.counts(counts)}")
    if not click.confirm("Carry this out?", err=True):
        raise click.Abort
    return _carry_out(where, user, uid, found, answers)


def _carry_out(where: str, user: str, uid: int, found: Sequence[Thing], answers: Mapping[int, str]) -> int:
    """Merge what was taken, then settle conflicts. The number of conflicts that are left."""
    decided = [thing for thing in found if thing.conflict and answers[thing.number] != "s"]
    if "s" in answers.values():
        chosen = [thing.number for thing in found if answers[thing.number] == "t" and not thing.conflict]
        if chosen:
            _merged(where, user, {"uid": uid, "objects": chosen})
        if decided:
            output.warn("as long as something is skipped, conflicts stay isolated as well: decide them at the end")
        return len(decided)
    left = _merged(where, user, {"uid": uid})["conflicts"]
    for thing in decided if left else ():
        left -= _settle(where, user, uid, thing.items[0]["path"], _SETTLES[answers[thing.number]])
    return left


def _merged(where: str, user: str, args: Mapping[str, object]) -> results.Merged:
    with output.progress(f"merging {user}") as move:
        facts: results.Merged = daemon.ask_at(where, "innocent", args, move)
    output.line(f"merged {facts['user']}: {output.counts(facts['counts'])}")
    for one in facts["left"]:
        output.line(f"left      {one['path']}: {one['reason']}")
    return facts


def _settle(where: str, user: str, uid: int, path: str, how: str) -> bool:
    """Settle a conflict as was chosen. Whether that was done; else it waits."""
    args: dict[str, Any] = {"uid": uid, "user": user, "path": path}
    with contextlib.ExitStack() as closing:
        if how == "edit":
            folder = closing.enter_context(tempfile.TemporaryDirectory(prefix="isoctl-"))
            edited = os.path.join(folder, "edit" + os.path.splitext(path)[1][:16])
            if not _edited(where, args, edited):
                return False
            file = closing.enter_context(open(edited, "rb"))
            args |= {"pid": os.getpid(), "descriptor": file.fileno()}
        else:
            args["take"] = how
        facts: results.Resolved = daemon.ask_at(where, "resolve", args)
    for item in facts["items"]:
        output.line(output.merge_item(item))
    return True


def _edited(where: str, args: Mapping[str, object], path: str) -> bool:
    """Let an editor make one of both contents, in a file at `path`. Whether that is to be taken."""
    with open(path, "wb") as file:
        marked = {**args, "using": "text", "options": [], "pid": os.getpid(), "descriptor": file.fileno()}
        try:
            daemon.ask_at(where, "markers", marked)
        except ConflictsRemain as error:
            output.warn(str(error))
            return False
    click.edit(filename=path)
    return click.confirm(f"Take what you made of {output.quoted(str(args['path']))}?", err=True)
