"""Runs suites on the host, and over a mount as a trusted user and as a suspect at once, and compares what fails."""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from suites import QUICK, SUITES, Command, Suite, of_script

#: Two users that every Debian has, and that nobody works as.
TRUSTED, SUSPECT = "games", "news"

VIEWS = ("host", "trusted", "suspect")


def isoctl(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "isoctl.main", *words], check=True, stdout=subprocess.DEVNULL, cwd="/")


@contextlib.contextmanager
def places() -> Iterator[dict[str, Path]]:
    """A directory for each view; those of the trusted user and the suspect lie in the same mount."""
    base = Path(tempfile.mkdtemp(prefix="isofs-conformance-", dir="/var/tmp"))
    base.chmod(0o755)
    tree, host = base / "tree", base / "host"
    for directory in (tree, host):
        directory.mkdir()
        directory.chmod(0o1777)
    isoctl("mount", str(tree))
    try:
        settings = base / "settings.toml"
        settings.write_text("[access]\nsystem_accounts = false\n")  # else they are never isolated
        isoctl("--mount", str(tree), "config", "edit", "--from", str(settings))
        isoctl("--mount", str(tree), "suspect", SUSPECT)
        yield {"host": host, "trusted": tree / "trusted", "suspect": tree / "suspect"}
        isoctl("--mount", str(tree), "check")
        isoctl("--mount", str(tree), "malicious", SUSPECT, "--yes")
        if (tree / "suspect").exists() and any((tree / "suspect").iterdir()):
            raise SystemExit("conformance: something that the suspect made is in main")
        isoctl("umount", str(tree))
    finally:
        subprocess.run(["umount", "-l", str(tree)], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(base)


def run(command: Command, suite: Suite, place: Path, user: str) -> set[str]:
    """Run one command in a fresh directory as a user; what failed."""
    who = pwd.getpwnam(user)
    place.mkdir(exist_ok=True)
    place.chmod(0o777)
    work = place / command.name
    if command.entries:
        fill(work, command.entries)
    else:
        subprocess.run(["mkdir", str(work)], check=True, user=who.pw_uid, group=who.pw_gid, extra_groups=[])
    try:
        done = subprocess.run(  # not with `cwd`: it is entered as root, who does not see a suspect's directory
            ["env", "-C", str(work), *(word.replace("{}", str(work)) for word in command.words)],
            user=who.pw_uid,
            group=who.pw_gid,
            extra_groups=[],
            umask=0o022,
            env={
                "PATH": "/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "HOME": str(work),
                "TMPDIR": str(work),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
            text=True,
            timeout=command.limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {f"took longer than {command.limit:.0f} s"}
    finally:
        if command.entries:
            shutil.rmtree(work)
        else:
            subprocess.run(["rm", "-rf", str(work)], check=False, user=who.pw_uid, group=who.pw_gid, extra_groups=[])
    return suite.failures(done.returncode, done.stdout.replace(str(work), "HERE"))


def fill(directory: Path, entries: int) -> None:
    """Make a directory with so many empty files, in which everybody may do everything."""
    directory.mkdir()
    directory.chmod(0o777)
    for number in range(entries):
        os.mknod(directory / f"stays-{number}", stat.S_IFREG | 0o644)


def compared(command: Command, suite: Suite, where: dict[str, Path]) -> tuple[list[set[str]], float]:
    """What failed in each view, and how long it took."""
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(run, command, suite, where[view], SUSPECT if view == "suspect" else TRUSTED) for view in VIEWS
        ]
        return [one.result() for one in runs], time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/conformance")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="only a choice of commands that takes a minute or two")
    parser.add_argument("--only", action="append", default=[], help="run only the commands of this name")
    parser.add_argument("--command", metavar="SCRIPT", help="instead of suites a shell script, for its exit code")
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("run it as root")
    if unknown := set(args.suites) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    suites = {"shell": of_script(args.command)} if args.command else SUITES
    worse = 0
    print(f"{'suite':8} {'command':28} {'seconds':>7}  " + "  ".join(f"{view:8}" for view in VIEWS))
    with places() as where:
        for name in args.suites or suites:
            for command in suites[name].commands:
                if (args.only and command.name not in args.only) or (args.quick and command.name not in QUICK):
                    continue
                (on_host, *others), seconds = compared(command, suites[name], where)
                shown = ["ok" if not on_host else f"{len(on_host)} fail"]
                extra = [found - on_host for found in others]
                shown += [f"{len(more)} worse" if more else "same" for more in extra]
                print(f"{name:8} {command.name:28} {seconds:7.1f}  " + "  ".join(f"{w:8}" for w in shown), flush=True)
                for view, more in zip(VIEWS[1:], extra, strict=True):
                    for line in sorted(more):
                        print(f"    {view}: {line}", flush=True)
                worse += any(extra)
    print(f"\n{worse} commands fail on the mount in a way that they do not on the host" if worse else "\nno difference")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
