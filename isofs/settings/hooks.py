"""Programs that are run when something happens."""

from __future__ import annotations

from dataclasses import dataclass

from isofs.settings.kinds import Kind, Refused, duration, setting, texts


def _command() -> Kind[tuple[str, ...]]:
    """A program by its absolute path, alone or in a list with its arguments. Empty: none."""
    words = texts()

    def read(value: object) -> tuple[str, ...]:
        found = words.read(value)
        if found and found != ("",) and not found[0].startswith("/"):
            raise Refused(f"must be the absolute path of a program, or a list of it and its arguments, not {value!r}")
        if any("\0" in word for word in found):
            raise Refused("must not have a null character in it")
        return () if found == ("",) else found

    return Kind((), read, list)


@dataclass(frozen=True)
class Hooks:
    """What is run, as root, and told on standard input what happened."""

    on_suspect: tuple[str, ...] = setting(_command(), "program to run when somebody was isolated")
    on_verdict: tuple[str, ...] = setting(
        _command(), "program to run when a verdict, or a part of one, was carried out"
    )
    on_conflict: tuple[str, ...] = setting(_command(), "program to run when a merge left something to decide")
    on_quota: tuple[str, ...] = setting(_command(), "program to run when a suspect comes near a limit, or reached it")
    on_failure: tuple[str, ...] = setting(
        _command(), "program to run when the store failed or works again, or alerts reached their limit"
    )
    on_review: tuple[str, ...] = setting(_command(), "program to run when a suspect is to be looked at again")
    timeout: int = setting(duration("30 s"), "time that a program may take before it is killed")
