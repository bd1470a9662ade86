"""What a copy of a store is made of: its members, a copy of its database, and whether both fit together."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
from collections.abc import Collection, Iterator

from sqlalchemy import select

from isofs.errors import BackupUnusable
from isofs.store import schema
from isofs.store.inodes import Place

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: Folders of inodes, and files that are nothing of a copy: the database is copied by SQLite.
_FOLDERS = ("bases", "attic", "evidence", "audit", "audit/reads", "rescued")
_NOT_COPIED = re.compile(r"lock|isofs\.db.*|[^a-z].*|.*[^a-z.-].*")


def members(root: int) -> Iterator[tuple[str, os.stat_result]]:
    """Every inode of the store whose folder is open as `root`, but for the database: its name there, and how it is.

    What is known of the audit trail's end comes before its files, which grow: it must not be ahead of them.
    """
    folders = ["", *_FOLDERS]
    with contextlib.suppress(FileNotFoundError), opened(root, "versions") as versions:
        folders += [f"versions/{sid}" for sid in sorted(os.listdir(versions))]
    for folder in folders:
        with contextlib.suppress(FileNotFoundError), opened(root, folder) as directory:
            for name in sorted(os.listdir(directory), reverse=folder == "audit"):
                if folder or not _NOT_COPIED.fullmatch(name):
                    with contextlib.suppress(FileNotFoundError):
                        at = os.stat(name, dir_fd=directory, follow_symlinks=False)
                        if folder not in ("", "audit") or not stat.S_ISDIR(at.st_mode):
                            yield os.path.join(folder, name), at


def grows(name: str) -> bool:
    """Whether a member is of the audit trail and not full: a process of its own writes it, whatever else is still."""
    return name.startswith("audit/") and not name.endswith(".zst")


@contextlib.contextmanager
def opened(root: int, folder: str) -> Iterator[int]:
    """A folder of the store, open."""
    descriptor = os.open(".", _FOLDER, dir_fd=root)
    try:
        for name in filter(None, folder.split("/")):
            above, descriptor = descriptor, os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(above)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def place(root: int, name: str) -> Iterator[Place]:
    """Where a member is."""
    folder, _, last = name.rpartition("/")
    with opened(root, folder) as directory:
        yield Place(directory, os.fsencode(last))


def copy_database(store: str, to: Place) -> None:
    """Copy the database of the store at a path as it is at this moment, whoever has it open."""
    with (
        contextlib.closing(sqlite3.connect(os.path.join(store, "isofs.db"), timeout=30)) as source,
        contextlib.closing(sqlite3.connect(os.fsdecode(to.path))) as copy,
    ):
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")


def missing(database: Place, known: Collection[str]) -> list[str]:
    """Which contents a copied database needs that are not among the known. Base copies that are not are forgotten."""
    versions, decisions, bases, attic = schema.versions.c, schema.decisions.c, schema.bases.c, schema.attic.c
    with contextlib.closing(sqlite3.connect(os.fsdecode(database.path))) as copy:
        for (content,) in copy.execute(str(select(bases.content))).fetchall():
            if f"bases/{content}" not in known:
                copy.execute("DELETE FROM bases WHERE content = ?", (content,))
        copy.commit()
        needed = [
            f"versions/{sid}/{content}"
            for table in (versions, decisions)
            for sid, content in copy.execute(str(select(table.sid, table.content)))
            if content is not None
        ]
        needed += [f"attic/{number}" for (number,) in copy.execute(str(select(attic.number)))]
    return [name for name in needed if name not in known]


def check(root: int) -> None:
    """BackupUnusable if the folder that is open as `root` has no sound database of a version that can be read."""
    try:
        with contextlib.closing(sqlite3.connect(f"/proc/self/fd/{root}/isofs.db")) as database:
            application, version, sound = (
                database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("application_id", "user_version", "integrity_check")
            )
    except sqlite3.Error as error:
        raise BackupUnusable(f"the backup's database cannot be used: {error}") from error
    if application != schema.APPLICATION_ID or sound != "ok":
        raise BackupUnusable("the backup's database is damaged")
    if version > schema.VERSION:
        raise BackupUnusable(f"the backup is of version {version}, this isofs reads version {schema.VERSION}")
