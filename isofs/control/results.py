"""What each call on the control socket answers: the keys that `isoctl --json` prints.

A key is never renamed or dropped within a version of the protocol; new ones may come. Paths are
relative to the root of the mount, times are written by `wire.moment`, sizes are bytes.
"""

from __future__ import annotations

from typing import Any, TypedDict


class Counts(TypedDict):
    """How many objects and names a suspect changed, by kind of change."""

    added: int
    modified: int
    deleted: int
    renamed: int
    attributes: int


class Part(TypedDict):
    """What was decided of a suspect's work before the rest: when, of how many objects, and the globs that named them.

    `asked` says in words what was decided one by one, and whether it was merged or main's was kept.
    """

    since: str
    objects: int
    asked: str


class Taken(TypedDict):
    """What a suspect takes up, and may at most; `near` are the limits (bytes, objects, handles) that are near."""

    bytes: int
    bytes_limit: int
    objects: int
    objects_limit: int
    handles: int
    handles_limit: int
    near: list[str]


class TakenTogether(TypedDict):
    """What all suspects take up together, what is free on the store's file system, and how much of it they leave.

    `bases_left_out` are the copies that merges would have been helped by and for which there was no space, since the
    start. `near` are the limits (bytes, reserve) that are near.
    """

    bytes: int
    bytes_limit: int
    free: int
    reserve: int
    bases_left_out: int
    near: list[str]


class Subject(TypedDict):
    """A suspect; `state` is suspect, merging, discarding or conflicts. `parts` were decided before.

    `review` is from when on the suspect is to be looked at again, null if never. `stopped` is whether a verdict was
    stopped half way, and waits for `innocent` or `malicious` to go on with it.
    """

    user: str
    uid: int
    state: str
    since: str
    reason: str
    changed: Counts
    bytes: int
    conflicts: int
    parts: list[Part]
    review: str | None
    stopped: bool
    quota: Taken


class Suspect(TypedDict):
    """Somebody who is isolated or waits for a decision, by name; `state` as in `Subject`."""

    user: str
    uid: int
    state: str


class Suspects(TypedDict):
    """`suspects`: who is isolated, without what they changed."""

    suspects: list[Suspect]


class AtticTotals(TypedDict):
    """How much is in the attic: entries, and the bytes of what they are of."""

    entries: int
    bytes: int


class Degraded(TypedDict):
    """Why a mount is not as it should be, and since when (null: not known).

    `suspects` are "read only" or "shut out"; then `shut_out` are their uids, null for everybody but root.
    """

    reason: str
    since: str | None
    suspects: str
    shut_out: list[int] | None


class Status(TypedDict):
    """`status`: the state ("ok" or "degraded"), the mount, who is isolated on it, and how much its attic keeps.

    `configuration` says what is wrong with the configuration, null if nothing is. With `two_person`, verdicts wait
    among the `proposals` until a second person confirms them.
    """

    state: str
    degraded: Degraded | None
    mount: str
    store: str
    pid: int
    version: str
    since: str
    subjects: list[Subject]
    attic: AtticTotals
    configuration: str | None
    two_person: bool
    proposals: list[Proposal]
    quota: TakenTogether


class OpenFile(TypedDict):
    """A file that a process of a new suspect held open for reading and writing."""

    pid: int
    program: str
    path: str


class Suspected(TypedDict):
    """`suspect`: since when the user is isolated, and what became of the files held open."""

    user: str
    uid: int
    since: str
    killed: list[OpenFile]
    left: list[OpenFile]


class Detector(TypedDict):
    """`detector`: how the alerts of a detector are read. See `isofs.model.alerts`."""

    name: str
    format: str
    user: list[str]
    reason: list[str]
    when: list[str]


class Alerted(TypedDict):
    """`alert`: what became of an alert, and why where nobody was isolated.

    `outcome` is isolated, already, spared (who may not be isolated), limited, or with a dry run: would isolate.
    """

    outcome: str
    why: str


class AlertLine(TypedDict):
    """`suspect --from`: a line about each alert; `line` is its number.

    `outcome` may also be unknown (no such user) or failed (the daemon did not answer).
    """

    line: int
    outcome: str
    user: str
    uid: int | None
    reason: str
    why: str


class AlertTotals(TypedDict):
    """`suspect --from`: the last line, how many lines of its input ended as what; `ignored` are no alerts."""

    lines: int
    outcomes: dict[str, int]


#: One change; `change` is added, modified, deleted, renamed or attributes, `kind` is file,
#: directory, symlink, fifo, socket or device, and `from` is the name before a renaming. `risks` are
#: names of rules of `isofs.model.risks`, as everywhere.
Change = TypedDict(
    "Change",
    {"change": str, "kind": str, "path": str, "from": str | None, "size": int | None, "risks": list[str]},
)


class Changes(TypedDict):
    """`changes`: one entry per object and name that the user changed; `risks` are those of all together."""

    user: str
    changes: list[Change]
    risks: list[str]


class Content(TypedDict):
    """What tells two contents apart without showing them."""

    size: int
    sha256: str


class Difference(TypedDict):
    """One changed object: `text` is a unified diff where both sides are text.

    `known` is false if what the suspect started from was asked for and not kept: then there is no `old` side.
    """

    path: str
    change: str
    kind: str
    text: str | None
    old: Content | None
    new: Content | None
    known: bool
    risks: list[str]


class Diff(TypedDict):
    """`diff`: what changed within the objects that the user changed; `risks` are those of all changes together."""

    user: str
    entries: list[Difference]
    risks: list[str]


#: What a merge did with one object or name; `action` is took, merged, kept, deleted, renamed,
#: conflict, united or restored, and `as` is the name that something was put aside under.
Item = TypedDict("Item", {"path": str, "action": str, "reason": str, "review": bool, "as": str | None})

#: What a merge would do to an object, which has a number in the store, with the version vectors of both sides where
#: there are any, and the risks of the change. `kind` as in `Change`, null for what is gone by now.
PlannedItem = TypedDict(
    "PlannedItem",
    {
        "path": str,
        "action": str,
        "reason": str,
        "review": bool,
        "as": str | None,
        "object": int,
        "kind": str | None,
        "main": dict[str, object] | None,
        "suspect": dict[str, object] | None,
        "risks": list[str],
    },
)


class Aside(TypedDict):
    """What a partial verdict does beside what it was asked for, and why; `asked` is whether --except says so."""

    path: str
    reason: str
    asked: bool


class Planned(TypedDict):
    """`plan`: what `innocent` would do now, with the same globs; `risks` are those of all changes together.

    `along` and `left` as in `Merged`.
    """

    user: str
    counts: dict[str, int]
    items: list[PlannedItem]
    risks: list[str]
    along: list[Aside]
    left: list[Aside]


class Merged(TypedDict):
    """`innocent`: what the merge did, and how many conflicts wait for a decision.

    Of a partial one, `along` is what came along though no glob names it, `left` what stays isolated though one does.
    """

    user: str
    counts: dict[str, int]
    items: list[Item]
    conflicts: int
    along: list[Aside]
    left: list[Aside]


class Decided(TypedDict):
    """`decide`: what was merged and how much discarded, and how many conflicts of it wait for a decision.

    `along` and `left` as in `Merged`; `evidence` and `readable` as in `Discarded`.
    """

    user: str
    counts: dict[str, int]
    items: list[Item]
    discarded: dict[str, int]
    conflicts: int
    along: list[Aside]
    left: list[Aside]
    evidence: str | None
    readable: str | None


class Discarded(TypedDict):
    """`malicious`: what was thrown away, and the archive that keeps it, if one was wanted.

    `accepted` is what was merged before, `along` what of it no glob names. `readable` is where root can read the
    archive as long as this daemon runs.
    """

    user: str
    counts: dict[str, int]
    accepted: list[Item]
    along: list[Aside]
    evidence: str | None
    readable: str | None


class Conflict(TypedDict):
    """One pair of versions that no rule decides; `version` is where the suspect's is kept.

    `since` is when the suspicion began, `readable` is where root can read the version as long as this daemon runs.
    """

    user: str
    uid: int
    since: str
    path: str
    kind: str
    reason: str
    main: dict[str, object] | None
    suspect: dict[str, object] | None
    version: str | None
    readable: str | None


class Conflicts(TypedDict):
    """`conflicts`: what merges could not decide. The command adds `commands`, those that settle it, to each."""

    conflicts: list[Conflict]


class Resolved(TypedDict):
    """`resolve`: what was done with each conflict, and how many of the user's wait still."""

    user: str
    counts: dict[str, int]
    items: list[Item]
    conflicts: int


class Marked(TypedDict):
    """`resolve --markers`: whether what was written has markers in it, and why. The command adds `file`.

    `seen` tells both sides as they were from what they are later.
    """

    user: str
    path: str
    marked: bool
    reasons: list[str]
    seen: str


class Verdict(TypedDict):
    """A verdict (`innocent`, `malicious`), or conflicts settled by hand (`resolve`): on whose work, by whom, and when.

    `part` is what was asked for of a part. `ended` is null while it goes on, or waits to be gone on with. `counts` are
    how much was done of what kind, so far. `evidence` and `readable` as in `Discarded`.
    """

    number: int
    at: str
    ended: str | None
    user: str
    uid: int
    verdict: str
    part: str
    by: str
    reason: str
    counts: dict[str, int]
    evidence: str | None
    readable: str | None


class Reports(TypedDict):
    """`reports`: verdicts, newest first. The call answers a page, and `more` is whether there are older ones."""

    verdicts: list[Verdict]
    more: bool


class Report(Verdict):
    """`report`: a verdict, and what it did with each object or name."""

    items: list[Item]


class Stowed(TypedDict):
    """One entry of the attic: what a merge replaced in main or deleted (`action`), when, and where main had it.

    `user` is whose merge it was; `subject` is their number, 0 for what an operator's `attic restore` replaced.
    `live` says that the file was open for writing, and may have been written to since.
    """

    number: int
    at: str
    user: str
    subject: int
    action: str
    kind: str
    size: int
    live: bool
    path: str


class Attic(TypedDict):
    """`attic`: entries, newest first. The call answers a page, and `more` is whether there are older ones."""

    entries: list[Stowed]
    more: bool


class Restored(TypedDict):
    """`attic_restore`: what came back where, each after the directories that it needed.

    `replaced` are the new entries of what it replaced, `stowed` the number of the last of them. `left` is what is in
    the attic still, because it could not come back to its path.
    """

    restored: list[RestoredEntry]
    stowed: int | None
    replaced: list[RestoredEntry]
    left: list[LeftEntry]


class RestoredEntry(TypedDict):
    """One entry of the attic, and where it was or is."""

    number: int
    path: str


class LeftEntry(RestoredEntry):
    """One entry that could not come back there, and why."""

    reason: str


class Purged(TypedDict):
    """`attic_purge`: how many entries were removed, and the bytes of what they were of."""

    entries: int
    bytes: int


class Repaired(TypedDict):
    """`check --repair`: what was repaired and how, what was not, and what a damaged database is called now."""

    ok: bool
    repaired: list[Repair]
    problems: list[Problem]
    kept: str | None


#: What ends a failure of the store while it is mounted, as a repair.
RETURN = "use the store again: who was shut out works on, and opens files anew"


class Repair(TypedDict):
    """A problem, and what is done about it."""

    invariant: str
    subject: str | None
    path: str | None
    problem: str
    repair: str


class Problem(TypedDict):
    """An invariant that does not hold, and where."""

    invariant: str
    subject: str | None
    path: str | None
    problem: str


class Checked(TypedDict):
    """`check`: how much was checked, and what is wrong."""

    ok: bool
    checked: dict[str, int]
    problems: list[Problem]


class Finding(TypedDict):
    """What a check of `doctor` says; `level` is ok, warning or problem, `fix` a command that helps, if there is one."""

    check: str
    level: str
    text: str
    fix: str | None


class Diagnosis(TypedDict):
    """`doctor`: whether isofs can work, and everything that was looked at; `directory` is null if none is meant."""

    ok: bool
    directory: str | None
    findings: list[Finding]


class Proposal(TypedDict):
    """What one person proposed, and another has to confirm; `words` are the command, `content` what --with gave.

    `changed` is whether the user has changed something since.
    """

    user: str
    uid: int
    at: str
    by: str
    call: str
    words: list[str]
    reason: str
    content: Content | None
    changed: bool


class Proposals(TypedDict):
    """`proposals`: what waits for a second person."""

    proposals: list[Proposal]


class Confirmed(TypedDict):
    """`confirm`: what was carried out; `result` is that of the `call`."""

    user: str
    call: str
    by: str
    confirmed_by: str
    result: dict[str, Any]


class Lines(TypedDict):
    """`log`: lines of the audit trail; where those after them are, and whether there are some already."""

    lines: list[str]
    file: int
    at: int
    more: bool


class Gap(TypedDict):
    """When what suspects read was not recorded, and why; `until` is null if it is not yet."""

    since: str
    until: str | None
    why: str


class ReadLines(Lines):
    """`reads`, as the daemon answers: lines of read sets, and all gaps."""

    gaps: list[Gap]


class Unmounted(TypedDict):
    """`umount`: the daemon that unmounted, and that ends now."""

    pid: int


class Mounted(TypedDict):
    """What mounting answers; `repaired` says that a dead daemon's mount was replaced. `degraded` as in `Status`."""

    mount: str
    store: str
    repaired: bool
    pid: int
    degraded: Degraded | None


class Archive(TypedDict):
    """One entry of `evidence list`. If `error` says what is wrong with it, what it would tell is null."""

    name: str
    path: str
    size: int
    user: str | None
    uid: int | None
    since: str | None
    verdict: str | None
    versions: int | None
    bytes: int | None
    error: str | None


class Archives(TypedDict):
    """`evidence list`: the archives in the store."""

    evidence: list[Archive]


class Verified(TypedDict):
    """`evidence verify`: an archive of which every hash is right."""

    path: str
    user: str | None
    versions: int
    contents: int
    bytes: int


class Extracted(TypedDict):
    """`evidence extract`: what was made below `directory`, and which special files were not."""

    path: str
    directory: str
    files: int
    directories: int
    links: int
    left_out: list[str]


class Rule(TypedDict):
    """A rule of the configuration: files that match a pattern are merged `using` a resolver; no line: a default."""

    pattern: list[str]
    using: str
    options: dict[str, str | int | bool]
    line: int | None


class BackedUp(TypedDict):
    """`backup`: where the backup is, how many inodes are in it, and its size."""

    file: str
    members: int
    bytes: int
    at: str


class StoreRestored(TypedDict):
    """`restore`: the store that was made, and when and of which mount the backup was."""

    store: str
    at: str
    mount: str
    members: int


class Setting(TypedDict):
    """A setting: `key` with its table's name before it, `default` is whether it is what it is without configuration."""

    key: str
    value: object
    default: bool
    about: str


class Configuration(TypedDict):
    """`config show`: the text as it is in the store, and what it makes with the defaults."""

    path: str
    text: str
    settings: list[Setting]
    rules: list[Rule]


class LogVerified(TypedDict):
    """`log verify`: whether the audit trail is what was written, its good lines, and the newest of them."""

    ok: bool
    lines: int
    files: int
    first: int
    last: int
    hash: str
    torn: int
    problem: str | None


class ReadObject(TypedDict):
    """An object of others' that a suspect opened for reading, when first; `subject` tells suspicions apart."""

    subject: int
    at: str
    path: str
    kind: str
    inode: int
    size: int | None
    program: str


class Reads(TypedDict):
    """`reads`: what a user may have copied out while isolated, and when that was not recorded of anybody."""

    user: str
    reads: list[ReadObject]
    gaps: list[Gap]


class InstalledFile(TypedDict):
    """One file of `service install` or `uninstall`; `action` is installed, replaced, unchanged, removed or absent."""

    path: str
    action: str


class Installed(TypedDict):
    """`service install` and `uninstall`: what was done, and whether systemd was told."""

    files: list[InstalledFile]
    reloaded: bool


class LogLevel(TypedDict):
    """`log-level`: what is logged now, with all that is more important, and what the configuration says."""

    level: str
    configured: str
