"""How isofs is run: mounts, checks, settings, logs."""

from __future__ import annotations

from typing import TypedDict

from isofs.control.results.status import Degraded


class Repaired(TypedDict):
    """`check --repair`: what was repaired and how, what was not, and what a damaged database is called now."""

    ok: bool
    repaired: list[Repair]
    problems: list[Problem]
    kept: str | None


#: What ends a failure of the store while it is mounted, as a repair.
RETURN = "use the store again: who was shut out works on, and opens files anew"


class Repair(TypedDict):
    """A problem, and what is done about it."""

    invariant: str
    subject: str | None
    path: str | None
    problem: str
    repair: str


class Problem(TypedDict):
    """An invariant that does not hold, and where."""

    invariant: str
    subject: str | None
    path: str | None
    problem: str


class Checked(TypedDict):
    """`check`: how much was checked, and what is wrong."""

    ok: bool
    checked: dict[str, int]
    problems: list[Problem]


class Finding(TypedDict):
    """What a check of `doctor` says; `level` is ok, warning or problem, `fix` a command that helps, if there is one."""

    check: str
    level: str
    text: str
    fix: str | None


class Diagnosis(TypedDict):
    """`doctor`: whether isofs can work, and everything that was looked at; `directory` is null if none is meant."""

    ok: bool
    directory: str | None
    findings: list[Finding]


class Unmounted(TypedDict):
    """`umount`: the daemon that unmounted, and that ends now."""

    pid: int


class Mounted(TypedDict):
    """What mounting answers; `repaired` says that a dead daemon's mount was replaced. `degraded` as in `Status`."""

    mount: str
    store: str
    repaired: bool
    pid: int
    degraded: Degraded | None


class Rule(TypedDict):
    """A rule of the configuration: files that match a pattern are merged `using` a resolver; no line: a default."""

    pattern: list[str]
    using: str
    options: dict[str, str | int | bool]
    line: int | None


class Setting(TypedDict):
    """A setting: `key` with its table's name before it, `default` is whether it is what it is without configuration."""

    key: str
    value: object
    default: bool
    about: str


class Configuration(TypedDict):
    """`config show`: the text as it is in the store, and what it makes with the defaults."""

    path: str
    text: str
    settings: list[Setting]
    rules: list[Rule]


class InstalledFile(TypedDict):
    """One file of `service install` or `uninstall`; `action` is installed, replaced, unchanged, removed or absent."""

    path: str
    action: str


class Installed(TypedDict):
    """`service install` and `uninstall`: what was done, and whether systemd was told."""

    files: list[InstalledFile]
    reloaded: bool


class LogLevel(TypedDict):
    """`log-level`: what is logged now, with all that is more important, and what the configuration says."""

    level: str
    configured: str
