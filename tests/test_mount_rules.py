"""Who may do what, and what it changes: by root, the owner, a member of the group, anybody else, and one who is not
root and may do what root may.

What root has prepared in a directory of the host and in a mount is changed by one person, the same calls in both;
how each call ends must be the same, and so must the attributes and time stamps that it changes. Each person does it as
a trusted user and, but for root, as a suspect, from whom main must be safe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import itertools
import os
import resource
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    access_list,
    become_capable,
    get,
    ls,
    put,
    rename2,
    utimens,
)
from support.mount import BOB, CAROL, DAVE, Mounted, Worker, portrait

pytestmark = pytest.mark.mount

#: The group that everything belongs to, one that the owner is in as well, and one that nobody is in.
GROUP, SECOND, FOREIGN = 62001, 62002, 62003

OWNER, MEMBER, OTHER = BOB, CAROL, DAVE


@dataclass(frozen=True)
class Role:
    uid: int
    groups: tuple[int, ...]
    capable: bool = False


ROLES = {
    "root": Role(0, ()),
    "owner": Role(OWNER, (GROUP, SECOND)),
    "member": Role(MEMBER, (GROUP, SECOND)),
    "other": Role(OTHER, ()),
    "capable": Role(OTHER, (), capable=True),
}

Script = Callable[[Calls], None]
SCRIPTS: dict[str, tuple[Script, Callable[[], None] | None]] = {}


def script(given: Callable[[], None] | None = None) -> Callable[[Script], Script]:
    """Register a script; `given` makes, as root, what is there before. Both work in the current directory."""

    def register(function: Script) -> Script:
        SCRIPTS[function.__name__] = (function, given)
        return function

    return register


def give(path: str, mode: int | None = None, uid: int = OWNER, gid: int = GROUP) -> None:
    os.lchown(path, uid, gid)
    if mode is not None:
        os.chmod(path, mode)


def one_of_each() -> None:
    """One object of each type, of the owner and the group, and a link to each."""
    for name, make in TYPES.items():
        make(name)
        give(name, 0o664 if name != "symlink" else None)
        os.symlink(name, f"to-{name}")
    os.chmod("directory", 0o775)


@script(one_of_each)
def changing_modes(c: Calls) -> None:
    for name in TYPES:
        if name == "symlink":
            continue
        for mode in (0o111, 0o4755, 0o2755, 0o1777, 0o7777, 0o640):
            c.watching((name, "."), os.chmod, name, mode)
        c.watching((name, f"to-{name}"), os.chmod, f"to-{name}", 0o700)
    c(os.chmod, "to-symlink", 0o700)
    for name in ("file", "directory"):
        opened = c(os.open, name, os.O_RDONLY)
        if opened is not None:
            c.watching(name, os.fchmod, opened, 0o4711)
            c.watching(name, os.fchmod, opened, 0o2711)


def of_foreign_groups() -> None:
    for number, gid in enumerate((GROUP, SECOND, FOREIGN)):
        for name in ("file", "directory"):
            TYPES[name](f"{name}-{number}")
            give(f"{name}-{number}", 0o2775, gid=gid)


@script(of_foreign_groups)
def the_set_group_bit_needs_the_group(c: Calls) -> None:
    for number in range(3):
        for name in (f"file-{number}", f"directory-{number}"):
            for mode in (0o755, 0o2755, 0o2644, 0o6777):
                c.watching(name, os.chmod, name, mode)
        directory = f"directory-{number}"
        c.watching(directory, put, f"{directory}/new", mode=0o2777)
        c(os.mkdir, f"{directory}/inner", 0o2777)
        c(os.mkfifo, f"{directory}/fifo", 0o2777)
        for name in ("new", "inner", "fifo"):
            c.watching(f"{directory}/{name}", os.chmod, f"{directory}/{name}", 0o2711)


def with_set_ids() -> None:
    for mode in ("6555", "6666", "2755", "2644", "4711", "755"):
        for name in TYPES:
            if name != "symlink":
                TYPES[name](f"{name}-{mode}")
                give(f"{name}-{mode}", int(mode, 8))
    for mode in ("6666", "2755", "2644"):
        put(f"foreign-{mode}")
        give(f"foreign-{mode}", int(mode, 8), gid=FOREIGN)
    one_of_each()


@script(with_set_ids)
def changing_owners(c: Calls) -> None:
    here = [name for name in ls() if not name.startswith("to-") and name != "symlink"]
    for name in here:
        c.watching(name, os.chown, name, -1, -1)
        for uid, gid in ((-1, SECOND), (OWNER, GROUP), (-1, FOREIGN), (OTHER, -1), (OTHER, GROUP)):
            c.watching(name, os.chown, name, uid, gid)
    for name in ("symlink", "to-file", "to-directory"):
        c.watching((name, "file", "directory"), os.lchown, name, -1, SECOND)
        c.watching((name, "file", "directory"), os.lchown, name, OTHER, FOREIGN)
    c.watching(("to-fifo", "fifo"), os.chown, "to-fifo", -1, SECOND)
    opened = c(os.open, "file", os.O_RDONLY)
    if opened is not None:
        c.watching("file", os.fchown, opened, -1, GROUP)


def _list_of(*rights: int) -> bytes:
    """Owner, owning group and others; with a person named if there are four."""
    kinds = (1, 4, 32) if len(rights) == 3 else (1, 2, 4, 16, 32)
    return access_list(*zip(kinds, rights, [BOB if kind == 2 else 0xFFFFFFFF for kind in kinds], strict=True))


@script(of_foreign_groups)
def the_set_group_bit_and_access_lists(c: Calls) -> None:
    """Whoever sets one without being in the group loses the bit; with one, the mode is the mask's."""
    for number in range(3):
        for name in (f"file-{number}", f"directory-{number}"):
            for rights in ((7, 5, 5), (7, 7, 5, 7, 5), (7, 7, 5, 1, 0)):
                c.watching(name, os.setxattr, name, "system.posix_acl_access", _list_of(*rights))
                c.watching(name, os.chmod, name, 0o2775)
            c.watching(name, os.setxattr, name, "system.posix_acl_default", _list_of(7, 7, 5, 7, 5))
            c.watching(name, os.removexattr, name, "system.posix_acl_access")


def for_everybody() -> None:
    for mode in (0o444, 0o644, 0o664, 0o666):
        for name in ("file", "directory", "fifo"):
            TYPES[name](f"{name}-{mode:o}")
            give(f"{name}-{mode:o}", mode)
    one_of_each()


@script(for_everybody)
def setting_times(c: Calls) -> None:
    for name in [*ls(), "nothing"]:
        for pair in ((NOW, NOW), (OMIT, OMIT), (NOW, OMIT), (OMIT, NOW), (5, 6), (7, OMIT), (OMIT, 8), (NOW, 9)):
            c.watching((name, "."), utimens, name, *pair)
            at = os.lstat(name) if os.path.lexists(name) else None
            c.note("set", at and [t for t in (at.st_atime, at.st_mtime) if t < 100])
    for name in ("symlink", "to-file"):
        c.watching((name, "file"), utimens, name, 10, 11, 0x100)
    c(utimens, "file", 2**31 + 7, 2**32 + 7)
    c.note("far", os.stat("file").st_mtime > 2**32)


def in_a_sticky_directory() -> None:
    for owner in (0, OWNER, OTHER):
        for mode in (0o1777, 0o777, 0o1775, 0o755, 0o733):
            place = f"{owner}-{mode:o}"
            os.mkdir(place)
            for of in (0, OWNER, MEMBER, OTHER):
                put(f"{place}/f{of}")
                os.mkdir(f"{place}/d{of}")
                os.symlink("x", f"{place}/l{of}")
                for name in (f"f{of}", f"d{of}", f"l{of}"):
                    give(f"{place}/{name}", uid=of, gid=of)
            give(place, mode, uid=owner)


@script(in_a_sticky_directory)
def sticky_directories(c: Calls) -> None:
    os.mkdir("mine")
    for place in ls():
        if place == "mine":
            continue
        for of in (0, OWNER, MEMBER, OTHER):
            put("mine/f")
            os.mkdir("mine/d")
            c(os.rename, "mine/f", f"{place}/f{of}")
            c(os.rename, "mine/d", f"{place}/d{of}")
            c(os.rename, f"{place}/d{of}", f"mine/from{place}{of}")
            c(os.rename, f"{place}/f{of}", f"{place}/l{of}")
            c(rename2, f"{place}/f{of}", f"{place}/l{of}", EXCHANGE)
            c(os.link, f"{place}/f{of}", f"{place}/hard{of}")
            c(os.unlink, f"{place}/l{of}")
            c(os.unlink, f"{place}/f{of}")
            c(os.rmdir, f"{place}/d{of}")
            for left in ("mine/f", "mine/d"):
                if os.path.lexists(left):
                    os.rmdir(left) if left.endswith("d") else os.unlink(left)
        c(ls, place)


def _linked(path: str) -> None:
    put(path)
    os.link(path, path + "-too")


def _full(path: str) -> None:
    os.mkdir(path)
    put(f"{path}/x")


KINDS: dict[str, Callable[[str], None]] = {
    "nothing": lambda path: None,
    "file": put,
    "linked": _linked,
    "empty": os.mkdir,
    "full": _full,
    "to-file": lambda path: os.symlink("../file", path),
    "to-empty": lambda path: os.symlink("../empty", path),
    "dangling": lambda path: os.symlink("nothing", path),
    "fifo": os.mkfifo,
}


def _owned(path: str, time: int) -> None:
    """Everything in a directory is the owner's, and of one time."""
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            os.lchown(f"{directory}/{name}", OWNER, GROUP)
            os.utime(f"{directory}/{name}", (time, time), follow_symlinks=False)
        give(directory, 0o777)


def pairs() -> None:
    """For any two kinds a directory with one of each: `old` and `new`."""
    put("file")
    os.mkdir("empty")
    for one, other in itertools.product(KINDS, KINDS):
        place = f"{one} {other}"
        os.mkdir(place)
        KINDS[one](f"{place}/old")
        _owned(place, 1)
        os.mkdir(f"{place}/to")
        KINDS[other](f"{place}/to/new")
        _owned(f"{place}/to", 2)


@script(pairs)
def renaming_anything_over_anything(c: Calls) -> None:
    for place in [name for name in ls() if " " in name]:
        old, new = f"{place}/old", f"{place}/to/new"
        c(rename2, old, new, NOREPLACE)
        c.watching((place, f"{place}/to"), rename2, old, new, 0)
        c.note("left", [ls(place), ls(f"{place}/to")])


@script(pairs)
def exchanging_anything_with_anything(c: Calls) -> None:
    for place in [name for name in ls() if " " in name]:
        old, new = f"{place}/old", f"{place}/to/new"
        c.watching((place, f"{place}/to"), rename2, old, new, EXCHANGE)
        c(rename2, new, old, EXCHANGE)


def kinds_twice() -> None:
    for place in ("from", "to"):
        os.mkdir(place)
        for name, make in KINDS.items():
            make(f"{place}/{name}")
        _owned(place, 1)


def there_and_back(path: str) -> None:
    here = os.open(".", os.O_PATH)
    try:
        os.chdir(path)
        os.fchdir(here)
    finally:
        os.close(here)


@script(kinds_twice)
def trailing_slashes_and_dots(c: Calls) -> None:
    for name in KINDS:
        for suffix in ("/", "/.", "/..", "//"):
            path = f"from/{name}{suffix}"
            c(os.stat(".").st_mode.__index__)
            c(there_and_back, path)
            c(os.rename, path, "to/x")
            c(os.rename, "to/file", path)
            c(os.mkdir, path)
            c(os.rmdir, path)
            c(os.unlink, path)
            c(os.symlink, "x", path)
            c(os.link, "to/linked", path)
            c(os.mkfifo, path)
            c(os.open, path, os.O_WRONLY | os.O_CREAT)
            c(os.readlink, path)
            c.note("here", ls("from"))


FLAGS = {
    "creat": os.O_CREAT,
    "excl": os.O_CREAT | os.O_EXCL,
    "trunc": os.O_TRUNC,
    "directory": os.O_DIRECTORY,
    "creat directory": os.O_CREAT | os.O_DIRECTORY,
    "nofollow": os.O_NOFOLLOW,
    "creat nofollow": os.O_CREAT | os.O_NOFOLLOW,
    "append trunc": os.O_APPEND | os.O_TRUNC,
    "path": os.O_PATH,
    "path nofollow": os.O_PATH | os.O_NOFOLLOW,
    "noatime": os.O_NOATIME,
    "plain": 0,
}


def openable() -> None:
    for mode in ("666", "640", "444", "0"):
        for name in TYPES:
            if name not in ("symlink", "device"):
                TYPES[name](f"{name}-{mode}")
                give(f"{name}-{mode}", int(mode, 8) | (0o111 if name == "directory" and mode != "0" else 0))
    for name in ("file-666", "file-640", "directory-666", "fifo-666", "nothing", "loop"):
        os.symlink(name, f"to-{name}" if name != "loop" else name)
    TYPES["device"]("device")


@script(openable)
def opening_anything_in_any_way(c: Calls) -> None:
    for name in [*ls(), "nothing", "nothing/x", "file-666/x", "directory-0/x", "directory-666/x"]:
        for (how, flag), mode in itertools.product(FLAGS.items(), (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, 3)):
            try:
                opened = os.open(name, flag | mode | os.O_NONBLOCK, 0o640)
            except OSError as error:
                c.note(f"{name} {how} {mode}", errno.errorcode[error.errno or 0])
                continue
            at = os.fstat(opened)
            c.note(f"{name} {how} {mode}", [oct(at.st_mode), at.st_nlink, at.st_uid])
            os.close(opened)
            if name in ("nothing", "directory-666/x") or (name == "to-nothing" and flag & os.O_CREAT):
                for made in ("nothing", "directory-666/x"):
                    if os.path.lexists(made):
                        os.unlink(made)


@script(openable)
def access_and_execution(c: Calls) -> None:
    for name in ls():
        for mode in (os.F_OK, os.R_OK, os.W_OK, os.X_OK, os.R_OK | os.W_OK):
            c(os.access, name, mode)
    for name in ("file-666", "directory-666", "fifo-666", "nothing"):
        c(os.execv, name, ["x"])


def deep() -> None:
    os.mkdir("shut", 0o777)
    os.mkdir("shut/inner", 0o777)
    put("shut/inner/f")
    for mode in (0o000, 0o100, 0o200, 0o300, 0o400, 0o500, 0o600, 0o070, 0o007, 0o755, 0o775):
        os.mkdir(f"{mode:o}")
        put(f"{mode:o}/f")
        os.mkdir(f"{mode:o}/d")
        for name in ("f", "d"):
            give(f"{mode:o}/{name}", 0o777)
        give(f"{mode:o}", mode)


@script(deep)
def directories_that_are_shut(c: Calls) -> None:
    put("mine")
    os.mkdir("my-dir")
    for place in sorted(set(ls()) - {"mine", "my-dir"}):
        c(ls, place)
        c(os.stat, f"{place}/none")
        c(os.access, f"{place}/f", os.R_OK)
        c(get, f"{place}/f")
        c(put, f"{place}/f")
        c(put, f"{place}/new")
        c(os.mkdir, f"{place}/new-dir")
        c(os.symlink, "x", f"{place}/new-link")
        c(os.mkfifo, f"{place}/new-fifo")
        c(os.link, "mine", f"{place}/new-hard")
        c(os.link, f"{place}/f", f"hard-{place}")
        c(os.rename, "mine", f"{place}/f")
        c(os.rename, f"{place}/d", "my-dir")
        c(os.rename, f"{place}/f", f"mine-{place}")
        c(os.chmod, f"{place}/f", 0o666)
        c(os.truncate, f"{place}/f", 0)
        c(os.unlink, f"{place}/f")
        c(os.rmdir, f"{place}/d")
        c(os.readlink, f"{place}/f")
        if not os.path.lexists("mine"):
            put("mine")
        if not os.path.lexists("my-dir"):
            os.mkdir("my-dir")


@script(one_of_each)
def making_special_files(c: Calls) -> None:
    for kind in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR, stat.S_IFLNK, 0):
        for mode in (0o644, 0o6777):
            c.watching((".", f"new{kind:o}{mode:o}"), os.mknod, f"new{kind:o}{mode:o}", kind | mode, os.makedev(1, 7))
            c(os.mknod, "file", kind | mode, os.makedev(1, 7))
            c(os.mknod, "to-file", kind | mode, os.makedev(1, 7))
            c(os.mknod, "directory/x/y", kind | mode, os.makedev(1, 7))
            c(os.mknod, "file/x", kind | mode, os.makedev(1, 7))


def to_be_changed() -> None:
    one_of_each()
    for name in ("linked", "away", "over", "over2", "size", "empty"):
        put(name, "" if name == "empty" else "text")
        give(name, 0o666)
        os.utime(name, (1, 2 if name == "over" else 3))
    for name in ("a", "b", "c", "a/inner", "gone"):
        os.mkdir(name)
        give(name, 0o777)


@script(to_be_changed)
def what_moves_time_stamps(c: Calls) -> None:
    c.watching(("linked", ".", "a"), os.link, "linked", "a/linked")
    c.watching(("linked", ".", "a"), os.unlink, "a/linked")
    c.watching(("away", "a", "."), os.rename, "away", "a/away")
    c.watching(("a/away", "a"), os.rename, "a/away", "a/away2")
    c.watching(("over2", "."), os.rename, "over", "over2")
    c.watching(("a", "b", "a/inner"), os.rename, "a/inner", "b/inner")
    c.watching(("b", "b/inner"), os.rename, "b/inner", "b/inner2")
    c.watching(("c", "."), os.mkdir, "c/new")
    c.watching(("c", "."), os.rmdir, "c/new")
    c.watching(("c", "."), os.symlink, "x", "c/link")
    c.watching(("c", "."), os.mkfifo, "c/fifo")
    c.watching(("c", "c/file"), put, "c/file")
    c.watching(("c", "c/file"), put, "c/file")
    c.watching(".", os.rmdir, "gone")
    c.watching((".", "c"), os.rmdir, "c")
    c.watching((".", "linked"), os.link, "linked", "size")
    c.watching((".", "linked"), os.rename, "linked", "b")
    for size in (0, 4, 4, 10, 10, 2):
        c.watching("size", os.truncate, "size", size)
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_CREAT):
        for name in ("empty", "size"):
            opened = os.open(name, flags)
            c.watching((name, "."), os.close, opened)
    for name in ("empty", "size"):
        opened = os.open(name, os.O_RDWR)
        c.watching(name, os.write, opened, b"")
        c.watching(name, os.write, opened, b"x")
        c.watching(name, os.pwrite, opened, b"x", 0)
        c.watching(name, os.pread, opened, 10, 0)
        c.watching(name, os.ftruncate, opened, 1)
        c.watching(name, os.ftruncate, opened, 0)
        c.watching(name, os.ftruncate, opened, 0)
        c.watching(name, os.fsync, opened)
        c.watching(name, os.setxattr, opened, "user.x", b"1")
        c.watching(name, os.setxattr, opened, "user.x", b"1")
        c.watching(name, os.removexattr, opened, "user.x")
        c.watching(name, os.removexattr, opened, "user.x")
    c.watching(("a", "."), ls, "a")
    c.watching("to-file", os.readlink, "to-file")


@script(with_set_ids)
def writing_takes_set_ids(c: Calls) -> None:
    for mode in ("6555", "6666", "2755", "2644", "4711"):
        name = f"file-{mode}"
        for change in ("write", "empty write", "truncate", "same truncate", "open", "trunc", "direct"):
            c(os.chmod, name, int(mode, 8) | 0o222)
            flags = os.O_TRUNC if change == "trunc" else 0
            opened = c(os.open, name, os.O_RDWR | flags if change != "direct" else os.O_WRONLY)
            if opened is None:
                continue
            if change in ("write", "direct"):
                c.watching(name, os.write, opened, b"xxxx")
            if change == "empty write":
                c.watching(name, os.write, opened, b"")
                c.watching(name, os.fchown, opened, -1, -1)
            if change == "truncate":
                c.watching(name, os.ftruncate, opened, 1)
            if change == "same truncate":
                c.watching(name, os.truncate, name, os.stat(name).st_size)
            os.close(opened)
            c.note(change, oct(os.stat(name).st_mode))


LONG = "n" * 255


def long_names() -> None:
    os.mkdir(LONG)
    give(LONG, 0o777)
    os.symlink("loop2", "loop1")
    os.symlink("loop1", "loop2")
    put("file")
    give("file", 0o666)
    os.mkdir("d")
    give("d", 0o777)
    for number in range(45):
        os.symlink("file" if number == 0 else f"hop{number - 1}", f"hop{number}")


@script(long_names)
def names_that_cannot_be(c: Calls) -> None:
    too_long = (LONG + "x", f"d/{LONG}x", f"{LONG}x/f", "x/" * 2047 + "xx", "d" + "/" * 4093 + "ok")
    wrong = (*too_long, "loop1", "loop1/x", "file/x", "none/x", "", LONG)
    right = ("d" + "/" * 4092 + "ok", f"{LONG}/{LONG}")
    for name in (*wrong, *right, "hop39", "hop40", "hop41"):
        c(os.lstat(".").st_mode.__index__)
        for call in (os.stat, os.lstat, os.readlink, os.listdir, os.listxattr):
            try:
                call(name)
                c.note(call.__name__, "done")
            except OSError as error:
                c.note(f"{call.__name__} {name[:20]}", errno.errorcode[error.errno or 0])
        c(os.chmod, name, 0o755)
        c(os.chown, name, -1, -1)
        c(os.truncate, name, 0)
        c(utimens, name, 1, 1)
        c(os.access, name, os.R_OK)
        c(os.setxattr, name, "user.x", b"")
        for change in (os.mkdir, os.rmdir, os.mkfifo, os.unlink, put, os.unlink):
            c(change, name)
        c(os.symlink, "x", name)
        c(os.rename, name, "other")
        c(os.rename, "file", name)
        c(os.rename, name, "file")
        c(os.link, "file", name)
        c(os.link, name, "other")
        c(os.unlink, "other")
        c.note("here", [one[:20] for one in ls() if not one.startswith("hop")])
    for target in ("", "x" * 4095, "x" * 4096):
        c(os.symlink, target, "target")


@script(one_of_each)
def sizes_that_cannot_be(c: Calls) -> None:
    for name in ("file", "directory", "fifo", "socket", "device", "nothing", "to-file"):
        for size in (-1, 3, 1 << 62):
            c.watching(name, os.truncate, name, size)
    opened = c(os.open, "file", os.O_RDWR)
    if opened is not None:
        for size in (-1, 1 << 62, (1 << 63) - 1):
            c(os.ftruncate, opened, size)
        c(os.pwrite, opened, b"x", (1 << 62))
        c(os.pwrite, opened, b"x", (1 << 63) - 1)
        c(os.pwrite, opened, b"x", -1)
        c(os.pread, opened, 1, -1)
        c(os.pread, opened, 1, 1 << 62)
        c(os.lseek, opened, -1, os.SEEK_SET)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    put("limited", "x" * 900)
    for flags in (os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_APPEND):
        opened = os.open("limited", flags)
        c(os.pwrite, opened, b"y" * 200, 900)
        c(os.pwrite, opened, b"y" * 200, 1000)
        c(os.ftruncate, opened, 1001)
        c(os.ftruncate, opened, 1000)
        c.watching("limited", os.ftruncate, opened, 900)
        os.close(opened)
    c(os.truncate, "limited", 2000)
    reading = os.open("limited", os.O_RDONLY)
    c(os.ftruncate, reading, 0)
    c(os.write, reading, b"x")


def run_script(name: str, directory: str) -> list[str]:
    """Run a script in a directory; what its calls did."""
    os.umask(0o022)
    os.chdir(directory)
    calls = Calls()
    try:
        SCRIPTS[name][0](calls)
    finally:
        os.chdir("/")
    return [line.replace(directory, "HERE") for line in calls.log]


def prepare(name: str, directory: str) -> None:
    os.umask(0)
    os.mkdir(directory)
    os.chown(directory, 0, GROUP)
    os.chmod(directory, 0o777)
    given = SCRIPTS[name][1]
    if given is not None:
        os.chdir(directory)
        given()
        os.chdir("/")


class OnHost(NamedTuple):
    """What a script did on the host: its calls, and the tree that it left, as its actor and as root see it."""

    log: list[str]
    seen: dict[str, Any]
    tree: dict[str, Any]


@pytest.fixture(scope="module")
def roots() -> Iterator[Worker]:
    one = Worker(0, umask=0)
    yield one
    one.close()


@pytest.fixture(scope="module")
def on_host(base: Path, roots: Worker) -> Callable[[str, str], OnHost]:
    """What a script did when somebody of a role ran it on the host: once for all tests."""

    @functools.cache
    def done(name: str, role: str) -> OnHost:
        host = Path(tempfile.mkdtemp(dir=base))
        host.chmod(0o777)
        work = str(host / "work")
        roots(prepare, name, work)
        with actor(role) as one:
            found = OnHost(one(run_script, name, work), one(portrait, work), portrait(str(host)))
        shutil.rmtree(host)
        return found

    return done


@contextlib.contextmanager
def actor(role: str) -> Iterator[Worker]:
    """A process of its own: scripts leave descriptors, limits and signals behind."""
    uid, groups, capable = dataclasses.astuple(ROLES[role])
    one = Worker(0 if capable else uid, groups=groups)
    try:
        if capable:
            one(become_capable, uid)
        yield one
    finally:
        one.close()


CASES = [
    pytest.param(name, role, suspect, id=f"{name}-{role}-{'suspect' if suspect else 'trusted'}")
    for name in SCRIPTS
    for role in ROLES
    for suspect in (False, True)
    if not (role == "root" and suspect)
    if role != "capable" or name in ("changing_owners", "writing_takes_set_ids")
]


@pytest.mark.parametrize(("name", "role", "suspect"), CASES)
def test_rules(
    mount: Mounted, roots: Worker, on_host: Callable[[str, str], OnHost], name: str, role: str, suspect: bool
) -> None:
    expected, work, backing = on_host(name, role), str(mount.path / "work"), str(mount.backing)
    roots(prepare, name, work)
    if suspect:
        before = portrait(backing, ".isofs")
        mount.ask("suspect", uid=ROLES[role].uid, user="somebody")
    with actor(role) as one:
        assert one(run_script, name, work) == expected.log
        assert one(portrait, work) == expected.seen
    if suspect:
        assert portrait(backing, ".isofs") == before
        assert not mount.ask("innocent", uid=ROLES[role].uid)["conflicts"]
    assert portrait(backing, ".isofs") == expected.tree
