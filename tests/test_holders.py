"""Who holds a directory: told of real processes, by what they hold."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from isofs.control.holders import Holder, holders


@contextlib.contextmanager
def process(preparation: str, directory: Path) -> Iterator[int]:
    """A process that has prepared itself and waits."""
    program = f"import os, sys\n{preparation}\nprint(flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", program, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"\n"
        yield waiting.pid
        waiting.communicate()


@pytest.fixture
def held(tmp_path: Path) -> Path:
    directory = tmp_path / "held"
    directory.mkdir()
    (directory / "file\n").write_bytes(b"x" * 4096)
    return directory


MAPPING = """
import ctypes
libc, word = ctypes.CDLL(None), ctypes.c_long
libc.mmap.argtypes, libc.mmap.restype = [word] * 6, word
descriptor = os.open(sys.argv[1] + "/file\\n", os.O_RDONLY)
assert libc.mmap(0, 4096, 1, 1, descriptor, 0) != -1
os.close(descriptor)
"""


@pytest.mark.parametrize(
    ("preparation", "what", "name"),
    [
        ("os.chdir(sys.argv[1])", "cwd", ""),
        ("os.chroot(sys.argv[1])", "root", ""),
        ("os.dup2(os.open(sys.argv[1], os.O_RDONLY), 77); os.closerange(3, 77)", "fd 77", ""),
        (MAPPING, "map", "/file\n"),
    ],
)
def test_a_holder_is_found(held: Path, preparation: str, what: str, name: str) -> None:
    with process(preparation, held) as pid:
        (holder,) = holders(str(held))
    assert holder == Holder(pid, os.getuid(), holder.program, what, f"{held}{name}")
    assert holder.program.startswith("python")


def test_a_program_that_lies_there_holds_it(held: Path) -> None:
    program = shutil.copy(shutil.which("cat") or "", held / "a cat")
    with subprocess.Popen([program], stdin=subprocess.PIPE) as running:
        assert holders(str(held)) == [Holder(running.pid, os.getuid(), "a cat", "exe", f"{held}/a cat")]
        running.communicate()


def test_a_deleted_file_is_held_too(held: Path) -> None:
    preparation = "f = open(sys.argv[1] + '/file\\n'); os.unlink(f.name)"
    with process(preparation, held) as pid:
        (holder,) = holders(str(held))
    assert (holder.pid, holder.path) == (pid, f"{held}/file\n (deleted)")


def test_nobody_holds_what_only_looks_alike(held: Path) -> None:
    alike = held.with_name("held-too")
    alike.mkdir()
    with process("os.chdir(sys.argv[1])", alike):
        assert holders(str(held)) == []


def test_some_are_left_out(held: Path) -> None:
    with process("os.chdir(sys.argv[1])", held) as pid:
        assert holders(str(held), besides=[pid]) == []


def test_the_uid_is_the_processs_own_though_it_may_not_be_looked_at(held: Path) -> None:
    preparation = "os.chdir(sys.argv[1]); os.setuid(65534)"
    with process(preparation, held) as pid:
        assert os.stat(f"/proc/{pid}/fd").st_uid == 0
        (holder,) = holders(str(held))
    assert holder == Holder(pid, 65534, holder.program, "cwd", str(held))
