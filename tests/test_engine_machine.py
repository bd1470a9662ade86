"""The unmounted engine against a model and a twin directory: any calls of any users, verdicts in between.

Two users are always trusted, three may come under suspicion at any moment. Every call is made three times: on the
engine, on the model (`support.model`), and, if a trusted user makes it, on a plain directory of the host, the twin.
All must answer the same, errno for errno. After every rule the promises of design section 3 are checked.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from isofs.engine import checks, recovery, suspicion, views
from isofs.engine.state import Caller, Filesystem, Obj
from isofs.errors import AtticFailed
from isofs.merge import apply, contested
from isofs.merge.preview import preview
from isofs.merge.report import Item, Report
from isofs.model.records import MAIN
from isofs.store.folder import open_store
from support import attic, verdicts
from support.acts import ACTS, Actor
from support.engine import CLOCK, Kernel, OpenFile, Walker, killed
from support.host import Host, HostFile, copy_of
from support.model import ModelFile, Thing, Version, View, World
from support.model_calls import ModelUser
from support.trees import Tree, differences, tree, without_times
from support.vfs import EXCHANGE, NOREPLACE, WRITING

TRUSTED = (1001, 1002)
SUSPICIOUS = {1003: "carol", 1004: "dave", 1005: "erin"}
GID = 100
UMASK = 0o022
SINCE = "2026-01-02T03:04:05Z"

#: Everything happens under few names, so that users collide.
NAMES = (b"a", b"b", b"c")
PATHS = [
    *NAMES,
    *(b"/".join((x, y)) for x in NAMES for y in NAMES),
    b"a/b/a",
    b"a/b/c",
    b"b/a/c",
]

#: Most calls are made by those who are suspects now and then.
users = st.sampled_from([*TRUSTED, *SUSPICIOUS, *SUSPICIOUS])
indices = st.integers(0, 15)
#: A path; a number: the path with this number of those that the user sees; or a name in the directory of a number.
seen = st.one_of(indices, indices, indices, st.sampled_from(PATHS))
names = st.tuples(indices, st.sampled_from(NAMES))
places = st.one_of(seen, seen, names)
new_places = st.one_of(seen, names, names, names)
write_flags = st.sampled_from(WRITING)
open_flags = st.one_of(st.just(os.O_RDONLY), write_flags)

#: Names of calls with what they are given beside the path.
attributes = st.one_of(
    st.tuples(st.just("chmod"), st.sampled_from([0o600, 0o640, 0o755])),
    st.tuples(st.just("chown"), users, st.just(GID)),
    st.tuples(st.just("utime"), st.integers(1, 9).map(lambda n: 1_000_000_000_123_456_789 + n * 10**9)),
    st.tuples(st.just("truncate"), st.integers(0, 6)),
    st.tuples(st.just("set_xattr"), st.sampled_from(["user.x", "user.y"]), st.binary(min_size=1, max_size=2)),
    st.tuples(st.just("remove_xattr"), st.sampled_from(["user.x", "user.y"])),
)
uses = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 4)),
    st.tuples(st.just("truncate"), st.integers(0, 6)),
    st.tuples(st.just("read")),
)

Place = int | bytes | tuple[int, bytes]
User = Walker | ModelUser | Host


@dataclass(eq=False)
class Open:
    """One open file, on the engine, in the model and, while a trusted user's, on the twin."""

    uid: int
    engine: OpenFile
    model: ModelFile
    twin: HostFile | None


def told(items: Iterable[Item]) -> list[Item]:
    """All that is said of each object and name, in one order."""
    return sorted(items, key=repr)


def outcome(call: Callable[[], object]) -> object:
    """What a program sees of a call: its result, or the name of its errno."""
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


class Machine(RuleBasedStateMachine):
    """Users at work."""

    def __init__(self) -> None:
        super().__init__()
        os.umask(0)
        self.folder = tempfile.mkdtemp(prefix="isofs-machine-")
        self.main, self.twin = (os.fsencode(f"{self.folder}/{n}") for n in ("main", "twin"))
        for directory in (self.main, self.twin):
            os.mkdir(directory, 0o755)
        self.world = World()
        self.opened: list[Open] = []
        self.written = 0
        self._open_store()
        for path in (b"a", b"a/b"):
            self._mkdir(1001, path)
        for path in (b"b", b"a/a", b"a/b/c"):
            self._write(1001, path, os.O_WRONLY | os.O_CREAT)

    def _open_store(self) -> None:
        store = open_store(f"{self.folder}/main/.isofs")
        self.fs: Filesystem = recovery.open_filesystem(store, f"{self.folder}/main")
        self.kernel = Kernel(self.fs)

    def teardown(self) -> None:
        for opened in self.opened:
            if opened.twin is not None:
                opened.twin.close()
        self.kernel.close()
        recovery.close_filesystem(self.fs)
        shutil.rmtree(self.folder)

    # Who makes a call, and where.

    def _walker(self, uid: int, kernel: Kernel | None = None) -> Walker:
        pid = uid if kernel is None else uid + 10_000
        return Walker(kernel or self.kernel, Caller(uid, GID, pid, UMASK))

    def _modelled(self, uid: int) -> ModelUser:
        return ModelUser(self.world, uid, GID, UMASK)

    def _host(self, uid: int) -> Host:
        return Host(self.twin, Caller(uid, GID, 0, UMASK))

    def _trusted(self, uid: int) -> bool:
        return self.world.view_of(uid) is None

    def _path(self, uid: int, place: Place) -> bytes:
        if isinstance(place, bytes):
            return place
        visible = tree(self._modelled(uid))
        if isinstance(place, int):
            paths = list(visible)
            return paths[place % len(paths)] if paths else b"a"
        directories = [b"", *(path + b"/" for path, item in visible.items() if item.stat.kind == stat.S_IFDIR)]
        return directories[place[0] % len(directories)] + place[1]

    def _call(self, uid: int, call: Callable[[User], object]) -> object:
        """Make a call on everything that should see it; all must answer the same."""
        found = outcome(lambda: call(self._walker(uid)))
        expected = outcome(lambda: call(self._modelled(uid)))
        if self._trusted(uid):
            native = outcome(lambda: call(self._host(uid)))
            assert expected == native, f"the model answers {expected}, the host {native}"
        assert found == expected, f"the engine answers {found} instead of {expected}"
        return found

    def _data(self) -> bytes:
        self.written += 1
        return b"<%d>" % self.written

    def _write(self, uid: int, path: bytes, flags: int, offset: int = 0) -> None:
        data = self._data()
        self._call(uid, lambda user: user.write(path, data, flags, offset))

    # Calls.

    @rule(uid=users, place=places, flags=write_flags, offset=st.integers(0, 4))
    def write(self, uid: int, place: Place, flags: int, offset: int) -> None:
        self._write(uid, self._path(uid, place), flags, offset)

    def _mkdir(self, uid: int, path: bytes) -> None:
        self._call(uid, lambda user: user.mkdir(path))

    @rule(uid=users, place=new_places, kind=st.sampled_from(["directory", "fifo", "a", "b", "nowhere"]))
    def make(self, uid: int, place: Place, kind: str) -> None:
        """Make a directory, a FIFO, or a symbolic link to one of the other names."""
        path = self._path(uid, place)
        if kind == "directory":
            self._mkdir(uid, path)
        elif kind == "fifo":
            self._call(uid, lambda user: user.mkfifo(path))
        else:
            self._call(uid, lambda user: user.symlink(kind.encode(), path))

    @rule(uid=users, place=places, new=new_places)
    def link(self, uid: int, place: Place, new: Place) -> None:
        path, to = self._path(uid, place), self._path(uid, new)
        self._call(uid, lambda user: user.link(path, to))

    @rule(uid=users, place=places)
    def unlink(self, uid: int, place: Place) -> None:
        path = self._path(uid, place)
        self._call(uid, lambda user: user.unlink(path))

    @rule(uid=users, place=places)
    def rmdir(self, uid: int, place: Place) -> None:
        path = self._path(uid, place)
        self._call(uid, lambda user: user.rmdir(path))

    @rule(uid=users, place=places, new=new_places, flags=st.sampled_from([0, 0, 0, NOREPLACE, EXCHANGE]))
    def rename(self, uid: int, place: Place, new: Place, flags: int) -> None:
        path, to = self._path(uid, place), self._path(uid, new)
        self._call(uid, lambda user: user.rename(path, to, flags))

    @rule(uid=users, place=places, what=attributes)
    def change(self, uid: int, place: Place, what: tuple[Any, ...]) -> None:
        path, (name, *values) = self._path(uid, place), what
        self._call(uid, lambda user: getattr(user, name)(path, *values))

    @rule(uid=users, what=st.sampled_from(sorted(ACTS)), one=indices, other=indices)
    def act(self, uid: int, what: str, one: int, other: int) -> None:
        """Do what takes many calls."""
        seen = tree(self._modelled(uid))
        ACTS[what](Actor(seen, lambda call: self._call(uid, call), self._data, NAMES), one, other)

    # Open files.

    @rule(uid=users, place=places, flags=open_flags)
    def open(self, uid: int, place: Place, flags: int) -> None:
        path, flags = self._path(uid, place), flags | os.O_NOFOLLOW
        files: list[Any] = []

        def call(user: User) -> None:
            files.append(user.open(path, flags))

        if self._call(uid, call) is None:
            engine, model, *twin = files
            self.opened.append(Open(uid, engine, model, twin[0] if twin else None))

    @precondition(lambda self: self.opened)
    @rule(index=indices, what=uses)
    def use(self, index: int, what: tuple[Any, ...]) -> None:
        name, *values = what
        if name == "write":
            values.append(self._data())
        self._call_open(index, lambda file: getattr(file, name)(*values))

    def _call_open(self, index: int, call: Callable[[OpenFile | ModelFile | HostFile], object]) -> None:
        opened = self.opened[index % len(self.opened)]
        found = outcome(lambda: call(opened.engine))
        expected = outcome(lambda: call(opened.model))
        if opened.twin is not None:
            twin = opened.twin
            assert expected == outcome(lambda: call(twin))
        assert found == expected, f"{found!r} instead of {expected!r}"

    @precondition(lambda self: self.opened)
    @rule(index=indices)
    def close(self, index: int) -> None:
        opened = self.opened.pop(index % len(self.opened))
        opened.engine.close()
        opened.model.close()
        if opened.twin is not None:
            opened.twin.close()

    @rule()
    def forget(self) -> None:
        """The kernel drops what it has cached."""
        self.kernel.forget()

    # Suspicion and verdicts.

    @initialize(indices=st.sets(indices, max_size=3))
    def suspect_at_once(self, indices: set[int]) -> None:
        for index in sorted(indices):
            self.suspect(index)

    @rule(index=indices)
    def suspect(self, index: int) -> None:
        """Isolate one of those who are not; what waits of an earlier merge goes on waiting."""
        isolated = {view.uid for view in self.world.views.values()}
        free = [uid for uid in SUSPICIOUS if uid not in isolated]
        if free:
            self._suspect(free[index % len(free)])

    def _suspect(self, uid: int) -> None:
        for opened in [o for o in self.opened if o.uid == uid]:
            if opened.model.flags & os.O_ACCMODE == os.O_RDWR:
                self.close(self.opened.index(opened))  # the holder is killed
            elif opened.twin is not None:
                opened.twin.close()
                opened.twin = None
        subject = suspicion.suspect(self.fs, uid, SUSPICIOUS[uid], "an alert", SINCE)
        view = self.world.suspect(uid, SUSPICIOUS[uid])
        assert subject.sid == view.sid

    @precondition(lambda self: self.world.views)
    @rule(index=indices, innocent=st.sampled_from([True, True, False]))
    def decide(self, index: int, innocent: bool) -> None:
        """A verdict on one of the suspects."""
        views = list(self.world.views.values())
        (self._find_innocent if innocent else self._find_malicious)(views[index % len(views)])

    @precondition(lambda self: self.world.waiting)
    @rule(index=indices)
    def discard_what_waits(self, index: int) -> None:
        """A verdict on what an earlier merge left undecided."""
        views = list(self.world.waiting.values())
        self._find_malicious(views[index % len(views)])

    @precondition(lambda self: self.world.waiting)
    @rule(index=indices, choice=st.sampled_from(["main", "suspect", "both"]))
    def settle(self, index: int, choice: str) -> None:
        """Somebody decides what becomes of one thing that waits, and that main has."""
        things = {obj.op: thing for thing, obj in self._pairs().items() if thing.inode is not None}
        waiting = [one for one in contested.waiting(self.fs) if one.op in things]
        if not waiting:
            return
        one = waiting[index % len(waiting)]
        thing, view = things[one.op], self.world.waiting[one.sid]
        if choice == "both" and (thing.is_dir or self.world.links(thing) > 1):
            choice = "suspect"
        others, report = self._other_versions(view), Report()
        before, number = attic.main_of(self.main), self.fs.store.new_number()
        contested.settle_one(self.fs, one, contested.Choice(choice), report)
        contested.finish(self.fs, [one.sid], report)
        attic.check_complete(self.fs, before, attic.main_of(self.main), number)
        verdicts.settle(self.world, view, thing, choice)
        assert self._other_versions(view) == others, "Synchronisation"
        lines = differences(self._main(), tree(self._modelled(1001)))
        assert not lines, "main is not what was chosen\n" + "\n".join(lines)
        copy_of(self.main, self.twin)
        self._follow_on_twin()

    def _find_malicious(self, view: View) -> None:
        others = self._other_versions(view)
        apply.malicious(self.fs, view.sid)
        verdicts.malicious(self.world, view.sid)
        assert self._other_versions(view) == others, "Synchronisation"
        self._follow_on_twin()

    def _find_innocent(self, view: View) -> None:
        seen, others = self._tree(view.uid), self._other_versions(view)
        contents = self._contents(view)
        engine = self.fs.views[view.sid]
        planned = preview(self.fs, engine, apply.states(self.fs, engine))
        before, number = attic.main_of(self.main), self.fs.store.new_number()
        report = apply.innocent(self.fs, view.sid)
        attic.check_complete(self.fs, before, attic.main_of(self.main), number)
        assert told(one.item for one in planned) == told(report.items)
        merge = verdicts.innocent(self.world, view.sid)
        self._check_merge_is_complete(view, contents, report.conflicts)
        if merge.clean:
            main = self._main()
            lines = differences(main, without_times(_forgiven(seen, main)))
            assert not lines, "main is not what the suspect saw\n" + "\n".join(lines)
        kept = self._other_versions(view)
        assert others.items() <= kept.items(), "Synchronisation"
        lines = differences(self._main(), tree(self._modelled(1001)))
        assert not lines, "main is not what the model's merge makes of it\n" + "\n".join(lines)
        copy_of(self.main, self.twin)
        self._follow_on_twin()

    def _other_versions(self, view: View) -> dict[tuple[int, int], object]:
        return {
            (sid, op): (version.state, version.vector, version.content)
            for sid, other in (*self.fs.views.items(), *self.fs.waiting.items())
            for op, version in other.versions.items()
            if sid != view.sid
        }

    def _contents(self, view: View) -> list[bytes]:
        """What the suspect's version files contain now."""
        return [
            version.inode.data
            for thing, version in view.versions.items()
            if version.inode is not None and version.bare is None and thing.kind == stat.S_IFREG
        ]

    def _check_merge_is_complete(self, view: View, contents: list[bytes], conflicts: int) -> None:
        """Nothing-lost, after an innocent verdict."""
        waiting = self.world.waiting.get(view.sid)
        assert conflicts == (0 if waiting is None else len(waiting.versions))
        main = {item.content for item in self._main().values()}
        left = sorted(content for content in contents if content not in main)
        if waiting is not None:
            engine = self.fs.waiting[view.sid]
            kept = [
                self.fs.store.content(view.sid, version.content)
                for op, version in engine.versions.items()
                if version.content is not None and self.fs.origins[op].kind == stat.S_IFREG
            ]
            waiting_contents = {open_content(place.path) for place in kept}
            left = [content for content in left if content not in waiting_contents]
        assert not left, f"lost by the merge: {left}"

    def _follow_on_twin(self) -> None:
        """After a verdict: files of trusted users are open on the twin as they are on main."""
        for opened in self.opened:
            file = opened.model
            if file.sid:
                continue
            path = self._path_in_main(file.thing) if file.inode is file.thing.inode else None
            if path is None:
                continue
            if opened.twin is not None:
                opened.twin.close()
            flags = file.flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC)
            opened.twin = self._host(opened.uid).open(path, flags)

    def _path_in_main(self, thing: Thing) -> bytes | None:
        names = {there: name for name, there in self.world.main_names()}
        parts: list[bytes] = []
        while thing is not self.world.root:
            if thing not in names:
                return None
            thing, name = names[thing]
            parts.append(name)
        return b"/".join(reversed(parts))

    # The attic.

    @rule(index=indices, replace=st.booleans())
    def restore(self, index: int, replace: bool) -> None:
        """Something that a merge took away comes back: as if root had made it, or renamed it over what is there."""
        found = [entry for entry in attic.entries(self.fs) if entry.kind != stat.S_IFLNK]
        if not found:
            return
        entry = found[index % len(found)]
        was, main = attic.kept(self.fs, entry), self._main()
        above, there = main.get(os.path.dirname(entry.path)), main.get(entry.path)
        possible = not os.path.dirname(entry.path) or (above is not None and above.stat.kind == stat.S_IFDIR)
        if there is not None:
            filled = any(path.startswith(entry.path + b"/") for path in main)
            if replace and there.stat.kind == entry.kind == stat.S_IFDIR:
                return  # it would give attributes, which users do one by one
            possible = replace and not filled
        try:
            attic.bring_back(self.fs, entry.number, replace=replace)
        except AtticFailed:
            assert not possible
            return
        assert possible
        assert attic.thing(os.path.join(self.main, entry.path)) == was
        for user in (self._modelled(0), self._host(0)):
            _make_again(user, entry.path, was, None if there is None else there.stat.kind)

    # The daemon is killed and started again.

    @rule()
    def kill(self) -> None:
        killed(self.fs)
        for opened in self.opened:
            opened.model.close()
            if opened.twin is not None:
                opened.twin.close()
        self.opened.clear()
        self._open_store()

    # What must always hold.

    def check_all(self) -> None:
        """Every invariant, for those who drive the machine by hand."""
        for check in (
            self.disclosure,
            self.consistency,
            self.versions,
            self.vectors,
            self.nothing_lost,
            self.nodes_are_known,
            self.store_is_sound,
        ):
            check()

    def _tree(self, uid: int) -> Tree:
        """What a user sees through the engine; the kernel is left as it was."""
        kernel = Kernel(self.fs)
        try:
            return tree(self._walker(uid, kernel))
        finally:
            kernel.close()

    def _main(self) -> Tree:
        return tree(Host(self.main))

    @invariant()
    def disclosure(self) -> None:
        """Main is what it would be if the suspects' calls had never been made."""
        lines = differences(self._main(), tree(Host(self.twin)))
        assert not lines, "main differs from its twin\n" + "\n".join(lines)
        lines = differences(self._tree(TRUSTED[0]), tree(Host(self.twin)))
        assert not lines, "a trusted user sees other than the twin\n" + "\n".join(lines)

    @invariant()
    def consistency(self) -> None:
        """A view is exactly main now, under the suspect's changes."""
        for view in self.world.views.values():
            expected = tree(self._modelled(view.uid))
            lines = differences(_forgiven(self._tree(view.uid), expected), expected)
            assert not lines, f"S{view.sid} sees other than the model\n" + "\n".join(lines)

    @invariant()
    def versions(self) -> None:
        """Every suspect has the versions of Protocol 2, with their states and vectors, and no other."""
        for sid, view in (*self.world.views.items(), *self.world.waiting.items()):
            engine = self.fs.view_of(sid)
            assert engine is not None
            found = sorted((v.state, str(dict(v.vector))) for v in engine.versions.values())
            assert found == sorted(map(_state_and_vector, view.versions.values())), f"the versions of S{sid}"

    @invariant()
    def vectors(self) -> None:
        """Every object has the vectors of Protocol 2, main's and the suspects'."""
        for thing, obj in self._pairs().items():
            vector = self.fs.vector(obj)
            assert (vector and dict(vector)) == thing.vector, f"main's vector of {obj.op}: {vector}"
            for sid, view in self.world.views.items():
                version, expected = self.fs.views[sid].version(obj.op), view.versions.get(thing)
                assert (version and dict(version.vector)) == (expected and expected.vector)

    def _pairs(self) -> dict[Thing, Obj]:
        """The engine's object for each of the model's, by walking all views of both."""
        found: dict[Thing, Obj] = {}
        for sid in (MAIN, *self.world.views):
            view = self.world.views.get(sid)
            ahead = [(self.world.root, self.fs.root)]
            while ahead:
                thing, obj = ahead.pop()
                assert found.setdefault(thing, obj) is obj, "one object of the model is two"
                if not thing.is_dir:
                    continue
                entries = self.world.names[thing] if view is None else view.entries(thing)
                for name, inner in entries.items():
                    child = views.child(self.fs, sid, obj, name)
                    assert child is not None
                    ahead.append((inner, child))
        assert len(set(found.values())) == len(found), "two objects of the model are one"
        return found

    @invariant()
    def nothing_lost(self) -> None:
        """What a suspect wrote, and nobody overwrote, is in the suspect's view."""
        for view in self.world.views.values():
            seen = {item.content for item in self._tree(view.uid).values()}
            assert not [c for c in self._contents(view) if c not in seen]

    @invariant()
    def nodes_are_known(self) -> None:
        """The engine remembers no node but what the kernel knows and what it holds for a look-up to come."""
        known = {*self.kernel.lookups, *(o.engine.handle.node for o in self.opened), *self.fs.held}
        unknown = [n for n in self.fs.nodes.values() if n not in known and n.obj is not self.fs.root]
        assert not unknown

    @invariant()
    def store_is_sound(self) -> None:
        """The numbered invariants of docs/model.md."""
        problems = checks.check(self.fs)
        assert not problems, problems
        above = (origin.parent for origin in self.fs.origins.values() if origin.parent is not None)
        assert self.fs.referring == Counter([*above, *(base.op for base in self.fs.bases.values())])


def _make_again(user: ModelUser | Host, path: bytes, was: attic.Thing, there: int | None) -> None:
    """What restoring is, in calls that users make."""
    kind, is_dir = stat.S_IFMT(was.mode), stat.S_ISDIR(was.mode)
    over = there is not None and not is_dir and there != stat.S_IFDIR
    at = path + b".new" if over else path
    if there is not None and not over:
        (user.rmdir if there == stat.S_IFDIR else user.unlink)(path)
    if is_dir:
        user.mkdir(at)
    elif kind == stat.S_IFIFO:
        user.mkfifo(at)
    else:
        user.write(at, was.content, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    user.chown(at, was.uid, was.gid)
    user.chmod(at, stat.S_IMODE(was.mode))
    for name, value in was.xattrs:
        user.set_xattr(at, name, value)
    if was.mtime_ns is not None and was.mtime_ns < CLOCK:
        user.utime(at, was.mtime_ns)
    if over:
        user.rename(at, path, 0)


def _forgiven(found: Tree, expected: Tree) -> Tree:
    """A tree less one thing that may differ: a link count may be too high, but never too low.

    It is while main has names of the object that are hidden behind names of the suspect's: names that exist, but
    not for this user.
    """
    forgiven = dict(found)
    for path, item in found.items():
        there = expected.get(path)
        if there is not None and item.stat.nlink > there.stat.nlink:
            forgiven[path] = item._replace(stat=item.stat._replace(nlink=there.stat.nlink))
    return forgiven


def open_content(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _state_and_vector(version: Version) -> tuple[str, str]:
    return ("d" if version.inode is None else "m", str(dict(sorted(version.vector.items()))))


_EXAMPLES = settings.default.max_examples if settings.default else 100
Machine.TestCase.settings = settings(max_examples=_EXAMPLES // 4)
TestMachine = Machine.TestCase
