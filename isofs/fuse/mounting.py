"""Mounting: the daemon in a mount namespace of its own, the mount in everybody's.

The daemon must never enter its own mount. So it leaves the machine's mount namespace before the mount is made: in
its own the directory stays what it was, whatever path is followed. The mount itself is made, and later undone, by
a thread or child that works in the machine's namespace. Other file systems that are unmounted there are unmounted
here as well.

What is mounted there is not the root of the FUSE protocol but a directory in it. The kernel makes the protocol's root
before it has heard what the mount can do, and never keeps the ACL of it (or that it has none): everybody but its owner
would wait for a request at each absolute path.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass

from isofs.errors import Busy, IsofsError, NoFuse, NoMount, NotAllowed

_CLONE_NEWNS = 0x00020000
_CLONE_FS = 0x00000200
_MS_REC = 0x4000
_MS_PRIVATE = 1 << 18
_MS_SLAVE = 1 << 19
_MS_POSIXACL = 1 << 16
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8

#: Mount flags of the directory's file system that the mount takes over (read-only, nosuid, nodev, noexec).
_INHERITED = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC

FILE_SYSTEM_TYPE = "fuse.isofs"

#: The directory in the protocol's root that is mounted.
ROOT_NAME = b"root"

_SYS_OPEN_TREE, _SYS_MOVE_MOUNT = 428, 429
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOVE_MOUNT_BENEATH = 0x200
_AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None) -> None:
    _checked(_libc.mount(source, target, kind, flags, data))


@dataclass(frozen=True, slots=True)
class Session:
    """A mount in the making: the FUSE device, the directory, and the machine's mount namespace.

    `replaces` is whether a mount is at its place already, a dead daemon's, which goes when this one is shown.
    """

    device: int
    directory: str
    namespace: int
    replaces: bool

    @property
    def mount_point(self) -> str:
        """What libfuse is given as mount point: a device that is mounted by us."""
        return f"/dev/fd/{self.device}"


def prepare(directory: str) -> Session:
    """Open the device and leave the machine's mount namespace. Call it before any thread is started."""
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NoFuse(f"/dev/fuse cannot be used: {error.strerror}; load the kernel module fuse") from error
    namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.unshare(_CLONE_NEWNS))
        _mount(None, b"/", None, _MS_REC | _MS_SLAVE, None)
        there = _isofs_mounts()
        for target in there:
            _libc.umount2(target, _MNT_DETACH | _UMOUNT_NOFOLLOW)  # fails only for one that is gone by now
        _mount(None, os.fsencode(_mount_of(directory)), None, _MS_PRIVATE, None)
    except OSError as error:
        raise NotAllowed(f"a mount namespace cannot be made: {error.strerror}; isofs needs CAP_SYS_ADMIN") from error
    return Session(device, directory, namespace, os.fsencode(directory) in there)


def _isofs_mounts() -> list[bytes]:
    """Where the namespace of this thread has isofs mounts, the latest first.

    Kept in the daemon's, they would live on when they are unmounted elsewhere.
    """
    found = []
    with open("/proc/thread-self/mountinfo", "rb") as table:
        for line in filter(None, table.read().split(b"\n")):
            front, _, back = line.partition(b" - ")
            if back.split(b" ")[0] == FILE_SYSTEM_TYPE.encode():
                name = front.split(b" ")[4]
                found.append(re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), name))
    return found[::-1]  # what was mounted over another, or below it, first


def _mount_of(directory: str) -> str:
    """The mount point of the file system that a directory lies in."""
    path = directory
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def mount(session: Session) -> None:
    """Make the mount, in this namespace alone. Whoever follows a path into it waits, until it is taken out of there."""
    options = (
        f"fd={session.device},rootmode={stat.S_IFDIR:o},user_id=0,group_id=0,"
        "default_permissions,allow_other,max_read=1048576"
    )
    # MS_POSIXACL: the umask comes to us with the call instead of being applied, as default ACLs demand.
    flags = (os.statvfs(session.directory).f_flag & _INHERITED) | _MS_POSIXACL
    target = os.fsencode(session.directory)
    try:
        _mount(b"isofs", target, FILE_SYSTEM_TYPE.encode(), flags, options.encode())
    except OSError as error:
        raise _not_mounted(session, error) from error


def withdraw(session: Session) -> None:
    """Take away the mount if it is in this namespace still: who follows a path into it would wait for ever."""
    target = os.fsencode(session.directory)
    if target in _isofs_mounts():  # else what is mounted there is the directory itself
        _libc.umount2(target, _MNT_DETACH | _UMOUNT_NOFOLLOW)


def take_out(session: Session) -> int:
    """Take the mount out of this namespace; a descriptor keeps it, for `show`.

    Call it from a thread: it waits for what `isofs.fuse.entrance` answers.
    """
    target = os.fsencode(session.directory)
    try:
        tree = _open_tree(target + b"/" + ROOT_NAME)
        try:
            _checked(_libc.umount2(target, _MNT_DETACH | _UMOUNT_NOFOLLOW))
        except BaseException:
            os.close(tree)
            raise
        return tree
    except OSError as error:
        raise _not_mounted(session, error) from error


def show(session: Session, tree: int) -> None:
    """Mount over the directory what was taken out, for everybody on the machine; a dead daemon's mount there goes."""
    try:
        _in_namespace(session.namespace, lambda: _show(tree, os.fsencode(session.directory)))
    except OSError as error:
        raise _not_mounted(session, error) from error


def _not_mounted(session: Session, error: OSError) -> NoMount:
    return NoMount(f"{session.directory} cannot be mounted over: {error.strerror}")


def _open_tree(path: bytes) -> int:
    """A descriptor of a mount of its own of the directory at a path, which is nowhere yet."""
    flags = ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC)
    opened: int = _libc.syscall(ctypes.c_long(_SYS_OPEN_TREE), ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(path), flags)
    _checked(opened < 0)
    return opened


def _show(tree: int, target: bytes) -> None:
    """Move the mount to its place, where dead ones may be: at no moment is there none, if the kernel can do so."""
    dead = _isofs_mounts().count(target)
    for _ in range(dead - 1):
        _checked(_libc.umount2(target, _MNT_DETACH | _UMOUNT_NOFOLLOW))
    try:
        _move_mount(tree, target, _MOVE_MOUNT_BENEATH if dead else 0)
    except OSError:  # before Linux 6.5
        if not dead:
            raise
        _checked(_libc.umount2(target, _MNT_DETACH | _UMOUNT_NOFOLLOW))
        _move_mount(tree, target, 0)
        return
    if dead:
        _checked(_libc.umount2(target, _MNT_DETACH | _UMOUNT_NOFOLLOW))


def _move_mount(tree: int, target: bytes, flags: int) -> None:
    to = (ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(target), ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH | flags))
    _checked(_libc.syscall(ctypes.c_long(_SYS_MOVE_MOUNT), ctypes.c_int(tree), ctypes.c_char_p(b""), *to))


def unmount(session: Session, *, lazily: bool = False) -> bool:
    """Undo the mount. Raises Busy while somebody uses it, unless `lazily`: then it goes when the last one leaves.

    Whether there was one: it may have been taken away already, and what is at its place now is not ours.
    """
    target, there = os.fsencode(session.directory), False

    def do() -> None:
        nonlocal there
        there = target in _isofs_mounts()
        if there:
            _checked(_libc.umount2(target, _MNT_DETACH if lazily else 0))

    try:
        _in_namespace(session.namespace, do)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Busy(f"{session.directory} is in use") from error
        if error.errno != errno.EINVAL:  # not mounted any more
            raise IsofsError(f"{session.directory} cannot be unmounted: {error.strerror}") from error
    return there


def _in_namespace(namespace: int, do: Callable[[], None]) -> None:
    """Run something in the machine's mount namespace: in a thread of its own, which ends with it."""
    failure: list[OSError] = []

    def run() -> None:
        try:
            _checked(_libc.unshare(_CLONE_FS))
            _checked(_libc.setns(namespace, _CLONE_NEWNS))
            do()
        except OSError as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="mount")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
