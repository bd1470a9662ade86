"""What a malicious verdict keeps: everything that is known of a suspect's versions and bindings."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from isofs.engine import views
from isofs.engine.changes import kind_word
from isofs.engine.state import Filesystem, Obj
from isofs.model.records import MAIN, Binding, Op, SubjectId, Version
from isofs.model.vectors import Vector, named
from isofs.store.archive import Kept


@dataclass(slots=True)
class Collected:
    """A suspect's versions and bindings, ready to be written down without asking the engine again."""

    kept: list[Kept] = field(default_factory=list)
    bindings: list[dict[str, object]] = field(default_factory=list)


def collect(
    fs: Filesystem,
    sid: SubjectId,
    into: Collected,
    accepted: Collection[Op] = frozenset(),
    only: Collection[Op] | None = None,
) -> Iterator[None]:
    """Collect object by object; between two of them others may be served, but the subject must wait.

    `accepted` are the objects that will be merged and not discarded. With `only`, nothing but these is collected.
    """
    view = fs.view_of(sid)
    assert view is not None
    for op in sorted(view.versions if only is None else view.versions.keys() & set(only)):
        version = view.versions.get(op)
        if version is None:
            continue
        place = None if version.content is None else fs.store.content(sid, version.content)
        into.kept.append(Kept(op, {**_version(fs, sid, version), "accepted": op in accepted}, place))
        yield
    for listed in list(view.all_bindings()):
        binding = view.binding(listed.directory, listed.name)
        if binding is None:  # main changed meanwhile, and it is needed no more
            continue
        if only is not None and binding.op not in only and binding.replaced not in only:
            continue
        taken = binding.op in accepted or binding.replaced in accepted
        into.bindings.append({**_binding(fs, sid, binding), "accepted": taken})
        yield


def _version(fs: Filesystem, sid: SubjectId, version: Version) -> dict[str, object]:
    obj, origin = fs.by_op[version.op], fs.origins[version.op]
    in_main = _path(fs, MAIN, obj) if obj.ino else None
    fingerprint = version.fingerprint
    return {
        # Of what waits for a decision the subject may have no name any more, since it works on main.
        "path": (_path(fs, sid, obj) if version.state == "m" else None) or in_main,
        "main_path": in_main,
        "kind": kind_word(obj.kind),
        "state": version.state,
        "born": origin.born == sid,
        "attributes_only": version.attributes,
        "data": "main" if version.bare else "own",
        "vector": dict(named(version.vector)),
        "main_vector": _vector(origin.vector),
        "main_was": None
        if fingerprint is None
        else {"ino": fingerprint.ino, "ctime_ns": fingerprint.ctime_ns, "size": fingerprint.size},
    }


def _binding(fs: Filesystem, sid: SubjectId, b: Binding) -> dict[str, object]:
    replaced = fs.by_op.get(b.replaced) if b.replaced is not None else None
    return {
        "directory": _path(fs, sid, fs.by_op[b.directory]),
        "directory_object": b.directory,
        "name": _text(b.name),
        "object": b.op,
        "replaced": b.replaced,
        "replaced_path": None if replaced is None or not replaced.ino else _path(fs, MAIN, replaced),
        "kept": b.kept,
    }


def _vector(vector: Vector | None) -> dict[str, object] | None:
    return None if vector is None else dict(named(vector))


def _path(fs: Filesystem, sid: SubjectId, obj: Obj) -> str | None:
    found = views.path(fs, sid, obj)
    return None if found is None else _text(found)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
