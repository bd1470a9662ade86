"""Limits of what suspects take up: from the settings to the engine, and from the engine to whoever wants to know."""

from __future__ import annotations

import logging
import resource

from isofs.control import results
from isofs.engine import accounting, usage
from isofs.engine.quota import Limit, Limits, Notice
from isofs.engine.state import Filesystem, View
from isofs.model.records import MAIN
from isofs.service.events import Event, Events, Kind
from isofs.service.live import Live
from isofs.settings.quota import Quota
from isofs.settings.settings import Settings

log = logging.getLogger(__name__)

#: What part of the daemon's descriptors suspects may have open files on. One may take two: the file, and what it was.
_PART = 4


def follow(fs: Filesystem, live: Live, events: Events) -> None:
    """Limit suspects as it is configured, now and whenever that changes; tell of limits that are near or reached."""

    def changed(settings: Settings) -> None:
        accounting.set_limits(fs, limits(settings.quota, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))

    def notify(notice: Notice) -> None:
        subject = fs.subjects.get(notice.sid)
        user = None if subject is None else subject.name
        what = "was refused something for" if notice.refused else "comes near"
        if notice.sid == MAIN:
            log.warning("a copy for merging was left out: too little space is free")
        else:
            log.warning("%s %s a limit: %s, %d of %d", user, what, notice.limit, notice.used, notice.of)
        facts = {
            "user": user,
            "uid": None if subject is None else subject.uid,
            "limit": notice.limit,
            "refused": notice.refused,
            "used": notice.used,
            "of": notice.of,
        }
        events.tell(Event(Kind.QUOTA, facts))

    changed(live.now)
    live.subscribe(changed)
    fs.notify = notify


def limits(quota: Quota, descriptors: int) -> Limits:
    """The engine's limits, for a daemon that may have so many descriptors."""
    each = Limit(quota.bytes, quota.objects, quota.handles)
    users = {
        name: Limit(
            each.bytes if user.bytes is None else user.bytes,
            each.objects if user.objects is None else user.objects,
            each.handles if user.handles is None else user.handles,
        )
        for name, user in quota.users.items()
    }
    return Limits(
        each=each,
        users=users,
        total=quota.total_bytes,
        all_handles=descriptors // _PART,
        reserve=quota.reserve,
        reserve_inodes=quota.reserve_inodes,
        warn_at=quota.warn_at,
    )


def taken(fs: Filesystem, view: View, user: str) -> results.Taken:
    """What a suspect takes up, and may."""
    usage.settle(fs, view)
    limit = fs.limits.of(user)
    used = {
        "bytes": (view.account.used, limit.bytes),
        "objects": (view.objects, limit.objects),
        "handles": (view.account.handles, min(limit.handles, fs.limits.all_handles)),
    }
    return {
        "bytes": view.account.used,
        "bytes_limit": limit.bytes,
        "objects": view.objects,
        "objects_limit": limit.objects,
        "handles": view.account.handles,
        "handles_limit": used["handles"][1],
        "near": [name for name, (now, of) in used.items() if fs.limits.near(of, of - now)],
    }


def together(fs: Filesystem) -> results.TakenTogether:
    """What all suspects take up together, and what is free."""
    for view in fs.all_views:
        usage.settle(fs, view)
    used, limit = sum(view.account.used for view in fs.all_views), fs.limits.total
    free, reserve = accounting.free_bytes(fs)
    near = ["bytes"] if fs.limits.near(limit, limit - used) else []
    if fs.limits.near(reserve, free - reserve):
        near.append("reserve")
    return {
        "bytes": used,
        "bytes_limit": limit,
        "free": free,
        "reserve": reserve,
        "bases_left_out": fs.bases_left_out,
        "near": near,
    }
