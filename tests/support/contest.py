"""An unmounted engine over some files, suspects and a trusted user who change them, and verdicts with resolvers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from isofs.engine import recovery, suspicion
from isofs.engine.state import Caller, Filesystem
from isofs.merge import apply, config, resolving
from isofs.merge.plan import is_conflict, plan
from isofs.merge.preview import preview
from isofs.merge.report import Item, Report
from isofs.merge.resolving import Resolution
from isofs.model.records import Op
from isofs.model.vectors import Vector
from isofs.store.folder import open_store
from support.engine import Kernel, Walker, killed

BOB = 1002


def proposals(fs: Filesystem, sid: int, rules: str = "", *, write: bool = True) -> dict[Op, Resolution]:
    """What resolvers propose of a suspect's conflicts, as the daemon asks them."""
    view, using, found = fs.views[sid], config.parse(rules), {}
    for op in [one.op for one in plan(sid, apply.states(fs, view)) if is_conflict(one)]:
        with resolving.gathered(fs, view, op, using) as sides:
            if sides is not None:
                to = fs.store.content(sid, f"{op}.merged") if write else None
                found[op] = resolving.propose(sides, using, fs.subjects[sid].name, to)
    return found


class Contest:
    """bob is trusted; the suspects, by name, are numbered from 1 in their order."""

    def __init__(self, path: Path, files: Mapping[str, bytes], suspects: tuple[str, ...] = ("alice",)) -> None:
        os.umask(0)
        self.path = path
        path.mkdir()
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        self.fs: Filesystem = recovery.open_filesystem(open_store(str(path / ".isofs")), str(path))
        self._kernel = Kernel(self.fs)
        self.bob = Walker(self._kernel, Caller(BOB, 100, 1, 0o022))
        self.suspects: dict[str, Walker] = {}
        for name in suspects:
            self.join(name)

    def join(self, name: str) -> Walker:
        """Somebody more is suspected."""
        number = len(self.suspects) + 1
        suspicion.suspect(self.fs, 1010 + number, name, "", "2026-01-02T03:04:05Z")
        self.suspects[name] = Walker(self._kernel, Caller(1010 + number, 100, 1 + number, 0o022))
        return self.suspects[name]

    def sid(self, name: str = "alice") -> int:
        return list(self.suspects).index(name) + 1

    def write(self, user: Walker, content: bytes, path: str = "file") -> None:
        user.write(os.fsencode(path), content, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def ask(self, name: str = "alice", rules: str = "", *, write: bool = True) -> dict[Op, Resolution]:
        return proposals(self.fs, self.sid(name), rules, write=write)

    def planned(self, name: str = "alice", rules: str = "") -> list[Item]:
        view = self.fs.views[self.sid(name)]
        found = preview(self.fs, view, apply.states(self.fs, view), self.ask(name, rules, write=False))
        return [one.item for one in found]

    def innocent(self, found: Mapping[Op, Resolution] | None = None, name: str = "alice") -> Report:
        return apply.innocent(self.fs, self.sid(name), self.ask(name) if found is None else found)

    def waiting(self) -> list[bytes]:
        """The contents that wait for a decision."""
        return [
            Path(os.fsdecode(self.fs.store.content(sid, version.content).path)).read_bytes()
            for sid, view in self.fs.waiting.items()
            for version in view.versions.values()
            if version.content is not None
        ]

    def main(self) -> dict[str, bytes]:
        """Main's files and their contents."""
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and ".isofs" not in path.parts
        }

    def vector(self, path: str) -> Vector | None:
        """Main's vector of what it has at a path."""
        obj = self.fs.objects.get((self.path / path).stat().st_ino)
        return None if obj is None or not obj.op else self.fs.vector(obj)

    def start_again(self) -> None:
        """The daemon is killed, and the store opened anew; nobody has anything open any more."""
        killed(self.fs)
        self.fs = recovery.open_filesystem(open_store(str(self.path / ".isofs")), str(self.path))

    def close(self) -> None:
        recovery.close_filesystem(self.fs)
