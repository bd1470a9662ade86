"""Where files have data and where they have holes, though somebody changes their lengths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from isofs.store.inodes import data_ranges

#: Data at the beginning and behind the first MiB, and a hole at the end.
DATA, LENGTH = ((0, 4096), (1 << 20, (1 << 20) + 4096)), 4 << 20


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    for start, end in DATA:
        os.pwrite(descriptor, b"x" * (end - start), start)
    os.ftruncate(descriptor, LENGTH)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("size", [None, 0, 1, 4096, 10_000, 1 << 20, (1 << 20) + 1, 3 << 20, LENGTH, 2 * LENGTH])
def test_what_is_in_no_range_is_zero(opened: int, size: int | None) -> None:
    content = os.pread(opened, LENGTH, 0)
    told = content[:size]
    found, last = bytearray(len(told)), 0
    for start, end in data_ranges(opened, size):
        assert last <= start < end
        assert size is None or end <= size
        found[start:end] = content[start:end]
        last = end
    assert found == told


def test_a_file_that_is_cut_short_has_no_data_any_more(opened: int) -> None:
    ranges = data_ranges(opened, LENGTH)
    assert next(ranges)[0] == 0
    os.ftruncate(opened, 0)
    assert list(ranges) == []
