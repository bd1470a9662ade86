"""What each call on the control socket answers: the keys that `isoctl --json` prints.

A key is never renamed or dropped within a version of the protocol; new ones may come. Paths are
relative to the root of the mount, times are written by `wire.moment`, sizes are bytes.
"""

from __future__ import annotations

from isofs.audit.readset import Gap, Read
from isofs.control.results.changes import Change, Changes, ChangesAndReads, Content, Diff, Difference
from isofs.control.results.kept import (
    Archive,
    Archives,
    Attic,
    BackedUp,
    Extracted,
    LeftEntry,
    Purged,
    Restored,
    RestoredEntry,
    StoreRestored,
    Stowed,
    Verified,
)
from isofs.control.results.status import (
    Alerted,
    AlertLine,
    AlertTotals,
    AtticTotals,
    Counts,
    Degraded,
    Detector,
    OpenFile,
    Part,
    Status,
    Subject,
    Suspect,
    Suspected,
    Suspects,
    Taken,
    TakenTogether,
)
from isofs.control.results.trail import Lines, LogVerified, ReadLines, Reads, ReadTotal
from isofs.control.results.upkeep import (
    RETURN,
    Checked,
    Configuration,
    Diagnosis,
    Finding,
    Installed,
    InstalledFile,
    LogLevel,
    Mounted,
    Problem,
    Repair,
    Repaired,
    Rule,
    Setting,
    Unmounted,
)
from isofs.control.results.verdicts import (
    Aside,
    Confirmed,
    Conflict,
    Conflicts,
    Decided,
    Discarded,
    Item,
    Marked,
    Merged,
    Planned,
    PlannedItem,
    Proposal,
    Proposals,
    Report,
    Reports,
    Resolved,
    Verdict,
)
