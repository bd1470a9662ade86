"""isoctl config: which files merges give to which resolver."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator

import click

from isoctl import completing, daemon, output, stores
from isofs.control import mounts, results
from isofs.errors import BadConfiguration, NoAnswer, NoMount, UsageError

_NEW = """\
# Settings, all of which `isoctl config show` lists, with what they are for. For example:
#
# attic_days = 90
#
# Which files are merged by which resolver: the first rule that matches. The rules below come before the
# defaults, which `isoctl config show` lists too.
#
# [[resolve]]
# pattern = ["audit/**", "access.log"]
# using = "append"
"""


@click.group()
def config() -> None:
    """Show, check and edit the settings, and how files are merged.

    What is changed counts at once.
    """


@config.command()
@stores.store_option
@output.json_option
@click.pass_obj
def show(directory: str | None, store: str | None, as_json: bool) -> None:
    """Show every setting, and the rules in their order: those of the configuration, then the defaults."""
    daemon.need_root()
    from isofs.service import live
    from isofs.settings.settings import lines

    with _opened(directory, store) as (path, root):
        text = _read(root, path)
        settings, rules = live.parse(text, _shown(path))
    found: list[results.Rule] = [
        {"pattern": list(rule.patterns), "using": rule.using.name, "options": dict(rule.options), "line": rule.line}
        for rule in rules.rules
    ]
    facts: results.Configuration = {
        "path": _shown(path),
        "text": text,
        "settings": [
            {"key": one.key, "value": one.value, "default": one.default, "about": one.about} for one in lines(settings)
        ],
        "rules": found,
    }
    if as_json:
        output.document(facts)
        return
    for setting in facts["settings"]:
        value = json.dumps(setting["value"], ensure_ascii=False)
        origin = "  (default)" if setting["default"] else ""
        output.line(f"{setting['key']} = {value}{origin}  # {setting['about']}")
    for rule in found:
        origin = "default" if rule["line"] is None else f"line {rule['line']}"
        options = "".join(f" {key}={value}" for key, value in rule["options"].items())
        output.line(f"{origin:<8}  {rule['using']:<9}  {', '.join(rule['pattern'])}{options}")


@config.command()
@click.argument("file", required=False, shell_complete=completing.files)
@stores.store_option
@click.pass_obj
def check(directory: str | None, file: str | None, store: str | None) -> None:
    """Check the configuration, or FILE (- for standard input) before it becomes one."""
    if file is None:
        daemon.need_root()
    if file is not None:
        name, text = _given(file)
    else:
        with _opened(directory, store) as (path, root):
            name, text = _shown(path), _read(root, path)
    _check(text, name, directory)
    output.line(f"{name} is all right")


@config.command()
@click.option(
    "--from",
    "file",
    metavar="FILE",
    shell_complete=completing.files,
    help="Take what is in FILE (- for standard input); ask no editor.",
)
@stores.store_option
@click.pass_obj
def edit(directory: str | None, file: str | None, store: str | None) -> None:
    """Edit the configuration with $VISUAL or $EDITOR.

    What has an error is not saved: on a terminal you can go on editing.
    """
    daemon.need_root()
    from isofs.store import configuration

    with _opened(directory, store) as (path, root):
        before = _read(root, path)
        if file is not None:
            name, text = _given(file)
            _check(text, name, directory)
        else:
            text = _edited(before or _NEW, _shown(path), directory)
        if text in (before, _NEW):
            output.line("nothing was changed")
            return
        configuration.write(root, path, text)
    output.line(f"saved {_shown(path)}")
    _take_up(directory, store)


def _take_up(directory: str | None, store: str | None) -> None:
    """Have the daemon look at the configuration, which it does before every call; at rest there is none."""
    if store is None:
        with contextlib.suppress(NoMount, NoAnswer):
            daemon.ask(directory, "status", {})


def _check(text: str, name: str, directory: str | None) -> None:
    """BadConfiguration, with the line, if the daemon would not go by it, or would not run a program that it names."""
    from isofs.service import hooks, live
    from isofs.settings import document

    live.parse(text, name)
    where = None if directory is None else mounts.real(directory)
    with contextlib.suppress(NoMount):
        where = daemon.mount_point(directory)
    hooks.check(document.read(text, name), where)


def _edited(text: str, name: str, directory: str | None) -> str:
    if not output.can_ask():
        raise UsageError("there is no terminal to edit on: give --from FILE")
    while True:
        text = click.edit(text, extension=".toml", require_save=False) or text
        try:
            _check(text, name, directory)
        except BadConfiguration as error:
            output.warn(str(error))
            if not click.confirm("Edit it again?", default=True, err=True):
                raise
        else:
            return text


def _given(file: str) -> tuple[str, str]:
    """What a file on the command line is called, and its text."""
    try:
        if file == "-":
            return "standard input", sys.stdin.buffer.read().decode()
        with open(file, "rb") as opened:
            return file, opened.read().decode()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is no text in UTF-8") from None


def _read(root: int, path: str) -> str:
    from isofs.store import configuration

    return configuration.read(root, path)


def _shown(path: str) -> str:
    from isofs.store import configuration

    return os.path.join(path, configuration.NAME)


@contextlib.contextmanager
def _opened(directory: str | None, store: str | None) -> Iterator[tuple[str, int]]:
    """The folder of the store, and its descriptor."""
    path = stores.folder(directory, store)
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield path, root
    finally:
        os.close(root)
