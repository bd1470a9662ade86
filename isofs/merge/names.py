"""Merging names: every object gets the names that the suspect gave it, and nothing of main's is overwritten.

An object that main lacks is brought in by renaming its content to its name; one that main has is renamed or
linked within main. A name that main gave to something else meanwhile is a name conflict: directories are united,
anything else is put beside as `NAME.isofs-USER`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from isofs.engine import main, tree, trusted, views
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Obj, View
from isofs.merge import settle
from isofs.merge.plan import is_conflict
from isofs.merge.report import Item, Report
from isofs.model.reconcile import Outcome
from isofs.model.records import MAIN, Binding, Decided, Op
from isofs.store import inodes

#: Where an object of main's waits for a moment when names form a circle.
MOVING = b".isofs-moving-"

_ONE_NAME = "the suspect removed this name"


class Names:
    """The names of one merge. `place_all` first, then contents, then `remove_all`."""

    def __init__(self, fs: Filesystem, view: View, report: Report) -> None:
        self.fs, self.view, self.report = fs, view, report
        self._born: list[tuple[Obj, int]] = []

    def place_all(self) -> Iterator[None]:
        """Give objects the suspect's names, as soon as the directory is in main and the name is free."""
        self._drop_irrelevant()
        for binding in self._pending():  # of a merge that was cut off between an exchange and its row
            self._note_exchange(binding)
        while True:
            progress = False
            for binding in self._pending():
                if self._place(binding):
                    progress = True
                    yield
            if not progress and not self._break_circle():
                return

    def _pending(self) -> list[Binding]:
        return [b for b in self.view.all_bindings() if b.op is not None]

    def _drop_irrelevant(self) -> None:
        """Names that isofs kept to make the view whole are no change; those of contested objects wait with them."""
        batch = Batch(self.fs)
        for b in list(self.view.all_bindings()):
            contested = b.op is not None and self._contested(b.op)
            returns = b.op is not None and not self.fs.by_op[b.op].ino and self._takes(b.op)
            if contested and not b.kept and b.replaced not in (None, b.op):
                batch.put(replace(b, op=None))  # that the suspect took the name from another object is a change
            elif contested or (b.kept and b.op is not None and not returns):
                batch.drop(b)
        batch.commit()

    def _contested(self, op: Op) -> bool:
        decided = self.view.decisions.get(op)
        return decided is not None and is_conflict(decided)

    def _takes(self, op: Op) -> bool:
        decided = self.view.decisions.get(op)
        return decided is None or decided.outcome == Outcome.TAKE.value

    def _place(self, binding: Binding) -> bool:
        """Try to give one name; whether something was done."""
        fs, view = self.fs, self.view
        if view.binding(binding.directory, binding.name) != binding:
            return False  # what was done before moved it
        directory = fs.by_op[binding.directory]
        assert binding.op is not None
        obj = fs.by_op[binding.op]
        if not directory.ino:
            if binding.directory not in view.placed:
                self._lost_directory(binding)
                return True
            return False
        if obj.ino:
            return self._place_known(binding, directory, obj)
        if not self._takes(binding.op):
            self._done(binding)
            return True
        return self._bring(binding, directory, obj)

    def _lost_directory(self, binding: Binding) -> None:
        """The directory is neither in main nor will it come: the name goes to where the directory was."""
        batch = Batch(self.fs)
        batch.drop(binding)
        batch.put(replace(binding, directory=batch.op_of(self.fs.root)))
        batch.commit()

    def _place_known(self, binding: Binding, directory: Obj, obj: Obj) -> bool:
        """An object of main gets a name of the suspect's: by renaming if the suspect moved it, else by a link."""
        there = tree.child(self.fs, directory, binding.name)
        if there is not None and there[0] is obj:
            self._done(binding)
            return True
        source = self._free_source(obj)
        if source is None and (obj.is_dir or self._hidden_names(obj)):
            where = views.path(self.fs, MAIN, obj) or b"?"
            reason = "renamed on both sides: main's name stays"
            self.report.items.append(Item(where, "kept", reason, True))
            self._done(binding)
            return True
        name = self._name_for(binding, directory, there and there[0])
        if name is None:
            return False
        before = views.path(self.fs, MAIN, obj)
        if source is not None and views.is_below(self.fs, MAIN, directory, obj):
            return False
        given = self._given(binding, name)
        if there is not None and name == binding.name:  # deleted by the suspect: its place is taken over
            (main.rmdir if there[0].is_dir else main.unlink)(self.fs, directory, name, by=self.view.sid)
        if source is None:
            main.link(self.fs, obj, directory, name, by=self.view.sid)
        else:
            main.rename(self.fs, *source, directory, name, by=self.view.sid, lives_on=False)
            settle.expire(self.fs, *source)
        settle.expire(self.fs, directory, name)
        self._report_name(binding, directory, name, "renamed", before)
        self._done(given)
        return True

    def _hidden_names(self, obj: Obj) -> bool:
        """Whether the suspect took a name of the object away (and did not only add one)."""
        hidden = (self.view.binding(*name) for name in self.view.hiding.get(obj.op, ()))
        return any(b is not None and b.op != obj.op for b in hidden)

    def _free_source(self, obj: Obj) -> tuple[Obj, bytes] | None:
        """A name of main's that the suspect took from the object, so that it may be renamed away from it."""
        for directory_op, name in sorted(self.view.hiding.get(obj.op, ())):
            binding = self.view.binding(directory_op, name)
            directory = self.fs.by_op[directory_op]
            if binding is None or binding.kept or binding.op == obj.op:
                continue
            found = tree.child(self.fs, directory, name)
            if found is not None and found[0] is obj:
                return directory, name
        for directory, name in obj.links:
            if name.startswith(MOVING):
                return directory, name
        return None

    def _bring(self, binding: Binding, directory: Obj, obj: Obj) -> bool:
        """An object that main lacks is brought in under the name."""
        fs, view = self.fs, self.view
        version = view.version(obj.op)
        if version is None or not views.content_exists(fs, view.sid, obj):
            self._done(binding)
            return True
        assert version.content is not None
        there = tree.child(fs, directory, binding.name)
        if there is not None and there[0].is_dir and obj.is_dir and not self._will_leave(binding, there[0]):
            self._unite(binding, obj, there[0])
            return True
        name = self._name_for(binding, directory, there and there[0])
        if name is None:
            return False
        given = self._given(binding, name)
        content = settle.beside_main(fs, fs.store.content(view.sid, version.content))
        to = main.at(fs, directory, name)
        found = inodes.lstat(content)
        occupied = tree.child(fs, directory, name)
        if occupied is not None:  # deleted by the suspect: its place is taken over
            (main.rmdir if occupied[0].is_dir else main.unlink)(fs, directory, name, by=view.sid)
        decided = view.decisions.get(obj.op)
        announced = replace(
            fs.origins[obj.op],
            parent=directory.op,
            name=name,
            vector=settle.merged_now(fs, decided) if decided is not None else None,
            next_ino=found.st_ino,
        )
        batch = Batch(fs)
        batch.put(announced)
        trusted.comes_back(fs, directory, name, obj, batch, by=view.sid)
        batch.commit()
        main.renameat2(content, to, 0)
        batch.put(replace(announced, ino=found.st_ino, next_ino=None, born=None))
        batch.drop(version)
        if decided is not None:
            batch.drop(decided)
        batch.commit()
        obj.ino = found.st_ino
        fs.objects[obj.ino] = obj
        obj.links = {(directory, name): None}
        if obj.is_dir:
            self._born.append((obj, found.st_mtime_ns))
        settle.promote(fs, view, obj)
        settle.expire(fs, directory, name)
        action = "restored" if decided is not None else "took"
        reason = decided.reason if decided is not None else "the suspect made it"
        self._report_name(binding, directory, name, action, None, reason, decided is not None)
        self._done(given)
        return True

    def _unite(self, binding: Binding, obj: Obj, there: Obj) -> None:
        """Two directories of one name become one: main's, with the suspect's entries beside main's."""
        fs, view = self.fs, self.view
        version = view.version(obj.op)
        batch = Batch(fs)
        to = batch.op_of(there)
        for entry in list(view.bindings.get(obj.op, {}).values()):
            batch.drop(entry)
            batch.put(replace(entry, directory=to))
        batch.drop(binding)
        if version is not None:
            batch.drop(version)
        decided = view.decisions.get(obj.op)
        if decided is not None:
            batch.drop(decided)
        batch.commit()
        if version is not None and version.content is not None:
            inodes.remove(fs.store.content(view.sid, version.content))
        node = obj.nodes.pop(view.sid, None)
        if node is not None:  # who works in the suspect's directory goes on in the common one
            node.obj = there
            there.nodes.setdefault(view.sid, node)
        where = views.path(fs, MAIN, there) or b""
        self.report.items.append(Item(where, "united", "both made a directory of this name"))

    def _will_leave(self, binding: Binding, there: Obj) -> bool:
        """Whether what main has under the name is what the suspect removed from it or moved away."""
        op = there.op
        if not op or binding.replaced != op or self._contested(op):
            return False
        decided = self.view.decisions.get(op)
        if op in self.view.placed or (decided is not None and self._deleted(decided)):
            return True
        # Only this name of it: main's object lives on under another.
        return not there.is_dir and not self._stays_as_it_is(op) and tree.located(self.fs, there)[1].st_nlink > 1

    def _deleted(self, decided: Decided) -> bool:
        """Whether the suspect's deletion of an object stands."""
        version = self.view.version(decided.op)
        late = version is not None and settle.overtaken(self.fs, version)
        return decided.outcome == Outcome.DELETE.value and not late

    def _name_for(self, binding: Binding, directory: Obj, there: Obj | None) -> bytes | None:
        """The name to use: the suspect's, one beside it if main's stays there, or None: not yet."""
        if there is None:
            return binding.name
        if not self._will_leave(binding, there):
            return self._beside(directory, binding.name)
        if there.op in self.view.placed:
            return None
        if there.is_dir:
            left = list(self._left_in(there))
            if not all(left):
                return self._beside(directory, binding.name)
            if any(found.op in self.view.placed for found in left if found):
                return None
            self._clear(there)
        return binding.name

    def _left_in(self, directory: Obj) -> Iterator[Obj | None]:
        """What main still has in a directory that is to be deleted, at any depth; None for what will stay there."""
        for name in tree.names(self.fs, directory):
            found, binding = tree.child(self.fs, directory, name), self.view.binding(directory.op, name)
            if found is None:
                continue
            if binding is None or binding.kept or not self._will_leave(binding, found[0]):
                yield None
                continue
            yield found[0]
            if found[0].is_dir and found[0].op not in self.view.placed:
                yield from self._left_in(found[0])

    def _clear(self, directory: Obj) -> None:
        """Delete all that main has in a directory, as the suspect did."""
        for name in list(tree.names(self.fs, directory)):
            found = tree.child(self.fs, directory, name)
            if found is None:
                continue
            obj, path = found[0], views.path(self.fs, MAIN, found[0]) or b""
            if obj.is_dir:
                self._clear(obj)
            (main.rmdir if obj.is_dir else main.unlink)(self.fs, directory, name, by=self.view.sid)
            settle.expire(self.fs, directory, name)
            decided = self.view.decisions.get(obj.op)
            if decided is None:
                self.report.items.append(Item(path, "deleted", _ONE_NAME))
            else:
                self.report.items.append(Item(path, "deleted", decided.reason, decided.review))

    def _beside(self, directory: Obj, name: bytes) -> bytes:
        """`NAME.isofs-USER`, with a number if that is taken, cut to what the file system allows."""
        user = os.fsencode(self.fs.subjects[self.view.sid].name)
        count = 1
        while True:
            end = b".isofs-" + user + (b"" if count == 1 else b"-%d" % count)
            aside = name[: 255 - len(end)] + end
            if tree.child(self.fs, directory, aside) is None:
                return aside
            count += 1

    def _report_name(
        self,
        binding: Binding,
        directory: Obj,
        name: bytes,
        action: str,
        before: bytes | None,
        reason: str = "the suspect renamed it",
        review: bool = False,
    ) -> None:
        above = views.path(self.fs, MAIN, directory)
        wanted = above + b"/" + binding.name if above else binding.name
        if name != binding.name:
            aside = above + b"/" + name if above else name
            reason = "main has something else under this name: put beside it"
            self.report.items.append(Item(wanted, "renamed", reason, True, aside))
        elif action == "renamed" and before is not None:
            self.report.items.append(Item(wanted, action, f"{reason}, it was {os.fsdecode(before)}", review))
        else:
            self.report.items.append(Item(wanted, action, reason, review))

    def _given(self, binding: Binding, name: bytes) -> Binding:
        """The binding with the name that will be used, written down before: a merge that goes on uses the same."""
        if name == binding.name:
            return binding
        given = replace(binding, name=name, replaced=None)
        batch = Batch(self.fs)
        batch.put(given)
        batch.commit()
        self._done(binding)
        return given

    def _done(self, binding: Binding) -> None:
        """The name has been dealt with; that main's object of this name was taken away stays to be done."""
        batch = Batch(self.fs)
        if binding.replaced is not None and binding.replaced != binding.op:
            batch.put(replace(binding, op=None))
        else:
            batch.drop(binding)
        batch.commit()

    def _break_circle(self) -> bool:
        """No name can be given before another: let two objects change places, or move one away for a moment."""
        for binding in self._pending():
            directory = self.fs.by_op[binding.directory]
            there = tree.child(self.fs, directory, binding.name) if directory.ino else None
            if there is None or not self._will_leave(binding, there[0]):
                continue
            if self._change_places(binding, directory, there[0]):
                return True
            aside = MOVING + b"%d" % there[0].op
            main.rename(self.fs, directory, binding.name, directory, aside, by=self.view.sid, lives_on=False)
            settle.expire(self.fs, directory, binding.name)
            return True
        return False

    def _change_places(self, binding: Binding, directory: Obj, there: Obj) -> bool:
        """Give an object of main its name by an exchange with what will leave it, if that is possible."""
        fs = self.fs
        assert binding.op is not None
        obj = fs.by_op[binding.op]
        source = self._free_source(obj) if obj.ino else None
        if source is None or source[1].startswith(MOVING):
            return False
        if views.is_below(fs, MAIN, directory, obj) or views.is_below(fs, MAIN, source[0], there):
            return False
        before = views.path(fs, MAIN, obj)
        main.rename(fs, *source, directory, binding.name, main.RENAME_EXCHANGE, by=self.view.sid)
        for at, name in (source, (directory, binding.name)):
            settle.expire(fs, at, name)
        self._note_exchange(binding)
        self._report_name(binding, directory, binding.name, "renamed", before)
        self._done(binding)
        return True

    def _note_exchange(self, binding: Binding) -> None:
        """If an object has its name in exchange for what was there: that has to leave the place where it is now."""
        fs, replaced = self.fs, binding.replaced
        if replaced in (None, binding.op) or replaced not in fs.by_op:
            return
        there = tree.child(fs, fs.by_op[binding.directory], binding.name)
        if there is None or there[0].op != binding.op:
            return
        batch = Batch(fs)
        for directory, name in fs.by_op[replaced].links:
            vacated = self.view.binding(directory.op, name)
            if vacated is not None and vacated.replaced == binding.op:
                batch.put(replace(vacated, replaced=replaced))
        batch.commit()

    def put_beside_what_stays(self) -> None:
        """After the deletions: what was moved out of the way and is not deleted after all is put beside its name."""
        for op, names in list(self.view.hiding.items()):
            obj = self.fs.by_op[op]
            for directory, name in list(obj.links):
                if name.startswith(MOVING):
                    aside = self._beside(directory, min(name for _, name in names))
                    main.rename(self.fs, directory, name, directory, aside, by=self.view.sid, lives_on=False)
                    settle.expire(self.fs, directory, name)
                    path = views.path(self.fs, MAIN, obj) or b""
                    reason = "main has put something in it: it stays, the suspect has its name"
                    self.report.items.append(Item(path, "kept", reason, True))

    def remove_all(self) -> None:
        """Take from objects of main the names that the suspect took, where the object lives on."""
        for binding in list(self.view.all_bindings()):
            if binding.op is not None or binding.kept or binding.replaced is None:
                continue
            if binding.replaced in self.view.decisions and self._stays_as_it_is(binding.replaced):
                continue
            batch = Batch(self.fs)
            batch.drop(binding)
            directory = self.fs.by_op[binding.directory]
            obj = self.fs.by_op.get(binding.replaced)
            found = tree.child(self.fs, directory, binding.name)
            if obj is None or found is None or found[0] is not obj or obj.is_dir:
                batch.commit()
                continue
            if found[1].st_nlink > 1:
                main.unlink(self.fs, directory, binding.name, by=self.view.sid)
                settle.expire(self.fs, directory, binding.name)
                where = views.path(self.fs, MAIN, directory)
                path = where + b"/" + binding.name if where else binding.name
                self.report.items.append(Item(path, "deleted", _ONE_NAME))
            batch.commit()

    def _stays_as_it_is(self, op: Op) -> bool:
        """Whether no single name of an object may be removed: it is contested, or its deletion is decided as one."""
        version = self.view.version(op)
        return self._contested(op) or (version is not None and version.state == "d")

    def restore_times(self) -> None:
        """Directories that were brought in have the time stamp that the suspect's view had, not the merge's."""
        for obj, mtime_ns in reversed(self._born):
            if obj.ino:
                at = tree.place(self.fs, obj)
                found = inodes.lstat(at)
                os.utime(at.name, ns=(found.st_atime_ns, mtime_ns), dir_fd=at.directory, follow_symlinks=False)
