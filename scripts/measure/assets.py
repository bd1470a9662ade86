"""What the work starts from: a tree, a repository and sources, the same at every run."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

from work import Assets, Scale

_FUNCTIONS = 120


def make(at: Path, scale: Scale) -> Assets:
    """Make everything below an empty directory that everybody may read."""
    rng = random.Random(7)
    return Assets(_tree(at, scale, rng), _repository(at, scale, rng), _sources(at, scale))


def _tree(at: Path, scale: Scale, rng: random.Random) -> Path:
    """Files of very different sizes, as in a real tree, ten to a directory."""
    weights = [rng.lognormvariate(0, 1.5) for _ in range(scale.files)]
    unit = scale.tree / sum(weights)
    root = at / "tree"
    for number, weight in enumerate(weights):
        path = root / f"d{number % 13}" / f"e{number // 130}" / f"file{number}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(int(weight * unit)))
    return _archive(at, "tree")


def _repository(at: Path, scale: Scale, rng: random.Random) -> Path:
    """A repository with two branches that differ in a quarter of the files."""
    root = at / "repository"
    names = [f"d{number % 20}/file{number}.txt" for number in range(scale.files // 2)]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name}\n{rng.randbytes(800).hex()}\n")
    _git(root, "init", "-q", "-b", "main")
    _git(root, "add", ".")
    _git(root, "commit", "-q", "-m", "One")
    _git(root, "checkout", "-q", "-b", "other")
    for name in names[::4]:
        (root / name).write_text(f"other {name}\n")
    _git(root, "commit", "-q", "-a", "-m", "Two")
    _git(root, "checkout", "-q", "main")
    return _archive(at, "repository")


def _git(root: Path, *words: str) -> None:
    identity = {f"GIT_{role}_{what}": "measure" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", *words], cwd=root, check=True, env={**os.environ, **identity, "HOME": "/nonexistent"})


def _sources(at: Path, scale: Scale) -> Path:
    """A program of several files, and what makes it."""
    root = at / "sources"
    root.mkdir()
    for number in range(scale.sources):
        functions = "\n".join(
            f'int f{number}_{n}(int x) {{ return printf("%d", x * {n}) + {number}; }}' for n in range(_FUNCTIONS)
        )
        (root / f"part{number}.c").write_text(f"#include <stdio.h>\n#include <stdlib.h>\n{functions}\n")
    (root / "main.c").write_text("int main(void) { return 0; }\n")
    objects = " ".join([*(f"part{number}.o" for number in range(scale.sources)), "main.o"])
    (root / "Makefile").write_text(f"program: {objects}\n\t$(CC) -o $@ $^\n")
    return _archive(at, "sources")


def _archive(at: Path, name: str) -> Path:
    path = at / f"{name}.tar"
    subprocess.run(["tar", "cf", str(path), name], cwd=at, check=True)
    path.chmod(0o644)
    subprocess.run(["rm", "-rf", str(at / name)], check=True)
    return path
