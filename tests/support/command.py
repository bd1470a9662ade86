"""What tests of the real command share: refusals, machines without other mounts, directories as they are."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isofs.errors import Exit
from support.mount import Result


def refused(done: Result, code: Exit, *words: str) -> str:
    """The command failed with this code, one clear line on standard error and nothing else; returns the line."""
    assert done.code == code, done
    assert done.out == ""
    assert done.err.startswith("isoctl: "), done.err
    assert done.err.count("\n") == 1, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err, (word, done.err)
    return done.err.rstrip("\n")


def error(done: Result) -> dict[str, Any]:
    """The error that a command with --json printed."""
    facts = json.loads(done.out)
    assert list(facts) == ["error"]
    assert sorted(facts["error"]) == ["code", "message"]
    assert Exit[facts["error"]["code"].upper()] == done.code
    found: dict[str, Any] = facts["error"]
    return found


#: SQLite makes and removes them as it opens and closes a database; they hold nothing of it at rest.
_PASSING = {"isofs.db-wal", "isofs.db-shm", "log"}


def as_it_is(directory: Path, *, mounted: bool = False) -> dict[str, tuple[Any, ...]]:
    """Everything in a directory, its store included: types, modes, owners, contents.

    What is `mounted` over has the audit trail written all the time, by a process of its own: that is left out.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for above, directories, files in os.walk(directory):
        if mounted and above == str(directory / ".isofs"):
            directories.remove("audit")
        for name in (*directories, *files):
            if name in _PASSING:
                continue
            path = os.path.join(above, name)
            at = os.lstat(path)
            row: tuple[Any, ...] = (oct(at.st_mode), at.st_uid, at.st_gid)
            if stat.S_ISREG(at.st_mode):
                row += (at.st_mtime_ns, Path(path).read_bytes())
            found[os.path.relpath(path, directory)] = row
    return found


def isoctl_alone(*words: str, keep: Sequence[Path] = (), cwd: Path | str = "/", mount: str | None = None) -> Result:
    """Run `isoctl` where nothing is mounted but what is in `keep`: in a mount namespace of its own."""
    kept = "|".join(f"'{path}'" for path in keep) or "''"
    script = (
        "while read -r _ point type _; do "
        f'case $type:$point in fuse.isofs:{kept.replace("|", "|fuse.isofs:")}) ;; fuse.isofs:*) umount -l "$point" ;; '
        'esac; done </proc/mounts; exec "$@"'
    )
    command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-m", "isoctl.main", *words]
    environment = {key: value for key, value in os.environ.items() if key != "ISOFS_MOUNT"}
    if mount is not None:
        environment["ISOFS_MOUNT"] = mount
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, env=environment, check=False)
    return Result(done.returncode, done.stdout, done.stderr)
