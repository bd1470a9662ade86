"""The program `isoctl`: its options, its commands, and how every error of theirs ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from isoctl import completing, output
from isoctl.attic import attic
from isoctl.backup import backup, restore
from isoctl.changes import changes
from isoctl.check import check
from isoctl.completion import completion
from isoctl.config import config
from isoctl.conflicts import conflicts
from isoctl.diff import diff
from isoctl.doctor import doctor
from isoctl.evidence import evidence
from isoctl.innocent import innocent
from isoctl.log import log
from isoctl.loglevel import log_level
from isoctl.malicious import malicious
from isoctl.man import man
from isoctl.mount import mount
from isoctl.plan import plan
from isoctl.proposals import confirm, proposals, withdraw
from isoctl.reads import reads_
from isoctl.report import report
from isoctl.resolve import resolve
from isoctl.service import service
from isoctl.status import status
from isoctl.suspect import suspect
from isoctl.umount import umount
from isofs.errors import Exit, IsofsError, UsageError

#: What a shell says for a program that Ctrl-C ended.
INTERRUPTED = 130

_EXITS = ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in Exit)


class Program(click.Group):
    """A group of commands whose errors are one line each, with the exit code that says which."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> Any:
        """Carry out a command line, and end the process."""
        words = sys.argv[1:] if args is None else list(args)
        output.survive_any_name()
        try:
            code = super().main(words, prog_name="isoctl", standalone_mode=False)
        except click.UsageError as error:
            code = output.fail(UsageError(_with_hint(error)), as_json=_wants_json(words))
        except click.ClickException as error:
            code = output.fail(IsofsError(error.format_message()), as_json=_wants_json(words))
        except IsofsError as error:
            code = output.fail(error, as_json=_wants_json(words))
        except click.Abort:
            code = INTERRUPTED
        finally:
            output.let_go()
        sys.exit(code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which they are used, not of the alphabet."""
        return list(self.commands)


def _wants_json(words: list[str]) -> bool:
    """Whether --json is given, asked of the words because parsing them may be what failed."""
    return "--json" in words[: words.index("--") if "--" in words else None]


def _with_hint(error: click.UsageError) -> str:
    message = error.format_message()
    return f"{message} See `{error.ctx.command_path} --help`." if error.ctx else message


@click.group(
    cls=Program,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"Exit codes: {_EXITS}.",
)
@click.option(
    "--mount",
    "directory",
    metavar="DIR",
    shell_complete=completing.directories,
    envvar="ISOFS_MOUNT",
    help="Which mount; else the one around the current directory, else the only one.",
)
@click.version_option(package_name="isofs", message="isoctl %(version)s")
@click.pass_context
def main(ctx: click.Context, directory: str | None) -> None:
    """Isolate users of a shared directory, and decide about them later.

    Users are given by name or uid.
    """
    ctx.obj = directory


for _command in (
    mount,
    umount,
    service,
    suspect,
    status,
    changes,
    reads_,
    diff,
    plan,
    innocent,
    malicious,
    report,
    evidence,
    conflicts,
    resolve,
    proposals,
    confirm,
    withdraw,
    config,
    attic,
    log,
    log_level,
    check,
    doctor,
    man,
    completion,
    backup,
    restore,
):
    main.add_command(_command)


if __name__ == "__main__":
    main()
