"""What a hostile process does beyond plain calls: namespaces, handles of files, descriptors sent about, leases.

The functions are for a process of their own (`support.mount.Worker`): what they open and enter stays there.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_DUMPABLE = 4
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
MS_BIND, MS_REC = 0x1000, 0x4000
MNT_DETACH = 2
AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_FOLLOW = -100, 0x1000, 0x400
_OPEN_TREE, _OPEN_TREE_CLONE = 428, 1

#: What a process keeps for its later calls.
_sockets: dict[str, socket.socket] = {}
_handles: list[ctypes.Array[ctypes.c_char]] = []
_broken: list[int] = []


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def enter_namespaces() -> int:
    """Become root in a user namespace, with mounts of one's own; returns the uid that this process has now."""
    uid, gid = os.getuid(), os.getgid()
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # or the maps of this process are root's
    _checked(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    return os.getuid()


def have_namespaces(uid: int) -> bool:
    """Whether this machine lets a user make a user namespace and mount in it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgid(uid)
            os.setuid(uid)
            enter_namespaces()
            bind("/", "/mnt", MS_BIND | MS_REC)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def bind(source: str, to: str, flags: int = MS_BIND) -> None:
    _checked(_libc.mount(os.fsencode(source), os.fsencode(to), None, ctypes.c_ulong(flags), None))


def overlay(lower: str, to: str) -> None:
    """See a directory as the lower one of an overlay: without what is mounted in it."""
    options = f"lowerdir={lower}:/proc".encode()
    _checked(_libc.mount(b"overlay", os.fsencode(to), b"overlay", ctypes.c_ulong(0), options))


def umount(path: str, flags: int = 0) -> None:
    _checked(_libc.umount2(os.fsencode(path), flags))


def clone_tree(path: str) -> int:
    """A copy of the mount at a path, without what is mounted below."""
    return _checked(_libc.syscall(_OPEN_TREE, AT_FDCWD, os.fsencode(path), _OPEN_TREE_CLONE))


def link_descriptor(descriptor: int, to: str, *, by_proc: bool) -> None:
    """Give what a descriptor leads to a new name."""
    if by_proc:
        source, flags = b"/proc/self/fd/%d" % descriptor, AT_SYMLINK_FOLLOW
        _checked(_libc.linkat(AT_FDCWD, source, AT_FDCWD, os.fsencode(to), flags))
    else:
        _checked(_libc.linkat(descriptor, b"", AT_FDCWD, os.fsencode(to), AT_EMPTY_PATH))


def take_handle(path: str) -> int:
    """Keep the kernel's handle of a file; returns its number."""
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 8 + 128)
    _checked(_libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), handle, ctypes.byref(ctypes.c_int()), 0))
    _handles.append(handle)
    return len(_handles) - 1


def open_handle(number: int, mount: str, flags: int) -> int:
    """Open what a handle stands for, on the file system that `mount` is on."""
    at = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return _checked(_libc.open_by_handle_at(at, _handles[number], flags))
    finally:
        os.close(at)


def listen(name: str) -> None:
    """Wait for one sender of a descriptor, at an abstract address."""
    _sockets[name] = socket.socket(socket.AF_UNIX)
    _sockets[name].bind(f"\0{name}")
    _sockets[name].listen()


def send(name: str, descriptor: int) -> None:
    """Send a descriptor to who listens, and close it here."""
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(f"\0{name}")
        socket.send_fds(sender, [b"x"], [descriptor])
    os.close(descriptor)


def receive(name: str) -> int:
    """The descriptor that was sent."""
    with _sockets.pop(name) as listener:
        taken, _ = listener.accept()
        with taken:
            return socket.recv_fds(taken, 1, 1)[1][0]


def post(descriptor: int) -> None:
    """Leave a descriptor nowhere but in a socket."""
    _sockets["from"], _sockets["to"] = socket.socketpair()
    socket.send_fds(_sockets["from"], [b"x"], [descriptor])
    os.close(descriptor)


def fetch() -> int:
    """The descriptor that was left in the socket."""
    try:
        return socket.recv_fds(_sockets["to"], 1, 1)[1][0]
    finally:
        _sockets.pop("from").close()
        _sockets.pop("to").close()


def lease(descriptor: int, kind: int) -> None:
    """Take a lease; `broken` counts the signals by which it is asked back."""
    signal.signal(signal.SIGIO, lambda number, _: _broken.append(number))
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, kind)


def broken() -> int:
    return len(_broken)


def outcome(call: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """What a call returns, or the name of its error as one of a refusal."""
    try:
        return call(*args, **keywords)
    except OSError as error:
        return error
