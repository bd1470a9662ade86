"""Reading a store: all that it has comes into memory before anybody is answered."""

from __future__ import annotations

import os
import stat

from isofs.engine.batch import follow
from isofs.engine.state import Filesystem, Obj
from isofs.errors import NoMount, StoreUnusable
from isofs.model.records import RESERVED, Base, Binding, Decided, Origin, Subject, SubjectState, Touch, Version
from isofs.store import inodes
from isofs.store.folder import Store
from isofs.store.inodes import Place


def load(store: Store, directory: str) -> Filesystem:
    """The file system as the store has it; nothing is changed."""
    try:
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NoMount(f"{directory} cannot be opened: {error.strerror}") from error
    at = os.fstat(descriptor)
    root = Obj(stat.S_IFDIR, at.st_ino)
    fs = Filesystem(store, root, at.st_dev, inodes.exists(Place(descriptor, RESERVED)))
    fs.objects[root.ino] = root
    fs.descriptors[root] = descriptor
    try:
        read(fs)
    except KeyError as error:
        os.close(descriptor)
        raise StoreUnusable(f"the store {store.path} refers to {error}, which it lacks; see isoctl check") from error
    except BaseException:
        os.close(descriptor)
        raise
    return fs


def read(fs: Filesystem) -> None:
    """Follow all that the store has. Main's objects that are known already stay what they are."""
    for subject in fs.store.each(Subject):
        follow(fs, subject, put=True)
    fs.origins.update((origin.op, origin) for origin in fs.store.each(Origin))
    fs.referring.update([origin.parent for origin in fs.origins.values() if origin.parent is not None])
    if unknown := fs.referring.keys() - fs.origins.keys():
        raise StoreUnusable(f"something lies in an unknown directory, {min(unknown)}; see isoctl check")
    fs.by_op.expect()
    _read_versions(fs)
    for kind in (Binding, Touch, Base, Decided):
        for record in fs.store.each(kind):
            follow(fs, record, put=True)


def _read_versions(fs: Filesystem) -> None:
    """There are as many as suspects have changed objects: they are not followed one by one."""
    views = {view.sid: view for view in fs.all_views}
    versions = {sid: view.versions for sid, view in views.items()}
    for version in fs.store.each(Version):
        if version.sid in versions:
            versions[version.sid][version.op] = version
    for view in views.values():
        view.account.stale.update(v.content for v in view.versions.values() if v.content is not None)
        view.account.counted = False
        view.cut_off = fs.subjects[view.sid].state is SubjectState.MERGING
