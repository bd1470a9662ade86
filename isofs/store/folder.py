"""The store's folder: where the database and the contents lie, and who has it open.

isofs.db             the database
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

from isofs.errors import StoreUnusable
from isofs.model.records import RESERVED, Change, Op, Record, SubjectId
from isofs.store import attic, configuration, inodes
from isofs.store.inodes import Place
from isofs.store.rows import Database, open_database

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

    def read(self) -> Iterator[Record]:
        return self.database.read()

    def write(self, changes: list[Change]) -> None:
        if changes:
            self.database.write(changes)

    def new_op(self) -> Op:
        return self.database.new_op()

    def sync(self) -> None:
        self.database.sync()

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

    def close(self) -> None:
        for name in os.listdir(self.folders[b"staging"]):
            _remove_all(Place(self.folders[b"staging"], os.fsencode(name)))
        self.database.close()
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

    Raises StoreUnusable if it is not a store, damaged, of another version, open in another process, or must
    not be made.
    """
    root = _open_root(path, create)
    try:
        lock = _lock(root, path)
    except BaseException:
        os.close(root)
        raise
    opened = [lock, root]
    try:
        database = open_database(os.path.join(path, "isofs.db"))
        folders = {}
        for name in _FOLDERS:
            folders[name] = _open_folder(root, name)
            opened.append(folders[name])
    except BaseException as error:
        for descriptor in opened:
            os.close(descriptor)
        if isinstance(error, OSError):
            raise StoreUnusable(f"the store {path} cannot be opened: {error.strerror}") from error
        raise
    for leftover in os.listdir(folders[b"staging"]):
        _remove_all(Place(folders[b"staging"], os.fsencode(leftover)))
    return Store(path, database, lock, root, folders)


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
            raise StoreUnusable(f"there is no store at {path}; give the right --store")
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StoreUnusable(f"the store {path} cannot be opened: {error.strerror}") from error
    at = os.fstat(root)
    if at.st_uid != os.geteuid() or stat.S_IMODE(at.st_mode) & 0o077:
        os.close(root)
        raise StoreUnusable(f"{path} is open to others; a store must be root's, with mode 0700")
    if create and os.listdir(root) and not os.path.exists(os.path.join(path, "isofs.db")):
        names = {os.fsencode(n) for n in os.listdir(root)} - {*_FOLDERS, b"lock"}
        if names:
            os.close(root)
            raise StoreUnusable(f"{path} is not empty and not a store; give another --store")
    return root


def _lock(root: int, path: str) -> int:
    lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=root)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreUnusable(f"another isofs has the store {path} open") from error
    return lock


def _open_folder(parent: int, name: bytes) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    return os.open(name, _FOLDER, dir_fd=parent)
