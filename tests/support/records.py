"""What a start reads of a store."""

from __future__ import annotations

from isofs.model.records import Base, Binding, Decided, Origin, Record, Subject, Touch, Version
from isofs.store.folder import Store

_KINDS: tuple[type[Record], ...] = (Subject, Origin, Version, Binding, Touch, Base, Decided)


def read(store: Store) -> list[Record]:
    """Every record, each type by its key; subjects and origins come before what refers to them."""
    return [record for kind in _KINDS for record in store.each(kind)]
