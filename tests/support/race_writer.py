"""A trusted user who writes while a suspect hammers the same names, and readers who know what must be there.

Every file has a number of its own that only grows. The writer announces a number before it writes it and notes it
after it was written, in memory that all processes share: what is read must be a number between the two.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

from support.race_workers import Found, Running, Shared, Work
from support.race_world import content

#: The files that are written, by how: in place, by appending, by renaming a new file over, by their mode.
IN_PLACE, APPENDED, SAVED, CHANGED = "files/f0", "files/f1", "files/f2", "files/f3"
WAYS = (IN_PLACE, APPENDED, SAVED, CHANGED)

#: What one append adds.
RECORD = 16

_MODES = (0o666, 0o644, 0o646, 0o664)
_FIRST = 1


def _announce(shared: Shared, way: int, number: int) -> None:
    shared[_FIRST + 2 * way] = number


def _note(shared: Shared, way: int, number: int) -> None:
    shared[_FIRST + 2 * way + 1] = number


def announced(shared: Shared, way: int) -> int:
    return shared[_FIRST + 2 * way]


def noted(shared: Shared, way: int) -> int:
    return shared[_FIRST + 2 * way + 1]


def prepare(root: Path, writer: int) -> None:
    """Number 0 of every file; whose mode changes must belong to the writer."""
    (root / IN_PLACE).write_bytes(_in_place(0))
    (root / APPENDED).write_bytes(b"")
    (root / SAVED).write_bytes(content(SAVED))
    (root / CHANGED).chmod(_MODES[0])
    os.chown(root / CHANGED, writer, writer)


def _in_place(number: int) -> bytes:
    return b"%012d\n" % number * 100


def _record(number: int) -> bytes:
    return b"%015d\n" % number


def write(root: Path) -> Work:
    """The work of the writer: the next number of one file after another."""

    def start(found: Found) -> Callable[[Running], None]:
        opened = [os.open(root / IN_PLACE, os.O_WRONLY), os.open(root / APPENDED, os.O_WRONLY | os.O_APPEND)]

        def save(number: int) -> None:
            new = root / "files/.saving"
            new.write_bytes(content(SAVED, number))
            new.chmod(0o666)
            os.rename(new, root / SAVED)

        deeds: list[Callable[[int], object]] = [
            lambda number: os.pwrite(opened[0], _in_place(number), 0),
            lambda number: os.write(opened[1], _record(number)),
            save,
            lambda number: (root / CHANGED).chmod(_MODES[number % len(_MODES)]),
        ]

        def work(running: Running) -> None:
            number = 0
            while running():
                number += 1
                for way, deed in enumerate(deeds):
                    _announce(running.shared, way, number)
                    try:
                        deed(number)
                    except OSError as error:
                        at = os.stat(root / WAYS[way])
                        text = f"{WAYS[way]}: {os.strerror(error.errno or 0)}; inode {at.st_ino} of {at.st_uid}"
                        found.differs("write", text)
                    _note(running.shared, way, number)
                    found.calls[WAYS[way]] += 1

        return work

    return start


def read(root: Path, number: int) -> Work:
    """The work of a reader: each file is as after one of the writings that may have been made."""

    def start(found: Found) -> Callable[[Running], None]:
        dice = random.Random(200 + number)
        opened = [os.open(root / path, os.O_RDONLY) for path in WAYS]

        def by_status(way: int) -> os.stat_result:
            return os.fstat(opened[way]) if way != 2 and dice.randrange(2) else os.stat(root / WAYS[way])

        def data(way: int) -> bytes:
            if way != 2 and dice.randrange(2):
                return os.pread(opened[way], 1 << 22, 0)
            return (root / WAYS[way]).read_bytes()

        def look(
            kind: str, shared: Shared, way: int, ask: Callable[[], object], wanted: Callable[[int], object]
        ) -> None:
            found.calls[kind] += 1
            first = noted(shared, way)
            try:
                answer = ask()
            except OSError as error:
                found.differs(kind, f"{WAYS[way]}: {os.strerror(error.errno or 0)}")
                return
            last = announced(shared, way)
            if all(answer != wanted(n) for n in range(first, last + 1)):
                text = repr(answer[:40]) if isinstance(answer, bytes) else repr(answer)
                found.differs(kind, f"{WAYS[way]}: {text}, not as of {first} to {last}")

        def work(running: Running) -> None:
            shared = running.shared
            while running():
                look("read in place", shared, 0, lambda: data(0), _in_place)
                look("size in place", shared, 0, lambda: by_status(0).st_size, lambda n: 1300)
                look("read appended", shared, 1, lambda: len(data(1)), lambda n: n * RECORD)
                look("end of appended", shared, 1, lambda: data(1)[-RECORD:], lambda n: _record(n) if n else b"")
                look("size appended", shared, 1, lambda: by_status(1).st_size, lambda n: n * RECORD)
                look("read saved", shared, 2, lambda: data(2), lambda n: content(SAVED, n))
                look("size saved", shared, 2, lambda: by_status(2).st_size, lambda n: len(content(SAVED, n)))
                look("mode", shared, 3, lambda: stat.S_IMODE(by_status(3).st_mode), lambda n: _MODES[n % len(_MODES)])

        return work

    return start


def last(shared: Shared) -> dict[str, object]:
    """What the files have after the last writing."""
    return {
        IN_PLACE: _in_place(noted(shared, 0)),
        APPENDED: b"".join(_record(n) for n in range(1, noted(shared, 1) + 1)),
        SAVED: content(SAVED, noted(shared, 2)),
        CHANGED: _MODES[noted(shared, 3) % len(_MODES)],
    }


def there(root: Path) -> dict[str, object]:
    """What the files have."""
    files: dict[str, object] = {path: (root / path).read_bytes() for path in (IN_PLACE, APPENDED, SAVED)}
    return {**files, CHANGED: stat.S_IMODE(os.stat(root / CHANGED).st_mode)}
