"""Writing the trail's files: lines in order, each once, and what is old made small and then removed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

import zstandard

from isofs.audit import chain
from isofs.audit.chain import File, Newest
from isofs.model.ages import Ages, looked, older

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """When a file is full (bytes) or old (seconds) enough for another, and how long (seconds) and much is kept."""

    size: int = 64 * _MIB
    age: int = 86400
    keep: int = 365 * 86400
    total: int = 4096 * _MIB


class Appender:
    """The end of a trail, for whoever holds its lock. OSError where a file cannot be written: no line is half there."""

    def __init__(self, folder: int, limits: Limits) -> None:
        self.limits = limits
        self._folder = folder
        self._file = -1
        self.untidy = True  # whether files wait to be compressed or removed
        found = chain.end(folder)
        self.sequence, self.hash, self._size = found.sequence, found.hash, found.size
        self._drop_lineless(found.name)
        if found.name is not None:
            self._file = os.open(found.name, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            self._latest = os.fstat(self._file).st_mtime_ns
            with open(os.dup(self._file), "rb") as reader:
                first = chain.moment(chain.time_of(reader.readline(chain.LONGEST))) / 1e9
            # A wrong clock has another file begun too early, or at the next start; no more hangs on it.
            self._began = time.monotonic() - max(0.0, time.time() - first)
            if found.torn:
                os.ftruncate(self._file, found.size)
        self._looked = time.monotonic()
        self._newest = self._known()
        self._dirty = self._newest != self._current()

    def _known(self) -> Newest:
        try:
            return chain.newest(self._folder) or Newest()
        except ValueError:
            return Newest()

    def _current(self) -> Newest:
        return Newest(self._newest.first, self._newest.before, self.sequence, self.hash)

    def _drop_lineless(self, last: str | None) -> None:
        """Remove a file that was begun, and torn before its first line was whole."""
        there = chain.files(self._folder)
        if there and not there[-1].compressed and there[-1].name != last:
            os.unlink(there[-1].name, dir_fd=self._folder)

    def append(self, records: Iterable[tuple[int, str]]) -> None:
        """Write what comes after the newest line: numbers, and lines that lack their end. The rest is there already."""
        text, sequence, hash_, latest = bytearray(), self.sequence, self.hash, ""
        self._rotate_if_due()
        for number, body in records:
            if number <= sequence:
                continue
            line = chain.ended(body, hash_)
            if not text and self._file < 0:
                self._begin(number)
            latest = max(latest, body[chain.TIME])
            sequence, hash_ = number, chain.hashed(line)
            text += line + b"\n"
        if not text:
            return
        try:
            written = os.write(self._file, text)
            while written < len(text):
                written += os.write(self._file, text[written:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise
        self._size += len(text)
        self.sequence, self.hash, self._dirty = sequence, hash_, True
        self._latest = max(self._latest, chain.moment(latest))
        os.utime(self._file, ns=(self._latest, self._latest))

    def _begin(self, number: int) -> None:
        if self._newest == Newest() and not chain.files(self._folder):
            chain.write_newest(self._folder, Newest())  # before the first line is there: else it would be missing
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(chain.name(number), flags, 0o600, dir_fd=self._folder)
        self._size, self._began, self._latest = 0, time.monotonic(), 0

    @property
    def dirty(self) -> bool:
        """Whether there are lines that a power cut could take."""
        return self._dirty

    def sync(self) -> None:
        """Have every line on the disk, and its number and hash beside."""
        if not self._dirty:
            return
        if self._file >= 0:
            os.fdatasync(self._file)
        self._newest = self._current()
        chain.write_newest(self._folder, self._newest)
        self._dirty = False

    def _rotate_if_due(self) -> None:
        if self._file < 0 or not self._size:
            return
        if self._size < self.limits.size and time.monotonic() - self._began < self.limits.age:
            return
        self.sync()
        os.close(self._file)
        self._file, self._size = -1, 0
        os.fsync(self._folder)
        self.untidy = True

    def tidy(self) -> None:
        """Compress what is not written to any more, and remove what is too old or too much."""
        self.untidy = False
        there = chain.files(self._folder)
        current = there[-1].name if there and self._file >= 0 else None
        for file in there:
            if not file.compressed and file.name != current:
                _compress(self._folder, file)
        self._remove_old([file for file in chain.files(self._folder) if file.compressed])

    def _remove_old(self, there: list[File]) -> None:
        """From the oldest on. `newest` says first where the trail begins then: a kill leaves a file too many."""
        sizes = [os.stat(file.name, dir_fd=self._folder).st_size for file in there]
        ends = [file.first - 1 for file in chain.files(self._folder)[1 : len(there) + 1]]
        if len(ends) < len(there):
            ends.append(self.sequence)
        old = older(self._look(there, ends), self.limits.keep)
        total, gone = sum(sizes), 0
        for size, end in zip(sizes, ends, strict=True):
            if total <= self.limits.total and end > old:
                break
            total, gone = total - size, gone + 1
        if not gone:
            return
        first, before = self._after(there, gone)
        self._newest = Newest(first, before, self._newest.sequence, self._newest.hash)
        chain.write_newest(self._folder, self._newest)
        for file in there[:gone]:
            os.unlink(file.name, dir_fd=self._folder)

    def _look(self, full: list[File], ends: list[int]) -> Ages:
        """How old full files are, by the number of their last line. What no writer saw pass does not count."""
        now = time.monotonic()
        ages = chain.ages(self._folder)
        if not full and not ages.looks:
            return ages
        ages = looked(ages, now - self._looked, full[0].first if full else self.sequence + 1, max(ends, default=0))
        chain.write_ages(self._folder, ages)
        self._looked = now
        return ages

    def _after(self, there: list[File], gone: int) -> tuple[int, str]:
        """The first line's number after so many files, and the hash before it."""
        for file in chain.files(self._folder):
            if file.first > there[gone - 1].first:
                with chain.opened(self._folder, file) as reader:
                    line = next(chain.lines(reader), b"").rstrip(b"\n")
                return file.first, chain.previous(line) or chain.NOTHING
        return self.sequence + 1, self.hash

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _compress(folder: int, file: File) -> None:
    """Put a compressed file in the place of one. What a kill leaves is done again."""
    to, scratch = file.name.removesuffix(chain.LIVE) + chain.COMPRESSED, f"{file.name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(scratch, dir_fd=folder)
    with chain.opened(folder, file) as source:
        at = os.fstat(source.fileno())
        made = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        with open(made, "wb") as target:
            zstandard.ZstdCompressor(level=6, write_checksum=True).copy_stream(source, target, size=at.st_size)
            target.flush()
            os.utime(target.fileno(), ns=(at.st_atime_ns, at.st_mtime_ns))
            os.fsync(target.fileno())
    os.rename(scratch, to, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
    os.unlink(file.name, dir_fd=folder)
