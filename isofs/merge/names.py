"""Merging names: every object gets the names that the suspect gave it, and nothing of main's is overwritten.

An object that main lacks is brought in by renaming its content to its name; one that main has is renamed or
linked within main. A name that main gave to something else meanwhile is a name conflict: directories are united,
anything else is put beside as `NAME.isofs-USER`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import replace

from isofs.engine import attic, main, tree, trusted, views
from isofs.engine.batch import Batch
from isofs.engine.state import Filesystem, Obj, View
from isofs.merge import folders, naming, places, removing, sequences, settle, uniting
from isofs.merge.report import Item, Report
from isofs.merge.resolvers import maildirs
from isofs.merge.telling import Telling
from isofs.model.records import MAIN, Binding, Op
from isofs.store import inodes
from isofs.store.inodes import Place


class Names:
    """The names of one merge. `place_all` first, then contents, then what `isofs.merge.removing` does.

    `review` is whether somebody should look at what is told of them, if whoever merges knows that.
    """

    def __init__(self, fs: Filesystem, view: View, report: Report, review: bool | None = None) -> None:
        self.fs, self.view, self.report = fs, view, report
        self._telling = Telling(fs, view, report, review)
        self._born: list[tuple[Obj, int]] = []
        before = list(report.all_told(view.sid))  # also before the merge was cut off
        self._renamed = {one.op for one in before if one.reason.startswith(naming.RENAMED)}
        self._patient = True  # whether directories that are to be united wait for names that main's of them gets

    def number_all(self) -> None:
        """Give numbers to the suspect's messages of MH folders whose own main has given to others."""
        for op in list(self.view.bindings):
            directory = self.fs.by_op[op]
            for name, number in naming.numbers(self.fs, self.view, directory).items():
                binding = self.view.bindings[op][name]
                self._telling.name(binding, directory, number, "renamed", naming.BESIDE, review=True)
                self._given(binding, number)

    def place_all(self) -> Iterator[None]:
        """Give objects the suspect's names, as soon as the directory is in main and the name is free."""
        self._patient = True
        self._drop_irrelevant()
        self._drop_circles()
        for binding in self._pending() if self.view.cut_off else ():  # perhaps between an exchange and its row
            self._note_exchange(binding)
        while True:
            progress = False
            for binding in self._pending():
                if self._place(binding):
                    progress = True
                    yield
            if not progress and not self._break_circle():
                if not self._patient:
                    return
                self._patient = False

    def _pending(self) -> list[Binding]:
        return [b for b in self.view.all_bindings() if b.op is not None and not naming.contested(self.view, b.op)]

    def bring_back(self, op: Op) -> None:
        """Give one object that main lacks its name; if its directory is not there either, in the root."""
        for key in sorted(self.view.placed.get(op, ())):
            binding = self.view.binding(*key)
            if binding is not None:
                there = self.fs.by_op[binding.directory].ino
                self._place(binding if there else self._lost_directory(binding))

    def _drop_irrelevant(self) -> None:
        """Names that isofs kept to make the view whole are no change; those of contested objects wait with them."""
        batch = Batch(self.fs)
        for b in list(self.view.all_bindings()):
            contested = b.op is not None and naming.contested(self.view, b.op)
            lacking = b.op is not None and not self.fs.by_op[b.op].ino
            if contested and b.kept and lacking:
                continue  # where it comes back if the suspect's is taken
            returns = b.op is not None and naming.takes(self.view, b.op) and (lacking or self._came_back(b.op))
            if contested and not b.kept and b.replaced not in (None, b.op):
                batch.put(replace(b, op=None))  # that the suspect took the name from another object is a change
            elif contested or (b.kept and b.op is not None and not returns):
                batch.drop(b)
        batch.commit()

    def _drop_circles(self) -> None:
        """Directories that both sides moved so that each would be in the other keep main's names."""
        fs, view = self.fs, self.view
        known = ((b, fs.by_op[b.op]) for b in self._pending() if b.op is not None and fs.by_op[b.op].ino)
        circles = [(b, obj) for b, obj in known if naming.into_itself(fs, view, b, obj)]
        batch = Batch(fs)
        for binding, obj in circles:
            self._telling.tell(binding, Item(attic.where(fs, view, obj), "kept", naming.INTO_ITSELF, True))
            batch.put(replace(binding, op=None)) if binding.replaced not in (None, obj.op) else batch.drop(binding)
        batch.commit()
        for _, obj in circles:
            batch = Batch(fs)
            naming.leave_names(view, obj, batch)
            batch.commit()

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
        if not naming.takes(self.view, binding.op):
            self._done(binding)
            return True
        return self._bring(binding, directory, obj)

    def _lost_directory(self, binding: Binding) -> Binding:
        """The directory is neither in main nor will it come: the name goes to where the directory was."""
        assert binding.op is not None
        self.report.take_back(self.fs, self.view.sid, binding.op, (binding.directory, binding.name))
        batch = Batch(self.fs)
        batch.drop(binding)
        found = replace(binding, directory=batch.op_of(self.fs.root))
        batch.put(found)
        batch.commit()
        return found

    def _place_known(self, binding: Binding, directory: Obj, obj: Obj) -> bool:
        """An object of main gets a name of the suspect's: by renaming if the suspect moved it, else by a link."""
        there = tree.child(self.fs, directory, binding.name)
        if there is not None and there[0] is obj:
            told, batch = self.report.told(self.view.sid, obj.op, (binding.directory, binding.name)), Batch(self.fs)
            if told is None:
                self._note_mains_own(obj)
            else:
                self._vacated(obj, batch)
            self._done(binding, batch)
            return True
        source = naming.free_source(self.fs, self.view, obj)
        if source is None and (obj.is_dir or naming.hidden_names(self.view, obj)):
            self._merge_flags(binding, obj)
            self._done(binding)
            return True
        name = self._name_for(binding, directory, there and there[0])
        if name is None:
            return False
        if source is not None and views.is_below(self.fs, MAIN, directory, obj):
            return False
        if source is not None or obj.op in self._renamed:
            self._telling.renamed(binding, directory, name)
        else:
            self._telling.name(binding, directory, name, *self._telling.linked(binding))
        given = self._given(binding, name)
        if there is not None and name == binding.name:  # deleted by the suspect: its place is taken over
            removing.remove(self.fs, self.view, self.report, directory, name, there[0])
        if source is None:
            if self._came_back(obj.op):
                batch = Batch(self.fs)
                trusted.comes_back(self.fs, directory, name, obj, batch, by=self.view.sid)
                batch.commit()
            try:
                main.link(self.fs, obj, directory, name, by=self.view.sid)
            except OSError as error:
                if error.errno != errno.EMLINK:
                    raise
                self._telling.name(given, directory, name, "kept", naming.TOO_MANY, review=True)
                self._done(given)
                return True
        else:
            self._note_before(obj)
            main.rename(self.fs, *source, directory, name, by=self.view.sid, lives_on=False)
            settle.expire(self.fs, *source)
            self._renamed.add(obj.op)
        settle.expire(self.fs, directory, name)
        batch = Batch(self.fs)
        if source is not None:
            self._vacated(obj, batch)
        self._done(given, batch)
        return True

    def _note_before(self, obj: Obj) -> None:
        """Main is about to rename an object: remember which name it had before the merge."""
        self.view.moved.setdefault(obj.op, attic.before(self.fs, self.view, obj))

    def _note_mains_own(self, obj: Obj) -> None:
        """Main gave a directory the suspect's name by itself: it had that before the merge, and no other."""
        if obj.is_dir:
            batch = Batch(self.fs)
            naming.leave_names(self.view, obj, batch)
            batch.commit()

    def _vacated(self, obj: Obj, batch: Batch) -> None:
        """The merge has renamed an object from a name that the suspect took: it can get its other new names by links.

        The name is one that main has no more. If main took another away by itself, it does not matter which of both is
        not asked for any more. A directory's is remembered until the end: main had there what is below it.
        """
        if obj.is_dir:
            return
        for at, name in sorted(self.view.hiding.get(obj.op, ())):
            binding, directory = self.view.binding(at, name), self.fs.by_op[at]
            if binding is None or binding.kept or binding.op == obj.op:
                continue
            there = tree.child(self.fs, directory, name) if directory.ino else None
            if there is not None and there[0] is obj:
                continue
            if binding.op is None:
                batch.drop(binding)
            else:
                batch.put(replace(binding, replaced=None))
            return

    def _merge_flags(self, binding: Binding, obj: Obj) -> None:
        """What both sides renamed keeps main's name, but a message of a Maildir gets one with both sides' flags."""
        fs, (source, *_) = self.fs, tree.links(self.fs, obj)
        merged = folders.flagged(fs, self.view, binding, obj)
        if merged is None or (merged != source and tree.child(fs, *merged) is not None):
            self._telling.tell(binding, Item(attic.where(fs, self.view, obj), "kept", naming.RENAMED_TWICE, True))
            return
        self._telling.tell(binding, Item(places.name_in(fs, self.view, *merged), "merged", folders.FLAGS))
        if merged != source:
            self._note_before(obj)
            main.rename(fs, *source, *merged, by=self.view.sid, lives_on=False)
            settle.expire(fs, *source)
            settle.expire(fs, *merged)

    def _bring(self, binding: Binding, directory: Obj, obj: Obj) -> bool:
        """An object that main lacks is brought in under the name."""
        fs, view = self.fs, self.view
        version = view.version(obj.op)
        if version is None or not views.content_exists(fs, view.sid, obj):
            self.report.take_back(fs, view.sid, obj.op, (binding.directory, binding.name))
            self._done(binding)
            return True
        assert version.content is not None
        there = tree.child(fs, directory, binding.name)
        if there is not None and there[0].is_dir and obj.is_dir and naming.stays(self.fs, self.view, binding, there[0]):
            if self._patient and uniting.collide(view, obj, there[0]):
                return False
            uniting.unite(fs, view, self._telling, binding, obj, there[0])
            return True
        name = self._name_for(binding, directory, there and there[0])
        if name is None:
            return False
        decided = view.decisions.get(obj.op)
        action = "restored" if decided is not None else "took"
        reason = decided.reason if decided is not None else naming.MADE
        words = action, reason, decided is not None
        self._telling.name(binding, directory, name, *self._telling.brought(binding, words))
        given = self._given(binding, name)
        content = settle.beside_main(fs, fs.store.content(view.sid, version.content))
        to = main.at(fs, directory, name)
        found = inodes.lstat(content)
        occupied = tree.child(fs, directory, name)
        if occupied is not None:  # deleted by the suspect: its place is taken over
            removing.remove(self.fs, self.view, self.report, directory, name, occupied[0])
        announced = replace(
            fs.origins[obj.op],
            parent=directory.op,
            name=name,
            vector=settle.merged_now(fs, decided) if decided is not None else None,
            next_ino=found.st_ino,
        )
        batch = Batch(fs)
        batch.put(announced)
        naming.leave_names(view, obj, batch, lost=True)  # whoever took them
        trusted.comes_back(fs, directory, name, obj, batch, by=view.sid)
        with trusted.announced(fs, obj, merging=True):
            batch.commit(lasting=True)
            main.renameat2(content, to, 0)
        batch.put(replace(announced, ino=found.st_ino, next_ino=None, born=None))
        batch.drop(version)
        if decided is not None and len(view.placed.get(obj.op, ())) < 2:
            batch.drop(decided)
        batch.commit()
        obj.ino = found.st_ino
        fs.objects[obj.ino] = obj
        obj.links = ((directory, name),)
        if obj.is_dir:
            self._born.append((obj, found.st_mtime_ns))
        settle.promote(fs, view, obj)
        settle.expire(fs, directory, name)
        self._done(given)
        return True

    def _came_back(self, op: Op) -> bool:
        """Whether the merge has brought back what main had lost: what is decided of it outlives the version, while it
        has more names to get."""
        return op in self.view.decisions and self.view.version(op) is None

    def _name_for(self, binding: Binding, directory: Obj, there: Obj | None) -> bytes | None:
        """The name to use: the suspect's, one beside it if main's stays there, or None: not yet."""
        if there is None:
            return naming.if_free(self.fs, self.view, directory, binding.name)
        if naming.stays(self.fs, self.view, binding, there):
            return naming.beside(self.fs, self.view, directory, binding.name)
        if there.op in self.view.placed:
            return None
        if there.is_dir:
            left = naming.left_in(self.fs, self.view, there)
            if any(found.op in self.view.placed for found in left if found):
                return None
            removing.clear(self.fs, self.view, self.report, there)
        return binding.name

    def _given(self, binding: Binding, name: bytes) -> Binding:
        """The binding with the name that will be used, written down before: a merge that goes on uses the same."""
        if name == binding.name:
            return binding
        given = replace(binding, name=name, replaced=None)
        batch, left = Batch(self.fs), list[Place]()
        batch.put(given)
        if maildirs.is_number(name):
            directory = self.fs.by_op[binding.directory]
            left = sequences.follow(self.fs, self.view, directory, {binding.name: name}, batch)
        self._done(binding, batch)
        for place in left:
            with contextlib.suppress(OSError):  # `settle.tidy` tries once more
                inodes.remove(place)
        return given

    def _done(self, binding: Binding, batch: Batch | None = None) -> None:
        """The name has been dealt with; that main's object of this name was taken away stays to be done."""
        batch = batch or Batch(self.fs)
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
            if there is None or not naming.will_leave(self.fs, self.view, binding, there[0]):
                continue
            if self._change_places(binding, directory, there[0]):
                return True
            aside = naming.MOVING + b"%d" % there[0].op
            self._note_before(there[0])
            main.rename(self.fs, directory, binding.name, directory, aside, by=self.view.sid, lives_on=False)
            settle.expire(self.fs, directory, binding.name)
            return True
        return False

    def _change_places(self, binding: Binding, directory: Obj, there: Obj) -> bool:
        """Give an object of main its name by an exchange with what will leave it, if that is possible."""
        fs = self.fs
        assert binding.op is not None
        obj = fs.by_op[binding.op]
        source = naming.free_source(self.fs, self.view, obj) if obj.ino else None
        if source is None or source[1].startswith(naming.MOVING) or there.op not in self.view.placed:
            return False  # what will be deleted leaves no name behind that it never had
        if views.is_below(fs, MAIN, directory, obj) or views.is_below(fs, MAIN, source[0], there):
            return False
        vacated = self.view.binding(source[0].op, source[1])
        if vacated is not None and vacated.op != there.op:
            vacated = None
        self._telling.renamed(binding, directory, binding.name)
        self._telling.all_renamed(there, self._telling.renamed_from(there))
        self._note_before(obj)
        self._note_before(there)
        main.rename(fs, *source, directory, binding.name, main.RENAME_EXCHANGE, by=self.view.sid)
        for at, name in (source, (directory, binding.name)):
            settle.expire(fs, at, name)
        self._renamed |= {obj.op} if vacated is None else {obj.op, there.op}
        self._note_exchange(binding)
        self._done(binding)
        if vacated is not None and (now := self.view.binding(vacated.directory, vacated.name)) is not None:
            self._done(now)
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

    def restore_times(self) -> None:
        """Directories that were brought in have the time stamp that the suspect's view had, not the merge's."""
        for obj, mtime_ns in reversed(self._born):
            if obj.ino:
                at = tree.place(self.fs, obj)
                found = inodes.lstat(at)
                os.utime(at.name, ns=(found.st_atime_ns, mtime_ns), dir_fd=at.directory, follow_symlinks=False)
