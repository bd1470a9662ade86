"""What a merge tells of the names that the suspect gave."""

from __future__ import annotations

from dataclasses import dataclass, replace

from isofs.engine import attic
from isofs.engine.state import Filesystem, Obj, View
from isofs.merge import naming
from isofs.merge.report import Item, Report
from isofs.model.records import Binding


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
        """Where main had an object that gets another name, also if it had to make room for others before."""
        for at in sorted(self.view.placed.get(obj.op, ())):
            before = self.report.told(self.view.sid, obj.op, at)
            if before is not None and before.reason.startswith(naming.RENAMED):
                return before.reason
        return naming.renamed_from(attic.where(self.fs, obj, self.view.sid))

    def tell(self, binding: Binding, item: Item) -> None:
        """Tell what becomes of a name that the suspect gave."""
        assert binding.op is not None
        self.report.tell(self.fs, self.view.sid, binding.op, item, (binding.directory, binding.name))

    def name(
        self, binding: Binding, directory: Obj, name: bytes, action: str, reason: str, review: bool = False
    ) -> None:
        """Tell which name of main's the suspect's becomes. The suspect's own is what it was first told to have been."""
        assert binding.op is not None
        given, at = naming.told_name(self.fs, self.view, directory, name), (binding.directory, binding.name)
        before = self.report.told(self.view.sid, binding.op, at)
        if before is not None and before.aside is not None:
            wanted = before.path
        else:
            wanted = naming.told_name(self.fs, self.view, directory, binding.name)
        if name != binding.name:
            self.report.take_back(self.fs, self.view.sid, binding.op, at)
        item = Item(wanted, action, reason, review)
        if given != wanted:
            item = Item(wanted, "renamed", naming.BESIDE, True, given)
        if self.review is not None:
            item = replace(item, review=self.review)
        self.tell(replace(binding, name=name), item)
