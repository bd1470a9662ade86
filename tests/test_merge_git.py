"""Two branches of a repository, one replayed as main and one as a suspect: what git merges, isofs merges alike."""

from __future__ import annotations

import os
import random
import subprocess
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import pytest

from isofs.engine import checks
from support.contest import Contest

#: Files that people wrote: Python's own library.
LIBRARY = Path(sysconfig.get_paths()["stdlib"])
FILES = ("textwrap.py", "shlex.py", "fnmatch.py", "glob.py", "bisect.py", "sched.py", "stat.py", "this.py", "cmd.py")

#: Enough for clean merges and conflicts of both kinds. More for a longer look: ISOFS_HISTORIES=5000.
COUNT = int(os.environ.get("ISOFS_HISTORIES", "40")) // 4

Branch = dict[str, bytes]


def git(repository: Path, *words: str, fails: bool = False) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x", "-c", "commit.gpgsign=false", "-c", "core.autocrlf=false"]
    # Renames are found by origin point here, and by likeness there.
    command = ["git", *who, "-c", "merge.renames=false", "-c", "core.hooksPath=/dev/null", *words]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=not fails)
    return done.stdout


def edited(draw: random.Random, files: Branch, name: str) -> Branch:
    """What somebody makes of the files: some lines changed, inserted and removed, a file more and a file less."""
    made = dict(files)
    for path in draw.sample(sorted(files), 5):
        lines = files[path].splitlines(keepends=True)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(lines))
            lines[at : at + draw.randint(0, 2)] = [b"# %s %d\n" % (name.encode(), draw.randrange(3))] * draw.randint(
                0, 2
            )
        made[path] = b"".join(lines)
    made[f"{name}.py"] = b"print('%s')\n" % name.encode()
    return made


def write(place: Path, files: Branch) -> None:
    for path in place.iterdir():
        if path.is_file() and path.name not in files:
            path.unlink()
    for name, content in files.items():
        (place / name).write_bytes(content)


def found(place: Path, leaving: Iterable[str] = ()) -> Branch:
    return {path.name: path.read_bytes() for path in place.iterdir() if path.is_file() and path.name not in leaving}


@pytest.mark.parametrize("seed", range(COUNT))
def test_two_branches(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    base = {name: (LIBRARY / name).read_bytes() for name in FILES}
    his, hers = (edited(draw, base, name) for name in ("bob", "alice"))
    repository = tmp_path / "repository"
    repository.mkdir()
    git(repository, "init", "-q", "-b", "main")
    write(repository, base)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "base")
    for branch, files in (("bob", his), ("alice", hers)):
        git(repository, "checkout", "-q", "-b", branch, "main")
        write(repository, files)
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", branch)
    git(repository, "checkout", "-q", "bob")
    git(repository, "merge", "-q", "-m", "both", "alice", fails=True)
    contested = set(git(repository, "diff", "--name-only", "--diff-filter=U").split())

    contest = Contest(tmp_path / "isofs", base)
    for user, files in ((contest.suspects["alice"], hers), (contest.bob, his)):
        for name, content in files.items():
            if base.get(name) != content:
                contest.write(user, content, name)
    report = contest.innocent()
    waiting = {os.fsdecode(item.path) for item in report.items if item.action == "conflict"}
    # isofs leaves to people what git does where lines repeat, and never the other way round.
    assert contested <= waiting
    main = contest.main()
    assert {name: main[name] for name in main if name not in waiting} == found(repository, leaving=waiting)
    assert {name: main[name] for name in waiting} == {name: his[name] for name in waiting}
    assert sorted(contest.waiting()) == sorted(hers[name] for name in waiting)
    assert not checks.check(contest.fs)
    contest.close()
