"""Reading the trail: the lines that are wanted, in order, from the oldest file to what is being written."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import zstandard

from isofs.audit import chain
from isofs.audit.chain import File
from isofs.audit.record import moment

#: Seconds between two looks for more, while it is followed.
_LOOK = 0.3

#: Fields with paths as text, and those that have the exact bytes if they are not UTF-8.
_EXACT = {"file.path": "isofs.path_bytes", "isofs.from": "isofs.from_bytes"}


@dataclass(frozen=True)
class Wanted:
    """What is looked for. Times are those of lines: `since` is the first, `until` the last, both as far as given.

    `uid` is of who called, who logged in, or whom the operator decided about; `path` says whether one is meant that
    is relative to the mount, and is asked about where something came from as well.
    """

    since: str = ""
    until: str = "~"
    uid: int | None = None
    path: Callable[[bytes], bool] | None = None

    def has(self, line: bytes) -> Mapping[str, Any] | None:
        """The fields of a line that is wanted, None for another."""
        if not self.since <= chain.time_of(line) <= self.until:
            return None
        if self.uid is not None and b"%d" % self.uid not in line:
            return None  # most lines, in a tenth of the time
        try:
            fields = json.loads(line)
        except ValueError:
            return None  # it is no line of the trail: verifying tells
        if not isinstance(fields, dict) or not self._about(fields):
            return None
        return fields if self.path is None or any(map(self.path, paths(fields))) else None

    def _about(self, fields: Mapping[str, Any]) -> bool:
        if self.uid is None:
            return True
        facts = fields.get("isofs.facts")
        about = facts.get("uid") if isinstance(facts, dict) else None
        return str(self.uid) == fields.get("user.id") or self.uid in (fields.get("isofs.login_uid"), about)


def paths(fields: Mapping[str, Any]) -> Iterator[bytes]:
    """The paths in a record, byte by byte, relative to the mount: where it happened, and from where something came."""
    found = (path(fields, "file.path"), path(fields, "isofs.from"))
    return (one for one in found if one is not None)


def path(fields: Mapping[str, Any], key: str) -> bytes | None:
    """The path in one field of a record, as `paths` gives it; None if there is none."""
    mount, text, exact = fields.get("isofs.mount"), fields.get(key), fields.get(_EXACT[key])
    if exact is not None:
        with contextlib.suppress(binascii.Error, TypeError, ValueError):
            return base64.b64decode(exact)
    elif isinstance(text, str) and isinstance(mount, str) and text.startswith(mount):
        return text[len(mount) :].lstrip("/").encode("utf-8", "surrogatepass")
    return None


def records(folder: int, wanted: Wanted, *, follow: bool = False) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
    """The lines that are wanted, each with its fields. With `follow` there is no end: what is written comes."""
    for line in _lines(folder, wanted.since, follow):
        fields = wanted.has(line)
        if fields is not None:
            yield line, fields


def not_before(folder: int, there: list[File], since: str) -> list[File]:
    """These files without those, but for the newest, that have nothing from a time on.

    By the times of the files, which are those of their newest lines: the clock may have been put back between two.
    """
    if not since:
        return there
    return [file for file in there if file is there[-1] or _newest(folder, file) >= since]


def _newest(folder: int, file: File) -> str:
    """The time of a file's newest line; later than all if it is not known."""
    with contextlib.suppress(OSError):
        return moment(os.stat(file.name, dir_fd=folder, follow_symlinks=False).st_mtime_ns)
    return "~"


def _lines(folder: int, since: str, follow: bool) -> Iterator[bytes]:
    last = -1
    while True:
        for file in not_before(folder, [file for file in chain.files(folder) if file.first > last], since):
            last = file.first
            with contextlib.suppress(FileNotFoundError, zstandard.ZstdError), chain.opened(folder, file) as reader:
                yield from _whole(reader, lambda newest=last: follow and _is_newest(folder, newest))  # type: ignore[misc]
        if not follow:
            return
        time.sleep(_LOOK)


def _whole(reader: BinaryIO, goes_on: Callable[[], bool]) -> Iterator[bytes]:
    """Every line that has its end, as long as there may be more. What is longer than any line is left out."""
    rest = b""
    while True:
        more = goes_on()  # before the last look: what came before another file was begun is seen
        for line in chain.lines(reader):
            rest += line
            if rest.endswith(b"\n"):
                yield rest[:-1]
                rest = b""
            elif len(rest) >= chain.LONGEST:
                rest = b""
        if not more:
            return
        time.sleep(_LOOK)


def _is_newest(folder: int, first: int) -> bool:
    return all(file.first <= first for file in chain.files(folder))


@contextlib.contextmanager
def folder_of(store: str) -> Iterator[int | None]:
    """The open folder of the trail in a store's folder; None if the store has none yet."""
    try:
        opened = os.open(os.path.join(store, "audit"), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield opened
    finally:
        os.close(opened)
