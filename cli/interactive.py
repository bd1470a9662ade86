"""Deciding about a suspect's work object by object, on a terminal; nothing is carried out before the end."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from isoctl import daemon, marks, output, partly, users
from isoctl.diff import show
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

#: What can be said of all of a directory.
_WHOLE = "tks"

#: The lists of the call `decide` in which an object is, by key; of what is taken others, if main has more to say of it.
_LISTS = {"t": "take", "k": "main", "b": "both", "e": "edited", "s": "skip"}


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
        """The keys on offer: of a conflict also what keeps both sides, or makes one of them."""
        kind = self.items[0]["kind"]
        more = {"file": "be", "directory": ""}.get(kind or "", "b") if self.conflict else ""
        return f"tk{more}sdapq"


#: Gives the key that somebody chose for a thing, of those that are offered.
Ask = Callable[[Thing, str], str]


def things(items: Sequence[results.PlannedItem]) -> list[Thing]:
    """The objects of a plan, directory by directory."""
    found: dict[int, list[results.PlannedItem]] = {}
    for item in items:
        found.setdefault(item["object"], []).append(item)
    made = [Thing(number, os.path.dirname(of[0]["path"]), tuple(of)) for number, of in found.items()]
    return sorted(made, key=lambda thing: (thing.directory, thing.items[0]["path"]))


def decide(
    found: Sequence[Thing], ask: Ask, look: Callable[[Thing], None], edit: Callable[[Thing], bool]
) -> dict[int, str]:
    """The key for each thing, by its number: take, keep main's, skip, or what settles a conflict.

    What is said of all of a directory is said of its conflicts too, but not to take them: that is decided of each. Who
    does not take what was edited is asked again; who quits raises click.Abort.
    """
    answers: dict[int, str] = {}
    whole: dict[str, str] = {}
    at = 0
    while at < len(found):
        thing = found[at]
        given = whole.get(thing.directory)
        key = given if given is not None and (given != "t" or not thing.conflict) else ask(thing, thing.keys)
        if key == "q":
            raise click.Abort
        if key == "d":
            look(thing)
        elif key == "p":
            at = max(0, at - 1)
            whole.pop(found[at].directory, None)
        elif key == "a":
            whole[thing.directory] = ask(thing, _WHOLE)
        elif key != "e" or edit(thing):
            answers[thing.number] = key
            at += 1
    return answers


@dataclass
class Edited:
    """A file that was made of both sides, and what they were then."""

    path: str
    seen: str


def interact(where: str, user: str, uid: int) -> int:
    """Ask about everything that a user changed, then carry it out. The number of conflicts that are left."""
    if not output.can_ask():
        raise UsageError("--interactive needs a terminal")
    planned: results.Planned = daemon.ask_at(where, "plan", {"uid": uid})
    found, edited = things(planned["items"]), dict[int, Edited]()
    daemon.ask_at(where, "decide", {"uid": uid, "skip": [thing.number for thing in found], "dry": True})  # is it one?

    def ask(thing: Thing, keys: str) -> str:
        for item in thing.items:
            output.line(output.merge_item(item, planned=True) + marks.after(item["risks"]))
        offered = ", ".join(f"[{key}] {KEYS[key]}" for key in keys)
        text = offered if keys != _WHOLE else f"all of {output.quoted(thing.directory or '.')}: {offered}"
        return str(click.prompt(text, type=click.Choice(list(keys)), show_choices=False, err=True))

    def look(thing: Thing) -> None:
        show(daemon.ask_at(where, "diff", {"uid": uid, "paths": [], "object": thing.number}))

    with tempfile.TemporaryDirectory(prefix="isoctl-") as folder:

        def edit(thing: Thing) -> bool:
            ending = os.path.splitext(thing.items[0]["path"])[1][:16]
            path = os.path.join(folder, f"{thing.number}{ending}")
            seen = _edit(where, user, uid, thing, path)
            edited[thing.number] = Edited(path, seen or "")
            return seen is not None

        answers = decide(found, ask, look, edit)
        counts = Counter(KEYS[key] for key in answers.values())
        output.line(f"{user}: {output.counts(counts)}")
        lists = _lists(found, answers)
        with _opened([edited[number] for number in lists["edited"]]) as contents:
            args = {"uid": uid, **lists, **contents}
            would: results.Decided = daemon.ask_at(where, "decide", {**args, "dry": True})
            _show_others(would)
            if not click.confirm("Carry this out?", err=True):
                raise click.Abort
            return _carry_out(where, user, {**args, "by": users.operator()})


def _edit(where: str, user: str, uid: int, thing: Thing, path: str) -> str | None:
    """Let an editor make one of both contents, in a file at `path`. What they were, if that is to be taken."""
    with open(path, "wb") as file:
        asked = {"uid": uid, "user": user, "object": thing.number, "using": "text", "options": []}
        try:
            marked: results.Marked = daemon.ask_at(
                where, "markers", {**asked, "pid": os.getpid(), "descriptor": file.fileno()}
            )
        except (ConflictsRemain, UsageError) as error:
            output.warn(str(error))
            return None
    click.edit(filename=path)
    take = click.confirm(f"Take what you made of {output.quoted(thing.items[0]['path'])}?", err=True)
    return marked["seen"] if take else None


def _lists(found: Sequence[Thing], answers: Mapping[int, str]) -> dict[str, list[int]]:
    """What was answered, as the call has it."""
    lists: dict[str, list[int]] = defaultdict(list)
    for thing in found:
        name = _LISTS[answers[thing.number]]
        if name == "take" and thing.conflict:
            name = "suspect"
        elif name == "take" and any(item["as"] is not None for item in thing.items):
            name = "beside"
        lists[name].append(thing.number)
    return lists


@contextlib.contextmanager
def _opened(made: Sequence[Edited]) -> Iterator[dict[str, Any]]:
    """The files that were edited, open, as the call has them."""
    files = [os.open(one.path, os.O_RDONLY) for one in made]
    try:
        yield {"pid": os.getpid(), "descriptors": files, "seen": [one.seen for one in made]}
    finally:
        for file in files:
            os.close(file)


def _carry_out(where: str, user: str, args: Mapping[str, object]) -> int:
    """Do what was decided. The number of conflicts that are left, and of what could not be done."""
    with output.progress(f"deciding {user}") as move:
        facts: results.Decided = daemon.ask_at(where, "decide", args, move)
    output.line(f"merged {facts['user']}: {output.counts(facts['counts'])}")
    output.merge_items(facts["items"])
    if facts["discarded"]:
        output.line(f"discarded {facts['user']}: {output.counts(facts['discarded'])}")
        output.line(f"evidence kept in {facts['evidence']}")
    _show_others(facts)
    partly.fail_if_refused(facts["left"])
    return facts["conflicts"]


def _show_others(facts: results.Decided) -> None:
    for one in facts["along"]:
        output.line(partly.along(one))
    for one in facts["left"]:
        output.line(partly.left(one))
