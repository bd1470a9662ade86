"""mount.isofs: what mount(8) runs for a mount of the type isofs or fuse.isofs, with fstab's options."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from isoctl import output
from isofs.errors import Already, IsofsError, UsageError

#: The exit codes of mount(8).
_USAGE, _FAILURE = 1, 32

#: Options that are for mount(8) or for whoever reads fstab, or that say what is so anyway.
_OF_OTHERS = frozenset(
    (
        *("rw", "defaults", "auto", "noauto", "fail", "nofail", "_netdev"),
        *("user", "nouser", "users", "owner", "group", "exec", "suid", "dev", "async"),
        *("atime", "diratime", "relatime", "norelatime", "nostrictatime", "silent", "loud"),
    )
)

#: Options that restrict what can be done, and are the business of the file system below.
_BELOW = frozenset(("ro", "noexec", "nosuid", "nodev", "noatime", "nodiratime", "sync", "dirsync"))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command line of mount(8) asks for."""

    directory: str = ""
    store: str | None = None
    supervised: bool = True
    watchdog: float | None = None
    trust_everybody: bool = False
    fake: bool = False


def wanted(words: Sequence[str]) -> Wanted:
    """What `mount.isofs SOURCE DIRECTORY [-sfnvrw] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]` asks for."""
    places: list[str] = []
    options: list[str] = []
    flags: set[str] = set()
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-") or word == "-":
            places.append(word)
            continue
        for at, flag in enumerate(word[1:], 1):
            if flag not in "oNt":
                flags.add(flag)
                continue
            value = word[at + 1 :] or (left.pop(0) if left else "")
            options += _split(value) if flag == "o" else []
            break
    unknown = flags - set("sfnvwr")
    if len(places) != 2 or unknown:
        raise UsageError("usage: mount.isofs SOURCE DIRECTORY [-sfnvw] [-o OPTIONS]")
    source, directory = places
    # Where there is a file of that name, mount(8) gives its path.
    if os.path.basename(source) not in ("isofs", "none") and os.path.abspath(source) != os.path.abspath(directory):
        raise UsageError(
            f"the source is isofs, or the directory itself, not {source}: isofs is mounted over what it shows"
        )
    found = Wanted(directory, fake="f" in flags)
    for option in [*options, *(["ro"] if "r" in flags else [])]:
        found = _with(found, option, sloppy="s" in flags)
    if found.watchdog is not None and not found.supervised:
        raise UsageError("watchdog is for a supervised daemon")
    return found


def _split(text: str) -> list[str]:
    """Options between commas; those in quotes are part of a value, as mount(8) has it."""
    parts, quoted = [""], False
    for character in text:
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part]


def _with(found: Wanted, option: str, *, sloppy: bool) -> Wanted:
    name, _, value = option.partition("=")
    if name in _OF_OTHERS or name.startswith(("x-", "X-")) or name in ("comment", "uhelper", "helper"):
        return found
    if name == "store" and value.startswith("/"):
        return replace(found, store=value)
    if name in ("supervised", "unsupervised") and not value:
        return replace(found, supervised=name == "supervised")
    if name == "trust_everybody" and not value:
        return replace(found, trust_everybody=True)
    if name == "watchdog" and value.isdecimal() and int(value):
        return replace(found, watchdog=float(value))
    if name in _BELOW:
        raise UsageError(f"{name} is taken from the file system below: mount that one with it")
    if name in ("store", "watchdog"):
        kind = "an absolute path" if name == "store" else "whole seconds"
        raise UsageError(f"{name}= takes {kind}, not {value!r}")
    if sloppy:
        return found
    raise UsageError(
        f"isofs has no mount option {option!r}; there are store=, supervised, unsupervised, watchdog=, trust_everybody"
    )


def main() -> None:
    """The program `mount.isofs`."""
    output.survive_any_name()
    try:
        sys.exit(_mount(wanted(sys.argv[1:])))
    except UsageError as error:
        code = _USAGE
        message = str(error)
    except Already as error:
        code = 0  # `mount -a` does not see that it is, because a part of the file system is mounted
        message = str(error)
    except IsofsError as error:
        code = _FAILURE
        message = str(error)
    sys.stderr.write(f"mount.isofs: {output.quoted(message)}\n")
    sys.exit(code)


def _mount(wanted: Wanted) -> int:
    from isoctl import daemon
    from isofs.control import mounts, results
    from isofs.service import starting

    daemon.need_root()
    if wanted.fake:
        return 0
    how = starting.How(supervised=wanted.supervised, watchdog=wanted.watchdog, trust_everybody=wanted.trust_everybody)
    store = None if wanted.store is None else mounts.real(wanted.store)

    def ready(facts: results.Mounted) -> None:
        if facts["degraded"] is not None:
            sys.stderr.write(f"mount.isofs: degraded: {output.quoted(facts['degraded']['reason'])}\n")

    return starting.start(mounts.real(wanted.directory), store, how, ready)


if __name__ == "__main__":
    main()
