"""isoctl resolve: settle conflicts by hand."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

import click

from isoctl import completing, daemon, output, users
from isoctl.diff import relative
from isofs.control import mounts, results, wire
from isofs.errors import UsageError

#: The resolver that writes markers, if none is named.
_MARKING = "text"


@click.command()
@click.argument("user", shell_complete=completing.suspects)
@click.argument("path")
@click.option("--take", type=click.Choice(["main", "suspect", "both"]), help="Whose version it is to be.")
@click.option(
    "--with",
    "file",
    metavar="FILE",
    shell_complete=completing.files,
    help="Take the content of FILE (- for standard input).",
)
@click.option("--using", metavar="RESOLVER", help="Take what this resolver makes of both sides.")
@click.option("--option", "options", metavar="KEY=VALUE", multiple=True, help="An option of the resolver's.")
@click.option(
    "--markers",
    metavar="FILE",
    shell_complete=completing.files,
    help="Only write FILE: both sides in one, with conflict markers.",
)
@output.json_option
@click.pass_obj
def resolve(
    directory: str | None,
    user: str,
    path: str,
    take: str | None,
    file: str | None,
    using: str | None,
    options: tuple[str, ...],
    markers: str | None,
    as_json: bool,
) -> None:
    """Settle the conflict of USER at PATH, or all below it.

    `main` leaves what everyone sees as it is and drops the version of USER, `suspect` replaces the
    one by the other, `both` puts the version of USER beside it as PATH.isofs-USER. A file that
    comes from --with or --using has the name of everyone's; with --with its owner and permissions
    too.

    To merge by hand: `--markers FILE`, edit FILE, `--with FILE`. If several versions of one object
    wait, the oldest is settled.
    """
    _check(take, file, using, options, markers)
    who, where = users.subject(user), daemon.mount_point(directory)
    args: dict[str, object] = {"uid": who.uid, "user": who.name, "path": _within(where, path)}
    if markers is not None:
        _write_markers(where, args | {"using": using or _MARKING, "options": list(options)}, markers, as_json)
        return
    with contextlib.ExitStack() as closing:
        if take is not None:
            args["take"] = take
        elif using is not None:
            args |= {"using": using, "options": list(options)}
        elif file is not None:
            opened = closing.enter_context(_readable(where, file))
            args |= {"pid": os.getpid(), "descriptor": opened.fileno()}
        move = closing.enter_context(output.progress(f"settling {path}"))
        facts: results.Resolved = daemon.ask_at(where, "resolve", args, move)
    if as_json:
        output.document(facts)
        return
    for item in facts["items"]:
        output.line(output.merge_item(item))
    if facts["conflicts"]:
        output.line(f"{output.plural(facts['conflicts'], 'conflict')} left: `isoctl conflicts {facts['user']}`")


def _check(
    take: str | None, file: str | None, using: str | None, options: tuple[str, ...], markers: str | None
) -> None:
    ways = [name for name, given in (("--take", take), ("--with", file), ("--using", using)) if given is not None]
    if len(ways) > 1:
        raise UsageError(f"{' and '.join(ways)} exclude each other")
    if markers is not None and (take is not None or file is not None):
        raise UsageError(f"--markers settles nothing: give {ways[0]} without it")
    if markers is None and not ways:
        raise UsageError("give --take main, suspect or both, --with FILE, or --using RESOLVER")
    if options and (take is not None or file is not None):
        raise UsageError("--option is for --using")
    if not all("=" in option for option in options):
        raise UsageError("--option is KEY=VALUE")


def _within(where: str, path: str) -> str:
    """The path from the root of the mount, empty for the root."""
    return "".join(relative(where, mounts.here(), (path,)))


@contextlib.contextmanager
def _readable(where: str, file: str) -> Iterator[BinaryIO]:
    """A regular file with the content of FILE that the daemon can open: in its own mount it would wait for itself."""
    with contextlib.ExitStack() as closing:
        try:
            source = sys.stdin.buffer if file == "-" else closing.enter_context(open(file, "rb"))
            content: BinaryIO = source
            if file == "-" or not _is_regular(source) or mounts.within(where, mounts.real(file)):
                content = closing.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(source, content)
                content.flush()
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error.strerror}") from None
        yield content


def _is_regular(file: BinaryIO) -> bool:
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _write_markers(where: str, args: dict[str, object], file: str, as_json: bool) -> None:
    if os.path.lexists(file):
        raise UsageError(f"{file} exists already: give another FILE")
    with tempfile.TemporaryFile() as content:
        args |= {"pid": os.getpid(), "descriptor": content.fileno()}
        answer: results.Marked = daemon.ask_at(where, "markers", args)
        content.seek(0)
        try:
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as written:
                shutil.copyfileobj(content, written)
        except OSError as error:
            raise UsageError(f"{file} cannot be written: {error.strerror}") from None
    facts = {**answer, "file": wire.path_text(os.fsencode(mounts.real(file)))}
    if as_json:
        output.document(facts)
        return
    for reason in answer["reasons"]:
        output.line(reason)
    marked = "with markers" if answer["marked"] else "merged, without a marker"
    output.line(f"wrote {file}, {marked}; nothing else was changed")
    absolute = os.path.join(where, answer["path"])
    output.command("isoctl", "resolve", answer["user"], absolute, "--with", file)
