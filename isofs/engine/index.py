"""Main's objects by origin point and by inode. Those that the store has are made when somebody first asks for one.

The store may have a hundred thousand, nearly all of which nobody asks for before the daemon ends. Whoever asks finds
what would be there if all had been made at the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from isofs.model.records import Op, Origin

if TYPE_CHECKING:
    from isofs.engine.state import Obj


class ByInode(WeakValueDictionary[int, "Obj"]):
    """Main's objects by inode, for as long as anybody has to do with them: the store with what it has.

    `values` are those that somebody asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unmade: dict[int, Op] = {}
        self.by_op: Mapping[Op, Obj] = {}

    def __getitem__(self, ino: int) -> Obj:
        self._make(ino)
        return super().__getitem__(ino)

    def __setitem__(self, ino: int, obj: Obj) -> None:
        self._make(ino)  # it had the inode before
        super().__setitem__(ino, obj)

    def __contains__(self, ino: object) -> bool:
        return ino in self.unmade or super().__contains__(ino)

    def get(self, ino: int, default: None = None) -> Obj | None:  # type: ignore[override]
        self._make(ino)
        return super().get(ino, default)

    def _make(self, ino: int) -> None:
        if ino in self.unmade:
            self.by_op[self.unmade[ino]]


class ByOp(dict[Op, "Obj"]):
    """The objects that the store has. `values`, and what else goes through all, are those that somebody asked for."""

    def __init__(self, origins: Mapping[Op, Origin], objects: ByInode, root: Obj, new: type[Obj]) -> None:
        super().__init__()
        self._origins, self._objects, self._root, self._new = origins, objects, root, new
        objects.by_op = self

    def __missing__(self, op: Op) -> Obj:
        """Make the object, and the directories above it."""
        way: dict[Op, Origin] = {}  # and not a call for each: depth must not cost stack
        above: Op | None = op
        while above is not None and above not in way and not super().__contains__(above):
            origin = way[above] = self._origins[above]
            above = origin.parent if origin.ino is not None else None
        for origin in way.values():
            self._make(origin)
        for origin in way.values():
            if origin.parent is not None and origin.ino is not None:
                self[origin.op].add_link((self[origin.parent], origin.name))
        return self[op]

    def __contains__(self, op: object) -> bool:
        return op in self._origins or super().__contains__(op)

    def get(self, op: Op | None, default: None = None) -> Obj | None:  # type: ignore[override]
        return default if op is None or op not in self else self[op]

    def clear(self) -> None:
        super().clear()
        self._objects.unmade.clear()

    def expect(self) -> None:
        """From now on whatever has an origin may be asked for. Objects that are known already stay what they are."""
        unmade, known = self._objects.unmade, set(self._objects)
        at_once: list[Op] = []
        for op, origin in self._origins.items():
            ino = origin.ino
            if ino is None:
                continue
            if ino in unmade:  # two of one inode: the first is the second
                at_once += unmade[ino], op
            elif origin.parent is None or ino in known:
                at_once.append(op)
            else:
                unmade[ino] = op
        for op in at_once:
            self[op]

    def _make(self, origin: Origin) -> None:
        if origin.ino is not None and origin.parent is None:
            obj = self._root
        else:
            ino = origin.ino or 0
            self._objects.unmade.pop(ino, None)
            known = self._objects.get(ino)
            obj = known if known is not None and known.kind == origin.kind else self._new(origin.kind, ino)
            if ino:
                self._objects[ino] = obj
        obj.op = origin.op
        self[origin.op] = obj
