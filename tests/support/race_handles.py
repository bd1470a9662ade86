"""Readers that watch one file while a suspect's handle from before the suspicion extends it; and who watches getcwd."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

from support.race_workers import Found, Running, Work

#: How far the suspect's writes reach beyond main's end.
REACH = 1 << 16


def extend(opened: int, size: int) -> Work:
    """The work of a suspect that writes through a descriptor it had before, beyond main's end and inside."""

    def start(found: Found) -> Callable[[Running], None]:
        def work(running: Running) -> None:
            while running():
                for offset in (size, size + REACH, 0, size - 1, size + 10 * REACH):
                    os.pwrite(opened, b"\xa5" * 1000, offset)
                    found.calls["write"] += 1

        return work

    return start


def watch(at: Path, wanted: bytes) -> Work:
    """The work of a trusted reader: size and bytes of the file, in every way to ask for them.

    A file that seems longer, with zeros at its end, is told apart from bytes that are wrong.
    """

    def start(found: Found) -> Callable[[Running], None]:
        opened = os.open(at, os.O_RDONLY)
        memory = mmap.mmap(opened, len(wanted), prot=mmap.PROT_READ)
        size = len(wanted)

        def check(kind: str, answer: bytes | int) -> None:
            found.calls[kind] += 1
            if isinstance(answer, int):
                if answer != size:
                    found.differs(f"size of {kind}", f"{answer} instead of {size}")
            elif b"\xa5" in answer:
                found.differs("the suspect's bytes", f"{kind}: at {answer.index(0xA5)}")
            elif not answer.startswith(wanted) or answer[size:].strip(b"\0"):
                found.differs("other bytes", f"{kind}: {len(answer)} bytes instead of {size}")
            elif answer != wanted:
                found.differs(f"size of {kind}", f"{len(answer)} instead of {size}, zeros at the end")

        def work(running: Running) -> None:
            while running():
                check("stat", os.stat(at).st_size)
                check("fstat", os.fstat(opened).st_size)
                check("seek", os.lseek(opened, 0, os.SEEK_END))
                check("pread", os.pread(opened, 1 << 18, 0))
                check("pread of all", os.pread(opened, size, 0))
                check("pread beyond", wanted + os.pread(opened, 1 << 18, size))
                check("read", at.read_bytes())
                check("map", memory[:])

        return work

    return start


def move_about(directory: Path, away: Path) -> Work:
    """The work of a suspect that renames a directory to and fro, and changes its mode."""

    def start(found: Found) -> Callable[[Running], None]:
        def work(running: Running) -> None:
            while running():
                os.rename(directory, away)
                os.rename(away, directory)
                directory.chmod(0o700 if found.calls["rename"] % 4 else 0o755)
                found.calls["rename"] += 1

        return work

    return start


def stay_in(directory: Path) -> Work:
    """The work of a trusted user in a directory: how often `getcwd` fails, and whether looking it up mends it.

    "lost" counts the failures. It differs only if something else than a failure is answered, or if the working
    directory is still without a path although it was looked up by it and nobody is moving it any more.
    """

    def start(found: Found) -> Callable[[Running], None]:
        os.chdir(directory)

        def where() -> str | None:
            try:
                return os.getcwd()
            except FileNotFoundError:
                return None

        def work(running: Running) -> None:
            while running():
                found.calls["getcwd"] += 1
                answer = where()
                if answer is None:
                    found.calls["lost"] += 1
                    os.stat(directory)
                    found.calls["mended"] += where() is not None
                elif answer != str(directory):
                    found.differs("getcwd", answer)

        return work

    return start
