"""What is measured side by side: the host's file system and everything that is put over it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import crowd

#: Users of the measurement; they need not exist in the password file. The crowd's suspects are others.
TRUSTED, SUSPECT = 62001, 62002

_LIMIT = 30.0


class Trouble(Exception):
    """The measurement can't go on."""


@dataclass(frozen=True)
class Contender:
    """One way to reach files. `worker` makes changes, `reader` reads; what only one of them can do is left out."""

    name: str
    mount: Callable[[Path], contextlib.AbstractContextManager[Path]]
    worker: int = TRUSTED
    reader: int = TRUSTED
    only_reads: bool = False


def run(*command: str) -> str:
    """Run a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Trouble(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def isoctl(*words: str) -> str:
    return run(sys.executable, "-m", "isoctl.main", *words)


def directories(at: Path, *names: str) -> list[Path]:
    """Directories that everybody may write to."""
    made = []
    for name in names:
        made.append(at / name)
        made[-1].mkdir(parents=True)
        made[-1].chmod(0o777)
    return made


def unmounted(at: Path) -> None:
    """Take away whatever is mounted there."""
    limit = time.monotonic() + _LIMIT
    while os.path.ismount(at):
        if subprocess.run(["umount", str(at)], capture_output=True, check=False).returncode:
            time.sleep(0.1)
        if time.monotonic() > limit:
            run("umount", "--lazy", str(at))


@contextlib.contextmanager
def host(at: Path) -> Iterator[Path]:
    yield directories(at, "files")[0]


@contextlib.contextmanager
def overlayfs(at: Path) -> Iterator[Path]:
    lower, upper, work, mount = directories(at, "lower", "upper", "work", "mount")
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "overlay", "-o", options, str(mount))
    try:
        yield mount
    finally:
        unmounted(mount)


@contextlib.contextmanager
def bindfs(at: Path) -> Iterator[Path]:
    source, mount = directories(at, "source", "mount")
    run("bindfs", str(source), str(mount))
    try:
        yield mount
    finally:
        unmounted(mount)


@contextlib.contextmanager
def fuse_overlayfs(at: Path) -> Iterator[Path]:
    lower, upper, work, mount = directories(at, "lower", "upper", "work", "mount")
    options = f"lowerdir={lower},upperdir={upper},workdir={work},allow_other"
    run("fuse-overlayfs", "-o", options, str(mount))
    try:
        yield mount
    finally:
        unmounted(mount)


@contextlib.contextmanager
def unionfs(at: Path) -> Iterator[Path]:
    lower, upper, mount = directories(at, "lower", "upper", "mount")
    run("unionfs", "-o", "cow,allow_other,default_permissions,use_ino", f"{upper}=RW:{lower}=RO", str(mount))
    try:
        yield mount
    finally:
        unmounted(mount)


@contextlib.contextmanager
def passthrough(at: Path) -> Iterator[Path]:
    source, mount = directories(at, "source", "mount")
    program = Path(__file__).with_name("passthrough.py")
    daemon = subprocess.Popen([sys.executable, str(program), str(source), str(mount)], cwd="/")
    try:
        limit = time.monotonic() + _LIMIT
        while not os.path.ismount(mount):
            if daemon.poll() is not None or time.monotonic() > limit:
                raise Trouble("the passthrough does not mount")
            time.sleep(0.02)
        yield mount
    finally:
        unmounted(mount)
        try:
            daemon.wait(3)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


@contextlib.contextmanager
def isofs(at: Path) -> Iterator[Path]:
    [files] = directories(at, "files")
    isoctl("mount", str(files))
    try:
        yield files
    finally:
        unmounted(files)
        shutil.rmtree(files / ".isofs", ignore_errors=True)


@contextlib.contextmanager
def isofs_silent(at: Path) -> Iterator[Path]:
    """isofs without an audit trail."""
    with isofs(at) as files:
        (at / "config.toml").write_text('[audit]\non = "off"\n')
        isoctl("--mount", str(files), "config", "edit", "--from", str(at / "config.toml"))
        yield files


@contextlib.contextmanager
def isofs_suspect(at: Path) -> Iterator[Path]:
    with isofs(at) as files:
        isoctl("--mount", str(files), "suspect", str(SUSPECT))
        yield files


def isofs_crowd(suspects: int, objects: int) -> Callable[[Path], contextlib.AbstractContextManager[Path]]:
    """isofs with suspects who have changed that many objects, none of which is worked on."""

    @contextlib.contextmanager
    def mounted(at: Path) -> Iterator[Path]:
        [files] = directories(at, "files")
        crowd.make(files, suspects, objects)
        isoctl("mount", str(files))
        try:
            yield files
        finally:
            unmounted(files)

    return mounted


def contenders(objects: int) -> list[Contender]:
    """Everything that is measured; `objects` is how many the crowd has changed."""
    return [
        Contender("host", host),
        Contender("overlayfs", overlayfs),
        Contender("bindfs", bindfs),
        Contender("fuse-overlayfs", fuse_overlayfs),
        Contender("unionfs-fuse", unionfs),
        Contender("pyfuse3 alone", passthrough),
        Contender("isofs", isofs_silent),
        Contender("isofs, audit", isofs),
        Contender("isofs, crowd", isofs_crowd(10, objects)),
        Contender("suspect reads", isofs_suspect, reader=SUSPECT, only_reads=True),
        Contender("suspect works", isofs_suspect, worker=SUSPECT, reader=SUSPECT),
    ]
