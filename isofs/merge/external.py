"""External merge drivers: a command line as git has them for its merge drivers.

A driver works on contents that a suspect chose, so it runs as nobody, without new privileges and environment, in an
empty directory of its own and for a limited time. What it leaves is taken only if it says that it succeeded, and
only from a plain file of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from isofs.merge.resolvers.base import Inputs, Merged, Option, Options, Proposal, Unresolved, register, shown

#: Who a driver runs as.
NOBODY = 65534

#: The largest file that a driver can write.
OUTPUT_LIMIT = 256 << 20

_PATH = "/usr/local/bin:/usr/bin:/bin"
_MARKER_SIZE = 7


@register(
    "external",
    "a merge driver as git has them, run as nobody in an empty directory",
    needs_base=True,
    options={
        "command": Option(
            "",
            "the command line; %O, %A and %B are files with the base, main's and the suspect's content, %L is the "
            "size of conflict markers, %P the path; it leaves the result in %A and ends with 0, or 1 for a conflict",
            required=True,
        ),
        "timeout": Option(60, "seconds that it may take"),
    },
)
def merge_externally(inputs: Inputs, options: Options) -> Proposal:
    """What the driver makes of it. Blocks until it has ended; whatever goes wrong, Unresolved says it."""
    assert inputs.base is not None
    command, timeout = str(options["command"]), int(options["timeout"])
    setpriv = shutil.which("setpriv", path=os.defpath + ":/sbin:/usr/sbin")
    if not command or setpriv is None or os.geteuid() != 0:
        why = "no command is configured" if not command else "running it as nobody needs root and setpriv"
        return Unresolved((f"external: {why}",))
    try:
        with _workplace(inputs, inputs.base) as place:
            ended = _run(setpriv, expand(command, inputs), place, timeout)
            if ended is None:
                return Unresolved((f"external: the driver took longer than {timeout} s",))
            content = place.result()
            said = place.complaint()
    except OSError as why:
        return Unresolved((f"external: the driver could not be run: {why.strerror}",))
    if content is None:
        return Unresolved(("external: the driver left no file that could be taken",))
    if ended == 0:
        return Merged(content, (f"external: merged by {shown(command.encode(errors='replace'))}",))
    reason = f"external: the driver ended with {ended}" + (f": {said}" if said else "")
    # As git has it, 1 to 125 is a conflict, and what it left has the marks; the rest is a failure.
    return Unresolved((reason,), content if 0 < ended < 126 else None)


def expand(command: str, inputs: Inputs) -> str:
    """The command line for a shell, with what stands for %O, %A, %B, %L, %P, %S, %X, %Y and %% filled in."""
    words = {
        "O": "base",
        "A": "main",
        "B": "suspect",
        "L": str(_MARKER_SIZE),
        "P": shlex.quote(inputs.path.decode(errors="surrogateescape")),
        "S": "base",
        "X": shlex.quote(inputs.main_name),
        "Y": shlex.quote(inputs.suspect_name),
        "%": "%",
    }
    return re.sub("%([OABLPSXY%])", lambda match: words[match[1]], command)


@dataclass(frozen=True, slots=True)
class _Place:
    """The driver's directory, held open: whatever the driver makes of its names, this stays the same one."""

    path: Path
    fd: int
    errors: IO[bytes]

    def result(self) -> bytes | None:
        """What the driver left, if it is a plain file of its own and not too large."""
        try:
            fd = os.open("main", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return None
        try:
            found = os.fstat(fd)
            # A link to a file of somebody else's would be read with root's rights.
            own = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == NOBODY
            if not own or found.st_size > OUTPUT_LIMIT:
                return None
            with open(fd, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(fd)

    def complaint(self) -> str:
        self.errors.seek(0)
        return shown(self.errors.read(4096).strip().replace(b"\n", b" "), 200)


@contextlib.contextmanager
def _workplace(inputs: Inputs, base: bytes) -> Iterator[_Place]:
    with tempfile.TemporaryDirectory(prefix="isofs-merge-", ignore_cleanup_errors=True) as outer:
        os.chmod(outer, 0o711)  # root's, so that the driver cannot put something else in its directory's place
        work = Path(outer, "work")
        work.mkdir(mode=0o700)
        for name, content in (("base", base), ("main", inputs.main), ("suspect", inputs.suspect)):
            (work / name).write_bytes(content)
            os.chown(work / name, NOBODY, NOBODY)
        os.chown(work, NOBODY, NOBODY)
        fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with open(Path(outer, "errors"), "w+b") as errors:
                yield _Place(work, fd, errors)
        finally:
            os.close(fd)


def _run(setpriv: str, command: str, place: _Place, timeout: int) -> int | None:
    """The driver's exit status, negative for a signal; None if it was ended after `timeout` seconds."""
    drop = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
    limited = f"ulimit -c 0; ulimit -f {OUTPUT_LIMIT // 512}; {command}"
    process = subprocess.Popen(
        [setpriv, *drop, "--inh-caps=-all", "--", "/bin/sh", "-c", limited],
        cwd=place.path,
        env={"PATH": _PATH},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=place.errors,
        start_new_session=True,
    )
    ended = False
    try:
        watched = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(watched, select.POLLIN)
            ended = bool(poll.poll(timeout * 1000))
        finally:
            os.close(watched)
    finally:
        # Before the process is waited for, so that the number of its group is nobody else's yet.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what it left running
        status = process.wait()
    return status if ended else None
