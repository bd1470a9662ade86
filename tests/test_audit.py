"""The audit trail without a mount: nothing is lost between two processes, and no change of a file goes unnoticed."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import marshal
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isofs.audit import chain, paging, reading, reads, record, tasks, writer
from isofs.audit.appending import Appender, Limits
from isofs.audit.counting import ReadSets
from isofs.audit.reading import Wanted
from isofs.audit.readset import Gap, Read
from isofs.audit.record import Unnumbered
from isofs.audit.ring import Ring, open_ring, taking
from isofs.audit.tasks import Task, Tasks
from isofs.audit.trail import CROWDED, Trail, last_number
from isofs.audit.verifying import verify
from support.cuts import cut_off
from support.trails import BEGAN, MOUNT, TASK, body, checked, folder, written

SMALL = 4096


def closing(at: int, path: bytes, ino: int, read: int) -> Unnumbered:
    """The record of a closing, by suspect 1."""
    return at, b"close", 1, 7, b"", path, ino, 0, 0, read, {"read": read, "written": 0}


def opening(at: int, path: bytes, ino: int = 0, more: dict[str, object] | None = None) -> Unnumbered:
    """The record of an opening, by suspect 1."""
    return at, b"open", 1, 7, b"", path, ino, 0, 0, None, more


# The ring


@settings(max_examples=60)
@given(st.lists(st.one_of(st.binary(max_size=300), st.integers(1, 5), st.none())))
def test_a_ring_gives_back_what_was_put_in_order_whoever_opens_it_anew(steps: list[bytes | int | None]) -> None:
    """Bytes are put, a number of pieces is taken, None opens both ends anew."""
    path = f"/dev/shm/isofs-test-{os.getpid()}.ring"
    expected: list[bytes] = []
    putting, found = open_ring(path, lambda: None, 1024)
    takes = taking(path)
    try:
        assert not found
        for step in steps:
            assert takes is not None
            if isinstance(step, bytes):
                if putting.put(step):
                    expected.append(step)
                else:
                    assert sum(len(piece) + 16 for piece in expected) + 2 * len(step) + 32 > 1024
            elif step is None:
                putting.close()
                takes.close()
                putting, found = open_ring(path, lambda: None)
                takes = taking(path)
                assert found
            else:
                for piece, position in itertools.islice(takes.waiting(), step):
                    assert piece == expected.pop(0)
                    takes.done(position)
        assert takes is not None
        assert [piece for piece, _ in takes.waiting()] == expected
    finally:
        putting.close()
        if takes is not None:
            takes.close()
        os.unlink(path)


def test_a_damaged_piece_takes_no_other_along(tmp_path: Path) -> None:
    ring, _ = open_ring(str(tmp_path / "ring"), lambda: None, SMALL)
    for number in range(3):
        ring.put(b"piece %d" % number)
    raw = bytearray((tmp_path / "ring").read_bytes())
    raw[raw.index(b"piece 1")] ^= 1
    (tmp_path / "ring").write_bytes(raw)
    assert [piece for piece, _ in ring.waiting()] == [b"piece 0", None, b"piece 2"]
    ring.close()


def test_a_ring_that_somebody_else_made_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    first, _ = open_ring(str(path), lambda: None, SMALL)
    first.put(b"forged")
    first.close()
    os.chown(path, 1000, 1000)
    ring, found = open_ring(str(path), lambda: None, SMALL)
    assert not found
    assert not list(ring.waiting())
    ring.close()


# Records


_anything = st.binary(max_size=60).map(lambda raw: raw.replace(b"\0", b"/"))


@settings(max_examples=40)
@given(
    path=st.none() | _anything,
    source=_anything,
    program=_anything,
    login=st.none() | st.integers(0, 2**32 - 2),
    size=st.none() | st.integers(0, 2**63 - 1),
    number=st.integers(0, 133),
    fact=st.text(),
)
def test_a_record_is_one_line_of_json_and_keeps_every_byte(
    path: bytes | None, source: bytes, program: bytes, login: int | None, size: int | None, number: int, fact: str
) -> None:
    task = Task(1, 2, login, program)
    more = {"from": source, "facts": {"said": fact}}
    unnumbered = (10**18, b"rename", 1, 1000, tasks.packed(task), path, 5, 6, number, size, more)
    made = record.unpacked(record.packed(9, unnumbered))
    assert made == record.Record(9, 10**18, "rename", 1, 1000, task, path, 5, 6, number, size, more)
    line = chain.ended(record.line(made, MOUNT, str), chain.NOTHING)
    assert line.isascii()
    assert b"\n" not in line
    assert chain.number(line) == 9
    assert chain.previous(line) == chain.NOTHING
    fields = json.loads(line.decode("utf-8"))
    json.dumps(fields, ensure_ascii=False).encode("utf-8")  # no half of a character anywhere
    assert list(reading.paths(fields)) == ([] if path is None else [path.lstrip(b"/") if path.isascii() else path]) + [
        source if "isofs.from_bytes" in fields else source.lstrip(b"/")
    ]
    assert fields["event.outcome"] == ("failure" if number else "success")


def test_paths_that_are_too_long_keep_their_ends() -> None:
    """Whatever somebody makes fits into a line: what is longer would be none."""
    long = b"\xff\n/" * 350_000 + b"end"
    made = record.unpacked(record.packed(1, opening(1, long, more={"from": long, "main": True})))
    assert made.path is not None
    assert made.more is not None
    assert made.path.endswith(b"\n/end")
    assert made.more == {"from": made.path, "main": True}
    assert len(chain.ended(record.line(made, MOUNT, str), chain.NOTHING)) < chain.LONGEST


def test_a_task_is_known_by_its_thread_and_its_program_of_the_moment() -> None:
    known = Tasks()
    program = ["sh", "-c", "echo; read x; exec sleep 100"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        try:
            seen = known.seen(process.pid, 0)
            before = tasks.unpacked(seen.named(0))
            process.stdin.write(b"\n")
            process.stdin.flush()
            for moment in itertools.count(10**6, 10**6):
                assert known.seen(process.pid, moment) is seen
                after = tasks.unpacked(seen.named(moment))
                assert after is not None
                if after.program != b"sh":
                    break
            assert before is not None
            assert after is not None
            assert (before.pid, before.program, after.program) == (process.pid, b"sh", b"sleep")
        finally:
            process.kill()
    ended = tasks.unpacked(seen.named(10**15))
    gone = tasks.unpacked(known.seen(process.pid, 10**15).named(10**15))
    assert ended == after  # what it did last is told when it has its answer, and may be gone
    assert gone == Task(process.pid, process.pid, None, b"")
    known.close()
    assert tasks.unpacked(seen.named(10**16)) == after


# The chain


def test_every_change_of_a_byte_is_found(tmp_path: Path) -> None:
    written(tmp_path / "audit", 2)
    assert checked(tmp_path / "audit").problem is None
    for name in (chain.name(1), chain.NEWEST):
        path = tmp_path / "audit" / name
        right = path.read_bytes()
        for at in range(len(right)):
            wrong = bytearray(right)
            wrong[at] ^= 1 << at % 8
            path.write_bytes(wrong)
            assert checked(tmp_path / "audit").problem is not None, (name, at)
        path.write_bytes(right)
    assert checked(tmp_path / "audit").lines == 2


def test_every_change_of_a_compressed_file_is_found_or_changes_no_line(tmp_path: Path) -> None:
    written(tmp_path / "audit", 6, Limits(size=800))
    path = next(iter(sorted((tmp_path / "audit").glob("*.zst"))))
    right = path.read_bytes()
    with folder(tmp_path / "audit") as opened:
        lines = [line for line, _ in reading.records(opened, Wanted())]
        assert len(lines) == 6
        for at in range(len(right)):
            wrong = bytearray(right)
            wrong[at] ^= 0x10
            path.write_bytes(wrong)
            if verify(opened).problem is None:
                assert [line for line, _ in reading.records(opened, Wanted())] == lines, at


def test_lines_and_files_that_are_missing_or_elsewhere_are_found(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    written(whole, 12, Limits(size=1200))
    names = sorted(path.name for path in whole.iterdir() if path.name[0] == "0")
    assert len(names) > 3
    assert names[-1].endswith(chain.LIVE)
    assert checked(whole) == replace(checked(whole), problem=None, lines=12, files=len(names), first=1, sequence=12)

    def tampered(number: int) -> Path:
        return Path(shutil.copytree(whole, tmp_path / str(number)))

    numbers = itertools.count()
    for name in names:
        copy = tampered(next(numbers))
        (copy / name).unlink()
        assert checked(copy).problem is not None, name
    lines = (whole / names[-1]).read_bytes().splitlines(keepends=True)
    assert len(lines) > 1
    kept = [lines[:at] + lines[at + 1 :] for at in range(len(lines))]
    for remaining in (*kept, lines[::-1], [*lines, lines[-1]], [b"{}\n", *lines], [*lines, b"{}\n"]):
        copy = tampered(next(numbers))
        (copy / names[-1]).write_bytes(b"".join(remaining))
        assert checked(copy).problem is not None
    end = (whole / names[-1]).read_bytes()
    copy = tampered(next(numbers))
    for size in range(0, len(end), 7):
        (copy / names[-1]).write_bytes(end[:size])
        assert checked(copy).problem is not None, size
    copy = tampered(next(numbers))
    (copy / chain.NEWEST).unlink()
    assert checked(copy).problem is not None


def test_a_trail_that_was_written_anew_is_not_the_one_that_was_known(tmp_path: Path) -> None:
    written(tmp_path / "right", 5)
    right = checked(tmp_path / "right")
    written(tmp_path / "right", 3, first=6)
    assert checked(tmp_path / "right", (right.sequence, right.hash)).problem is None
    with folder(tmp_path / "forged") as opened, contextlib.closing(Appender(opened, Limits())) as appender:
        appender.append((number, body(number).replace("d/f3", "d/g3")) for number in range(1, 9))
        appender.sync()
    assert checked(tmp_path / "forged").problem is None
    assert checked(tmp_path / "forged", (right.sequence, right.hash)).problem is not None


def test_what_a_power_cut_tore_is_told_apart_and_gone_on_from(tmp_path: Path) -> None:
    """Lines that were durable must be there; behind them any part may be missing."""
    start = tmp_path / "start"
    written(start, 3)
    durable = (start / chain.name(1)).stat().st_size
    with folder(start) as opened, contextlib.closing(Appender(opened, Limits())) as appender:
        appender.append((number, body(number)) for number in (4, 5))
    whole = (start / chain.name(1)).read_bytes()
    for size in range(durable, len(whole) + 1, 7):
        copy = Path(shutil.copytree(start, tmp_path / str(size)))
        (copy / chain.name(1)).write_bytes(whole[:size])
        found = checked(copy)
        assert found.problem is None
        assert found.torn == size - (whole[:size].rindex(b"\n") + 1)
        written(copy, 2, first=found.sequence + 1)
        again = checked(copy)
        assert (again.problem, again.torn, again.sequence) == (None, 0, found.sequence + 2)
    copy = Path(shutil.copytree(start, tmp_path / "zeros"))
    (copy / chain.name(1)).write_bytes(whole[: durable + 9] + bytes(500))
    assert checked(copy).torn == 509


def test_a_cut_end_is_still_found_when_the_trail_has_gone_on(tmp_path: Path) -> None:
    written(tmp_path / "audit", 5)
    path = tmp_path / "audit" / chain.name(1)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    ring, _ = open_ring(str(tmp_path / "ring"), lambda: None, SMALL)
    with folder(tmp_path / "audit") as opened:
        assert last_number(ring, opened) == (5, 0)
        written(tmp_path / "audit", 1, first=6)
        assert "lines 4 to 5 are missing" in str(verify(opened).problem)
    ring.close()


def test_full_files_are_compressed_and_old_ones_go(tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    written(audit, 40, Limits(size=2000))
    files = sorted(path.name for path in audit.glob("0*"))
    assert [name.endswith(chain.COMPRESSED) for name in files] == [True] * (len(files) - 1) + [False]
    assert checked(audit).lines == 40
    some = sum((audit / name).stat().st_size for name in files[-4:-1])
    written(audit, 1, Limits(size=2000, total=some), first=41)
    left = sorted(audit.glob("0*"))
    assert 2 <= len(left) <= 5
    assert sum(path.stat().st_size for path in left[:-1]) <= some
    found = checked(audit)
    assert (found.problem, found.sequence, found.first) == (None, 41, int(left[0].name[:16]))
    left[0].unlink()  # not by its age
    assert checked(audit).problem is not None


def test_a_file_that_is_old_is_followed_by_another_and_goes(tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    written(audit, 2, began=0)  # decades by the clock, which may be wrong
    written(audit, 2, first=3)
    assert [path.name[:16] for path in sorted(audit.glob("0*"))] == [chain.name(number)[:16] for number in (1, 3)]
    with folder(audit) as opened:
        year = chain.ages(opened).passed + Limits().keep
        chain.write_ages(opened, replace(chain.ages(opened), passed=year))
    written(audit, 2, first=5)
    assert sorted(path.name for path in audit.glob("0*")) == [chain.name(3)]
    assert (checked(audit).problem, checked(audit).first) == (None, 3)


# From the ring into the files


def counted(opened: int) -> list[tuple[object, ...]]:
    """The read sets, as far as they are counted."""
    keys = ("subject", "inode", "path", "opens", "read", "at", "last")
    return [tuple(one[key] for key in keys) for one in reads.all_sets(opened)]  # type: ignore[literal-required]


def counted_at_once(records: Iterable[record.Record]) -> list[tuple[object, ...]]:
    """What the read sets of records must be: each counted in memory, one after another, and once."""
    found: dict[tuple[int, int, bytes | None], list[Any]] = {}
    latest: dict[tuple[int, bytes | None], list[Any] | None] = {}
    for one in records:
        at, where, more = record.moment(one.at), (one.sid, one.path), one.more or {}
        if "main" in more:
            row = found.setdefault((one.sid, one.ino, one.path), [0, 0, at, at])
            row[0] += 1
            latest[where] = row
        elif one.action == "close" and (known := latest.get(where)):
            row = known
            row[1] += more["read"]
        else:
            latest[where] = None
            continue
        row[3] = at
    rows = [(sid, ino, (path or b"").decode(), *row) for (sid, ino, path), row in found.items()]
    return sorted(rows, key=lambda row: row[0])


def test_a_writer_killed_anywhere_writes_every_record_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right before and right after each write, each step forward in the ring, each file that is put in its place."""
    for of, name in ((os, "write"), (Ring, "done"), (os, "rename"), (os, "fdatasync"), (os, "unlink")):
        for stop in itertools.count():
            place = tmp_path / f"{name}{stop}"
            place.mkdir()
            ring, _ = open_ring(str(place / "ring"), lambda: None, 1 << 14)
            trail, told = Trail(ring, 0), list[record.Record]()
            with folder(place / "audit") as opened:

                def drain(
                    opened: int = opened, ring: Ring = ring, trail: Trail = trail, told: list[record.Record] = told
                ) -> None:
                    for _ in range(3):
                        for _ in range(3):
                            number = trail.last + 1
                            at, inode = BEGAN + number * 1000, number // 2 % 3 + 1
                            if number % 2:
                                call = opening(at, b"f%d" % inode, inode, {"main": True})
                            else:
                                call = closing(at, b"f%d" % inode, inode, read=number)
                            trail.put(call)
                            told.append(record.unpacked(record.packed(trail.last, call)))
                        writer.drain_once(ring, opened, MOUNT, Limits(size=900))

                cut = cut_off(stop, monkeypatch, drain, of, name)
                writer.drain_once(ring, opened, MOUNT, Limits(size=900))
                with contextlib.closing(Appender(opened, Limits(size=900))) as appender:
                    appender.tidy()
                found = [fields["event.sequence"] for _, fields in reading.records(opened, Wanted())]
                assert found == list(range(1, trail.last + 1)), (name, stop)
                assert verify(opened).problem is None, (name, stop)
                assert counted(opened) == counted_at_once(told[: trail.last]), (name, stop)
            ring.close()
            if not cut:
                assert stop > 0, name
                assert trail.last == 9
                break


def test_a_disk_that_is_full_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of a line is written, and then nothing more."""
    ring, _ = open_ring(str(tmp_path / "ring"), lambda: None, SMALL)
    trail, real = Trail(ring, 0), os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[: len(data) - 99])

    with folder(tmp_path / "audit") as opened:
        for number in range(1, 4):
            trail.put(opening(number, b"f"))
            with monkeypatch.context() as patch:
                patch.setattr(os, "write", full)
                with pytest.raises(OSError, match="No space"):
                    writer.drain_once(ring, opened, MOUNT, Limits())
        assert list(reading.records(opened, Wanted())) == []
        writer.drain_once(ring, opened, MOUNT, Limits())
        assert [fields["event.sequence"] for _, fields in reading.records(opened, Wanted())] == [1, 2, 3]
        assert verify(opened).problem is None
    ring.close()


def test_what_is_no_record_does_not_keep_those_after_it(tmp_path: Path) -> None:
    ring, _ = open_ring(str(tmp_path / "ring"), lambda: None, SMALL)
    trail = Trail(ring, 0)
    with folder(tmp_path / "audit") as opened:
        for piece in (b"short", marshal.dumps((2, 3)), marshal.dumps((3, (1, "open", 0, 0, b"")))):
            ring.put(piece)
            trail.last += 1
        trail.put(opening(BEGAN, b"f"))
        writer.drain_once(ring, opened, MOUNT, Limits())
        found = [(f["event.sequence"], f["event.action"]) for _, f in reading.records(opened, Wanted())]
        assert found == [(1, record.GAP), (2, record.GAP), (3, record.GAP), (4, "open")]
        assert verify(opened).problem is None
    ring.close()


def test_what_finds_no_room_is_counted_and_told(tmp_path: Path) -> None:
    ring, _ = open_ring(str(tmp_path / "ring"), lambda: None, SMALL)
    size = (tmp_path / "ring").stat().st_size
    trail = Trail(ring, 0)
    for number in range(1000):
        assert trail.crowded == (ring.used() > CROWDED)
        trail.put(opening(number, b"name"))
    kept = trail.last
    assert 10 < kept < 1000
    assert (tmp_path / "ring").stat().st_size == size
    with folder(tmp_path / "audit") as opened:
        writer.drain_once(ring, opened, MOUNT, Limits())
        trail.put(opening(0, b"last"))
        writer.drain_once(ring, opened, MOUNT, Limits())
        found = [fields for _, fields in reading.records(opened, Wanted())]
        assert verify(opened).problem is None
    assert [fields["event.sequence"] for fields in found] == list(range(1, kept + 3))
    assert found[-2]["event.action"] == record.GAP
    assert found[-2]["isofs.facts"]["lost"] == 1000 - kept
    assert found[-1]["file.path"] == f"{MOUNT}/last"
    ring.close()


def test_a_flood_of_small_and_large_records_makes_one_gap(tmp_path: Path) -> None:
    ring, _ = open_ring(str(tmp_path / "ring"), lambda: None, 1 << 14)
    trail = Trail(ring, 0)
    with folder(tmp_path / "audit") as opened:
        for number in range(200):
            trail.put(opening(number, b"x" * (3000 if number % 2 else 10)))
        writer.drain_once(ring, opened, MOUNT, Limits())
        trail.put(opening(0, b"last"))
        writer.drain_once(ring, opened, MOUNT, Limits())
        *kept, gap, last = [fields for _, fields in reading.records(opened, Wanted())]
    assert (gap["event.action"], last["file.path"]) == (record.GAP, f"{MOUNT}/last")
    assert gap["isofs.facts"]["lost"] == 200 - len(kept)
    assert {one["event.action"] for one in kept} == {"open"}
    ring.close()


class Writing:
    """The process that writes, for a ring that the test puts into."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.ring, _ = open_ring(str(place / "ring"), lambda: None)
        self.trail = Trail(self.ring, 0)
        self.folder = os.open(place / "audit", os.O_RDONLY)

    @contextlib.contextmanager
    def process(self, limits: Limits) -> Iterator[subprocess.Popen[bytes]]:
        wake, end = os.pipe()
        os.write(end, json.dumps(asdict(limits)).encode() + b"\n")
        command = [sys.executable, "-m", "isofs.audit.writer", MOUNT, str(self.place / "ring"), str(self.folder)]
        with subprocess.Popen([*command, str(wake)], pass_fds=(self.folder, wake)) as process:
            os.close(wake)
            try:
                yield process
            finally:
                os.close(end)

    def put(self) -> None:
        number = self.trail.last + 1
        self.trail.put(opening(time.time_ns(), b"f%d" % number))

    def close(self) -> None:
        os.close(self.folder)
        self.ring.close()


def test_writers_that_are_killed_one_after_another_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    writing = Writing(tmp_path)
    for count in (300, 20):
        with writing.process(Limits(size=20_000)) as process:
            limit = time.monotonic() + 30
            before = writing.trail.last
            while writing.trail.last < before + 2000 and time.monotonic() < limit:
                writing.put()
                if writing.trail.last > before + count and writing.ring.used() < 0.001:
                    break  # the writer is at work
            process.send_signal(signal.SIGKILL)
    for _ in range(500):
        writing.put()
    with writing.process(Limits(size=20_000)) as process:
        pass  # it has what was put in, and writes it, though the other side has ended
    assert process.returncode == 0
    found = [fields["event.sequence"] for _, fields in reading.records(writing.folder, Wanted())]
    assert found == list(range(1, writing.trail.last + 1))
    assert verify(writing.folder).problem is None
    writing.close()


def test_a_trail_that_rotates_meanwhile_is_verified(tmp_path: Path) -> None:
    """Files are begun, compressed and removed by the process that writes, and it is right at every moment."""
    (tmp_path / "audit").mkdir()
    writing, rounds, seen = Writing(tmp_path), 0, set[tuple[int, int]]()
    with writing.process(Limits(size=5000, total=4000)) as process:
        limit = time.monotonic() + 30
        while len(seen) < 12 and time.monotonic() < limit:
            writing.put()
            found = verify(writing.folder)
            assert found.problem is None, found
            seen.add((found.first, found.files))
            rounds += 1
    assert process.returncode == 0
    assert len(seen) >= 12
    assert rounds > 2 * len(seen)
    found = verify(writing.folder)
    assert (found.problem, found.sequence) == (None, writing.trail.last)
    assert found.first > 1
    writing.close()


# Reading


def test_lines_are_found_by_time_user_and_path(tmp_path: Path) -> None:
    lines = []
    with folder(tmp_path / "audit") as opened, contextlib.closing(Appender(opened, Limits(size=3000))) as appender:
        for number in range(1, 60):
            uid, login = (1000, None) if number % 3 else (7, 1000 if number % 2 else 70)
            task = Task(1, 1, login, b"1000")
            path, more = (b"d/f", None) if number % 5 else (b"e\xff", {"from": b"d/old"})
            made = record.Record(number, BEGAN + number * 10**9, "rename", 0, uid, task, path, 0, 0, 0, None, more)
            lines.append((number, uid, login, path, more))
            appender.append([(number, record.line(made, MOUNT, str))])
        appender.tidy()

        def numbers(**wanted: Any) -> list[int]:
            return [fields["event.sequence"] for _, fields in reading.records(opened, Wanted(**wanted))]

        assert numbers() == list(range(1, 60))
        since, until = record.moment(BEGAN + 20 * 10**9), record.moment(BEGAN + 30 * 10**9)
        assert numbers(since=since) == list(range(20, 60))
        assert numbers(until=until) == list(range(1, 31))
        assert numbers(uid=1000) == [n for n, uid, login, *_ in lines if 1000 in (uid, login)]
        assert numbers(path=lambda path: path == b"e\xff") == list(range(5, 60, 5))
        assert numbers(path=lambda path: path == b"d/old", since=since) == list(range(20, 60, 5))


def test_a_trail_is_followed_from_file_to_file(tmp_path: Path) -> None:
    written(tmp_path / "audit", 3)
    with folder(tmp_path / "audit") as opened:
        found = reading.records(opened, Wanted(), follow=True)
        assert [next(found)[1]["event.sequence"] for _ in range(3)] == [1, 2, 3]
        written(tmp_path / "audit", 30, Limits(size=2000), first=4)
        assert [next(found)[1]["event.sequence"] for _ in range(30)] == list(range(4, 34))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(-60, 60), st.booleans()), min_size=1, max_size=12), st.integers(0, 600))
def test_lines_are_found_by_time_however_the_clock_was_put(steps: list[tuple[int, bool]], since: int) -> None:
    """Each line is so many seconds after the one before; with True, the writer was started anew and tidied before."""
    times, now = [], 300
    with tempfile.TemporaryDirectory() as place, folder(Path(place) / "audit") as opened:
        for number, (step, anew) in enumerate(steps, 1):
            now += step
            times.append(now)
            with contextlib.closing(Appender(opened, Limits(size=1 if anew else 1 << 20))) as appender:
                appender.append([(number, body(number, BEGAN + (now - number) * 10**9))])
                appender.tidy()
        found = reading.records(opened, Wanted(since=record.moment(BEGAN + since * 10**9)))
        expected = [number for number, at in enumerate(times, 1) if at >= since]
        assert [fields["event.sequence"] for _, fields in found] == expected


def test_pages_have_every_line_once_while_files_are_rotated_compressed_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = tmp_path / "audit"
    monkeypatch.setattr(paging, "SIZE", 1500)
    found, place, last, more = list[bytes](), (0, 0), 0, True
    with folder(audit) as opened:
        while more or last < 60:
            if last < 60:
                written(audit, 7, Limits(size=2500), first=last + 1)
                last += 7
            page = paging.of_trail(opened, "", *place)
            found, place, more = found + page.lines, (page.file, page.at), page.more
        assert found == [line for line, _ in reading.records(opened, Wanted())]
        assert len(found) == last
        live = audit / chain.name(chain.files(opened)[-1].first)
        live.write_bytes(live.read_bytes() + b"torn")
        assert paging.of_trail(opened, "", *place) == paging.Page([], *place, more=False)
        [*_, newest] = chain.files(opened)
        for path in audit.glob("*.zst"):
            path.unlink()
        page = paging.of_trail(opened, "", 1, 700)
        assert (page.file, page.lines[0]) == (newest.first, live.read_bytes().splitlines()[0])


def test_pages_of_one_read_set_have_nothing_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "SIZE", 1000)
    call = record.Record(1, BEGAN, "open", 1, 7, TASK, b"", 0, 0, 0, None, {"main": True})
    with folder(tmp_path / "audit") as opened:
        with contextlib.closing(ReadSets(opened)) as sets:
            sets.note([call._replace(sid=sid, path=b"%d" % ino, ino=ino) for sid in (1, 2, 12) for ino in range(9)])

        def paged(only: int | None) -> list[Read | None]:
            found, place, more = list[bytes](), (0, 0), True
            while more:
                page = paging.of_reads(opened, only, *place)
                found, place, more = found + page.lines, (page.file, page.at), page.more
            return [reads.parsed(line) for line in found]

        assert paged(None) == list(reads.all_sets(opened))
        assert [len(paged(sid)) for sid in (None, 1, 2, 12, 3)] == [27, 9, 9, 9, 0]
        assert paged(2) == list(reads.read_by(opened, 2))


def test_a_file_that_is_compressed_after_it_was_listed_is_read(tmp_path: Path) -> None:
    written(tmp_path / "audit", 3)
    with folder(tmp_path / "audit") as opened:
        there, whole = chain.files(opened), [line for line, _ in reading.records(opened, Wanted())]
        written(tmp_path / "audit", 1, Limits(size=1), first=4)
        assert not (tmp_path / "audit" / there[0].name).exists()
        with chain.opened(opened, there[0]) as reader:
            assert [line[:-1] for line in chain.lines(reader)] == whole


def test_a_compressed_file_that_is_cut_anywhere_is_found_or_has_every_line(tmp_path: Path) -> None:
    written(tmp_path / "audit", 6, Limits(size=800))
    path = min((tmp_path / "audit").glob("*.zst"))
    right = path.read_bytes()
    with folder(tmp_path / "audit") as opened:
        lines = [line for line, _ in reading.records(opened, Wanted())]
        for size in range(len(right)):
            path.write_bytes(right[:size])
            found = [line for line, _ in reading.records(opened, Wanted())]
            assert (verify(opened).problem is None) == (found == lines), size


# Read sets


_calls = st.one_of(
    st.builds(
        lambda sid, ino, path: (sid, "open", ino, path, {"main": True, "size": 3}),
        *[st.integers(1, 2)] * 2,
        st.sampled_from([b"a", b"b"]),
    ),
    st.builds(
        lambda sid, path: (sid, "open", 0, path, {"access": "read"}), st.integers(1, 2), st.sampled_from([b"a", b"b"])
    ),
    st.builds(
        lambda sid, path, read: (sid, "close", 0, path, {"read": read, "written": 0}),
        st.integers(1, 2),
        st.sampled_from([b"a", b"b"]),
        st.integers(1, 1 << 40),
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.lists(_calls, max_size=8), st.booleans())))
def test_reads_are_counted_however_they_come(batches: list[tuple[list[Any], bool]]) -> None:
    """In batches, some of which come twice: all that was written stays, and what was to be told of it was lost."""
    every = list[record.Record]()
    with tempfile.TemporaryDirectory() as place, folder(Path(place) / "audit") as opened:
        sets = ReadSets(opened)
        for calls, twice in batches:
            batch = []
            for sid, action, ino, path, more in calls:
                number = len(every) + 1
                one = record.Record(number, BEGAN + number * 10**6, action, sid, 7, TASK, path, ino, 0, 0, None, more)
                every.append(one)
                batch.append(one)
            for _ in range(1 + twice):
                sets.note(batch)
        sets.sync()
        sets.close()
        assert counted(opened) == counted_at_once(every)
        with reads.opened_sets(opened) as folder_of_sets:
            assert folder_of_sets is not None
            for name in os.listdir(folder_of_sets):
                lines = Path(place, "audit/reads", name).read_bytes().splitlines(keepends=True)
                assert all(len(line) % 128 == 0 for line in lines)


def test_a_read_set_that_was_torn_or_is_of_an_older_version_goes_on(tmp_path: Path) -> None:
    """What older versions wrote was not counted; what a power cut left of a row takes nothing along."""
    path = tmp_path / "audit/reads/1.jsonl"
    older = {"subject": 1, "uid": 7, "at": "2026-01-02T03:04:05.678901Z", "path": "old", "kind": "file", "inode": 1}
    row = json.dumps({**older, "size": 5, "program": "cat"}) + "\n"
    call = record.Record(1, BEGAN, "open", 1, 7, TASK, b"old", 1, 0, 0, None, {"main": True})
    new = call._replace(sequence=2, path=b"new", ino=2)
    with folder(tmp_path / "audit") as opened:
        path.parent.mkdir()
        path.write_text(row)

        def note(one: record.Record) -> None:
            with contextlib.closing(ReadSets(opened)) as sets:
                sets.note([one])

        note(call)
        note(new)
        whole = path.read_bytes()
        expected = [("old", None), ("new", 1)]
        assert [(one["path"], one["opens"]) for one in reads.all_sets(opened)] == expected
        for size in range(len(row), len(whole)):
            path.write_bytes(whole[:size])
            note(new)
            assert [(one["path"], one["opens"]) for one in reads.all_sets(opened)] == expected, size
        note(new._replace(sequence=3))
        assert [one["opens"] for one in reads.all_sets(opened)] == [None, 2]
        for wrong in (b'{"last":7,', b"\0" * 10, b'["last":"'):
            path.write_bytes(whole.replace(b'{"last":"2', wrong, 1))
            note(new._replace(sequence=3))
            assert [one["path"] for one in reads.all_sets(opened)][::-1][0] == "new", wrong
        with contextlib.closing(ReadSets(opened)) as sets:
            path.write_bytes(whole)
            sets.note([new._replace(sequence=3)])
            path.write_bytes(whole.replace(b'{"last":"2', b"\0" * 10, 1))  # while it is written
            sets.note([new._replace(sequence=4)])
        assert [(one["path"], one["opens"]) for one in reads.all_sets(opened)] == [("old", None), ("new", 1)]


def test_when_reads_were_not_recorded_is_kept_in_mind(tmp_path: Path) -> None:
    times = [record.moment(BEGAN + second * 10**9) for second in range(9)]
    with folder(tmp_path / "audit") as opened:
        assert reads.gaps(opened, "") == []
        for at, on in enumerate((True, True, False, False, True, False)):
            reads.switched(opened, on, times[at])
        off = [Gap(since=times[2], until=times[4], why="off"), Gap(since=times[5], until=None, why="off")]
        assert reads.gaps(opened, "") == reads.gaps(opened, times[4]) == off
        assert reads.gaps(opened, times[4] + "~") == off[1:]
        told = {"facts": {"lost": 7, "since": times[6]}}
        sets = ReadSets(opened)
        sets.note([record.Record(1, BEGAN + 7 * 10**9, record.GAP, 0, 0, None, None, 0, 0, 0, None, told)])
        sets.close()
        (tmp_path / "audit/reads/gaps.jsonl").open("ab").write(b'{"on": tru')
        reads.switched(opened, True, times[8])
        assert reads.gaps(opened, "") == [
            off[0],
            Gap(since=times[6], until=times[7], why="lost"),
            Gap(since=times[5], until=times[8], why="off"),
        ]
        assert reads.subjects(opened) == []


def test_what_was_read_while_the_disk_was_full_is_in_the_read_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:99])

    read = [
        record.Record(number, BEGAN, "open", 1, 7, TASK, b"f%d" % number, number, 0, 0, None, {"main": True})
        for number in (1, 2)
    ]
    with folder(tmp_path / "audit") as opened:
        sets = ReadSets(opened)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space"):
                sets.note(read)
        sets.note(read)
        sets.note(read)
        sets.close()
        assert [(one["path"], one["opens"]) for one in reads.all_sets(opened)] == [("f1", 1), ("f2", 1)]
        assert (tmp_path / "audit/reads/1.jsonl").read_bytes().count(b"\n") == 2


def test_exact_bytes_are_beside_a_name_that_is_no_text() -> None:
    made = record.Record(1, 1, "unlink", 1, 7, None, b"a\xff\n\x1b", 0, 0, 0, None, None)
    fields = json.loads(record.line(made, MOUNT, str) + "}")
    assert fields["file.path"] == MOUNT + "/a\ufffd\n\x1b"
    assert base64.b64decode(fields["isofs.path_bytes"]) == b"a\xff\n\x1b"


def test_the_first_field_of_a_ring_is_not_believed_from_a_short_file(tmp_path: Path) -> None:
    (tmp_path / "ring").write_bytes(struct.pack("=Q", 1 << 60) * 10)
    os.chmod(tmp_path / "ring", 0o600)
    assert taking(str(tmp_path / "ring")) is None
