"""What `isoctl doctor` looks at: the machine, a directory and its store, as they are. Nothing here judges."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import struct
from dataclasses import dataclass, replace

from isofs.control import mounts
from isofs.errors import IsofsError
from isofs.service import hooks, live, volumes
from isofs.service.events import Kind
from isofs.service.starting import store_path
from isofs.service.volumes import Volume
from isofs.store import configuration, heading

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18

#: Capabilities that isofs needs, by their numbers of linux/capability.h.
CAPABILITIES = {
    0: "CAP_CHOWN",
    1: "CAP_DAC_OVERRIDE",
    2: "CAP_DAC_READ_SEARCH",
    3: "CAP_FOWNER",
    4: "CAP_FSETID",
    5: "CAP_KILL",
    19: "CAP_SYS_PTRACE",
    21: "CAP_SYS_ADMIN",
    27: "CAP_MKNOD",
}

#: Programs that isofs runs, and the Debian package that has them.
TOOLS = {"nsenter": "util-linux", "setpriv": "util-linux"}


@dataclass(frozen=True, slots=True)
class Stored:
    """A store, if it is `there`: of which version, None if it is none, and which this program knows; and its settings.

    `closed` is whether all that was written to it is in its database, and not in the log beside. `configuration` is
    what is wrong with the settings, None if nothing is; `hooks` is why some of the programs are not run.
    """

    path: str
    there: bool
    version: int | None
    supported: int
    closed: bool
    configuration: str | None
    hooks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts. `directory` and what follows it are None if no directory was asked about.

    device      why /dev/fuse cannot be opened; empty if it can
    protocol    the FUSE protocol that the kernel speaks, None if nothing can be mounted
    unmounted   why nothing can be mounted; empty if it can
    running     what the daemon of a mounted directory says of its health; None if it is not mounted
    """

    uid: int
    device: str
    module: bool
    kernel: str
    protocol: tuple[int, int] | None
    unmounted: str
    libfuse: str | None
    binding: str
    lacking: tuple[str, ...]
    descriptors: int
    all_uids: bool
    confined: str | None
    systemd: bool
    tools: tuple[str, ...]
    directory: str | None = None
    unreachable: str = ""
    volume: Volume | None = None
    store: Stored | None = None
    store_volume: Volume | None = None
    below: tuple[str, ...] = ()
    other: str | None = None
    running: str | None = None


def look(directory: str | None, store: str | None, *, write: bool, daemon: Daemon | None) -> Machine:
    """Find out everything. `directory` is a real path, `daemon` what its mount is served by if it is mounted."""
    protocol, unmounted = _protocol()
    machine = Machine(
        uid=os.geteuid(),
        device=_device(),
        module=_has_line("/proc/filesystems", "fuse"),
        kernel=os.uname().release,
        protocol=protocol,
        unmounted=unmounted,
        libfuse=_libfuse(),
        binding=_binding(),
        lacking=_lacking(_status("CapEff")),
        descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        all_uids=_has_line("/proc/self/uid_map", "0 0 4294967295"),
        confined=_confined(),
        systemd=os.path.isdir("/run/systemd/system"),
        tools=tuple(name for name in TOOLS if shutil.which(name) is None),
    )
    return machine if directory is None else _with_directory(machine, directory, store, write, daemon)


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that runs: its process, its store, and what its check of the store found, empty if nothing."""

    pid: int
    store: str
    problems: str


def _with_directory(machine: Machine, directory: str, store: str | None, write: bool, daemon: Daemon | None) -> Machine:
    # A mount hides what lies below it from all but its daemon.
    process = "self" if daemon is None else str(daemon.pid)
    root = "" if daemon is None else f"/proc/{daemon.pid}/root"
    path = store_path(directory, store) if daemon is None else daemon.store
    machine = replace(
        machine,
        directory=directory,
        other=next((one for one in mounts.points() if one != directory and _nested(one, directory)), None),
        running=None if daemon is None else daemon.problems,
    )
    try:
        with open(f"/proc/{process}/mountinfo", "rb") as file:
            mounted = volumes.table(file.read())
        volume = volumes.look(directory, root + directory, mounted, write=write)
        stored, there = _stored(path, root + path, directory), os.path.isdir(root + path)
        lies = path if there else _nearest(path)
        at = volume
        if os.stat(root + lies).st_dev != volume.device:
            at = volumes.look(lies, root + lies, mounted, write=write)
    except OSError as error:
        return replace(machine, unreachable=error.strerror or str(error))
    below = tuple(one.point for one in mounted if one.point != directory and mounts.within(directory, one.point))
    return replace(machine, volume=volume, store=stored, store_volume=at, below=below)


def _nested(one: str, other: str) -> bool:
    return mounts.within(one, other) or mounts.within(other, one)


def _nearest(path: str) -> str:
    """The directory that a path would be made in."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _stored(path: str, reached: str, directory: str) -> Stored:
    there = os.path.exists(os.path.join(reached, "isofs.db"))
    problem, refused = None, tuple[str, ...]()
    if there:
        root = os.open(reached, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            settings, _ = live.parse(configuration.read(root, path), os.path.join(path, configuration.NAME))
            commands = (getattr(settings.hooks, f"on_{kind}") for kind in Kind)
            refused = tuple(why for one in commands if one and (why := hooks.refusal(one[0], directory)) is not None)
        except IsofsError as error:
            problem = str(error)
        finally:
            os.close(root)
    version, closed = heading.read(reached) if there else (None, True)
    return Stored(path, there, version, heading.SUPPORTED, closed, problem, refused)


def _device() -> str:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _protocol() -> tuple[tuple[int, int] | None, str]:
    """The protocol that the kernel speaks, as it says itself at the first request of a mount that nobody sees.

    It is made by a child in a mount namespace of its own, and ends with it.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            answer = b"%d %d" % _first_request()
        except OSError as error:
            answer = b"!" + (error.strerror or "").encode()
        except BaseException:
            answer = b"!it failed"
        os.write(writer, answer)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        answer = file.read()
    os.waitpid(child, 0)
    if answer.startswith(b"!") or not answer:
        return None, answer[1:].decode() or "the attempt ended"
    major, minor = answer.split()
    return (int(major), int(minor)), ""


def _first_request() -> tuple[int, int]:
    signal.alarm(10)  # nothing here waits for long, or forever
    libc = ctypes.CDLL(None, use_errno=True)

    def checked(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    checked(libc.unshare(_CLONE_NEWNS))
    checked(libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    checked(libc.mount(b"isofs-doctor", b"/proc", b"fuse", ctypes.c_ulong(0), options))
    major, minor = struct.unpack_from("=40xII", os.read(device, 1 << 16))
    return major, minor


def _libfuse() -> str | None:
    try:
        library = ctypes.CDLL("libfuse3.so.3")
        library.fuse_pkgversion.restype = ctypes.c_char_p
        return str(library.fuse_pkgversion().decode())
    except (OSError, AttributeError):
        return None


def _binding() -> str:
    """Why pyfuse3 cannot be used; empty if it can."""
    import importlib

    try:
        importlib.import_module("pyfuse3")
    except ImportError as error:
        return str(error)
    return ""


def _lacking(effective: str) -> tuple[str, ...]:
    has = int(effective or "0", 16)
    return tuple(name for number, name in CAPABILITIES.items() if not has >> number & 1)


def _status(key: str) -> str:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next((line.partition(":")[2].strip() for line in file if line.startswith(f"{key}:")), "")


def _has_line(path: str, words: str) -> bool:
    """Whether a file has a line with these words at its end."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        wanted = words.split()
        return any(line.split()[-len(wanted) :] == wanted for line in file)
    return False


def _confined() -> str | None:
    """The AppArmor profile that confines this process, and so a daemon that it would start; None if none does."""
    for path in ("/proc/self/attr/apparmor/current", "/proc/self/attr/current"):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            profile = file.read().strip(" \0\n")
            # Of SELinux, which says more, nothing is told here.
            return profile if profile.endswith("(enforce)") else None
    return None
