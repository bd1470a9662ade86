"""Marks for changes that deserve a second look: one table of rules over plain values.

A mark accuses nobody. It says which of ten thousand changes to look at first. To add one, add a row to `RULES` (about
one change) or to `WHOLE` (about all of a suspect's changes together); the name is a stable key of `--json`, never
renamed, and the words complete the sentence "this change ...".
"""

from __future__ import annotations

import math
import posixpath
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

#: Samples of fewer bytes say nothing about entropy: 512 random ones come to 7.6 bits, 100 to 6.4.
ENOUGH = 512

#: Bits per byte from which on a content is taken to be encrypted or compressed; source code and prose have 4 to 5.5,
#: base64 has 6, program code 6 to 6.5.
HIGH_ENTROPY = 7.2

#: As many deletions (or renamings), and this share of all changes, are "mass".
MASS_NUMBER, MASS_SHARE = 20, 0.25

_EXEC = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH

#: What runs, or decides what runs, without anybody's calling it by name: the end of a path, and when it runs.
STARTUP: tuple[tuple[str, str], ...] = (
    (r"\.(bashrc|bash_profile|bash_login|bash_logout|bash_aliases|profile|inputrc)", "shells read them at login"),
    (r"\.(zshrc|zshenv|zprofile|zlogin|zlogout|kshrc|mkshrc|cshrc|tcshrc|login|logout)", "the same for other shells"),
    (r"\.config/fish/.*", "the same for fish"),
    (r"\.(xinitrc|xsession|xprofile|xsessionrc|Xsession)", "sessions begin with them"),
    (r"\.config/(autostart|systemd|environment\.d)/.*", "desktops and user managers start what is there"),
    (r"[^/]+\.(service|socket|timer|path|mount|automount|target)", "units of systemd"),
    (r"\.ssh/.*", "keys that let people in, and commands (authorized_keys, config, rc)"),
    (r"\.(rhosts|shosts|forward|procmailrc|netrc|pam_environment)", "let people in, or run at every mail"),
    (r"(.*/)?(crontab|anacrontab|cron\.(d|hourly|daily|weekly|monthly)/.*|crontabs/.*)", "cron runs them"),
    (r"(rc\.local|init\.d/.*|profile\.d/.*|ld\.so\.preload)", "run at boot, at login, or in every program"),
    (r"\.git/(hooks/.*|config)", "git runs hooks, and what its config names (pagers, filters, fsmonitor)"),
    (r"\.(gitconfig|gitattributes|gitmodules)", "name filters and drivers that git runs, and where it fetches from"),
    (r"(sitecustomize|usercustomize|conftest)\.py", "Python and pytest import them unasked"),
    (r"[^/]+\.pth", "lines of it are code that every Python of the environment runs"),
    (r"\.(vimrc|exrc|gvimrc|emacs|nanorc|gdbinit|pythonrc|Rprofile|screenrc|tmux\.conf|envrc)", "programs run them"),
    (r"\.vscode/(tasks|settings|launch)\.json", "editors run tasks when a folder is opened"),
    (r"\.(github/workflows/.*|gitlab-ci\.yml|npmrc|pre-commit-config\.yaml)", "servers and tools run them"),
    # Makefiles and setup.py are not here: somebody has to say `make`, and in a source tree they change every day.
)

_STARTUP = re.compile("(?:^|/)(?:" + "|".join(pattern for pattern, _ in STARTUP) + r")\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Side:
    """An object on one side of a change, as plain values. `sample` is some of a file's content, None if not read."""

    mode: int
    uid: int
    gid: int
    acl: bytes = b""
    capabilities: bytes = b""
    target: bytes = b""
    sample: bytes | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules know of one change. `replaced` is the type (S_IFMT) of what had the name before, of another type.

    `old` of something added is None, unless it stands for something deleted: `a.txt.locked` for `a.txt`.
    """

    change: str
    path: bytes
    old: Side | None
    new: Side | None
    replaced: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A mark, what it says, and whether it holds for one change."""

    name: str
    words: str
    holds: Callable[[Facts], bool]


@dataclass(slots=True)
class Totals:
    """All changes of a suspect, counted by kind of change and by mark."""

    changes: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)

    def add(self, change: str, marks: Iterable[str] = ()) -> None:
        self.changes[change] += 1
        self.marks.update(marks)


@dataclass(frozen=True, slots=True)
class WholeRule:
    """A mark of all changes together."""

    name: str
    words: str
    holds: Callable[[Mapping[str, int]], bool]


def entropy(sample: bytes) -> float:
    """Shannon's entropy of the bytes of a sample, in bits per byte."""
    if not sample:
        return 0.0
    total = len(sample)
    return -sum(count / total * math.log2(count / total) for count in Counter(sample).values())


def is_text(sample: bytes) -> bool:
    """Whether a sample reads as text: no NUL, and hardly a control character. Of no bytes: no."""
    if not sample or b"\0" in sample:
        return False
    odd = sum(byte < 32 and byte not in b"\t\n\r\f\x1b\b" for byte in sample)
    return odd * 50 <= len(sample) and entropy(sample) < HIGH_ENTROPY


def leaves(path: bytes, target: bytes) -> bool:
    """Whether a symlink at `path` leads out of the tree by what it says: absolute, or above the root by `..`."""
    if target.startswith(b"/"):
        return True
    depth = len([part for part in posixpath.dirname(path).split(b"/") if part])
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in (b"", b"."):
            depth += 1
    return False


def is_startup(path: bytes) -> bool:
    """Whether something runs, or decides what runs, without being called: one of `STARTUP`."""
    return _STARTUP.search(path.decode("utf-8", "surrogateescape")) is not None


def _gains(bits: int) -> Callable[[Facts], bool]:
    """A file has one of the bits that it, or nothing, had before."""

    def holds(facts: Facts) -> bool:
        old, new = facts.old, facts.new
        had = old.mode if old is not None and stat.S_ISREG(old.mode) and facts.change != "added" else 0
        return new is not None and stat.S_ISREG(new.mode) and bool(new.mode & ~had & bits)

    return holds


def _differs(*names: str) -> Callable[[Facts], bool]:
    """One of these values of an object that was there before is another now."""

    def holds(facts: Facts) -> bool:
        old, new = facts.old, facts.new
        if old is None or new is None or facts.change == "added":
            return False
        return any(getattr(old, name) != getattr(new, name) for name in names)

    return holds


def _gains_capabilities(facts: Facts) -> bool:
    before = b"" if facts.old is None else facts.old.capabilities
    return facts.new is not None and bool(facts.new.capabilities) and facts.new.capabilities != before


def _gains_exec(facts: Facts) -> bool:
    old = facts.old
    return facts.change != "added" and old is not None and not old.mode & _EXEC and _gains(_EXEC)(facts)


def _new_executable(facts: Facts) -> bool:
    return facts.change == "added" and _gains(_EXEC)(facts)


def _link_leaves(facts: Facts) -> bool:
    new, old = facts.new, facts.old
    if new is None or not stat.S_ISLNK(new.mode) or not leaves(facts.path, new.target):
        return False
    return old is None or facts.change == "renamed" or old.target != new.target


def _encrypted(facts: Facts) -> bool:
    old, new = facts.old, facts.new
    if old is None or new is None or old.sample is None or new.sample is None or len(new.sample) < ENOUGH:
        return False
    return is_text(old.sample) and entropy(new.sample) >= HIGH_ENTROPY


def _mass(*kinds: str) -> Callable[[Mapping[str, int]], bool]:
    def holds(changes: Mapping[str, int]) -> bool:
        count = sum(changes.get(kind, 0) for kind in kinds)
        return count >= MASS_NUMBER and count >= MASS_SHARE * sum(changes.values())

    return holds


#: The order is that of the marks on a line: what gives most away comes first.
RULES: tuple[Rule, ...] = (
    Rule("setuid", "has the set-user-ID bit, and had it not", _gains(stat.S_ISUID)),
    # Of files only: a directory's bit is inherited, and says who owns what is made in it.
    Rule("setgid", "has the set-group-ID bit, and had it not", _gains(stat.S_ISGID)),
    Rule("capabilities", "gives capabilities to whoever runs it", _gains_capabilities),
    Rule("type", "took the name of something of another type", lambda facts: facts.replaced is not None),
    Rule("encrypted", "was text, and looks encrypted or compressed", _encrypted),
    Rule("startup", "is run, or decides what is run, without being called", lambda facts: is_startup(facts.path)),
    Rule("link-leaves", "is a link that leads out of the tree", _link_leaves),
    Rule("new-executable", "is new and can be run", _new_executable),
    Rule("exec", "can be run, and could not be", _gains_exec),
    Rule("owner", "has another owner or group", _differs("uid", "gid")),
    Rule("acl", "has another access control list", _differs("acl")),
    Rule("dotfile", "is not listed by ls", lambda facts: posixpath.basename(facts.path).startswith(b".")),
)

WHOLE: tuple[WholeRule, ...] = (
    WholeRule("mass-deletion", "many deletions", _mass("deleted")),
    WholeRule("mass-renaming", "many renamings", _mass("renamed")),
)

#: What every mark says, by its name.
WORDS: Mapping[str, str] = {rule.name: rule.words for rule in RULES} | {rule.name: rule.words for rule in WHOLE}


def marks(facts: Facts) -> tuple[str, ...]:
    """The names of the rules that hold for one change, in the order of the table."""
    return tuple(rule.name for rule in RULES if rule.holds(facts))


def whole(totals: Totals) -> tuple[str, ...]:
    """The names of the rules that hold for all changes together."""
    return tuple(rule.name for rule in WHOLE if rule.holds(totals.changes))
