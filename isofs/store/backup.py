"""The backup of a store: a tar file in one zstandard frame, which any tar reads, with every inode as it is.

    isofs.db, config.toml, versions/SID/NAME, bases/NAME, attic/NUMBER, evidence/NAME, ...    as `isofs.store.folder`
    backup.json    the last member: the format, when and of what, and how many members there are

Extended attributes and ACLs are PAX headers `SCHILY.xattr.*`, holes GNU's sparse format 1.0. What was changed while
the backup was being written is there again, later: as with every tar file, the last member of a name counts.
A reader accepts the store's own names alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, cast

import zstandard

from isofs.errors import BackupUnusable
from isofs.store import inodes
from isofs.store.frame import Frame, FrameDamaged
from isofs.store.inodes import Place

FORMAT = "isofs backup 1"

#: The last member.
ABOUT = "backup.json"

#: Called with the number of bytes that were dealt with since the last call; may raise to stop.
Moved = Callable[[int], None]

_CHUNK = 1 << 20
_BITE = 1 << 16
_XATTR = "SCHILY.xattr."
_SOCKET = "ISOFS.socket"
_NAMES = re.compile(r"[a-z][a-z.-]*|(?:versions/[0-9]+|bases|attic|evidence|audit|audit/reads|rescued)/[^/]+")

_TYPES = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFSOCK: tarfile.FIFOTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
}
_KINDS = {kind: mode for mode, kind in _TYPES.items() if mode != stat.S_IFSOCK}


class Writer:
    """Writes a backup to a file. Nothing is one before `finish`."""

    def __init__(self, file: BinaryIO, moved: Moved) -> None:
        compressor = zstandard.ZstdCompressor(level=3, write_checksum=True, threads=-1)
        self._frame = compressor.stream_writer(file, closefd=False)
        self._tar = tarfile.open(fileobj=self._frame, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK)  # noqa: SIM115
        self._moved = moved
        self.members = 0

    def add(self, name: str, place: Place) -> None:
        """Add an inode. FileNotFoundError if it is gone."""
        at = inodes.lstat(place)
        info = _described(name, place, at)
        if not stat.S_ISREG(at.st_mode):
            self._tar.addfile(info)
        else:
            opened = os.open(
                place.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC, dir_fd=place.directory
            )
            try:
                self._add_file(info, opened, os.fstat(opened).st_size)
            finally:
                os.close(opened)
        self.members += 1

    def _add_file(self, info: tarfile.TarInfo, opened: int, size: int) -> None:
        pieces = [(start, end - start) for start, end in inodes.data_ranges(opened, size)]
        if pieces == [(0, size)] or not size:
            info.size = size
            self._tar.addfile(info, _Pieces(opened, pieces, b"", self._moved))
            return
        if not pieces or sum(pieces[-1]) < size:
            pieces.append((size, 0))  # the end of a file that ends with a hole
        numbers = [len(pieces), *(number for piece in pieces for number in piece)]
        table = "".join(f"{number}\n" for number in numbers).encode()
        table += bytes(-len(table) % tarfile.BLOCKSIZE)
        info.pax_headers = {
            **info.pax_headers,
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": info.name,
            "GNU.sparse.realsize": str(size),
        }
        info.size = len(table) + sum(length for _, length in pieces)
        self._tar.addfile(info, _Pieces(opened, pieces, table, self._moved))

    def finish(self, about: Mapping[str, object]) -> None:
        """Say that this was all."""
        text = json.dumps({"format": FORMAT, **about, "members": self.members}, indent=2).encode()
        info = tarfile.TarInfo(ABOUT)
        info.size, info.mode = len(text), 0o600
        self._tar.addfile(info, io.BytesIO(text))
        self._tar.close()
        self._frame.close()  # type: ignore[no-untyped-call]


class _Pieces:
    """What `tarfile` copies: a table, then these pieces of a file. Of a file that was cut short meanwhile, zeros."""

    def __init__(self, opened: int, pieces: list[tuple[int, int]], table: bytes, moved: Moved) -> None:
        self._opened, self._left, self._table, self._moved = opened, pieces, table, moved

    def read(self, wanted: int = -1, /) -> bytes:
        found = bytearray(self._table[:wanted])
        self._table = self._table[wanted:]
        while len(found) < wanted and self._left:
            start, length = self._left[0]
            count = min(wanted - len(found), length)
            found += os.pread(self._opened, count, start).ljust(count, b"\0")
            self._left[0] = (start + count, length - count)
            if count == length:
                del self._left[0]
        self._moved(len(found))
        return bytes(found)


def _described(name: str, place: Place, at: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    kind = stat.S_IFMT(at.st_mode)
    info.type, info.mode, info.uid, info.gid = _TYPES[kind], stat.S_IMODE(at.st_mode), at.st_uid, at.st_gid
    info.mtime = at.st_mtime_ns // 10**9
    info.pax_headers = {"mtime": _seconds(at.st_mtime_ns), "atime": _seconds(at.st_atime_ns)}
    if kind == stat.S_IFLNK:
        info.linkname = os.fsdecode(os.readlink(place.name, dir_fd=place.directory))
    if kind in (stat.S_IFBLK, stat.S_IFCHR):
        info.devmajor, info.devminor = os.major(at.st_rdev), os.minor(at.st_rdev)
    if kind == stat.S_IFSOCK:
        info.pax_headers[_SOCKET] = "1"
    for attribute, value in inodes.xattrs(place).items():
        info.pax_headers[_XATTR + attribute] = value.decode("utf-8", "surrogateescape")
    return info


def _seconds(ns: int) -> str:
    return f"{ns // 10**9}.{ns % 10**9:09}"


def _ns(text: str) -> int:
    seconds, _, rest = text.partition(".")
    return int(seconds) * 10**9 + int(rest.ljust(9, "0")[:9] or 0)


def verify(file: BinaryIO, moved: Moved) -> dict[str, object]:
    """Read a backup from its beginning to its end; what its last member says. BackupUnusable if it is none."""
    about: dict[str, object] | None = None
    with _opened(file) as tar:
        for count, member in enumerate(tar):
            if about is not None:
                raise BackupUnusable("something follows the end of the backup")
            if member.name == ABOUT:
                about = _about(tar, member, count)
                continue
            _check_name(member)
            moved(member.size)
    if about is None:
        raise BackupUnusable("the backup is not whole: its end is missing")
    return about


def unpack(file: BinaryIO, root: int, moved: Moved) -> dict[str, object]:
    """Unpack a backup below an open directory, as a store; what its last member says. BackupUnusable if it is none."""
    about: dict[str, object] | None = None
    with _opened(file) as tar:
        for count, member in enumerate(tar):
            if member.name == ABOUT:
                about = _about(tar, member, count)
                break
            _check_name(member)
            _unpack(tar, member, root)
            moved(member.size)
    if about is None:
        raise BackupUnusable("the backup is not whole: its end is missing")
    return about


@contextlib.contextmanager
def _opened(file: BinaryIO) -> Iterator[tarfile.TarFile]:
    """Errors in the frame, in the tar file and in its headers become BackupUnusable."""
    try:
        frame = Frame(file, _BITE)
        with tarfile.open(fileobj=cast(Any, frame), mode="r|", bufsize=_CHUNK) as tar:
            yield tar
            while frame.read(_CHUNK):  # to the checksum
                pass
    except (FrameDamaged, tarfile.TarError, EOFError, ValueError, UnicodeError) as error:
        raise BackupUnusable(f"this is no backup, or a damaged one: {error}") from error


def _about(tar: tarfile.TarFile, member: tarfile.TarInfo, count: int) -> dict[str, object]:
    opened = tar.extractfile(member)
    about = json.loads(opened.read(1 << 20)) if opened is not None else None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise BackupUnusable(f"this is no backup that this isofs reads; it reads {FORMAT!r}")
    if about.get("members") != count:
        raise BackupUnusable(f"the backup should have {about.get('members')} members and has {count}")
    return about


def _check_name(member: tarfile.TarInfo) -> None:
    name = member.name
    if not _NAMES.fullmatch(name) or any(part in (".", "..") for part in name.split("/")):
        raise BackupUnusable(f"{name!r} is nothing of a store")
    if member.type not in _KINDS:
        raise BackupUnusable(f"{name!r} is of a type that no store has")


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, root: int) -> None:
    folder, _, name = member.name.rpartition("/")
    directory = _folder(root, folder)
    try:
        place = Place(directory, os.fsencode(name))
        inodes.remove(place)
        mode = _KINDS[member.type]
        if _SOCKET in member.pax_headers:
            mode = stat.S_IFSOCK
        if mode == stat.S_IFREG:
            _write(tar, member, place)
        else:
            rdev = os.makedev(member.devmajor, member.devminor)
            inodes.make(place, mode | 0o600, rdev, os.fsencode(member.linkname))
        attributes = {
            key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
            for key, value in member.pax_headers.items()
            if key.startswith(_XATTR)
        }
        inodes.set_attributes(place, mode | member.mode, member.uid, member.gid, attributes)
        times = tuple(_ns(member.pax_headers[key]) for key in ("atime", "mtime"))
        os.utime(place.name, ns=(times[0], times[1]), dir_fd=directory, follow_symlinks=False)
    except KeyError as error:
        raise BackupUnusable(f"{member.name!r} lacks {error}") from None
    finally:
        os.close(directory)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Place) -> None:
    opened = tar.extractfile(member)
    assert opened is not None
    raw: Any = cast(Any, opened).raw  # a buffer would read ahead, over holes and then back
    size = member.size
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    writer = os.open(place.name, flags, 0o600, dir_fd=place.directory)
    try:
        pieces: list[tuple[int, int]] = getattr(member, "sparse", None) or [(0, size)]
        for start, length in pieces:
            raw.seek(start)
            position, end = start, start + length
            while position < end:
                data = raw.read(min(_CHUNK, end - position))
                if not data:
                    raise BackupUnusable(f"{member.name!r} ends too early")
                position += os.pwrite(writer, data, position)
        os.ftruncate(writer, size)
    finally:
        os.close(writer)


def _folder(root: int, path: str) -> int:
    """A directory below the root, made where there is none; links are not followed."""
    at = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    for name in filter(None, path.split("/")):
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=at)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at
