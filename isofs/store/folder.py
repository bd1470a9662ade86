"""The store's folder: where the database and the contents lie, and who has it open.

isofs.db             the database
suspects             who is isolated, for when the database cannot be read; `watched`: whether all of main's changes
                     are in the database (isofs.store.suspects)
config.toml          what the operator configured; not there until then
lock                 held by the one process that has the store open
versions/SID/NAME    contents of a subject's versions, one inode each, of the object's own type
attic/NUMBER         what merges replaced in main or removed from it, an inode each (isofs.store.attic)
bases/NAME           what main had when a diverged object changed for the first time
evidence/            what malicious subjects left: an archive each (isofs.store.archive)
rescued/             what repairs found to belong to nothing (isofs.engine.repairs); nobody removes it but the operator
audit/               who did what (isofs.audit.chain)
staging/             scratch: inodes on their way, archives that are being written, what was discarded and is not
                     removed yet; emptied when the store is opened
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from isofs.errors import StoreRefused, StoreUnusable
from isofs.model.records import RESERVED, Change, Op, Record, SubjectId
from isofs.store import attic, configuration, inodes, suspects
from isofs.store.database import Database, open_database
from isofs.store.inodes import Place
from isofs.store.suspects import Known

R = TypeVar("R", bound=Record)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_FOLDERS = (b"versions", b"bases", b"attic", b"evidence", b"audit", b"staging")


@dataclass(eq=False, slots=True)
class Store:
    """An open store: the database and descriptors of its folders. Close it with `close`."""

    path: str
    database: Database
    lock: int
    root: int
    folders: dict[bytes, int]
    subjects: dict[SubjectId, int] = field(default_factory=dict)
    scratch: int = 0
    last_stowed: int = -1  # the number used last in the attic; -1: not asked for yet
    beside: int | None = None

    def each(self, kind: type[R]) -> Iterator[R]:
        """Every record of a type, by its key."""
        return self.database.each(kind)

    def write(self, changes: list[Change]) -> None:
        if changes:
            self.database.write(changes)

    def new_op(self) -> Op:
        return self.database.new_op()

    def sync(self) -> None:
        """Make all rows survive a power loss; nothing is to be done if none was written since the last time."""
        self.database.sync()

    def sync_contents(self) -> None:
        """Make the contents and all rows survive a power loss, by syncing the whole file system."""
        inodes.sync_all(self.root)

    @property
    def device(self) -> int:
        """The file system that contents are on."""
        return os.fstat(self.root).st_dev

    def space(self) -> os.statvfs_result:
        """What is free on the store's file system."""
        return os.fstatvfs(self.root)

    def content(self, sid: SubjectId, name: str) -> Place:
        """Where a subject's content of this name lies; the subject's folder is made on first use."""
        folder = self.subjects.get(sid)
        if folder is None:
            folder = self.subjects[sid] = _open_folder(self.folders[b"versions"], b"%d" % sid)
        return Place(folder, name.encode())

    def contents(self, sid: SubjectId) -> list[str]:
        """The names of all contents of a subject."""
        return os.listdir(self.content(sid, "").directory)

    def known_folders(self) -> list[SubjectId]:
        """Whose folders there are."""
        return [int(name) for name in os.listdir(self.folders[b"versions"]) if name.isdigit()]

    def base(self, name: str) -> Place:
        return Place(self.folders[b"bases"], name.encode())

    def stowed(self, number: int) -> Place:
        """Where the attic has what it keeps under a number."""
        return Place(self.folders[b"attic"], b"%d" % number)

    def rescue(self, place: Place, name: str) -> None:
        """Move an inode of the store, if it is there, to the folder `rescued`, under a name like this."""
        rescued = _open_folder(self.root, b"rescued")
        try:
            to, count = Place(rescued, name.encode()), 1
            while inodes.exists(to):
                count += 1
                to = Place(rescued, f"{name}-{count}".encode())
            with contextlib.suppress(FileNotFoundError):
                os.rename(place.name, to.name, src_dir_fd=place.directory, dst_dir_fd=rescued)
        finally:
            os.close(rescued)

    def new_number(self) -> int:
        """A number that nothing in the attic ever had."""
        if self.last_stowed < 0:
            self.last_stowed = attic.last(self.database)
        self.last_stowed += 1
        return self.last_stowed

    def staged(self) -> Place:
        """A place in the scratch folder where nothing is."""
        self.scratch += 1
        place = Place(self.folders[b"staging"], b"%d" % self.scratch)
        inodes.remove(place)
        return place

    def staged_beside(self, main: int) -> Place:
        """A scratch place on main's own file system, for a store that is on another; nobody sees it."""
        if self.beside is None:
            reserved = _open_folder(main, RESERVED)
            self.beside = _open_folder(reserved, b"staging")
            os.close(reserved)
        self.scratch += 1
        place = Place(self.beside, b"%d" % self.scratch)
        inodes.remove(place)
        return place

    def configuration(self) -> str:
        """What the operator configured; empty if nothing was."""
        return configuration.read(self.root, self.path)

    def drop_folder(self, sid: SubjectId) -> None:
        """Remove a subject's folder and whatever is in it."""
        for name in self.contents(sid):
            inodes.remove(self.content(sid, name))
        os.close(self.subjects.pop(sid))
        inodes.remove(Place(self.folders[b"versions"], b"%d" % sid))

    def set_aside(self, sid: SubjectId) -> None:
        """Take a subject's folder out of the versions, whatever its size, for `remove_discarded`.

        Repeating it does nothing.
        """
        self.scratch += 1
        source, to = Place(self.folders[b"versions"], b"%d" % sid), b"discarded-%d-%d" % (sid, self.scratch)
        with contextlib.suppress(KeyError):
            os.close(self.subjects.pop(sid))
        if inodes.exists(source):
            os.rename(source.name, to, src_dir_fd=source.directory, dst_dir_fd=self.folders[b"staging"])

    def remove_discarded(self, sid: SubjectId) -> None:
        """Remove what was set aside; may take long, and may be left to a thread, or to the next start."""
        for name in os.listdir(self.folders[b"staging"]):
            if name.startswith(f"discarded-{sid}-"):
                _remove_all(Place(self.folders[b"staging"], os.fsencode(name)))

    def known(self) -> Known | None:
        """Who is isolated by the list beside the database, None if there is none."""
        return suspects.read(self.root, self.path)

    def announce(self, isolated: frozenset[int], changing: frozenset[int]) -> None:
        """Note that the next change of the database may isolate or release users. Cancelled by `announced`."""
        suspects.write(self.root, self.path, Known(isolated - changing, changing))

    def announced(self, isolated: frozenset[int]) -> None:
        """Note who is isolated. What cannot be written is noted at the next start."""
        with contextlib.suppress(StoreUnusable):
            suspects.write(self.root, self.path, Known(isolated), durably=False)

    def close(self) -> None:
        """Close everything, also if the database or the scratch folder cannot be put in order any more."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.folders[b"staging"]) if b"staging" in self.folders else ():
                _remove_all(Place(self.folders[b"staging"], os.fsencode(name)))
        try:
            self.database.close()
        finally:
            self._close_descriptors()

    def _close_descriptors(self) -> None:
        for descriptor in (*self.subjects.values(), *self.folders.values(), self.root, self.lock):
            os.close(descriptor)
        if self.beside is not None:
            os.close(self.beside)


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """No isofs opens the store at `path` meanwhile. StoreUnusable if one has it open, or it is no store."""
    root = _open_root(path, create=False)
    try:
        lock = _lock(root, path)
        try:
            yield
        finally:
            os.close(lock)
    finally:
        os.close(root)


def open_store(path: str, *, create: bool = True) -> Store:
    """Open the store at `path`, made with mode 0700 where there is none (`create`).

    Raises StoreRefused if it is not a store, open in another process, or must not be made, and StoreUnusable if it is
    one that is damaged, of another version, or cannot be written.
    """
    root = _open_root(path, create)
    opened = [root]
    try:
        opened.append(_lock(root, path))
        is_old = _is_store(root)
        if is_old and not os.path.exists(os.path.join(path, "isofs.db")):
            raise StoreUnusable(f"the store {path} has lost its database")
        try:
            database = open_database(os.path.join(path, "isofs.db"))
        except StoreRefused as error:
            raise (StoreUnusable(str(error)) if is_old else error) from error
        try:
            folders = {}
            for name in _FOLDERS:
                folders[name] = _open_folder(root, name)
                opened.append(folders[name])
            if database.is_new and is_old:
                raise StoreUnusable(f"the database of the store {path} is empty")
            for leftover in os.listdir(folders[b"staging"]):
                _remove_all(Place(folders[b"staging"], os.fsencode(leftover)))
        except BaseException:
            with contextlib.suppress(StoreUnusable):
                database.close()
            raise
    except BaseException as error:
        for descriptor in opened:
            os.close(descriptor)
        if isinstance(error, OSError):
            raise StoreUnusable(f"the store {path} cannot be opened: {error.strerror}", error.errno) from error
        raise
    return Store(path, database, opened[1], root, folders)


def open_unusable(path: str) -> Store:
    """A store of which nothing is used but its lock and its lists: its database is one in memory, and empty.

    Raises StoreRefused if there never was one, or another process has it open.
    """
    root = _open_root(path, create=True)
    try:
        if not os.path.exists(os.path.join(path, "isofs.db")) and not _is_store(root):
            raise StoreRefused(f"no store can be made at {path}")
        lock, folders = _lock(root, path), dict[bytes, int]()
        for name in _FOLDERS:
            with contextlib.suppress(OSError):
                folders[name] = os.open(name, _FOLDER, dir_fd=root)
        return Store(path, open_database(":memory:"), lock, root, folders)
    except BaseException:
        os.close(root)
        raise


def _is_store(root: int) -> bool:
    """Whether the folder was a store before, though its database may be gone."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(suspects.NAME, dir_fd=root, follow_symlinks=False)
        return True
    with contextlib.suppress(FileNotFoundError):
        versions = os.open(b"versions", _FOLDER, dir_fd=root)
        try:
            return bool(os.listdir(versions))
        finally:
            os.close(versions)
    return False


def _remove_all(place: Place) -> None:
    """Remove what is there, and what is in it if it is a folder of contents."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        folder = os.open(place.name, _FOLDER, dir_fd=place.directory)
        try:
            for name in os.listdir(folder):
                inodes.remove(Place(folder, os.fsencode(name)))
        finally:
            os.close(folder)
    inodes.remove(place)


def _open_root(path: str, create: bool) -> int:
    try:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
        elif not os.path.exists(os.path.join(path, "isofs.db")):
            raise StoreRefused(f"there is no store at {path}; give the right --store")
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StoreRefused(f"the store {path} cannot be opened: {error.strerror}") from error
    at = os.fstat(root)
    if at.st_uid != os.geteuid() or stat.S_IMODE(at.st_mode) & 0o077:
        os.close(root)
        raise StoreRefused(f"{path} is open to others; a store must be root's, with mode 0700")
    if create and not os.path.exists(os.path.join(path, "isofs.db")) and not _is_store(root):
        names = {os.fsencode(n) for n in os.listdir(root)} - {*_FOLDERS, b"lock"}
        if names:
            os.close(root)
            raise StoreRefused(f"{path} is not empty and not a store; give another --store")
    return root


def _lock(root: int, path: str) -> int:
    try:
        lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=root)
    except OSError:  # on a file system that is read-only or full there is one already
        lock = os.open("lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreRefused(f"another isofs has the store {path} open") from error
    return lock


def _open_folder(parent: int, name: bytes) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    return os.open(name, _FOLDER, dir_fd=parent)
