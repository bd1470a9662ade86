"""A mount to be fuzzed through its control socket: what is sent as whom, and what must hold after it."""

from __future__ import annotations

import functools
import json
import os
import random
import socket
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from isofs.control import mounts, wire
from support.mount import ALICE, BOB, CAROL, DAVE, Mounted, Person, Worker

#: Groups that every machine has and that nobody needs to be in.
OBSERVERS, DECIDERS = ("daemon", 1), ("bin", 2)

CONFIGURATION = f'[access]\nobserve = "{OBSERVERS[0]}"\ndecide = "{DECIDERS[0]}"\ntwo_person = true\n'

#: What who observes may call, and who decides beyond that; written down here once more, on purpose.
OBSERVABLE = {"status", "changes", "diff", "plan", "conflicts", "attic", "check", "log", "proposals", "suspects"}
DECIDABLE = {"suspect", "innocent", "malicious", "resolve", "markers", "attic_restore", "confirm", "withdraw"}
DECIDABLE |= {"alert", "detector", "decide"}
ROOTS = {"umount", "backup", "attic_purge", "nonsense", "__class__", "handlers", ""}

#: Files that change without a decision: what is recorded, and how SQLite shares memory.
_PASSING = {"log", "isofs.db-shm", "isofs.db-wal"}


def call(name: str, **args: object) -> bytes:
    return wire.encode(wire.Request(name, args))


SEEDS = [
    *(call(name) for name in sorted(OBSERVABLE | DECIDABLE | ROOTS)),
    call("changes", uid=ALICE),
    call("diff", uid=ALICE, paths=["hers"], against="base"),
    call("plan", uid=ALICE, only=["*"], **{"except": ["x"]}),
    call("innocent", uid=ALICE),
    call("innocent", uid=ALICE, only=["hers"]),
    call("malicious", uid=ALICE, reason="\udcff\x1b", by="root", accept=["hers"]),
    call("malicious", uid=ALICE, no_evidence=True, evidence="/tmp/x", pid=1),
    call("resolve", uid=DAVE, user="dave", path="contested", take="suspect"),
    call("resolve", uid=DAVE, user="dave", path="contested", descriptor=0, pid=1),
    call("resolve", uid=DAVE, user="dave", path="", using="external", options=["command=id"]),
    call("markers", uid=DAVE, user="dave", path="contested", using="text", options=[], pid=1, descriptor=2),
    call("conflicts", uid=DAVE),
    call("suspect", uid=CAROL, user="carol", reason="why", handles="refuse"),
    call("suspect", uid=0, user="root"),
    call("confirm", uid=ALICE, anyway=True),
    call("withdraw", uid=ALICE),
    call("decide", uid=ALICE, take=[1], skip=[], dry=True),
    call("attic", before=7, path="d"),
    call("attic_restore", number=1, replace=True, **{"as": "x"}),
    call("attic_purge", older_than=1),
    call("backup", file="/tmp/x", pid=1),
    call("alert", uid=CAROL, user="carol", dry_run=True),
]

_TOKENS = [b"\n", b"\0", b'"', b"\\", b"{", b"}", b"[" * 4000, b"9" * 5000, b"1e999", b"-1", b"null", b"true"]
_TOKENS += [b'"\\ud800"', b"\xff\xfe", b"2147483648", b"18446744073709551616", b'"uid":0,', b'"v":2,', b'"by":"root",']
_TOKENS += [str(uid).encode() for uid in (ALICE, DAVE, BOB)]


def mutated(rng: random.Random, frames: Sequence[bytes]) -> bytes:
    """A frame with some of its bytes changed, as whoever knows the protocol a little would."""
    found = bytearray(rng.choice(frames))
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(7):
            case 0 if found:
                found[at % len(found)] ^= 1 << rng.randrange(8)
            case 1:
                found[at:at] = rng.choice(_TOKENS)
            case 2:
                del found[at : at + rng.choice((1, 2, 8, 64))]
            case 3:
                del found[at:]
            case 4:
                other = rng.choice(frames)
                found[at:] = other[rng.randrange(len(other) + 1) :]
            case 5:
                found[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
            case _:
                found += rng.choice(frames)
    return bytes(found)


def talk(path: str, pieces: Sequence[bytes]) -> bytes:
    """All that the server says to these bytes, sent piece by piece; to be called in a process of whoever sends."""
    said = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(path)
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while more := connection.recv(1 << 16):
                said += more
    return said


class Fuzzed:
    """A mount where alice is isolated and something of dave's waits, and people of all kinds who send."""

    def __init__(self, mount: Mounted, stack: ExitStack) -> None:
        self.mount, self.path = mount, mounts.socket_for(str(mount.path))
        people = {"observer": (OBSERVERS[1],), "decider": (DECIDERS[1],)}
        self.workers = {name: Worker(BOB, groups=groups) for name, groups in people.items()}
        for worker in self.workers.values():
            stack.callback(worker.close)
            worker(os.closerange, 0, 3)  # else what is asked for would be written there
        self.pid = mount.pid

    def say(self, who: str, *pieces: bytes) -> list[dict[str, Any]]:
        """What is answered in the end to each request; everything that must hold of answers is checked."""
        said: bytes = self.workers[who](talk, self.path, pieces)
        answers = [json.loads(line) for line in said.splitlines()]
        found = [answer for answer in answers if "progress" not in answer]
        for line in said.splitlines(keepends=True):
            wire.parse_reply(line)
        for answer in found:
            assert answer["ok"] or answer["error"]["code"] != "internal", answer
        self.check_rights(who, b"".join(pieces), found)
        return found

    def check_rights(self, who: str, sent: bytes, found: list[dict[str, Any]]) -> None:
        """Nothing is answered to whoever may not ask."""
        allowed = OBSERVABLE | (DECIDABLE if who == "decider" else set())
        lines = sent.split(b"\n")[:-1]
        assert len(found) <= len(lines) + 1
        for line, answer in zip(lines, found, strict=False):
            with suppress(ValueError, RecursionError, TypeError, KeyError):
                name = json.loads(line)["call"]
                assert not answer["ok"] or name in allowed, (line, answer)

    @property
    def backing(self) -> Path:
        return Path(f"/proc/{self.pid}/root{self.mount.path}")

    def state(self) -> dict[str, object]:
        """Everything: main, and the store but for what is recorded."""
        return _seen(self.backing, lambda path: path.parts[:2] == (".isofs", "audit") or path.name in _PASSING)

    def undecided(self) -> dict[str, object]:
        """Main, and what suspects have: what one person alone cannot change, but for proposing."""
        return _seen(self.backing, lambda path: path.parts[0] == ".isofs" and path.parts[1:2] != ("versions",))

    def memory(self) -> int:
        """Bytes that the daemon has in memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def alive(self) -> bool:
        """Whether root is answered, by the same daemon, and everything holds."""
        self.mount.check()
        return self.mount.pid == self.pid


def _seen(root: Path, skip: Callable[[Path], bool]) -> dict[str, object]:
    """By path: mode, owner and content; of a database what is in it, wherever SQLite keeps it now."""
    found: dict[str, object] = {}
    for above, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = Path(above, name)
            inside = path.relative_to(root)
            if skip(inside) or (inside.parts[:2] == (".isofs", "versions") and name in directories):
                continue  # a suspect's folder is made when it is first looked for
            at = path.lstat()
            content: bytes | str | None = None
            if name == "isofs.db":
                content = _rows(path.read_bytes(), path.with_name(name + "-wal").read_bytes())
            elif stat.S_ISREG(at.st_mode):
                content = path.read_bytes()
            found[str(inside)] = (at.st_mode, at.st_uid, content)
    return found


@functools.lru_cache(4)
def _rows(database: bytes, log: bytes) -> str:
    """What is in a database with its write-ahead log."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        copy.write_bytes(database)
        Path(folder, "copy-wal").write_bytes(log)
        with closing(sqlite3.connect(copy)) as opened:
            return "\n".join(opened.iterdump())


@contextmanager
def fuzzed(mount: Mounted) -> Iterator[Fuzzed]:
    """Make the mount one that can be fuzzed."""
    with ExitStack() as stack:
        alice, dave, carol = (Person(uid, mount.path) for uid in (ALICE, DAVE, CAROL))
        for person in (alice, dave, carol):
            stack.callback(person.close)
        carol.write("contested", "one\n")
        mount.ask("suspect", uid=DAVE, user="dave")
        dave.write("contested", "two\n")
        carol.write("contested", "three\n")
        mount.ask("innocent", uid=DAVE)
        mount.ask("suspect", uid=ALICE, user="alice")
        alice.write("hers", "secret\n")
        (mount.backing / ".isofs" / "config.toml").write_text(CONFIGURATION)
        assert mount.ask("status")["configuration"] is None
        yield Fuzzed(mount, stack)
