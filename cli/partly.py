"""What the commands with partial verdicts share: the options, and how they tell what came along and what stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from isoctl import output
from isofs.control import results
from isofs.errors import Exit

F = TypeVar("F", bound=Callable[..., Any])


def options(command: F) -> F:
    """Give a command the options --only and --except, as its parameters `only` and `excepted`."""
    excepted = click.option("--except", "excepted", metavar="GLOB", multiple=True, help="Not this; may be repeated.")
    return click.option("--only", metavar="GLOB", multiple=True, help="Only this; may be repeated.")(excepted(command))


def arguments(only: Sequence[str], excepted: Sequence[str]) -> dict[str, object]:
    """The globs as a call has them."""
    return {"only": list(only), "except": list(excepted)} if only or excepted else {}


def show(facts: results.Merged | results.Planned) -> None:
    """Print what comes along though no glob names it, and what stays though one does."""
    for one in facts["along"]:
        output.line(along(one))
    for one in facts["left"]:
        output.line(left(one))


def along(one: results.Aside) -> str:
    return f"along     {one['path']}: {one['reason']}"


def left(one: results.Aside) -> str:
    return f"left      {one['path']}: {one['reason']}"


def fail_if_refused(aside: Sequence[results.Aside]) -> None:
    """End with the exit code for conflicts if something stays that was asked for."""
    refused = [one for one in aside if not one["asked"]]
    if refused:
        output.warn(f"{output.plural(len(refused), 'change')} cannot be merged as they are, and stay isolated")
        raise click.exceptions.Exit(Exit.CONFLICTS)
