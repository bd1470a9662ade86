"""What commands print: facts for people and for programs, and never a byte that steers a terminal.

File names, reasons and contents come from users under suspicion, so whatever of theirs is printed
goes through `quoted` or `content`.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import click

from isofs.control import results
from isofs.errors import IsofsError

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB")

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """Give a command the option --json, as its parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def document(facts: Mapping[str, object]) -> None:
    """Print the one JSON document that a command with --json prints."""
    click.echo(json.dumps(facts, indent=2))


def line(*words: object) -> None:
    """Print one line of words, made safe for a terminal."""
    click.echo(" ".join(quoted(str(word)) for word in words))


def command(*words: str, indent: str = "") -> None:
    """Print a command line that can be copied into a shell."""
    click.echo(indent + shell(*words))


def shell(*words: str) -> str:
    """Words as a shell reads them; what can't be seen is written as bash, zsh and others know it: $'\\033'."""
    return " ".join(map(_word, words))


def _word(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    # Octal, always of three digits: unlike after a hexadecimal number, a digit that follows is never part of it.
    plain = word.replace("\\", r"\\").replace("'", r"\'")
    return "$'" + "".join(c if c.isprintable() else "".join(f"\\{b:03o}" for b in _bytes(c)) for c in plain) + "'"


def paged(lines: Iterator[str]) -> None:
    """Print lines, made safe for a terminal; on one, through a pager if there are many."""
    safe = (quoted(one) + "\n" for one in lines)
    if not on_terminal():
        for one in safe:
            click.echo(one, nl=False)
        return
    first = list(itertools.islice(safe, shutil.get_terminal_size().lines - 1))
    rest = list(itertools.islice(safe, 1))
    if rest:
        click.echo_via_pager(itertools.chain(first, rest, safe))
    else:
        click.echo("".join(first), nl=False)


#: What a merge did, as what it would do.
_WOULD = {
    "took": "take",
    "merged": "merge",
    "kept": "keep",
    "deleted": "delete",
    "renamed": "rename",
    "united": "unite",
    "restored": "restore",
}


#: What a merge did, as it is counted.
_COUNTED = {"took": "taken"}


def merge_item(item: results.Item, *, planned: bool = False) -> str:
    """One line for what a merge did with one object or name, or would do."""
    aside = "" if item["as"] is None else f" as {item['as']}"
    review = "  (please review)" if item["review"] else ""
    action = _WOULD.get(item["action"], item["action"]) if planned else item["action"]
    return f"{action:<8}  {item['path']}{aside}: {item['reason']}{review}"


def merge_items(items: Iterable[results.Item]) -> None:
    """Print of what a merge did that which somebody should look at; the rest went as anyone would expect."""
    for item in items:
        if item["as"] is not None or item["review"] or item["action"] == "conflict":
            line(merge_item(item))


def planned_counts(numbers: Mapping[str, int]) -> str:
    """How often a merge would do what; "nothing" where it would do nothing."""
    return ", ".join(f"{_WOULD.get(word, word)} {count}" for word, count in numbers.items() if count) or "nothing"


def vector(values: Mapping[str, object]) -> str:
    """A version vector: a value for each dimension."""
    return " ".join(f"{dimension}={value}" for dimension, value in values.items())


def warn(message: str) -> None:
    """Say one line on standard error, made safe for a terminal."""
    click.echo(f"isoctl: {quoted(message)}", err=True)


def fail(error: IsofsError, *, as_json: bool) -> int:
    """Say what went wrong, and return the exit code for it."""
    # A reader of our output who is gone doesn't change how the command ended.
    with contextlib.suppress(BrokenPipeError):
        warn(str(error))
        if as_json:
            document({"error": {"code": error.code, "message": str(error)}})
    return int(error.exit)


def let_go() -> None:
    """Forget what a reader who is gone did not take: else Python tries once more at the end, and exits with 120."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def quoted(text: str) -> str:
    r"""The text on one line, with what can't be seen or steers a terminal as \xNN for each byte.

    A backslash is doubled, so that two different names never look the same.
    """
    return "".join(map(_visible, text))


def content(text: str) -> str:
    """The text as `quoted` writes it, but with its lines, tabs and backslashes as they are."""
    return "".join(c if c in "\n\t\\" else _visible(c) for c in text)


def size(count: int) -> str:
    """A number of bytes, readable: 0 B, 1.5 KiB, 120 MiB."""
    if count < 1024:
        return f"{count} B"
    amount = count / 1024
    # What would be rounded up to 1024 belongs to the next unit.
    units = iter(_UNITS)
    unit = next(units)
    while amount >= 1023.5:
        amount /= 1024
        unit = next(units)
    return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:.0f} {unit}"


def counts(numbers: Mapping[str, object]) -> str:
    """The numbers that aren't zero, each with its word; "nothing" where all are."""
    return ", ".join(f"{count} {_COUNTED.get(word, word)}" for word, count in numbers.items() if count) or "nothing"


def plural(count: int, word: str) -> str:
    """A number with its word: 1 conflict, 2 conflicts."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def on_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def can_ask() -> bool:
    """Whether there is somebody to answer a question: standard input is a terminal."""
    return sys.stdin.isatty()


@contextlib.contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, if that is a terminal, and what moves it: done, total."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=1, label=quoted(label), file=sys.stderr) as bar:

        def move(done: int, total: int) -> None:
            if total > 0:
                bar.length = total
                bar.update(done - bar.pos)

        yield move


def survive_any_name() -> None:
    """Print what the locale can't write as escapes instead of failing on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _visible(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in _bytes(character))


def _bytes(character: str) -> bytes:
    # Escaped bytes stand for themselves; the other surrogates stand for nothing, but can be shown.
    handler = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return character.encode("utf-8", handler)
