"""Who is at the other end of a control connection, as the kernel tells it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import trio

from isofs.control.accepting import EXHAUSTED

_CREDENTIALS = struct.Struct("iII")

#: Of <asm/socket.h>; Python has no name for them.
_SO_PEERGROUPS, _SO_PEERPIDFD = 59, 77

#: The greatest number of groups that a process can have: NGROUPS_MAX.
_MOST_GROUPS = 65536

#: What the kernel has where nobody logged in.
_NO_LOGIN = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that called, as it was when it connected: nothing here is what it says of itself but `program`.

    groups   the supplementary ones; `gid` need not be among them
    login    the uid that somebody logged in with before becoming `uid`; None if the kernel knows of none
    program  what the process calls itself; empty if it ended before it was asked
    """

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]
    login: int | None
    program: str

    def within(self, group: int) -> bool:
        """Whether the process has the rights of a group."""
        return group == self.gid or group in self.groups

    @property
    def persons(self) -> frozenset[int]:
        """The uids of whoever may sit there. Two peers with one of them in common may be the same person.

        The uid counts beside the login uid, which a process without one may choose for itself; but root is whoever
        logged in, if that is known.
        """
        if self.login is None:
            return frozenset({self.uid})
        return frozenset({self.login} if self.uid == 0 else {self.login, self.uid})

    @property
    def person(self) -> int:
        """The uid to name whoever sits there by: that of the login, if there was one."""
        return self.uid if self.login is None else self.login


def peer_of(connection: trio.socket.SocketType) -> Peer:
    """Who connected a Unix socket. Reads of /proc only what cannot wait for the process's memory.

    OSError if there are no descriptors to ask with: a peer that seems never to have logged in could be a second person.
    """
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    assert isinstance(packed, bytes)
    pid, uid, gid = _CREDENTIALS.unpack(packed)
    login, program = None, ""
    try:
        with _process(connection) as alive:
            with open(f"/proc/{pid}/loginuid", encoding="ascii") as file:
                found = int(file.read())
            with open(f"/proc/{pid}/comm", "rb") as file:
                name = os.fsdecode(file.read().removesuffix(b"\n"))
            if alive():  # else the number may be another process's by now
                login, program = None if found == _NO_LOGIN else found, name
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in EXHAUSTED:
            raise
    return Peer(pid, uid, gid, _groups(connection.fileno()), login, program)


def _groups(descriptor: int) -> frozenset[int]:
    """The supplementary groups; Python's own call reads 256 of them at most."""
    libc = ctypes.CDLL(None, use_errno=True)
    found, size = (ctypes.c_uint32 * _MOST_GROUPS)(), ctypes.c_uint32(_MOST_GROUPS * 4)
    if libc.getsockopt(descriptor, socket.SOL_SOCKET, _SO_PEERGROUPS, found, ctypes.byref(size)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return frozenset(found[: size.value // 4])


@contextlib.contextmanager
def _process(connection: trio.socket.SocketType) -> Iterator[Callable[[], bool]]:
    """Tells whether the process goes on; always, on a kernel that cannot tell."""
    try:
        process = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise  # it has ended
        yield lambda: True
        return
    assert isinstance(process, int)
    try:
        ended = select.poll()
        ended.register(process, select.POLLIN)
        yield lambda: not ended.poll(0)
    finally:
        os.close(process)
