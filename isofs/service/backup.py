"""A consistent copy of the store while people go on working, as one file; and a store made of one.

First everything is written as it is found. What changed meanwhile is written again, until little is left; then the
suspects' calls wait for a moment, in which that rest is copied and the database too. Trusted users never wait. The
newest of the audit trail, which is written all the time, is copied in that moment alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

import trio

from isofs.control import results, wire
from isofs.engine.state import Filesystem
from isofs.errors import BackupUnusable, UsageError
from isofs.fuse.adapter import Adapter
from isofs.service import answers, newfile
from isofs.store import backup, copies, inodes
from isofs.store.folder import Store
from isofs.store.inodes import Place

Args = Mapping[str, object]
Progress = Callable[[int, int], None]

#: Rounds over what changed meanwhile, before the suspects wait.
_ROUNDS = 3

#: How often the moment is tried again in which a base copy or an entry of the attic went.
_TRIES = 3

#: Seconds between two words about progress.
_TELL = 0.1


class Backups:
    """The call that writes a backup of a mounted file system's store."""

    def __init__(self, fs: Filesystem, adapter: Adapter, mount: str, verdict: trio.Lock) -> None:
        self._fs, self._adapter, self._mount, self._verdict = fs, adapter, mount, verdict

    def handlers(self) -> dict[str, Callable[[Args, Progress], Awaitable[Mapping[str, object]]]]:
        return {"backup": self.backup}

    async def backup(self, args: Args, progress: Progress) -> Mapping[str, object]:
        """Write a backup to a new file, read it back, and say what is in it. No verdict is carried out meanwhile."""
        path, pid = wire.path_bytes(wire.argument(args, "file", str)), wire.optional(args, "pid", int) or os.getpid()
        with newfile.in_file(path, pid, self._mount, "another file") as where:
            async with self._verdict:
                return dict(await trio.to_thread.run_sync(self._written, where, progress))

    def _written(self, where: newfile.Where, progress: Progress) -> results.BackedUp:
        def tell(done: int, total: int) -> None:
            trio.from_thread.run_sync(progress, done, total)

        @contextlib.contextmanager
        def quiet() -> Iterator[None]:
            """No suspect changes anything meanwhile."""
            held = contextlib.ExitStack()

            def hold() -> None:
                for sid in self._fs.views:
                    held.enter_context(self._adapter.held(sid))

            trio.from_thread.run_sync(hold)
            try:
                yield
            finally:
                trio.from_thread.run_sync(held.close)

        return write(self._fs.store, where, self._mount, quiet, tell)


def write(
    store: Store,
    where: newfile.Where,
    mount: str,
    quiet: Callable[[], contextlib.AbstractContextManager[None]],
    tell: Progress,
) -> results.BackedUp:
    """Write a backup of a store to a new file. Within `quiet` no suspect changes anything. BackupUnusable: failed."""

    def fill(file: BinaryIO) -> results.BackedUp:
        moving = _Moving(tell, 2 * sum(at.st_size for _, at in copies.members(store.root)))
        writer = backup.Writer(file, moving.moved)
        _copy(store, writer, quiet)
        about: dict[str, object] = {"at": wire.moment(time.time()), "mount": mount, "isofs": answers.version()}
        writer.finish(about)
        newfile.to_disk(file)
        backup.verify(file, moving.moved)
        size = os.fstat(file.fileno()).st_size
        return {"file": where.path, "members": writer.members, "bytes": size, "at": str(about["at"])}

    try:
        return newfile.write(where, fill, BackupUnusable(f"{where.path} exists by now"))
    except OSError as error:
        raise BackupUnusable(
            f"{where.path} cannot be written: {error.strerror or error}; there is no backup"
        ) from error


@dataclass
class _Moving:
    """How far a backup is."""

    tell: Progress
    total: int
    done: int = 0
    told: float = field(default_factory=time.monotonic)

    def moved(self, count: int) -> None:
        self.done += count
        if time.monotonic() - self.told >= _TELL:
            self.told = time.monotonic()
            self.tell(min(self.done, self.total), self.total)


def _copy(store: Store, writer: backup.Writer, quiet: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
    written: dict[str, tuple[int, ...]] = {}
    for _ in range(_ROUNDS):
        there = [(name, at) for name, at in copies.members(store.root) if not copies.grows(name)]
        changed = [(name, at) for name, at in there if written.get(name) != _state(at)]
        for name, at in changed:
            with contextlib.suppress(FileNotFoundError), copies.place(store.root, name) as place:
                writer.add(name, place)
                written[name] = _state(at)
        if not changed:
            break
    scratch = store.staged()
    os.mkdir(scratch.name, 0o700, dir_fd=scratch.directory)
    with copies.opened(scratch.directory, os.fsdecode(scratch.name)) as folder:
        try:
            for name, place in _still(store, folder, written, quiet):
                writer.add(name, place)
        finally:
            for left in os.listdir(folder):
                inodes.remove(Place(folder, os.fsencode(left)))
            inodes.remove(scratch)


def _still(
    store: Store,
    folder: int,
    written: Mapping[str, tuple[int, ...]],
    quiet: Callable[[], contextlib.AbstractContextManager[None]],
) -> list[tuple[str, Place]]:
    """Copies of the database and of what is not written yet as it is now: all from one moment."""
    database = Place(folder, b"isofs.db")
    for _ in range(_TRIES):
        copied: list[tuple[str, Place]] = []
        with quiet():
            inodes.remove(database)
            copies.copy_database(store.path, database)
            there = dict(copies.members(store.root))
            for name in [name for name, at in there.items() if written.get(name) != _state(at)]:
                copy = Place(folder, b"%d" % len(copied))
                with contextlib.suppress(FileNotFoundError), copies.place(store.root, name) as place:
                    inodes.copy(place, copy)
                    copied.append((name, copy))
            later = {name for name, _ in copies.members(store.root) if name.startswith("audit/")}
        known = {name for name, _ in copied} | written.keys() & there.keys()
        if later <= known and not copies.missing(database, known):
            return [*copied, ("isofs.db", database)]
    raise BackupUnusable("the store changed all the time: try again")


def _state(at: os.stat_result) -> tuple[int, ...]:
    return at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns


def restore(file: str, path: str, tell: Progress) -> results.StoreRestored:
    """Make a store at `path`, where nothing may be, of the backup in a file."""
    if os.path.lexists(path):
        raise UsageError(f"{path} exists already: restore to another place, or move it away")
    partial = f"{path}.partial"
    try:
        opened = open(file, "rb")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    with opened:
        moving = _Moving(tell, 0)
        try:
            os.mkdir(partial, 0o700)
            root = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                about = backup.unpack(opened, root, moving.moved)
                copies.check(root)
                os.sync()
            finally:
                os.close(root)
            os.rename(partial, path)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError):
                raise BackupUnusable(f"{path} cannot be made: {error.strerror}") from error
            raise
    return {"store": path, "at": str(about.get("at")), "mount": str(about.get("mount")), "members": _number(about)}


def _number(about: Mapping[str, object]) -> int:
    members = about.get("members")
    assert isinstance(members, int)
    return members
