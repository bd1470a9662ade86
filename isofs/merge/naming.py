"""Questions about the names of a merge: what stays, what leaves, what is free. Nothing here changes main."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

from isofs.engine import tree
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Obj, View
from isofs.merge import folders, settle
from isofs.merge.plan import is_conflict
from isofs.merge.resolvers import maildirs
from isofs.model.reconcile import Outcome
from isofs.model.records import MOVING as MOVING
from isofs.model.records import Binding, Decided, Op, Told

# Why a name is dealt with as it is, in the words of plans and reports.
MADE = "the suspect made it"
ONE_NAME = "the suspect removed this name"
LINKED = "the suspect gave it this name as well"
UNITED = "both made a directory of this name"
BESIDE = "main has something else under this name: put beside it"
BOTH = "both stay: the suspect's is put beside main's"
RENAMED_SINCE = "the suspect deleted it, but main gave it another name meanwhile: that stays"
FILLED = "the suspect deleted the directory, main has put something in it: it stays"
TOO_MANY = "the file system allows no more names of this file: it has its others, and not this one"
RENAMED_TWICE = "renamed on both sides: main's name stays"
INTO_ITSELF = "main has moved into it what the suspect moved it into: main's names stay"


RENAMED = "the suspect renamed it, it was "


def renamed_from(before: bytes) -> str:
    return RENAMED + os.fsdecode(before)


def told_renamed(told: Iterable[Told]) -> dict[Op, bytes | None]:
    """What was told to get another name in main, and where it was told to have been, if it was."""
    found = dict[Op, bytes | None]()
    for one in told:
        if one.directory and one.reason.startswith(RENAMED):
            found[one.op] = os.fsencode(one.reason.removeprefix(RENAMED))
        elif one.directory and one.action in ("renamed", "merged"):
            found.setdefault(one.op, None)
    return found


def contested(view: View, op: Op) -> bool:
    decided = view.decisions.get(op)
    return decided is not None and is_conflict(decided)


def takes(view: View, op: Op) -> bool:
    decided = view.decisions.get(op)
    return decided is None or decided.outcome == Outcome.TAKE.value


def hidden_names(view: View, obj: Obj) -> bool:
    """Whether the suspect took a name of the object away (and did not only add one)."""
    hidden = (view.binding(*name) for name in view.hiding.get(obj.op, ()))
    return any(b is not None and b.op != obj.op for b in hidden)


def removed_names(fs: Filesystem, view: View, obj: Obj) -> list[tuple[Obj, bytes]]:
    """The names of an object that the suspect removed, and the one under which the merge put it out of the way."""
    bindings = (view.binding(*name) for name in view.hiding.get(obj.op, ()))
    removed = [(fs.by_op[b.directory], b.name) for b in bindings if b is not None and not b.kept]
    return removed + [(directory, name) for directory, name in obj.links if name.startswith(MOVING)]


def leave_names(view: View, obj: Obj, batch: Batch, *, lost: bool = False) -> None:
    """An object of main keeps its names, or has `lost` them all: that the suspect took some is no change any more."""
    if any(name.startswith(MOVING) for _, name in obj.links):
        return  # by what the suspect took, `removing.put_beside_what_stays` knows its name
    for key in sorted(view.hiding.get(obj.op, ())):
        binding = view.binding(*key)
        if binding is None or (binding.kept and not lost) or binding.op == obj.op:
            continue
        if binding.op is None:
            batch.drop(binding)
        else:
            batch.put(replace(binding, replaced=None))


def united(view: View, entry: Binding, directory: Op) -> Binding:
    """An entry of a directory of the suspect's as one of main's directory, in which it may have removed that name."""
    there = view.binding(directory, entry.name)
    removed = there.replaced if there is not None and there.op is None and not there.kept else entry.replaced
    return replace(entry, directory=directory, replaced=removed)


def free_source(fs: Filesystem, view: View, obj: Obj) -> tuple[Obj, bytes] | None:
    """A name of main's that the suspect took from the object, so that it may be renamed away from it."""
    for directory_op, name in sorted(view.hiding.get(obj.op, ())):
        binding = view.binding(directory_op, name)
        directory = fs.by_op[directory_op]
        if binding is None or binding.kept or binding.op == obj.op:
            continue
        found = tree.child(fs, directory, name)
        if found is not None and found[0] is obj:
            return directory, name
    for directory, name in obj.links:
        if name.startswith(MOVING):
            return directory, name
    return None


def into_itself(fs: Filesystem, view: View, binding: Binding, obj: Obj) -> bool:
    """Whether a directory of main's would lie in itself under a name of the suspect's, once all others are in place."""
    way = [fs.by_op[binding.directory]] if obj.is_dir else [fs.root]
    while way[-1] not in (fs.root, obj):
        directory = _directory_then(fs, view, way[-1])
        if directory is None or directory in way:
            return directory is not None
        way.append(directory)
    return way[-1] is obj


def _directory_then(fs: Filesystem, view: View, directory: Obj) -> Obj | None:
    """What a directory will be in; None if that is not known yet."""
    moves = not directory.ino or free_source(fs, view, directory) is not None
    placed = (view.binding(*key) for key in sorted(view.placed.get(directory.op, ())))
    given = next((b for b in placed if b is not None and not (b.kept and directory.ino)), None)
    if moves and given is not None:
        return fs.by_op[given.directory]
    return next((above for above, _ in directory.links), None)


def will_leave(fs: Filesystem, view: View, binding: Binding, there: Obj) -> bool:
    """Whether what main has under the name is what the suspect removed from it or moved away."""
    op = there.op
    if not op or binding.replaced != op or contested(view, op):
        return False
    decided = view.decisions.get(op)
    if op in view.placed:
        placed = (view.binding(*key) for key in view.placed[op])
        return not any(b is not None and not b.kept and into_itself(fs, view, b, there) for b in placed)
    if decided is not None and deleted(fs, view, decided):
        return True
    # Only this name of it: main's object lives on under another.
    return not there.is_dir and not stays_as_it_is(view, op) and tree.located(fs, there)[1].st_nlink > 1


def stays(fs: Filesystem, view: View, binding: Binding, there: Obj) -> bool:
    """Whether what main has under the name stays there, so that the suspect's has to be put beside it."""
    if not will_leave(fs, view, binding, there):
        return True
    return there.op not in view.placed and there.is_dir and not all(left_in(fs, view, there))


def deleted(fs: Filesystem, view: View, decided: Decided) -> bool:
    """Whether the suspect's deletion of an object stands."""
    version = view.version(decided.op)
    late = version is not None and settle.overtaken(fs, version)
    return decided.outcome == Outcome.DELETE.value and not late


def left_in(fs: Filesystem, view: View, directory: Obj) -> Iterator[Obj | None]:
    """What main still has in a directory that is to be deleted, at any depth; None for what will stay there."""
    for name in tree.names(fs, directory):
        found, binding = tree.child(fs, directory, name), view.binding(directory.op, name)
        if found is None:
            if tree.hidden(fs, directory, name):
                yield None
            continue
        if binding is None or binding.kept or not will_leave(fs, view, binding, found[0]):
            yield None
            continue
        yield found[0]
        if found[0].is_dir and found[0].op not in view.placed:
            yield from left_in(fs, view, found[0])


def beside(fs: Filesystem, view: View, directory: Obj, name: bytes, *, but: bytes = b"") -> bytes:
    """`NAME.isofs-USER`, with a number if that is taken, cut to what the file system allows; of MH the next number.

    Not `but`, which is about to be taken.
    """
    number = numbers(fs, view, directory).get(name) if maildirs.is_number(name) else None
    number = number or folders.next_number(fs, view, directory, name)
    if number is not None:
        return number
    user = os.fsencode(fs.subjects[view.sid].name)
    count = 1
    while True:
        end = b".isofs-" + user + (b"" if count == 1 else b"-%d" % count)
        aside = _cut(name, tree.longest_name(fs) - len(end)) + end
        if aside != but and tree.child(fs, directory, aside) is None and not tree.hidden(fs, directory, aside):
            return aside
        count += 1


def if_free(fs: Filesystem, view: View, directory: Obj, name: bytes) -> bytes:
    """A name of which main shows nothing; one beside it if another file system has been mounted there."""
    return beside(fs, view, directory, name) if tree.hidden(fs, directory, name) else name


def numbers(fs: Filesystem, view: View, directory: Obj) -> dict[bytes, bytes]:
    """The numbers that the suspect's messages of an MH folder get, of those whose own main has given to others."""
    if not directory.ino or tree.child(fs, directory, maildirs.SEQUENCES) is None:
        return {}
    there = view.bindings.get(directory.op, {})
    clashing = [name for name, binding in there.items() if maildirs.is_number(name) and _clashes(fs, view, binding)]
    taken = (name for names in (tree.names(fs, directory), there) for name in names) if clashing else ()
    return maildirs.renumber(taken, clashing)


def _clashes(fs: Filesystem, view: View, binding: Binding) -> bool:
    """Whether a name that the suspect gave is something else's in main, and stays that."""
    if binding.op is None or contested(view, binding.op) or not takes(view, binding.op):
        return False
    if binding.kept and fs.by_op[binding.op].ino:
        return False
    found = tree.child(fs, fs.by_op[binding.directory], binding.name)
    return found is not None and found[0].op != binding.op and stays(fs, view, binding, found[0])


def _cut(name: bytes, length: int) -> bytes:
    """The beginning of a name, of no more bytes; never a part of a character, which some file systems refuse."""
    if len(name) <= length:
        return name
    try:
        name.decode()
    except UnicodeDecodeError:
        return name[:length]
    return name[:length].decode(errors="ignore").encode()


def stays_as_it_is(view: View, op: Op) -> bool:
    """Whether no single name of an object may be removed: it is contested, or its deletion is decided as one."""
    version = view.version(op)
    return contested(view, op) or (version is not None and version.state == "d")
