"""Mailboxes that are directories: what their names say is merged as well. Nothing here changes anything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from isofs.engine import tree
from isofs.engine.state import Filesystem, Obj, View
from isofs.errors import CallError
from isofs.merge.resolvers import maildirs
from isofs.model.records import Binding

#: Of a plan or report: both sides gave a message of a Maildir another name.
FLAGS = "both changed the flags of this message: they are merged"

_PARTS = (b"cur", b"new", b"tmp")


def flagged(fs: Filesystem, view: View, binding: Binding, obj: Obj) -> tuple[Obj, bytes] | None:
    """Where a message of a Maildir belongs, with its flags merged three-way, if both sides renamed it within that.

    None if that is not what happened: it is another file then, renamed on both sides.
    """
    directory = fs.by_op[binding.directory]
    maildir = _maildir(fs, directory)
    if maildir is None or obj.is_dir or len(obj.links) != 1:
        return None
    ((at, name),) = obj.links
    removed = (view.binding(*name) for name in view.hiding.get(obj.op, ()))
    base = [_below(maildir, fs.by_op[b.directory], b.name) for b in removed if b is not None and not b.kept]
    main, suspect = _below(maildir, at, name), _below(maildir, directory, binding.name)
    if len(base) != 1 or base[0] is None or main is None or suspect is None:
        return None
    messages = [maildirs.entry(path) for path in (base[0], main, suspect)]
    if len({None if message is None else message.unique for message in messages}) != 1 or None in messages:
        return None
    (merged,) = maildirs.unite([base[0]], [main], [suspect])
    part, _, name = merged.becomes.rpartition(b"/")
    found = tree.child(fs, maildir, part)
    return None if found is None else (found[0], name)


def _maildir(fs: Filesystem, part: Obj) -> Obj | None:
    """The Maildir of which a directory of main is `cur` or `new`."""
    for above, name in part.links:
        with contextlib.suppress(OSError, CallError):
            if name in _PARTS[:2] and all((found := tree.child(fs, above, one)) and found[0].is_dir for one in _PARTS):
                return above
    return None


def _below(maildir: Obj, part: Obj, name: bytes) -> bytes | None:
    """The path below the Maildir, None if it is elsewhere."""
    for above, called in part.links:
        if above is maildir and called in _PARTS[:2]:
            return called + b"/" + name
    return None


def next_number(fs: Filesystem, view: View, directory: Obj, name: bytes) -> bytes | None:
    """The number that a message of an MH folder gets if main gave its own to another; None if it is no such message."""
    if not maildirs.is_number(name) or tree.child(fs, directory, maildirs.SEQUENCES) is None:
        return None
    taken = [one for one in (*tree.names(fs, directory), *_given(view, directory)) if maildirs.is_number(one)]
    return maildirs.renumber(taken, [name])[name]


def _given(view: View, directory: Obj) -> Iterator[bytes]:
    return (binding.name for binding in view.bindings.get(directory.op, {}).values())
