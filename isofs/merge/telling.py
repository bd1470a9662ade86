"""What a merge tells of the names that the suspect gave."""

from __future__ import annotations

from dataclasses import dataclass, replace

from isofs.engine import attic
from isofs.engine.state import Filesystem, Link, Obj, View
from isofs.merge import naming, places
from isofs.merge.report import Item, Report
from isofs.model.records import Binding

#: Action, reason, and whether somebody should look at it.
Words = tuple[str, str, bool]

_LINKED: Words = ("took", naming.LINKED, False)


@dataclass(frozen=True, slots=True)
class Telling:
    """Tells of names in a report.

    `review` is whether somebody should look at what is told of them, if whoever merges knows that.
    """

    fs: Filesystem
    view: View
    report: Report
    review: bool | None = None

    def renamed_from(self, obj: Obj) -> str:
        return naming.renamed_from(attic.where(self.fs, self.view, obj))

    def linked(self, binding: Binding) -> Words:
        """What is told of a name that is one more of its object's, unless the object was told to come under it."""
        assert binding.op is not None
        before = self.report.told(self.view.sid, binding.op, (binding.directory, binding.name))
        if before is None or before.aside is not None:
            return _LINKED
        return before.action, before.reason, before.review

    def brought(self, binding: Binding, words: Words) -> Words:
        """What is told of the name under which an object comes into main: `words`, if it is the object's first name.

        That it is told of, and the other as one more, also where it can be given only after the other.
        """
        assert binding.op is not None
        first = places.first_name(self.fs, self.view, binding.op)
        if first is None or first == binding or places.given(self.fs, self.view, first) != _own(self.fs, first):
            return words
        action, reason, review = words
        self.name(first, *_own(self.fs, first), action, reason, review)
        return _LINKED

    def renamed(self, binding: Binding, directory: Obj, name: bytes) -> None:
        """Tell which name of main's the first of the suspect's becomes that an object of main gets, and of the others.

        Once main has renamed it, nothing but what is told of them knows where it was, nor that the merge did it.
        """
        assert binding.op is not None
        obj = self.fs.by_op[binding.op]
        reason = self.renamed_from(obj)
        self.name(binding, directory, name, "renamed", reason)
        self.all_renamed(obj, reason, but=binding)

    def all_renamed(self, obj: Obj, reason: str, but: Binding | None = None) -> None:
        """Tell of all names that an object has yet to get that it is renamed."""
        for key in sorted(self.view.placed.get(obj.op, ())):
            wanted = self.view.binding(*key)
            if (
                wanted is not None
                and wanted != but
                and not wanted.kept
                and places.there(self.fs, self.view, wanted) is not obj
            ):
                self.name(wanted, self.fs.by_op[wanted.directory], wanted.name, "renamed", reason)

    def tell(self, binding: Binding, item: Item) -> None:
        """Tell what becomes of a name that the suspect gave."""
        assert binding.op is not None
        self.report.tell(self.fs, self.view.sid, binding.op, item, (binding.directory, binding.name))

    def name(
        self, binding: Binding, directory: Obj, name: bytes, action: str, reason: str, review: bool = False
    ) -> None:
        """Tell which name of main's the suspect's becomes. The suspect's own is what it was first told to have been."""
        assert binding.op is not None
        given, at = places.name_in(self.fs, self.view, directory, name), (binding.directory, binding.name)
        before = self.report.told(self.view.sid, binding.op, at)
        if before is not None and before.aside is not None:
            wanted = before.path
        else:
            wanted = places.name_in(self.fs, self.view, directory, binding.name)
        if name != binding.name:
            self.report.take_back(self.fs, self.view.sid, binding.op, at)
        item = Item(wanted, action, reason, review)
        if given != wanted:
            item = Item(wanted, "renamed", naming.BESIDE, True, given)
        if self.review is not None:
            item = replace(item, review=self.review)
        self.tell(replace(binding, name=name), item)


def _own(fs: Filesystem, binding: Binding) -> Link:
    """A name as the suspect gave it."""
    return fs.by_op[binding.directory], binding.name
