"""The suites: for each the commands that make it up, and what in their output names a failure."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """One command of a suite: what it is called, its words (`{}` is the directory), and the longest time in seconds.

    With `entries` the directory is main's, and has as many empty files before (`stays-0`, `stays-1`, ...).
    """

    name: str
    words: tuple[str, ...]
    limit: float
    entries: int = 0


class Suite(NamedTuple):
    """`failures` tells from a command's exit code and output what failed; nothing if all went well."""

    commands: tuple[Command, ...]
    failures: Callable[[int, str], set[str]]


#: Those of Python's own tests that have to do with files.
_PYTHON = """
    test_os test_posix test_shutil test_pathlib test_fcntl test_mmap test_mailbox test_tarfile test_zipfile
    test_sqlite3 test_tempfile test_glob test_dbm test_dbm_dumb test_dbm_gnu test_dbm_ndbm test_fileio test_file test_io
    test_posixpath test_genericpath test_largefile test_stat test_filecmp test_fileinput test_shelve test_gzip test_bz2
    test_lzma test_zipapp test_compileall test_py_compile test_logging test_importlib test_ioctl test_select
    test_unicode_file test_unicode_file_functions test_bufio test_cmd_line_script test_runpy test_zipimport test_import
    test_venv test_netrc test_configparser test_linecache test_univnewlines test_pickle test_mimetypes test_tokenize
    test_plistlib test_asyncio test_subprocess test_socket test_traceback test_popen test_wave
"""

#: The stressors of stress-ng that work on files.
_STRESSORS = """
    access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup fallocate fcntl fiemap
    file-ioctl filename flock fpunch fstat getdent hdd inode-flags inotify io iomix lease link locka lockf lockofd
    mknod mmap msync open readahead rename revio seek sendfile splice symlink sync-file touch
    utime xattr
"""

#: What `--quick` runs: no more than a few seconds of each, and nothing that fails on a bare host.
_QUICK = """
    test_posix test_fcntl test_mmap test_fileio test_file test_filecmp test_fileinput test_genericpath test_posixpath
    test_stat test_dbm_dumb test_zipapp test_netrc test_shutil
    chmod dentry dir flock link rename xattr
    sequential mixed mapped
    dbench-xattr
"""
QUICK = frozenset(_QUICK.split())

_UNSUPPORTED = {2, 3, 4}  # of stress-ng's exit codes: no resources, not implemented


def _of_python(code: int, output: str) -> set[str]:
    found = set(re.findall(r"^((?:FAIL|ERROR): .*)$", output, re.MULTILINE))
    found |= set(re.findall(r"^test (\S+) (?:failed|crashed)", output, re.MULTILINE))
    return found or ({f"ended with {code}"} if code else set())


def _of_stress(code: int, output: str) -> set[str]:
    wrong = re.findall(r"fail: +\[\d+\] (.*)", output)
    return {re.sub(r"\d+", "N", line) for line in wrong} or ({f"ended with {code}"} if code else set())


def _of_code(code: int, output: str) -> set[str]:
    last = output.strip().splitlines()[-1:] or [""]
    return {f"ended with {code}: {last[0]}"} if code else set()


def _large(entries: int) -> Command:
    program = Path(__file__).with_name("large.py").read_text()
    return Command(f"large-{entries}", ("python3", "-c", program, str(entries)), 1800, entries)


def _fio(name: str, *words: str) -> Command:
    common = ("fio", "--directory={}", "--verify=crc32c", "--verify_fatal=1", "--output-format=terse", "--minimal")
    return Command(name, (*common, f"--name={name}", *words), 300)


SUITES = {
    "python": Suite(
        tuple(
            Command(name, ("python3", "-m", "test", "--tempdir", "{}", "-W", "-v", "--timeout", "1200", name), 1800)
            for name in _PYTHON.split()
        ),
        _of_python,
    ),
    "stress": Suite(
        tuple(
            Command(name, ("stress-ng", f"--{name}", "1", "--timeout", "2s", "--verify", "--temp-path", "{}"), 120)
            for name in _STRESSORS.split()
        ),
        lambda code, output: set() if code in _UNSUPPORTED else _of_stress(code, output),
    ),
    "fio": Suite(
        (
            _fio("sequential", "--rw=write", "--bs=1M", "--size=64M", "--do_verify=1"),
            _fio("random", "--rw=randwrite", "--bs=4k", "--size=8M", "--numjobs=4"),
            _fio("mixed", "--rw=randrw", "--bsrange=512-64k", "--size=8M", "--numjobs=2", "--bs_unaligned"),
            _fio("direct", "--rw=randrw", "--bs=4k", "--size=8M", "--direct=1", "--numjobs=2"),
            _fio("mapped", "--rw=randrw", "--ioengine=mmap", "--bs=4k", "--size=8M", "--numjobs=2"),
            _fio("synced", "--rw=randwrite", "--bs=4k", "--size=1M", "--fsync=16", "--fdatasync=4"),
            _fio("vectors", "--rw=randrw", "--ioengine=pvsync2", "--bs=16k", "--size=8M", "--numjobs=2"),
            _fio("asynchronous", "--rw=randrw", "--ioengine=libaio", "--iodepth=8", "--bs=4k", "--size=8M"),
        ),
        _of_code,
    ),
    "listing": Suite((_large(20_000), _large(200_000)), _of_code),
    "dbench": Suite(
        (
            Command("dbench", ("dbench", "-D", "{}", "-t", "10", "2"), 240),
            Command("dbench-sync", ("dbench", "-D", "{}", "-t", "5", "-s", "-S", "2"), 240),
            Command("dbench-xattr", ("dbench", "-D", "{}", "-t", "5", "-x", "2"), 240),
        ),
        _of_code,
    ),
    "bonnie": Suite(
        (
            Command(
                "bonnie",
                ("/usr/sbin/bonnie++", "-d", "{}", "-s", "64", "-r", "32", "-n", "1:4096:0:4", "-f", "-q"),
                900,
            ),
        ),
        _of_code,
    ),
}


def of_script(script: str) -> Suite:
    """A suite of one shell script."""
    return Suite((Command("script", ("sh", "-c", script), 600),), _of_code)
