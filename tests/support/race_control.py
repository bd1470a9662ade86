"""isofs with one of its rules against leaks switched off: the control of the race test must see it leak.

Run as a program: `race_control.py DIRECTORY RULE`. It serves the directory in the foreground, and prints a line
when the mount answers. The rules (design, section 4): `estale`: a suspect on main's node is sent to its own;
`timeouts`: what is diverged is not kept by the kernel; `nodes`: a suspect is handed nodes of its own.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from isofs.engine import calls, files, redirect, views
from isofs.engine.state import Filesystem, Node, Obj, node_for
from isofs.model.records import MAIN, SubjectId
from isofs.service import daemon, starting
from support.mount import Mounted


def _without_estale() -> None:
    def stay(*args: Any, **kwargs: Any) -> None:
        """The call goes on where it is."""

    for module in (redirect, calls, files):
        module.redirect = stay  # type: ignore[attr-defined]
    redirect._look_up_again = stay  # type: ignore[assignment]


def _with_long_timeouts() -> None:
    entry = calls.entry

    def long_entry(*args: Any, **kwargs: Any) -> calls.Entry:
        return entry(*args, **kwargs)._replace(entry_timeout=calls.LONG, attr_timeout=calls.LONG)

    calls.entry = long_entry
    calls.attr_timeout = lambda fs, node: calls.LONG
    calls.absent_timeout = lambda fs, parent, name: calls.LONG


def _with_nodes_of_main() -> None:
    _without_estale()  # there is no other node to send a suspect to: it would be told to look up for ever

    def handed_node(fs: Filesystem, sid: SubjectId, parent: Node, obj: Obj, *args: Any, **kwargs: Any) -> Node:
        return node_for(fs, MAIN if obj.ino else sid, obj)

    views.handed_node = handed_node


RULES: dict[str, Callable[[], None]] = {
    "estale": _without_estale,
    "timeouts": _with_long_timeouts,
    "nodes": _with_nodes_of_main,
}


@contextlib.contextmanager
def mounted_without(rule: str, directory: Path) -> Iterator[Mounted]:
    """A mount with a rule switched off; unmounted at the end."""
    command = [sys.executable, "-m", "support.race_control", str(directory), rule]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[1]
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        mount = Mounted(directory)
        yield mount
        mount.umount()
        assert process.wait(30) == 0
    finally:
        subprocess.run(["umount", "-l", str(directory)], capture_output=True, check=False)
        process.kill()
        process.communicate()


def _main() -> None:
    directory, rule = sys.argv[1:]
    RULES[rule]()
    daemon.serve(directory, starting.store_path(directory, None), lambda _: print("serving", flush=True))


if __name__ == "__main__":
    _main()
