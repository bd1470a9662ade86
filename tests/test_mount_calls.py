"""The calls of programs, one script after another: on a host directory, as a trusted user, and as a suspect.

Every script is run by the same user on a directory of the host and on the mount; what each call returns, or the errno
that it fails with, must be the same, and so must the trees. A suspect's script must leave main as it was, and make of
it what the host's directory is once the verdict is innocent.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.calls import (
    EXCHANGE,
    NOREPLACE,
    NOW,
    OMIT,
    TYPES,
    Calls,
    get,
    ls,
    lstat,
    put,
    rename2,
    run,
    tick,
    times,
    utimens,
)
from support.mount import ALICE, BOB, CAROL, Mounted, Person, Worker, portrait

pytestmark = pytest.mark.mount

#: A second group that alice is in, and one that she is not in.
GROUP, FOREIGN = 62001, 62002

_libc = ctypes.CDLL(None)

Script = Callable[[Calls], None]
SCRIPTS: dict[str, tuple[Script, Callable[[], None] | None]] = {}


def script(given: Callable[[], None] | None = None) -> Callable[[Script], Script]:
    """Register a script; `given` makes, as root, what is there before. Both work in the current directory."""

    def register(function: Script) -> Script:
        SCRIPTS[function.__name__] = (function, given)
        return function

    return register


@script()
def create_with_umask(c: Calls) -> None:
    for umask in (0, 0o022, 0o077, 0o777):
        os.umask(umask)
        for mode in (0o666, 0o777, 0o600, 0o7777, 0):
            name = f"{umask:o}-{mode:o}"
            c(os.close, os.open(name, os.O_WRONLY | os.O_CREAT, mode))
            c(os.mkdir, "d" + name, mode)
            c(os.mkfifo, "p" + name, mode)
            for one in (name, "d" + name, "p" + name):
                c(lstat, one)
    os.umask(0o022)


@script()
def opening(c: Calls) -> None:
    c(os.open, "f", os.O_RDONLY)
    c(os.open, "f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    c(os.open, "f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    c(put, "f", "0123456789")
    c(os.open, "f", os.O_RDONLY | os.O_DIRECTORY)
    c(os.open, "f/x", os.O_RDONLY)
    c(os.open, "f/x", os.O_WRONLY | os.O_CREAT)
    c(os.open, ".", os.O_WRONLY)
    c(os.open, ".", os.O_RDONLY | os.O_CREAT)
    c(os.open, "no/x", os.O_WRONLY | os.O_CREAT)
    c(os.symlink, "f", "link")
    c(os.symlink, "nothing", "dangling")
    c(os.symlink, "loop", "loop")
    c(os.open, "link", os.O_RDONLY | os.O_NOFOLLOW)
    c(os.open, "link", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    c(os.open, "dangling", os.O_RDONLY)
    c(os.open, "dangling", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    c(os.open, "dangling", os.O_WRONLY | os.O_CREAT, 0o600)
    c(os.open, "loop", os.O_RDONLY)
    c(ls)
    truncated = c(os.open, "link", os.O_RDWR | os.O_TRUNC)
    c(os.read, truncated, 100)
    c(os.write, truncated, b"new")
    c(get, "f")


@script()
def appending(c: Calls) -> None:
    put("f", "start")
    one = os.open("f", os.O_WRONLY | os.O_APPEND)
    two = os.open("f", os.O_RDWR | os.O_APPEND)
    for number in range(5):
        c(os.write, one, b"one %d\n" % number)
        c(os.write, two, b"two %d\n" % number)
    c(os.lseek, two, 0, os.SEEK_SET)
    c(os.read, two, 1000)
    c(os.lseek, one, 0, os.SEEK_CUR)
    c(get, "f")


@script()
def reading_and_writing(c: Calls) -> None:
    both = c(os.open, "f", os.O_RDWR | os.O_CREAT, 0o600)
    c(os.pwrite, both, b"x" * 100_000, 4095)
    c(os.pread, both, 10, 4090)
    c(os.pread, both, 10, 200_000)
    c(os.ftruncate, both, 5000)
    c(os.fstat(both).st_size.__index__)
    c(os.ftruncate, both, 9000)
    c(os.pread, both, 100, 4990)
    c(os.lseek, both, 0, os.SEEK_END)
    c(os.writev, both, [b"a" * 10, b"b" * 10])
    c(os.preadv, both, [bytearray(5), bytearray(50)], 8995)
    reading, writing = os.open("f", os.O_RDONLY), os.open("f", os.O_WRONLY)
    c(os.write, reading, b"x")
    c(os.read, writing, 1)
    c(os.ftruncate, reading, 0)
    c(os.pread, reading, 30, 8990)
    c(os.truncate, "f", 3)
    c(os.pread, reading, 30, 0)
    c(os.truncate, "nothing", 3)
    c(os.mkdir, "d")
    c(os.truncate, "d", 3)
    c(os.fsync, writing)
    c(os.fdatasync, both)


@script()
def sparse_files(c: Calls) -> None:
    both = os.open("f", os.O_RDWR | os.O_CREAT)
    c(os.pwrite, both, b"end", 10 << 20)
    c.note("size", os.fstat(both).st_size)
    c.note("has holes", os.fstat(both).st_blocks * 512 < 1 << 20)
    c(os.pread, both, 5, 5 << 20)
    c(os.truncate, "f", 20 << 20)
    c.note("has holes", os.stat("f").st_blocks * 512 < 1 << 20)


@script()
def directories(c: Calls) -> None:
    c(os.mkdir, "d", 0o750)
    c(os.mkdir, "d")
    c(os.mkdir, "no/d")
    c(os.mkdir, "")
    c(os.mkdir, "d/.")
    c(os.mkdir, "d/sub")
    c(lstat, "d")
    c(os.rmdir, "d")
    c(os.rmdir, "no")
    c(os.rmdir, "d/.")
    c(os.rmdir, "d/sub/..")
    c(put, "f")
    c(os.rmdir, "f")
    c(os.unlink, "d")
    c(os.unlink, "f/")
    c(os.rmdir, "d/sub")
    c(lstat, "d")
    c(ls, "d")
    c(os.listdir, "f")
    c(os.rmdir, "d")
    c(os.mkdir, "d/")
    c(ls)


def shared_by_group() -> None:
    os.mkdir("set")
    os.chown("set", BOB, GROUP)
    os.chmod("set", 0o2775)
    os.mkdir("foreign")
    os.chown("foreign", BOB, FOREIGN)
    os.chmod("foreign", 0o2777)


@script(shared_by_group)
def set_group_directories(c: Calls) -> None:
    for place in ("set", "foreign"):
        c(put, f"{place}/f")
        c(os.mkdir, f"{place}/d", 0o755)
        c(os.mkdir, f"{place}/d/deeper", 0o700)
        c(put, f"{place}/d/f")
        c(os.symlink, "x", f"{place}/l")
        c(os.mkfifo, f"{place}/p")
        for name in ("f", "d", "d/deeper", "d/f", "l", "p"):
            c(lstat, f"{place}/{name}")
        c(os.chmod, f"{place}/f", 0o2755)
        c(os.chmod, f"{place}/d", 0o755)
        c(lstat, f"{place}/f")
        c(lstat, f"{place}/d")


def several_owners() -> None:
    for mode, name in ((0o1777, "sticky"), (0o777, "open"), (0o755, "closed"), (0o1775, "group")):
        os.mkdir(name)
        os.chown(name, BOB, GROUP)
        for owner in (ALICE, BOB, CAROL):
            put(f"{name}/{owner}")
            os.chown(f"{name}/{owner}", owner, owner)
            os.mkdir(f"{name}/d{owner}")
            os.chown(f"{name}/d{owner}", owner, owner)
        os.chmod(name, mode)


@script(several_owners)
def sticky_directories_and_permissions(c: Calls) -> None:
    for place in ("sticky", "open", "closed", "group"):
        for owner in (ALICE, BOB):
            c(os.rename, f"{place}/{owner}", f"{place}/moved{owner}")
            c(os.unlink, f"{place}/moved{owner}")
            c(os.rmdir, f"{place}/d{owner}")
        c(put, f"{place}/{CAROL}")
        c(os.chmod, f"{place}/{CAROL}", 0o600)
        c(os.chown, f"{place}/{CAROL}", ALICE, -1)
        c(os.utime, f"{place}/{CAROL}", ns=(1, 1))
        c(os.utime, f"{place}/{CAROL}")
        c(os.setxattr, f"{place}/{CAROL}", "user.x", b"1")
        c(os.link, f"{place}/{CAROL}", f"{place}/hard")
        c(put, f"{place}/mine")
        c(os.rename, f"{place}/mine", f"{place}/{CAROL}")
        c(ls, place)


def closed_doors() -> None:
    for mode in (0o000, 0o111, 0o444, 0o700):
        os.mkdir(f"{mode:o}")
        put(f"{mode:o}/f", mode=0o644)
        os.chmod(f"{mode:o}", mode)
        put(f"f{mode:o}")
        os.chmod(f"f{mode:o}", mode)


@script(closed_doors)
def what_may_not_be_done(c: Calls) -> None:
    for mode in ("0", "111", "444", "700"):
        c(ls, mode)
        c(lstat, f"{mode}/f")
        c(get, f"{mode}/f")
        c(put, f"{mode}/g")
        c(os.chdir, f"{mode}")
        c(os.chdir, "..") if mode == "111" else None
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            c(os.open, f"f{mode}", flags)
        c(os.access, f"f{mode}", os.R_OK | os.W_OK | os.X_OK)
        c(os.access, mode, os.X_OK)
        c(os.chmod, f"f{mode}", 0o777)
    c(os.chown, "f444", ALICE, ALICE)


@script()
def modes_and_owners(c: Calls) -> None:
    put("f")
    os.mkdir("d")
    os.symlink("f", "l")
    for mode in (0o000, 0o777, 0o4755, 0o2755, 0o1755, 0o7777, 0o640):
        for name in ("f", "d"):
            c(os.chmod, name, mode)
            c(lstat, name)
    for group in (GROUP, FOREIGN, ALICE, -1):
        for name in ("f", "d", "l"):
            c(os.lchown, name, -1, group)
            c(lstat, name)
    c(os.chown, "f", BOB, -1)
    c(os.chown, "f", ALICE, ALICE)
    c(os.chmod, "f", 0o6777)
    c(os.chown, "f", ALICE, GROUP)
    c(lstat, "f")
    opened = os.open("f", os.O_RDONLY)
    c(os.fchmod, opened, 0o600)
    c(os.fchown, opened, -1, ALICE)
    c(lstat, "f")
    c(os.chmod, "l", 0o444)
    c(lstat, "f")
    c(os.chmod, "nothing", 0o444)


@script()
def set_id_bits_go_with_a_change(c: Calls) -> None:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        put("f", "program")
        c(os.chmod, "f", 0o6777)
        opened = os.open("f", flags)
        c(os.write, opened, b"x")
        c(lstat, "f")
        os.close(opened)
    c(os.chmod, "f", 0o6777)
    c(os.truncate, "f", 1)
    c(lstat, "f")


@script()
def symbolic_links(c: Calls) -> None:
    for target in ("f", "/absolute", "../out", "x" * 4000, "\udcff\udcfe", " "):
        c(os.symlink, target, f"l{len(target)}")
        c(os.readlink, f"l{len(target)}")
        c(lstat, f"l{len(target)}")
    c(os.symlink, "x", "l1")
    c(os.symlink, "", "empty")
    c(put, "f", "through")
    c(get, "l1")
    c(os.readlink, "f")
    c(os.readlink, "nothing")
    c(os.mkdir, "d")
    c(os.symlink, "d", "ld")
    c(put, "ld/f")
    c(os.rmdir, "ld")
    c(os.rename, "ld", "ld2")
    c(os.unlink, "ld2")
    c(ls)


@script()
def hard_links(c: Calls) -> None:
    put("f", "one")
    os.mkdir("d")
    c(os.link, "f", "g")
    c(os.link, "f", "d/h")
    c(os.link, "f", "g")
    c(os.link, "d", "e")
    c(os.link, "nothing", "e")
    c(os.link, "f", "no/e")
    for name in ("f", "g", "d/h"):
        c(lstat, name)
    put("g", "two")
    c(get, "d/h")
    c(os.chmod, "d/h", 0o600)
    c(lstat, "f")
    c(os.unlink, "f")
    c(lstat, "g")
    c(os.rename, "g", "d/h")
    c(ls)
    c(os.rename, "d/h", "f")
    c(lstat, "f")
    os.symlink("f", "s")
    c(os.link, "s", "s2", follow_symlinks=False)
    c(lstat, "s2")


@script()
def renaming(c: Calls) -> None:
    for name in ("f", "g", "h"):
        put(name, name)
    for name in ("d", "d/sub", "e", "full"):
        os.mkdir(name)
    put("full/x")
    c(os.rename, "f", "f2")
    c(os.rename, "nothing", "x")
    c(os.rename, "g", "no/x")
    c(os.rename, "g", "h")
    c(get, "h")
    c(os.rename, "h", "h")
    c(os.rename, "h", "e")
    c(os.rename, "e", "h")
    c(os.rename, "e", "d")
    c(os.rename, "e", "full")
    c(os.rename, "d", "d/sub/x")
    c(os.rename, "d/sub", "d")
    c(os.rename, "d", "e")
    c(ls)
    c(ls, "e")
    c(lstat, ".")
    c(os.rename, "e/sub", "full/sub")
    c(lstat, "full")
    c(lstat, "e")
    c(os.rename, ".", "x")
    c(os.rename, "e/..", "x")
    c(os.rename, "f2/", "x")
    c(os.rename, "e", "fresh/")
    c(os.rename, "f2", "newdir/")
    c(ls)


@script()
def renaming_with_flags(c: Calls) -> None:
    put("f", "f")
    put("g", "g")
    os.mkdir("d")
    put("d/x", "x")
    c(rename2, "f", "g", NOREPLACE)
    c(rename2, "f", "new", NOREPLACE)
    c(rename2, "new", "g", EXCHANGE)
    c(get, "new")
    c(get, "g")
    c(rename2, "g", "d", EXCHANGE)
    c(get, "d")
    c(get, "g/x")
    c(rename2, "g", "g/x", EXCHANGE)
    c(rename2, "g/x", "g", EXCHANGE)
    c(rename2, "d", "nothing", EXCHANGE)
    c(rename2, "nothing", "d", EXCHANGE)
    c(rename2, "d", "g/x", EXCHANGE)
    c(rename2, "d", "d", NOREPLACE)
    c(rename2, "d", "new", NOREPLACE | EXCHANGE)
    c(lstat, "g")
    c(ls)


@script()
def time_stamps(c: Calls) -> None:
    put("f")
    os.mkdir("d")
    os.symlink("f", "l")
    for nanoseconds in (0, 1, 999_999_999, 1_234_567_890_123_456_789, 4 * 10**18):
        for name in ("f", "d"):
            c(os.utime, name, ns=(nanoseconds, nanoseconds + 7))
            c(times, name)
        c(os.utime, "l", ns=(nanoseconds, nanoseconds), follow_symlinks=False)
        c.note("of the link", os.lstat("l").st_mtime_ns)
    opened = os.open("f", os.O_WRONLY)
    c(os.utime, opened, ns=(5, 6))
    c(times, "f")
    c(os.write, opened, b"x")
    c.note("writing is noticed", os.stat("f").st_mtime_ns > 10**18)
    c(os.utime, "d", ns=(5, 6))
    put("d/x")
    c.note("creating is noticed", os.stat("d").st_mtime_ns > 10**18)
    c(os.utime, "d", ns=(5, 6))
    c(os.utime, "d/x", ns=(7, 8))
    c(times, "d")
    os.unlink("d/x")
    c.note("removing is noticed", os.stat("d").st_mtime_ns > 10**18)


def one_of_each_kind() -> None:
    """Of alice, but for one directory."""
    for name, make in TYPES.items():
        make(name)
        os.lchown(name, ALICE, ALICE)
    os.mkdir("bobs")
    os.chown("bobs", BOB, BOB)


@script(one_of_each_kind)
def time_stamps_before_1970(c: Calls) -> None:
    for seconds in (-1, -(2**31), 2**31, 2**34 - 1):
        for name in TYPES:
            stamps = (seconds * 10**9 + 7, seconds * 10**9 + 5)
            c(os.utime, name, ns=stamps, follow_symlinks=False)
            c(times, name)


@script(one_of_each_kind)
def by_a_descriptor_of_a_directory(c: Calls) -> None:
    """Calls that know no path: nothing can be looked up again for them."""
    for name in ("directory", "bobs"):
        for call, *args in (
            (os.fchmod, 0o700),
            (os.fchown, -1, GROUP),
            (os.fchown, -1, -1),
            (os.utime,),
            (os.setxattr, "user.x", b"1"),
            (os.removexattr, "user.x"),
        ):
            opened = os.open(name, os.O_RDONLY)
            for _ in range(2):
                tick()
                c.watching(name, call, opened, *args)
            os.close(opened)
            os.rename("directory", "other")
            os.rename("other", "directory")
    opened = os.open("directory", os.O_RDONLY)
    c(os.utime, opened, ns=(5, 6))
    c(times, "directory")


@script(one_of_each_kind)
def attributes_that_cannot_be(c: Calls) -> None:
    for name in TYPES:
        for attribute in ("user", "none.x", "system.x", "USER.x", "user.", "user." + "n" * 251):
            c.watching(name, os.setxattr, name, attribute, b"x", follow_symlinks=False)
            c.watching(name, os.removexattr, name, attribute, follow_symlinks=False)


@script()
def extended_attributes(c: Calls) -> None:
    put("f")
    os.mkdir("d")
    os.symlink("f", "l")
    os.mkfifo("p")
    for name in ("f", "d"):
        c(os.listxattr, name)
        c(os.getxattr, name, "user.a")
        c(os.setxattr, name, "user.a", b"1", os.XATTR_REPLACE)
        c(os.setxattr, name, "user.a", b"1", os.XATTR_CREATE)
        c(os.setxattr, name, "user.a", b"2", os.XATTR_CREATE)
        c(os.setxattr, name, "user.a", b"22", os.XATTR_REPLACE)
        c(os.setxattr, name, "user.empty", b"")
        c(os.setxattr, name, "user.binary", bytes(range(256)))
        c(os.setxattr, name, "user." + "n" * 250, b"x")
        c(os.setxattr, name, "user." + "n" * 251, b"x")
        c(os.setxattr, name, "nothing.a", b"x")
        c(os.setxattr, name, "trusted.a", b"x")
        c(os.setxattr, name, "security.a", b"x")
        c(os.getxattr, name, "user.a")
        c(os.getxattr, name, "user.binary")
        c.note("names", sorted(os.listxattr(name)))
        c(os.removexattr, name, "user.empty")
        c(os.removexattr, name, "user.empty")
        c(os.removexattr, name, "nothing.a")
        c(os.removexattr, name, "system.posix_acl_access")
        c(os.removexattr, name, "system.posix_acl_default")
        c.note("names", sorted(os.listxattr(name)))
    c(os.setxattr, "l", "user.a", b"1", follow_symlinks=False)
    c(os.setxattr, "p", "user.a", b"1")
    c(os.listxattr, "l", follow_symlinks=False)
    c(os.setxattr, "nothing", "user.a", b"1")
    opened = os.open("f", os.O_RDONLY)
    c(os.setxattr, opened, "user.fd", b"1")
    c(os.getxattr, "f", "user.fd")


@script()
def access_control_lists(c: Calls) -> None:
    for umask in (0o022, 0o077):
        os.umask(umask)
        base = f"d{umask:o}"
        c(os.mkdir, base)
        put(f"{base}/before")
        c(run, "setfacl", "-m", f"u:{BOB}:rwx,g:{GROUP}:r-x", f"{base}/before")
        c(run, "getfacl", "-cn", f"{base}/before")
        c(lstat, f"{base}/before")
        c(os.chmod, f"{base}/before", 0o640)
        c(run, "getfacl", "-cn", f"{base}/before")
        c(run, "setfacl", "-d", "-m", f"u:{BOB}:rwx,g::r-x,o::-", base)
        c(put, f"{base}/f", "x", 0o666)
        c(os.close, os.open(f"{base}/private", os.O_CREAT | os.O_WRONLY, 0o600))
        c(os.mkdir, f"{base}/sub", 0o777)
        c(os.mkfifo, f"{base}/p", 0o666)
        c(os.symlink, "f", f"{base}/l")
        put(f"{base}/sub/deep")
        for name in ("", "f", "private", "sub", "sub/deep", "p"):
            c(run, "getfacl", "-cn", f"{base}/{name}")
            c(lstat, f"{base}/{name}")
        c(run, "setfacl", "-x", f"u:{BOB}", f"{base}/f")
        c(run, "setfacl", "-b", f"{base}/sub")
        c(run, "setfacl", "-k", base)
        c(run, "setfacl", "-d", "-m", "u::rwx", f"{base}/f")
        for name in ("", "f", "sub"):
            c(run, "getfacl", "-cn", f"{base}/{name}")
    os.umask(0o022)


def guarded_by_lists() -> None:
    for name, entry in (("in", f"u:{ALICE}:rw"), ("out", f"u:{ALICE}:-"), ("group", f"g:{GROUP}:r")):
        put(name, "guarded", 0o600)
        os.chown(name, BOB, BOB)
        os.chmod(name, 0o664 if name == "out" else 0o660)
        run("setfacl", "-m", entry, name)


@script(guarded_by_lists)
def access_control_lists_decide(c: Calls) -> None:
    for name in ("in", "out", "group"):
        c(get, name)
        c(put, name, "changed")
        c(run, "setfacl", "-b", name)
        c(run, "getfacl", "-cn", name)
        c(get, name)


@script()
def special_files(c: Calls) -> None:
    c(os.mkfifo, "p", 0o640)
    c(os.mkfifo, "p", 0o640)
    c(os.mknod, "s", stat.S_IFSOCK | 0o600)
    c(os.mknod, "r", stat.S_IFREG | 0o604)
    c(os.mknod, "c", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    c(os.mknod, "b", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    for name in ("p", "s", "r", "c"):
        c(lstat, name)
    c(os.open, "p", os.O_WRONLY | os.O_NONBLOCK)
    reading = c(os.open, "p", os.O_RDONLY | os.O_NONBLOCK)
    writing = c(os.open, "p", os.O_WRONLY)
    c(os.write, writing, b"through the pipe")
    c(os.read, reading, 100)
    c(os.open, "s", os.O_RDONLY)
    server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    c(client.connect, "s")
    c(server.bind, "s")
    c(server.bind, "listening")
    c(server.listen)
    c(client.connect, "listening")
    c(client.send, b"x")
    c(lstat, "listening")
    c(os.rename, "p", "p2")
    c(os.chmod, "p2", 0o600)
    c(os.unlink, "s")
    c(ls)


@script()
def open_after_unlink(c: Calls) -> None:
    for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDONLY):
        put("f", "still here")
        opened = os.open("f", flags)
        c(os.unlink, "f")
        c(lstat, "f")
        c.note("links", os.fstat(opened).st_nlink)
        c(os.pread, opened, 100, 0)
        c(os.pwrite, opened, b"more", 10)
        c(os.pread, opened, 100, 0)
        c.note("size", os.fstat(opened).st_size)
        c(os.ftruncate, opened, 3)
        c(os.fchmod, opened, 0o600)
        c(os.fsync, opened)
        c.note("mode", oct(os.fstat(opened).st_mode))
        put("f", "another")
        c(os.pread, opened, 100, 0)
        os.close(opened)
        c(get, "f")
        os.unlink("f")


@script()
def open_after_replacement(c: Calls) -> None:
    put("f", "old")
    opened = os.open("f", os.O_RDWR)
    put("g", "new")
    c(os.rename, "g", "f")
    c(os.pread, opened, 100, 0)
    c(os.pwrite, opened, b"x", 0)
    c.note("links", os.fstat(opened).st_nlink)
    c(os.pread, opened, 100, 0)
    c(get, "f")
    second = os.open("f", os.O_RDWR)
    c(os.rename, "f", "h")
    c(os.pwrite, second, b"yy", 0)
    c(get, "h")


@script()
def removed_working_directory(c: Calls) -> None:
    here = os.getcwd()
    os.mkdir("d")
    os.mkdir("d/inner")
    os.chdir("d/inner")
    c(os.rmdir, "../inner")
    c(os.listdir, ".")
    c(os.mkdir, "x")
    c(put, "y")
    c(os.stat, "z")
    c.note("links", os.stat(".").st_nlink)
    c(os.fsync, os.open(".", os.O_RDONLY))
    c(os.getcwd)
    c.note("above", sorted(os.listdir("..")))
    os.chdir(here)
    c(ls, "d")
    os.chdir("d")
    c(os.rename, "../d", "../e")
    c.note("here", os.path.relpath(os.getcwd(), here))
    c(put, "after")
    os.chdir(here)
    c(ls, "e")


@script()
def mappings(c: Calls) -> None:
    put("f", "0123456789" * 1000)
    both = os.open("f", os.O_RDWR)
    with mmap.mmap(both, 10000) as shared:
        shared[5:8] = b"abc"
        shared[9000:9003] = b"xyz"
        c(os.pread, both, 10, 0)
        shared.flush()
        c(get, "f")
        os.pwrite(both, b"written", 20)
        c.note("mapped", shared[18:30])
        with mmap.mmap(both, 10000, flags=mmap.MAP_PRIVATE) as private:
            private[0:3] = b"own"
            c.note("private", private[0:10])
            c.note("shared", shared[0:10])
    reading = os.open("f", os.O_RDONLY)
    with mmap.mmap(reading, 10000, prot=mmap.PROT_READ) as read_only:
        c.note("read", read_only[0:30])
    c(os.unlink, "f")
    with mmap.mmap(both, 10000) as shared:
        shared[0:4] = b"gone"
        c(os.pread, both, 10, 0)


@script()
def names_of_all_bytes(c: Calls) -> None:
    for byte in range(1, 256):
        name = os.fsdecode(bytes([byte]))
        if name not in ("/", "."):
            c(put, name, name)
    c(ls)
    for name in ("\udcff" * 255, "n" * 255, "ü" * 127, "-", " ", "\n", "...", "a\\b", ".hidden"):
        c(os.mkdir, name)
        c(put, f"{name}/x") if len(name) < 255 else None
        c(os.stat, name + "x")
    c(os.mkdir, "n" * 256)
    c(os.open, "n" * 256, os.O_WRONLY | os.O_CREAT)
    c(os.rename, "-", "n" * 256)
    c(os.symlink, "x", "n" * 256)
    c(os.stat, "x/" * 2100)
    c(ls)


@script()
def as_long_as_a_path_can_be(c: Calls) -> None:
    """From a working directory, whatever lies above it."""
    above = ""
    for _ in range(31):
        above += "d" * 127 + "/"
        os.mkdir(above)
    name = above + "n" * (os.pathconf(".", "PC_PATH_MAX") - 1 - len(above))
    for path in (name, name + "x"):
        for call, *args in ((put,), (os.chmod, 0o600), (os.truncate, 2), (get,), (os.unlink,), (os.mkdir,)):
            c(call, path, *args)
        c(os.rename, path, "short")
        c(os.rename, "short", path)
        c(os.rmdir, path)
        c(os.mkfifo, path)
        c(os.symlink, path, "link")
        c(lstat, path)
        c(os.unlink, path)


@script()
def syncing(c: Calls) -> None:
    put("f")
    os.mkdir("d")
    for name in ("f", "d", "."):
        opened = os.open(name, os.O_RDONLY)
        c(os.fsync, opened)
        c(os.fdatasync, opened)
    synchronous = c(os.open, "g", os.O_WRONLY | os.O_CREAT | os.O_SYNC)
    c(os.write, synchronous, b"x")
    c(get, "g")


@script()
def listing_with_positions(c: Calls) -> None:
    """seekdir and telldir, which Python has not: by the C library."""
    for number in range(300):
        put(f"f{number}")
    _libc.opendir.restype = ctypes.c_void_p
    _libc.readdir.restype = ctypes.c_void_p
    _libc.readdir.argtypes = _libc.telldir.argtypes = _libc.rewinddir.argtypes = [ctypes.c_void_p]
    _libc.telldir.restype = ctypes.c_long
    _libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
    stream = _libc.opendir(b".")

    def following() -> bytes | None:
        entry = _libc.readdir(stream)
        return None if not entry else ctypes.string_at(entry + 19)

    first = [following() for _ in range(150)]
    middle = _libc.telldir(stream)
    rest = []
    while (name := following()) is not None:
        rest.append(name)
    _libc.seekdir(stream, middle)
    again = []
    while (name := following()) is not None:
        again.append(name)
    c.note("the rest again", again == rest)
    c.note("all", {*first, *rest} == {b".", b"..", *(b"f%d" % n for n in range(300))})
    _libc.rewinddir(stream)
    c.note("from the beginning", [following() for _ in range(150)] == first)


@script()
def handles_for_paths_only(c: Calls) -> None:
    """O_PATH: what such a handle may be used for, and what not, before and after its name is gone."""
    put("f", "text")
    os.mkdir("d")
    put("d/x", "inner")
    os.symlink("f", "l")
    handles = [os.open(name, os.O_PATH | os.O_NOFOLLOW) for name in ("f", "d", "l")]
    file, directory, link = handles
    for moved in (False, True):
        for handle in handles:
            at = os.fstat(handle)
            c.note("is", [oct(at.st_mode), at.st_nlink, at.st_uid])
            c(os.read, handle, 10)
            c(os.write, handle, b"x")
            c(os.ftruncate, handle, 0)
            c(os.fchmod, handle, 0o600)
            c(os.fchown, handle, -1, -1)
            c(os.listxattr, handle)
            c(os.fsync, handle)
        c.note("leads to", [os.path.basename(os.readlink(f"/proc/self/fd/{handle}")) for handle in handles])
        c(os.open, "x", os.O_RDONLY, dir_fd=directory)
        c(os.open, f"new{moved}", os.O_WRONLY | os.O_CREAT, dir_fd=directory)
        c(os.open, "x", os.O_RDONLY, dir_fd=file)
        c(os.mkdir, f"made{moved}", dir_fd=directory)
        c(os.readlink, "", dir_fd=link)
        c(get, f"/proc/self/fd/{file}")
        c(put, f"/proc/self/fd/{file}", "through")
        c(os.chmod, f"/proc/self/fd/{file}", 0o640)
        c(os.truncate, f"/proc/self/fd/{file}", 3)
        c(os.listdir(f"/proc/self/fd/{directory}").sort)
        c(os.fchdir, directory)
        c(ls)
        os.chdir("..")
        if not moved:
            os.rename("f", "g")
            os.rename("d", "e")
    os.unlink("g")
    at = os.fstat(file)
    c.note("links", at.st_nlink)
    c(get, f"/proc/self/fd/{file}")


@script()
def access_times(c: Calls) -> None:
    """By relatime: reading is noted once after each change; not by O_NOATIME, and utimes sets what it is given."""
    put("f", "text")
    os.mkdir("d")
    os.symlink("f", "l")
    for name in ("f", "d"):
        c(utimens, name, 1, 2)
        c(times, name)
        c(utimens, name, OMIT, 5)
        c(times, name)
        c(utimens, name, 6, OMIT)
        c(times, name)
        c(utimens, name, OMIT, OMIT)
        c(times, name)
        c(utimens, name, NOW, OMIT)
        c.note("now", [os.stat(name).st_atime > 10**9, os.stat(name).st_mtime_ns])
        c(utimens, name, OMIT, NOW)
        c.note("now", os.stat(name).st_mtime > 10**9)
    c(utimens, "l", 8, 9, 0x100)
    c.note("of the link", os.lstat("l").st_mtime)
    c(utimens, "f", 20, 10)
    opened = c(os.open, "f", os.O_RDONLY | os.O_NOATIME)
    c(os.read, opened, 10)
    c(times, "f")
    c(utimens, "nothing", 1, 1)


@script()
def links_over_renames(c: Calls) -> None:
    """One file of three names, changed by each of them, moved, replaced and unlinked while it is open."""
    os.mkdir("d")
    put("one", "1")
    os.link("one", "two")
    os.link("one", "d/three")
    opened = os.open("two", os.O_RDWR)
    for name, to in (("one", "uno"), ("two", "d/dos"), ("d/three", "tres")):
        c(put, name, f"by {name}")
        c(os.rename, name, to)
        c.note("open", os.pread(opened, 100, 0))
        c(os.pwrite, opened, b"BY", 0)
        for there in ("uno", "d/dos", "tres"):
            c(get, there)
            c(lstat, there)
    c(os.rename, "uno", "tres")
    c(rename2, "uno", "d/dos", EXCHANGE)
    c(rename2, "uno", "d/dos", NOREPLACE)
    c.note("links", os.fstat(opened).st_nlink)
    put("other", "another")
    c(os.rename, "other", "uno")
    c.note("links", os.fstat(opened).st_nlink)
    c(os.link, "d/dos", "again")
    c(os.chmod, "again", 0o640)
    for there in ("tres", "d/dos", "again"):
        c(lstat, there)
        c(os.unlink, there)
    c.note("gone", [os.fstat(opened).st_nlink, os.pread(opened, 100, 0)])
    c(os.link, f"/proc/self/fd/{opened}", "back")
    c(ls)


@script()
def lists_for_what_is_made_below(c: Calls) -> None:
    """A directory's default ACL goes on to what is made two levels below, with its mask, whatever the umask."""
    os.mkdir("d")
    c(run, "setfacl", "-d", "-m", f"u:{BOB}:rwx,g:{GROUP}:rw,g::r-x,o::-,m::r-x", "d")
    for umask in (0, 0o027, 0o777):
        os.umask(umask)
        for mode in (0o777, 0o750, 0o2700, 0):
            place = f"d/{umask:o}-{mode:o}"
            c(os.mkdir, place, mode)
            c(run, "getfacl", "-cpn", place)
            c(os.mkdir, f"{place}/inner", 0o777)
            c(put, f"{place}/inner/f", "x", 0o666)
            for name in (place, f"{place}/inner", f"{place}/inner/f"):
                c(lstat, name)
                c(run, "getfacl", "-cpn", name)
            c(os.chmod, place, 0o700)
    os.umask(0o022)


@script()
def text_editors_and_archives(c: Calls) -> None:
    """What ordinary tools do."""
    put("doc", "one\ntwo\nthree\n")
    c(run, "sed", "-i", "s/two/2/", "doc")
    c(get, "doc")
    c(run, "cp", "-a", "doc", "copy")
    c(run, "mv", "copy", "moved")
    os.mkdir("tree")
    for number in range(20):
        put(f"tree/{number}", str(number))
    c(run, "tar", "-cf", "a.tar", "tree")
    c(run, "rm", "-r", "tree")
    c(run, "tar", "-xf", "a.tar")
    c(run, "find", "tree", "-name", "1*", "-delete")
    c(ls, "tree")
    c(run, "rm", "a.tar")
    c(run, "dd", "if=/dev/zero", "of=zeros", "bs=64k", "count=40", "status=none")
    c(run, "sha256sum", "zeros")
    c(run, "touch", "-d", "2001-02-03 04:05:06.789 UTC", "doc")
    c(run, "ln", "-sfn", "tree", "current")
    c(run, "ln", "-sfn", "doc", "current")
    c(run, "truncate", "-s", "5", "doc")
    c(run, "install", "-m", "750", "doc", "installed")


def run_script(name: str, directory: str) -> list[str]:
    """Run a script in a directory; what its calls did."""
    os.chdir(directory)
    calls = Calls()
    try:
        SCRIPTS[name][0](calls)
    except OSError as error:  # a step that later ones stand on, where the script has been before
        calls.note("ended", errno.errorcode[error.errno or 0])
    finally:
        os.chdir("/")
    return calls.log


def prepare(name: str, directory: str) -> None:
    os.mkdir(directory)
    os.chmod(directory, 0o777)
    given = SCRIPTS[name][1]
    if given is not None:
        os.umask(0)
        os.chdir(directory)
        given()
        os.chdir("/")


class OnHost(NamedTuple):
    """What the calls of a script did, and the tree that it left, as alice and as root see it."""

    log: list[str]
    seen: dict[str, Any]
    tree: dict[str, Any]


@pytest.fixture(scope="module")
def root() -> Iterator[Worker]:
    one = Worker(0, umask=0)
    yield one
    one.close()


@pytest.fixture(scope="module")
def on_host(base: Path, root: Worker) -> Callable[[str], tuple[OnHost, OnHost]]:
    """What a script did when alice ran it on the host for the first time, and for the second: once for all tests."""

    @functools.cache
    def done(name: str) -> tuple[OnHost, OnHost]:
        host = Path(tempfile.mkdtemp(dir=base))
        host.chmod(0o777)
        work = str(host / "work")
        root(prepare, name, work)
        first, second = (OnHost(*alice_runs(name, work), root(portrait, str(host))) for _ in range(2))
        assert first.log
        assert not first.log[-1].startswith("ended")
        shutil.rmtree(host)
        return first, second

    return done


def alice_runs(name: str, directory: str) -> tuple[list[str], dict[str, Any]]:
    """Let alice, who is in a group of her own and in another, run a script, in a new process each time; what she sees.

    Not from the process that ran it: scripts leave descriptors and the like behind.
    """
    found: list[Any] = []
    for function, *args in ((run_script, name, directory), (portrait, directory)):
        one = Worker(ALICE, groups=(GROUP,))
        try:
            found.append(one(function, *args))
        finally:
            one.close()
    return [line.replace(directory, "HERE") for line in found[0]], found[1]


def run_on_mount(name: str, mount: Mounted, expected: OnHost) -> None:
    """Run a script on the mount, and compare calls and what alice sees after."""
    log, seen = alice_runs(name, str(mount.path / "work"))
    assert log == expected.log
    assert seen == expected.seen


OnHosts = Callable[[str], tuple[OnHost, OnHost]]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_trusted_user(mount: Mounted, root: Worker, on_host: OnHosts, name: str) -> None:
    expected, _ = on_host(name)
    root(prepare, name, str(mount.path / "work"))
    run_on_mount(name, mount, expected)
    assert root(portrait, str(mount.path)) == expected.tree
    assert portrait(str(mount.backing), ".isofs") == expected.tree


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_suspect(mount: Mounted, root: Worker, on_host: OnHosts, name: str) -> None:
    """The same for a suspect; nobody else sees anything, and after an innocent verdict main is what the host has."""
    expected, _ = on_host(name)
    root(prepare, name, str(mount.path / "work"))
    before = root(portrait, str(mount.path))
    mount.ask("suspect", uid=ALICE, user="alice")
    run_on_mount(name, mount, expected)
    assert root(portrait, str(mount.path)) == before
    assert portrait(str(mount.backing), ".isofs") == before
    done = mount.ask("innocent", uid=ALICE)
    assert not done["conflicts"]
    assert root(portrait, str(mount.path)) == expected.tree
    assert mount.ask("status")["subjects"] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_suspect_who_was_at_work_before(mount: Mounted, root: Worker, on_host: OnHosts, name: str) -> None:
    """What the script makes is main's already, and in everybody's caches, when the suspect runs it once more."""
    _, expected = on_host(name)
    root(prepare, name, str(mount.path / "work"))
    alice_runs(name, str(mount.path / "work"))
    before = root(portrait, str(mount.path))
    bob = Worker(BOB)
    try:
        bob(portrait, str(mount.path))
        mount.ask("suspect", uid=ALICE, user="alice")
        run_on_mount(name, mount, expected)
        bob(portrait, str(mount.path))
    finally:
        bob.close()
    assert root(portrait, str(mount.path)) == before
    mount.ask("malicious", uid=ALICE)
    assert root(portrait, str(mount.path)) == before


@pytest.mark.parametrize("suspect", [False, True], ids=["trusted", "suspect"])
def test_devices_by_root_and_what_users_may_do_with_them(mount: Mounted, root: Worker, suspect: bool) -> None:
    """Root makes a device through the mount; others see it. The mount is `nodev` only where the directory was."""
    path = str(mount.path / "null")
    root(os.mknod, path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    if suspect:
        mount.ask("suspect", uid=ALICE, user="alice")
    alice = Worker(ALICE)
    try:
        assert alice(lstat, path)[-1] == os.makedev(1, 3)
        assert alice(lstat, path)[0] == oct(stat.S_IFCHR | 0o666)
        alice(os.rename, path, path + "2")
        assert alice(lstat, path + "2")[-1] == os.makedev(1, 3)
    finally:
        alice.close()
    assert root(os.listdir, str(mount.path)) == ["null" if suspect else "null2"]


@pytest.mark.parametrize("uid", [0, BOB, ALICE])
def test_the_store_does_not_exist(mount: Mounted, uid: int) -> None:
    """Not by any call, for anybody; and neither the listing nor the link count of the root tells of it."""
    mount.ask("suspect", uid=ALICE, user="alice")
    one = Worker(uid)
    store = str(mount.path / ".isofs")
    try:
        for call in (os.stat, os.listdir, os.readlink, os.rmdir, os.unlink, get):
            with pytest.raises(FileNotFoundError):
                one(call, store)
        for make in (os.mkdir, put, os.mkfifo):
            with pytest.raises(PermissionError):
                one(make, store)
        one(put, str(mount.path / "f"))
        for naming in (os.rename, os.link):
            with pytest.raises(PermissionError):
                one(naming, str(mount.path / "f"), store)
        with pytest.raises(PermissionError):
            one(os.symlink, "f", store)
        with pytest.raises(FileNotFoundError):
            one(os.rename, store, str(mount.path / "g"))
        with pytest.raises(FileNotFoundError):
            one(os.listdir, store + "/versions")
        assert one(os.listdir, str(mount.path)) == ["f"]
        assert one(os.stat, str(mount.path)).st_nlink == 2
        one(os.mkdir, str(mount.path / "d"))
        assert one(os.stat, str(mount.path)).st_nlink == 3
        one(os.mkdir, str(mount.path / "d" / ".isofs"))
        assert one(os.listdir, str(mount.path / "d")) == [".isofs"]
    finally:
        one.close()


@pytest.mark.parametrize("uid", [BOB, ALICE])
def test_free_space_is_the_directorys(mount: Mounted, uid: int) -> None:
    mount.ask("suspect", uid=ALICE, user="alice")
    one = Worker(uid)
    try:
        seen, real = one(os.statvfs, str(mount.path)), os.statvfs(mount.path.parent)
    finally:
        one.close()
    for field in ("f_bsize", "f_frsize", "f_blocks", "f_files", "f_namemax"):
        assert getattr(seen, field) == getattr(real, field), field
    assert abs(seen.f_bfree - real.f_bfree) < real.f_blocks // 10


def list_while(directory: str, change: Callable[[str], None]) -> list[str]:
    """List a directory slowly, and change it in the middle."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            found.append(entry.name)
            if len(found) in (1, 700, 2500):
                change(f"{directory}/{len(found)}")
    return found


def stir(mark: str) -> None:
    """Remove some entries that nobody asked for, and create others."""
    base, number = os.path.split(mark)
    for count in range(50):
        os.unlink(f"{base}/gone-{number}-{count}")
        put(f"{base}/new-{number}-{count}")


@pytest.mark.parametrize("suspect", [False, True], ids=["trusted", "suspect"])
def test_listing_is_stable_while_entries_come_and_go(
    mount: Mounted, person: Callable[[int], Person], suspect: bool
) -> None:
    """Of 5,000 entries that stay, every one is listed once, whoever changes the directory meanwhile."""
    alice, bob = person(ALICE), person(BOB)
    bob.mkdir("d")
    bob(fill, bob.path("d"))
    if suspect:
        mount.ask("suspect", uid=ALICE, user="alice")
        for count in range(20):
            alice.write(f"d/stays-too-{count}", "x")
            alice.remove(f"d/stays-{count}")
    found = alice(list_while, alice.path("d"), stir)
    staying = [name for name in found if name.startswith("stays")]
    assert len(staying) == len(set(staying)) == 5000
    assert len(found) == len(set(found))
    assert set(alice.names("d")) == {*staying, *(f"new-{n}-{c}" for n in (1, 700, 2500) for c in range(50))}
    if suspect:
        assert len(bob.names("d")) == 5150


def fill(directory: str) -> None:
    for count in range(5000):
        put(f"{directory}/stays-{count}")
    for number in (1, 700, 2500):
        for count in range(50):
            put(f"{directory}/gone-{number}-{count}")
