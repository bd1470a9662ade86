"""Verdicts that were cut off: finished at the start if the host lets them be, else waiting for somebody to go on."""

from __future__ import annotations

import logging

from isofs.engine import recovery
from isofs.engine.state import Filesystem
from isofs.errors import IsofsError, NotAllowed
from isofs.merge import apply, contested
from isofs.model.records import Subject, SubjectState

log = logging.getLogger(__name__)


def finish(fs: Filesystem) -> list[str]:
    """Finish what was cut off. What the host refuses (a full disk) waits, with its subject; a line for each.

    The subject's calls are refused meanwhile: they never come to main.
    """
    waits = []
    for sid in recovery.unfinished(fs):
        subject = fs.subjects[sid]
        log.warning("finishing the verdict on %s, which was cut off", subject.name)
        try:
            report = apply.resume(fs, sid)
            log.warning("finished: %s; `isoctl report %s` shows it", report.counts, subject.name)
        except (OSError, IsofsError) as error:
            waits.append(
                f"the verdict on {subject.name} could not be finished: {_reason(error)}; {subject.name} waits until "
                f"{_again(subject)} goes on with it"
            )
    try:
        contested.resume(fs)
    except (OSError, IsofsError) as error:
        waits.append(f"what was chosen for conflicts waits for the next start: {_reason(error)}")
    return waits


def _reason(error: OSError | IsofsError) -> str:
    return str((isinstance(error, OSError) and error.strerror) or error)


def _again(subject: Subject) -> str:
    """What goes on with a verdict that was cut off; with one on a part, whatever verdict comes next."""
    if subject.part_of is not None:
        return "the next verdict"
    return f"`isoctl {'malicious' if subject.state is SubjectState.DISCARDING else 'innocent'} {subject.name}`"


def under_way(fs: Filesystem, subject: Subject) -> bool:
    """Whether a verdict on a subject, or on a part of its work, has begun and is not finished."""
    concerned = (s for s in map(fs.subjects.__getitem__, fs.views) if subject.sid in (s.sid, s.part_of))
    return any(s.state in (SubjectState.MERGING, SubjectState.DISCARDING) for s in concerned)


def check_innocent(subject: Subject) -> None:
    """NotAllowed if the discarding of what the subject did has begun: some of it may be gone."""
    if subject.state is SubjectState.DISCARDING:
        raise NotAllowed(
            f"{subject.name} was found malicious, and the discarding stopped half way: "
            f"`isoctl malicious {subject.name}` goes on with it"
        )
