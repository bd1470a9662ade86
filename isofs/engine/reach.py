"""How deep a suspect's directories may lie: no deeper than a path can name from a working directory.

What a suspect changed is shown, compared and merged by its path. Directories in one another without end would make each
of these take as long as there are levels, and everybody would wait.
"""

from __future__ import annotations

import errno

from isofs.engine import views
from isofs.engine.state import Filesystem, Obj, View
from isofs.engine.views import Seen
from isofs.errors import CallError
from isofs.model.records import Op

#: Bytes of a path from the root of the mount, at most: a working directory's, as long as the kernel takes one
#: (PATH_MAX), and from there as much again.
LONGEST = 2 * 4096


def check(fs: Filesystem, view: View, to: Seen, moved: Obj | None = None) -> None:
    """Before a suspect makes a directory under a name, or moves one there. CallError if it would lie too deep.

    What is moved up, or stays as deep as it is, may be there.
    """
    length = _length(views.path(fs, view.sid, to.directory)) + len(to.name)
    if moved is not None:
        if length < _length(views.path(fs, view.sid, moved)):
            return
        length += _longest_below(view, moved.op, LONGEST - length)
    if length > LONGEST:
        raise CallError(errno.ENAMETOOLONG)


def _length(above: bytes | None) -> int:
    """The bytes before a name in a directory with this path."""
    return len(above) + 1 if above else 0


def _longest_below(view: View, op: Op, most: int) -> int:
    """The bytes of the longest path below a directory, of what the suspect put there; no more than is needed."""
    longest, left = 0, [(op, 0)]
    while left and longest <= most:
        op, length = left.pop()
        longest = max(longest, length)
        for name in view.own_directories.get(op, ()):
            inner = view.bindings[op][name].op
            if inner is not None:
                left.append((inner, length + 1 + len(name)))
    return longest
