"""Making the content of a suspect's new object, which is to be as if it had been made in its directory."""

from __future__ import annotations

import os
import stat

from isofs.engine import tree
from isofs.engine.state import Caller, Filesystem, Obj, View
from isofs.store import inodes
from isofs.store.inodes import DEFAULT_ACL, Place


def make(
    fs: Filesystem,
    view: View,
    directory: Obj,
    to: Place,
    mode: int,
    caller: Caller,
    rdev: int,
    target: bytes | None,
) -> None:
    """Make a content as the kernel would make the object in `directory`: default ACL, umask, set-group-id, owner."""
    above = tree.content(fs, view.sid, directory) or tree.place(fs, directory)
    at = inodes.lstat(above)
    gid = caller.gid
    if at.st_mode & stat.S_ISGID:
        gid = at.st_gid
        mode |= stat.S_ISGID if stat.S_ISDIR(mode) else 0
    default = inodes.xattrs(above).get(DEFAULT_ACL)
    os.umask(caller.umask)
    try:
        if default is None or stat.S_ISLNK(mode):
            inodes.make(to, mode, rdev, target)
        else:  # the file system inherits ACLs by directory: let it, in one that has the same
            _make_inheriting(fs, to, mode, rdev, default)
    finally:
        os.umask(0)
    if stat.S_ISDIR(mode) and mode & stat.S_ISGID:
        inodes.chmod(to, stat.S_IMODE(inodes.lstat(to).st_mode) | stat.S_ISGID)
    inodes.own(to, caller.uid, gid)


def _make_inheriting(fs: Filesystem, to: Place, mode: int, rdev: int, default: bytes) -> None:
    scratch = fs.store.staged()
    os.mkdir(scratch.name, 0o700, dir_fd=scratch.directory)
    os.setxattr(scratch.path, DEFAULT_ACL, default, follow_symlinks=False)
    folder = tree.open_place(scratch)
    try:
        inner = Place(folder, b"inner")
        inodes.make(inner, mode, rdev)
        os.rename(inner.name, to.name, src_dir_fd=folder, dst_dir_fd=to.directory)
    finally:
        os.close(folder)
        inodes.remove(scratch)
