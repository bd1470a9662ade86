"""isoctl man: manual pages, made of what `--help` knows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import click

from isoctl import completing, output
from isofs.errors import BY_CODE, Exit, UsageError

#: Of the manual: commands for whoever runs the machine.
SECTION = 8

#: What `--help` begins a paragraph with that must not be filled.
_AS_IT_IS = "\b"


@dataclass(frozen=True, slots=True)
class Page:
    """A manual page: the name that `man` knows it by, and its source."""

    name: str
    source: str

    @property
    def file(self) -> str:
        return f"{self.name}.{SECTION}"


@click.command()
@click.argument("directory", metavar="DIR", shell_complete=completing.directories)
@output.json_option
@click.pass_context
def man(context: click.Context, directory: str, as_json: bool) -> None:
    """Write the manual pages of all commands below DIR.

    DIR is a directory that man looks into: isoctl man /usr/local/share/man makes man8 in it. Pages
    that are there are replaced.
    """
    folder = os.path.join(directory, f"man{SECTION}")
    made = list(pages(context.find_root().command))
    try:
        os.makedirs(folder, exist_ok=True)
        for page in made:
            with open(os.path.join(folder, page.file), "w", encoding="utf-8") as file:
                file.write(page.source)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from None
    if as_json:
        output.document({"directory": folder, "pages": [page.file for page in made]})
    else:
        output.line(f"wrote {output.plural(len(made), 'page')} to {folder}")


def pages(root: click.Command) -> Iterator[Page]:
    """A page for the program and each of its commands, those of groups too."""
    yield from _pages(root, None)


def _pages(command: click.Command, above: click.Context | None) -> Iterator[Page]:
    name = "isoctl" if above is None else command.name
    context = click.Context(command, info_name=name, parent=above, **command.context_settings)
    yield Page(_name(context), "".join(f"{line}\n" for line in _lines(command, context)))
    if isinstance(command, click.Group):
        for inner in _commands(command, context):
            yield from _pages(inner, context)


def _lines(command: click.Command, context: click.Context) -> Iterator[str]:
    name = _name(context)
    yield f'.TH {_plain(name.upper())} {SECTION} "" "isofs" "isofs"'
    yield ".SH NAME"
    yield f"{_plain(name)} \\- {_plain(_summary(command))}"
    yield ".SH SYNOPSIS"
    yield f"\\fB{_plain(context.command_path)}\\fR {_plain(' '.join(command.collect_usage_pieces(context)))}"
    yield ".SH DESCRIPTION"
    yield from _text(command.help or "")
    options = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    records = [record for one in options if (record := one.get_help_record(context))]
    if records:
        yield ".SH OPTIONS"
        for words, about in records:
            yield ".TP"
            yield f"\\fB{_plain(words)}\\fR"
            yield _begun(_words(about))
    if isinstance(command, click.Group):
        yield ".SH COMMANDS"
        for inner in _commands(command, context):
            yield ".TP"
            yield f"\\fB{_plain(f'{name}-{inner.name}')}\\fR({SECTION})"
            yield _begun(_words(_summary(inner)))
    if context.parent is None:
        yield from _environment(command)
        yield from _exits()
        return
    yield ".SH SEE ALSO"
    yield f"\\fB{_plain(_name(context.parent))}\\fR({SECTION})"
    if context.parent.parent is not None:
        yield f", \\fBisoctl\\fR({SECTION})"
    yield ".PP"
    yield f"Exit codes are explained in \\fBisoctl\\fR({SECTION})."


def _environment(command: click.Command) -> Iterator[str]:
    yield ".SH ENVIRONMENT"
    for one in command.params:
        if isinstance(one, click.Option) and isinstance(one.envvar, str):
            yield ".TP"
            yield f"\\fB{_plain(one.envvar)}\\fR"
            yield f"as \\fB{_plain(one.opts[0])}\\fR, which comes first"


def _exits() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code in Exit:
        yield ".TP"
        yield f"\\fB{code.value}\\fR"
        error = BY_CODE.get(code.name.lower())
        meaning = (error.__doc__ or "").strip() if error else code.name.lower().capitalize()
        yield _begun(_words(meaning))


def _commands(group: click.Group, context: click.Context) -> list[click.Command]:
    found = (group.get_command(context, name) for name in group.list_commands(context))
    return [command for command in found if command is not None and not command.hidden]


def _name(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _summary(command: click.Command) -> str:
    return " ".join((command.help or "").partition("\n\n")[0].split()).rstrip(".")


def _text(help_text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", help_text.strip())):
        if number:
            yield ".PP"
        if paragraph.startswith(_AS_IT_IS):
            yield ".nf"
            yield from (_begun(_words(line)) for line in paragraph.split("\n")[1:])
            yield ".fi"
        else:
            yield from (_begun(_words(line.strip())) for line in paragraph.split("\n"))


def _words(text: str) -> str:
    """Text with what is in backquotes in bold."""
    return re.sub(r"`([^`]*)`", r"\\fB\1\\fR", _plain(text))


def _plain(text: str) -> str:
    """Text that says to the formatter nothing but itself."""
    return text.replace("\\", "\\e").replace("-", "\\-")


def _begun(line: str) -> str:
    """A line that is no request, whatever it begins with."""
    return f"\\&{line}" if line.startswith((".", "'")) else line
