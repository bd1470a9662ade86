"""What the engine holds in memory: objects, nodes, handles, views.

Everything that the store keeps is here as well, so that calls are answered from memory; `batch` changes both.
"""

from __future__ import annotations

import os
import stat
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterator, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Protocol, TypeAlias

from isofs.engine.habits import Habits
from isofs.engine.index import ByInode, ByOp
from isofs.engine.outage import Failure, Trouble
from isofs.engine.quota import Account, Limits, Notice
from isofs.model.records import MAIN, Base, Binding, Change, Decided, Op, Origin, Subject, SubjectId, Version
from isofs.model.vectors import G, Vector, merges
from isofs.store.folder import Store

#: Below it a node of main has its inode's number. From here on the inode numbers are that are told of what only a
#: suspect has, and the ids of the nodes of what the suspect made.
OWN_NUMBERS = 1 << 47

#: Node ids from here on are counted.
FIRST_COUNTED_NODE = 1 << 48

#: The node id of the root. The FUSE protocol's own root, 1, is the directory above it, which nobody comes to
#: (`isofs.fuse.mounting`).
ROOT_NODE = 2

#: Types whose node carries data from one process to another: never shared between views.
CHANNELS = (stat.S_IFIFO, stat.S_IFSOCK)

#: Directory descriptors kept open for reuse, at most.
DIRECTORY_DESCRIPTORS = 512

#: Nodes kept for look-ups that are about to come, at most; more than there are threads at one call.
HELD_NODES = 1024


class Caller(NamedTuple):
    """Who makes a call: the ids of the process, its thread, and its umask."""

    uid: int
    gid: int
    pid: int
    umask: int = 0o022


#: A name in a directory.
Link: TypeAlias = "tuple[Obj, bytes]"


@dataclass(eq=False, slots=True, weakref_slot=True)
class Obj:
    """An object: one file, directory, link, ... whatever its names and versions.

    `ino` is main's inode, 0 while main has none. `op` is 0 until a suspect has to do with it. `links` are the
    names of main's that are known: of a directory the only one, of others at least those in use. `nodes` are those
    that lead to it, one for a view.

    There are as many as the kernel remembers, nearly all with one name and one node: neither takes a table for it.
    """

    kind: int
    ino: int
    op: Op = 0
    links: Collection[Link] = ()  # a dictionary while there are several
    nodes: tuple[Node, ...] = ()

    @property
    def is_dir(self) -> bool:
        return self.kind == stat.S_IFDIR

    def add_link(self, link: Link) -> None:
        if not self.links:
            self.links = (link,)
        elif isinstance(self.links, dict):
            self.links[link] = None
        else:
            self.links = dict.fromkeys((*self.links, link))

    def drop_link(self, link: Link) -> None:
        if isinstance(self.links, dict):
            self.links.pop(link, None)
        elif link in self.links:
            self.links = ()

    def node(self, sid: SubjectId) -> Node | None:
        """The node that leads here in a view."""
        for node in self.nodes:
            if node.sid == sid:
                return node
        return None

    def add_node(self, node: Node) -> None:
        """Let a node lead here, and none of its view that did before."""
        node.obj = self
        self.nodes = (*[other for other in self.nodes if other.sid != node.sid], node)

    def drop_node(self, node: Node) -> None:
        self.nodes = tuple([other for other in self.nodes if other is not node])


@dataclass(eq=False, slots=True)
class Node:
    """What the kernel knows by a number: an object in main's view or in a suspect's.

    `pinned` holds the backing inode open once no name leads to it any more; -1 otherwise. `borrowed` is whether that
    is main's inode, though the node is a suspect's: it may be read, and must be left before it is changed. `told` is
    whether the kernel may keep the attributes of a suspect's node of a file, `stale` whether its pages are out of date
    (`kept`).
    """

    id: int
    sid: SubjectId
    obj: Obj
    lookups: int = 0
    pinned: int = -1
    borrowed: bool = False
    told: bool = False
    stale: bool = False
    handles: Set[Handle] = frozenset()  # a set of its own only while there are any: it takes a fifth of a node's memory

    def add_handle(self, handle: Handle) -> None:
        self.handles = {*self.handles, handle}

    def drop_handle(self, handle: Handle) -> None:
        self.handles = self.handles - {handle} or frozenset()


@dataclass(eq=False, slots=True)
class Handle:
    """An open file.

    `sid` is the view that its writes go to; `before` marks a handle on main's node that a suspect opened before
    the suspicion. `ready` is whether `descriptor` is open the way that the caller asked for: a suspect's is not
    until its first write, which makes the version; it is -1 if there is nothing to read before. `cached` is whether the
    pages that the kernel had of the file when it was opened still hold. `counted` is whether its writing has been
    counted in `G` since the last divergence. Through one that is `revoked` nothing is written until the verdict.
    """

    id: int
    node: Node
    sid: SubjectId
    uid: int
    pid: int
    flags: int
    descriptor: int
    ready: bool = True
    cached: bool = False
    counted: bool = False
    before: bool = False
    revoked: bool = False

    @property
    def writes(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY


class Kernel(Protocol):
    """What the engine asks of whoever caches its answers. Neither call waits for the kernel's locks."""

    def forget_attributes(self, node: int) -> None:
        """The attributes of this node are no longer what was answered."""

    def forget_entry(self, parent: int, name: bytes) -> None:
        """The name in this directory no longer leads to what was answered; may take effect a moment later."""


class NoKernel:
    """For an engine that is not mounted: nobody caches anything."""

    def forget_attributes(self, node: int) -> None:
        pass

    def forget_entry(self, parent: int, name: bytes) -> None:
        pass


@dataclass(eq=False, slots=True)
class View:
    """A suspect's changes: versions by object, bindings by directory and name, and the way back.

    `placed` and `hiding` are the names that lead to an object and those that hide it; `own_directories` and
    `hidden_directories` the names, by directory, that lead to a directory, and those that hide one. `names` is how many
    bindings there are. `moved` are the names that main had, before the merge, for what the merge has renamed; if it was
    `cut_off`, only since it goes on, and `renamed` is what it told to rename before, each with where main had that, if
    it told so.
    """

    sid: SubjectId
    versions: dict[Op, Version] = field(default_factory=dict)
    bindings: dict[Op, dict[bytes, Binding]] = field(default_factory=lambda: defaultdict(dict))
    placed: dict[Op, set[tuple[Op, bytes]]] = field(default_factory=lambda: defaultdict(set))
    hiding: dict[Op, set[tuple[Op, bytes]]] = field(default_factory=lambda: defaultdict(set))
    own_directories: dict[Op, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    hidden_directories: dict[Op, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    touches: dict[Op, int] = field(default_factory=dict)
    decisions: dict[Op, Decided] = field(default_factory=dict)
    habits: Habits = field(default_factory=Habits)
    moved: dict[Op, Link] = field(default_factory=dict)
    cut_off: bool = False
    renamed: dict[Op, bytes | None] = field(default_factory=dict)
    names: int = 0
    account: Account = field(default_factory=Account)

    @property
    def objects(self) -> int:
        """How many objects count as the suspect's: those with a version, or the names, whichever are more."""
        return max(len(self.versions), self.names)

    def binding(self, directory: Op, name: bytes) -> Binding | None:
        names = self.bindings.get(directory)
        return None if names is None else names.get(name)

    def version(self, op: Op) -> Version | None:
        return self.versions.get(op) if op else None

    def all_bindings(self) -> Iterator[Binding]:
        for names in self.bindings.values():
            yield from names.values()

    def concerns(self, op: Op) -> bool:
        """Whether the object has a version, or a name of the suspect's or one that the suspect removed."""
        return op in self.versions or op in self.placed or op in self.hiding

    def put_binding(self, b: Binding, *, to_directory: bool, over_directory: bool) -> None:
        """Add a binding; whether it leads to a directory, and whether it replaced one."""
        self.drop_binding(b)
        self.bindings[b.directory][b.name] = b
        self.names += 1
        if to_directory:
            self.own_directories[b.directory].add(b.name)
        if over_directory:
            self.hidden_directories[b.directory].add(b.name)
        if b.op is not None:
            self.placed[b.op].add((b.directory, b.name))
        if b.replaced is not None:
            self.hiding[b.replaced].add((b.directory, b.name))

    def drop_binding(self, key: Binding) -> None:
        old = self.bindings.get(key.directory, {}).pop(key.name, None)
        if old is None:
            return
        self.names -= 1
        for names in (self.own_directories, self.hidden_directories):
            if old.directory in names:
                names[old.directory].discard(old.name)
                if not names[old.directory]:
                    del names[old.directory]
        if not self.bindings[old.directory]:
            del self.bindings[old.directory]
        for index, op in ((self.placed, old.op), (self.hiding, old.replaced)):
            if op is not None:
                index[op].discard((old.directory, old.name))
                if not index[op]:
                    del index[op]


@dataclass(eq=False, slots=True)
class Filesystem:
    """Everything. `views` are the active suspects', `waiting` those whose merge left conflicts; `store_inside` is
    whether the store's folder lies in the root. `failure` is set while it does without its store (`failure`),
    `trouble` since a change could not be written, until one is; `on_change_of_state` is called at either's change.
    `in_verdict` are the suspects on whose work, or a part of it, a verdict is being carried out, or stopped half way.
    `along` are rows that nothing in memory follows, and that are written with the next transaction.

    `retries`, `handed`, `claims` and `held` serve `redirect`: by thread, what it was told to look up again; by parent
    node and name, the suspect's own node that was answered last; by suspect and thread, the directories that the next
    lookups answer with nodes of its own; the nodes of files that it answers, which are not forgotten before.
    """

    store: Store
    root: Obj
    device: int
    store_inside: bool = False
    kernel: Kernel = field(default_factory=NoKernel)
    limits: Limits = field(default_factory=Limits)
    notify: Callable[[Notice], None] = lambda notice: None
    bases_left_out: int = 0  # copies that merging would be helped by, for which there was no space
    objects: ByInode = field(default_factory=ByInode)
    by_op: ByOp = field(init=False)
    origins: dict[Op, Origin] = field(default_factory=dict)
    bases: dict[tuple[Op, int, int], Base] = field(default_factory=dict)
    referring: Counter[Op] = field(default_factory=Counter)  # by origin: how many origins lie in it and bases are of it
    subjects: dict[SubjectId, Subject] = field(default_factory=dict)
    views: dict[SubjectId, View] = field(default_factory=dict)
    waiting: dict[SubjectId, View] = field(default_factory=dict)
    suspects: dict[int, SubjectId] = field(default_factory=dict)  # by uid
    in_verdict: frozenset[SubjectId] = frozenset()
    nodes: dict[int, Node] = field(default_factory=dict)
    channels: set[Node] = field(default_factory=set)  # main's, of those that carry data between processes
    handles: dict[int, Handle] = field(default_factory=dict)
    descriptors: OrderedDict[Obj, int] = field(default_factory=OrderedDict)
    retries: dict[int, tuple[object, ...]] = field(default_factory=dict)
    looked_up: dict[int, dict[tuple[int, bytes], SubjectId]] = field(default_factory=dict)
    handed: dict[tuple[int, bytes], Node] = field(default_factory=dict)
    claims: dict[SubjectId, dict[int, tuple[Obj, ...]]] = field(default_factory=lambda: defaultdict(dict))
    held: OrderedDict[Node, None] = field(default_factory=OrderedDict)
    failure: Failure | None = None
    trouble: Trouble | None = None
    along: list[Change] = field(default_factory=list)
    on_change_of_state: Callable[[], None] = lambda: None
    next_node: int = FIRST_COUNTED_NODE
    next_handle: int = 1

    def __post_init__(self) -> None:
        self.by_op = ByOp(self.origins, self.objects, self.root, Obj)

    @property
    def isolating(self) -> bool:
        """Whether anybody is isolated or waits for a decision; if not, calls cost nothing extra."""
        return bool(self.views or self.waiting)

    @property
    def all_views(self) -> list[View]:
        """The views of who is isolated, and of whose merge left conflicts."""
        return [*self.views.values(), *self.waiting.values()]

    def vector(self, obj: Obj) -> Vector | None:
        """Main's version vector of an object, None if it does not exist."""
        return self.origins[obj.op].vector if obj.op else None

    def base_of(self, version: Version) -> Base | None:
        """The copy of what a version started from, if main changed since and one was kept."""
        count = version.vector.get(G)
        if not isinstance(count, int):
            return None
        return self.bases.get((version.op, count, merges(version.vector, version.sid)))

    def diverged(self, obj: Obj) -> bool:
        """Whether some active suspect has a version of the object or changed one of its names."""
        return bool(obj.op) and any(view.concerns(obj.op) for view in self.views.values())

    def name_diverged(self, directory: Obj, name: bytes) -> bool:
        """Whether some active suspect has a binding of this name."""
        return bool(directory.op) and any(view.binding(directory.op, name) is not None for view in self.views.values())

    def view_of(self, sid: SubjectId) -> View | None:
        return self.views.get(sid) or self.waiting.get(sid)


def now() -> str:
    """This moment, as times are told."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def node_for(fs: Filesystem, sid: SubjectId, obj: Obj) -> Node:
    """The node of an object in a view, made if there is none yet (with no lookups)."""
    node = obj.node(sid)
    if node is None:
        number = obj.ino if sid == MAIN and ROOT_NODE < obj.ino < OWN_NUMBERS else 0
        if sid and not obj.ino and obj.op:
            number = OWN_NUMBERS + obj.op
        if obj is fs.root and sid == MAIN:
            number = ROOT_NODE
        if not number or number in fs.nodes:
            number = fs.next_node
            fs.next_node += 1
        node = fs.nodes[number] = Node(number, sid, obj)
        obj.add_node(node)
        if obj.kind in CHANNELS and sid == MAIN:
            fs.channels.add(node)
    return node


def drop_if_unused(fs: Filesystem, node: Node) -> None:
    """Forget a node that the kernel does not know and that nothing needs."""
    if node.lookups > 0 or node.handles or node.obj is fs.root or (node in fs.held and node.pinned < 0):
        return
    fs.held.pop(node, None)
    fs.nodes.pop(node.id, None)
    fs.channels.discard(node)
    node.obj.drop_node(node)
    if node.pinned >= 0:
        os.close(node.pinned)
        node.pinned = -1
        view = fs.view_of(node.sid)
        if view is not None:
            view.account.let_go(node)


def hold(fs: Filesystem, node: Node) -> None:
    """Keep a node for the look-up that is about to come, though nobody has looked it up yet.

    Revalidating a name, the kernel looks it up, gives the node back at once, and looks it up again.
    """
    fs.held[node] = None
    fs.held.move_to_end(node)
    if len(fs.held) > HELD_NODES:
        drop_if_unused(fs, fs.held.popitem(last=False)[0])
