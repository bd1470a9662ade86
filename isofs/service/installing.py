"""What the system needs to know of isofs: the helpers of mount(8), and a unit of systemd for each mount."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from isofs.control import results
from isofs.errors import Already, NotAllowed

#: A line that tells what was installed here from what somebody else put there.
_MARK = "# Installed by `isoctl service install`; `isoctl service uninstall` removes it."

_HELPER = """\
#!/bin/sh
{mark}
exec {python} -m isoctl.mounthelper "$@"
"""

#: The daemon is started by a supervisor, which has the next one ready; systemd watches over that.
_UNIT = """\
{mark}
[Unit]
Description=isofs over %f
Documentation=man:isoctl(1)
RequiresMountsFor=%f
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=all
EnvironmentFile=-/etc/isofs/%i.conf
ExecStart={python} -m isoctl.main mount --foreground --supervised $OPTIONS -- %f
ExecReload=/bin/kill -HUP $MAINPID
ExecStop={python} -m isoctl.main umount --timeout 60 --lazy -- %f
Restart=on-failure
RestartSec=100ms
WatchdogSec=120
TimeoutStartSec=infinity
TimeoutStopSec=90
KillMode=mixed
LimitNOFILE=1048576
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
"""

HELPERS = ("sbin/mount.isofs", "sbin/mount.fuse.isofs")
UNIT = "etc/systemd/system/isofs@.service"

#: Letters that systemd leaves as they are in the name of a unit.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.")


def install(root: str) -> results.Installed:
    """Put everything in place below a root; what is there already stays as it is.

    Raises Already, with nothing changed, if a file is there that is somebody else's.
    """
    wanted = _wanted()
    for name in wanted:
        _check_ours(os.path.join(root, name))
    return _done(root, {name: _put(os.path.join(root, name), text) for name, text in wanted.items()})


def uninstall(root: str) -> results.Installed:
    """Remove what `install` put there, and nothing else."""
    for name in _wanted():
        _check_ours(os.path.join(root, name))
    return _done(root, {name: _remove(os.path.join(root, name)) for name in _wanted()})


def unit_name(directory: str) -> str:
    """The unit that mounts a directory (an absolute path), as `systemd-escape --path` writes it."""
    parts = "/".join(part for part in directory.split("/") if part)
    if not parts:
        return "isofs@-.service"
    letters = [_escaped(byte) for byte in os.fsencode(parts)]
    if parts.startswith("."):
        letters[0] = "\\x2e"
    return f"isofs@{''.join(letters)}.service"


def _escaped(byte: int) -> str:
    letter = chr(byte)
    if letter == "/":
        return "-"
    return letter if letter in _PLAIN else f"\\x{byte:02x}"


def _wanted() -> dict[str, str]:
    """The files, by their paths below a root."""
    helper = _HELPER.format(mark=_MARK, python=_in_shell(sys.executable))
    unit = _UNIT.format(mark=_MARK, python=_in_unit(sys.executable))
    return {**dict.fromkeys(HELPERS, helper), UNIT: unit}


def _in_shell(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"


def _in_unit(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if " " in path or escaped != path else path


def _check_ours(path: str) -> None:
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
        if _MARK not in file.read():
            raise Already(f"{path} is there, and was not put there by isofs: move it away first")


def _put(path: str, text: str) -> str:
    before = None
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        before = file.read()
    if before == text:
        return "unchanged"
    with _told(path):
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), delete=False, encoding="utf-8") as scratch:
            scratch.write(text)
            os.fchmod(scratch.fileno(), 0o644 if path.endswith(".service") else 0o755)
        os.rename(scratch.name, path)
    return "installed" if before is None else "replaced"


def _remove(path: str) -> str:
    with _told(path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return "absent"
    return "removed"


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotAllowed(f"{path} cannot be changed: {error.strerror}") from error


def _done(root: str, actions: dict[str, str]) -> results.Installed:
    changed = any(action not in ("unchanged", "absent") for action in actions.values())
    here = os.path.realpath(root) == "/" and os.path.isdir("/run/systemd/system")
    return {
        "files": [{"path": os.path.join(root, name), "action": action} for name, action in actions.items()],
        "reloaded": changed and here and _reload(),
    }


def _reload() -> bool:
    """Let systemd read its units again."""
    done = subprocess.run(["systemctl", "daemon-reload"], capture_output=True, check=False)
    return done.returncode == 0
