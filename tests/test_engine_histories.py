"""Random histories of five users on the unmounted engine, checked after every step as in `test_engine_machine`."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from isofs.merge import apply
from isofs.model.records import SubjectState
from support import verdicts
from support.cuts import cut_off
from support.histories import Step, cut, episodes, history
from support.model_calls import ModelUser
from support.trees import differences, tree
from support.vfs import EXCHANGE
from test_engine_machine import GID, PATHS, SUSPICIOUS, TRUSTED, UMASK, Machine

#: More for a longer look: ISOFS_HISTORIES=5000.
COUNT = int(os.environ.get("ISOFS_HISTORIES", "12"))
STEPS = 60


def impossible(machine: Machine) -> set[str]:
    """The rules that are not for now."""
    found = set() if machine.opened else {"use", "close"}
    return found | (set() if machine.world.views else {"decide"}) | (set() if machine.world.waiting else {"settle"})


def failure(steps: list[Step], make: Callable[[], Machine] = Machine) -> Exception | None:
    """What goes wrong in a history, None if nothing does."""
    machine = make()
    try:
        for name, given in steps:
            if name in impossible(machine):
                continue
            getattr(machine, name)(**given)
            machine.check_all()
    except Exception as error:
        return error
    finally:
        machine.teardown()
    return None


@pytest.mark.parametrize("seed", range(COUNT))
def test_history(seed: int) -> None:
    draw = episodes if seed % 2 else history
    steps = draw(seed, [*TRUSTED, *SUSPICIOUS], PATHS, STEPS)
    error = failure(steps)
    if error is not None:
        needed = cut(steps, lambda some: type(failure(some)) is type(error))
        pytest.fail("\n".join(map(repr, needed)) + f"\n{failure(needed)!r}")


NEW = os.O_WRONLY | os.O_CREAT

#: What went wrong once, cut to the steps that it needs.
ONCE: dict[str, list[Step]] = {
    "another suspect's view, when names of main change places in a merge": [
        ("write", {"uid": 1001, "place": b"c", "flags": NEW, "offset": 0}),
        ("suspect", {"index": 0}),
        ("write", {"uid": 1003, "place": b"b", "flags": os.O_WRONLY, "offset": 0}),
        ("suspect", {"index": 0}),
        ("rename", {"uid": 1004, "place": b"b", "new": b"t", "flags": 0}),
        ("rename", {"uid": 1004, "place": b"a", "new": b"b", "flags": 0}),
        ("rename", {"uid": 1004, "place": b"c", "new": b"a", "flags": 0}),
        ("rename", {"uid": 1004, "place": b"t", "new": b"c", "flags": 0}),
        ("decide", {"index": 1, "innocent": True}),
    ],
    "where main had what a merge deletes, if main renamed a directory that the suspect deleted": [
        ("suspect", {"index": 0}),
        ("act", {"uid": 1003, "what": "remove_tree", "one": 0, "other": 0}),
        ("rename", {"uid": 1001, "place": b"a", "new": b"b", "flags": EXCHANGE}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "directories that both sides moved into each other": [
        ("make", {"uid": 1001, "place": b"c", "kind": "directory"}),
        ("suspect", {"index": 0}),
        ("rename", {"uid": 1003, "place": b"c", "new": b"a/c", "flags": 0}),
        ("rename", {"uid": 1001, "place": b"a", "new": b"c/a", "flags": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "names in directories that both sides made": [
        ("suspect", {"index": 0}),
        ("make", {"uid": 1003, "place": b"c", "kind": "directory"}),
        ("write", {"uid": 1003, "place": b"c/a", "flags": NEW, "offset": 0}),
        ("make", {"uid": 1001, "place": b"c", "kind": "directory"}),
        ("write", {"uid": 1001, "place": b"c/a", "flags": NEW, "offset": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a new directory in place of a deleted one that stays": [
        ("suspect", {"index": 0}),
        ("suspect", {"index": 0}),
        ("act", {"uid": 1003, "what": "retype", "one": 0, "other": 0}),
        ("unlink", {"uid": 1003, "place": b"a"}),
        ("make", {"uid": 1003, "place": b"a", "kind": "directory"}),
        ("write", {"uid": 1003, "place": b"a/a", "flags": NEW, "offset": 0}),
        ("write", {"uid": 1001, "place": b"a/c", "flags": NEW, "offset": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "what another suspect has below a directory that a merge moves out of the way": [
        ("suspect", {"index": 0}),
        ("suspect", {"index": 0}),
        ("unlink", {"uid": 1003, "place": b"a/a"}),
        ("rename", {"uid": 1003, "place": b"a/b", "new": b"t", "flags": 0}),
        ("rmdir", {"uid": 1003, "place": b"a"}),
        ("rename", {"uid": 1003, "place": b"t", "new": b"a", "flags": 0}),
        ("change", {"uid": 1004, "place": b"a/b", "what": ("set_xattr", "user.y", b"1")}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "what main moves in a directory that a suspect has deleted": [
        ("suspect", {"index": 0}),
        ("act", {"uid": 1003, "what": "retype", "one": 2, "other": 1}),
        ("make", {"uid": 1001, "place": b"a/b/a", "kind": "directory"}),
        ("make", {"uid": 1001, "place": b"a/b/a/b", "kind": "directory"}),
        ("rename", {"uid": 1001, "place": b"a/b/a/b", "new": b"a/b/t", "flags": 0}),
        ("rmdir", {"uid": 1001, "place": b"a/b/a"}),
    ],
    "one of several names that was out of the way for a moment": [
        ("write", {"uid": 1001, "place": b"c", "flags": NEW, "offset": 0}),
        ("link", {"uid": 1001, "place": b"c", "new": b"a/c"}),
        ("link", {"uid": 1001, "place": b"c", "new": b"a/b/a"}),
        ("suspect", {"index": 0}),
        ("write", {"uid": 1003, "place": b"t", "flags": NEW, "offset": 0}),
        ("rename", {"uid": 1003, "place": b"t", "new": b"c", "flags": 0}),
        ("rename", {"uid": 1003, "place": b"a/b/a", "new": b"b", "flags": EXCHANGE}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "what comes back under several names": [
        ("suspect", {"index": 0}),
        ("write", {"uid": 1003, "place": b"b", "flags": os.O_WRONLY, "offset": 0}),
        ("unlink", {"uid": 1001, "place": b"b"}),
        ("link", {"uid": 1003, "place": b"b", "new": b"c"}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a file without a name that is closed while something waits": [
        ("suspect", {"index": 0}),
        ("write", {"uid": 1003, "place": b"c", "flags": NEW, "offset": 0}),
        ("open", {"uid": 1003, "place": b"c", "flags": os.O_RDONLY}),
        ("unlink", {"uid": 1003, "place": b"c"}),
        ("write", {"uid": 1003, "place": b"b", "flags": os.O_WRONLY, "offset": 0}),
        ("write", {"uid": 1001, "place": b"b", "flags": os.O_WRONLY, "offset": 0}),
        ("decide", {"index": 0, "innocent": True}),
        ("close", {"index": 0}),
        ("forget", {}),
    ],
    "a handle on the node of an earlier suspicion, of a file without a name": [
        ("suspect", {"index": 0}),
        ("open", {"uid": 1003, "place": b"b", "flags": os.O_WRONLY}),
        ("decide", {"index": 0, "innocent": True}),
        ("suspect", {"index": 0}),
        ("unlink", {"uid": 1001, "place": b"b"}),
        ("use", {"index": 0, "what": ("truncate", 2)}),
    ],
    "a directory that would come back, united with another that several suspects have not": [
        ("unlink", {"uid": 1001, "place": b"a/a"}),
        ("suspect", {"index": 0}),
        ("suspect", {"index": 0}),
        ("change", {"uid": 1003, "place": b"a/b", "what": ("utime", 1_000_000_008_123_456_789)}),
        ("change", {"uid": 1004, "place": b"a/b", "what": ("chown", 1005, 100)}),
        ("rename", {"uid": 1001, "place": b"a/b", "new": b"t", "flags": 0}),
        ("rename", {"uid": 1001, "place": b"t", "new": b"a", "flags": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "the last name that a suspect sees, of a file that has more where the suspect has something else": [
        ("unlink", {"uid": 1001, "place": b"a/b/c"}),
        ("suspect", {"index": 0}),
        ("change", {"uid": 1003, "place": b"a/a", "what": ("chmod", 0o600)}),
        ("unlink", {"uid": 1001, "place": b"a/a"}),
        ("make", {"uid": 1001, "place": b"a/a", "kind": "directory"}),
        ("write", {"uid": 1001, "place": b"a/a/a", "flags": NEW, "offset": 0}),
        ("link", {"uid": 1001, "place": b"a/a/a", "new": b"a/b/c"}),
        ("unlink", {"uid": 1003, "place": b"a/b/c"}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "what main moves within a directory that a suspect has not, and that comes back": [
        ("suspect", {"index": 0}),
        ("write", {"uid": 1003, "place": b"c", "flags": NEW, "offset": 0}),
        ("make", {"uid": 1001, "place": b"c", "kind": "directory"}),
        ("make", {"uid": 1001, "place": b"c/b", "kind": "directory"}),
        ("write", {"uid": 1001, "place": b"c/b/a", "flags": NEW, "offset": 0}),
        ("rename", {"uid": 1001, "place": b"c/b/a", "new": b"c/t", "flags": 0}),
        ("link", {"uid": 1001, "place": b"c/t", "new": b"c/l"}),
        ("rename", {"uid": 1001, "place": b"c", "new": b"ct", "flags": 0}),
    ],
    "a name that the suspect took, of a file that main took the others from": [
        ("link", {"uid": 1001, "place": b"b", "new": b"a/c"}),
        ("suspect", {"index": 0}),
        ("write", {"uid": 1003, "place": b"t", "flags": NEW, "offset": 0}),
        ("rename", {"uid": 1003, "place": b"t", "new": b"a/c", "flags": 0}),
        ("unlink", {"uid": 1001, "place": b"b"}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "what a suspect deleted after main gave it the name that it had before the suspect's renaming": [
        ("make", {"uid": 1001, "place": b"c", "kind": "a"}),
        ("suspect", {"index": 0}),
        ("rename", {"uid": 1003, "place": b"b", "new": b"c", "flags": EXCHANGE}),
        ("rename", {"uid": 1001, "place": b"b", "new": b"c", "flags": EXCHANGE}),
        ("unlink", {"uid": 1003, "place": b"b"}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "what a suspect deleted and another suspect's merge renamed": [
        ("make", {"uid": 1001, "place": b"c", "kind": "a"}),
        ("suspect", {"index": 0}),
        ("suspect", {"index": 0}),
        ("rename", {"uid": 1004, "place": b"c", "new": b"a/a", "flags": EXCHANGE}),
        ("unlink", {"uid": 1003, "place": b"a/a"}),
        ("decide", {"index": 1, "innocent": True}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "where main had what both sides gave the same new name": [
        ("suspect", {"index": 0}),
        ("rename", {"uid": 1003, "place": b"b", "new": b"c", "flags": 0}),
        ("rename", {"uid": 1001, "place": b"b", "new": b"c", "flags": 0}),
        ("write", {"uid": 1003, "place": b"c", "flags": os.O_WRONLY, "offset": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "where main had what is in a directory that both sides gave the same new name": [
        ("suspect", {"index": 0}),
        ("rename", {"uid": 1003, "place": b"a", "new": b"c", "flags": 0}),
        ("rename", {"uid": 1001, "place": b"a", "new": b"c", "flags": 0}),
        ("change", {"uid": 1003, "place": b"c", "what": ("chmod", 0o700)}),
        ("write", {"uid": 1003, "place": b"c/a", "flags": os.O_WRONLY, "offset": 0}),
        ("unlink", {"uid": 1003, "place": b"c/b/c"}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a second name of what comes back, if it was renamed before main lost it": [
        ("write", {"uid": 1001, "place": b"c", "flags": NEW, "offset": 0}),
        ("make", {"uid": 1001, "place": b"a/c", "kind": "a"}),
        ("suspect", {"index": 1}),
        ("rename", {"uid": 1004, "place": b"c", "new": b"a/c", "flags": 0}),
        ("rename", {"uid": 1001, "place": b"a/c", "new": b"c", "flags": 0}),
        ("link", {"uid": 1004, "place": b"a/c", "new": b"a/b/a"}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a handle on what its user has replaced, isolated once more": [
        ("write", {"uid": 1001, "place": b"c", "flags": NEW, "offset": 0}),
        ("open", {"uid": 1003, "place": b"c", "flags": os.O_WRONLY}),
        ("suspect", {"index": 0}),
        ("suspect", {"index": 0}),
        ("write", {"uid": 1004, "place": b"c", "flags": os.O_WRONLY, "offset": 0}),
        ("decide", {"index": 0, "innocent": False}),
        ("write", {"uid": 1003, "place": b"t", "flags": NEW, "offset": 0}),
        ("rename", {"uid": 1003, "place": b"t", "new": b"c", "flags": 0}),
        ("suspect", {"index": 0}),
        ("write", {"uid": 1003, "place": b"c", "flags": os.O_WRONLY, "offset": 0}),
        ("use", {"index": 0, "what": ("truncate", 2)}),
    ],
    "what a merge brings back under several names, and another suspect has": [
        ("suspect", {"index": 0}),
        ("suspect", {"index": 0}),
        ("write", {"uid": 1003, "place": b"b", "flags": os.O_WRONLY, "offset": 0}),
        ("write", {"uid": 1004, "place": b"b", "flags": os.O_WRONLY, "offset": 0}),
        ("unlink", {"uid": 1001, "place": b"b"}),
        ("link", {"uid": 1004, "place": b"b", "new": b"c"}),
        ("link", {"uid": 1004, "place": b"b", "new": b"t"}),
        ("decide", {"index": 1, "innocent": True}),
    ],
    "names of a deleted file that the suspect gave to something else": [
        ("link", {"uid": 1001, "place": b"a/b/c", "new": b"t"}),
        ("suspect", {"index": 0}),
        ("unlink", {"uid": 1003, "place": b"a/b/c"}),
        ("unlink", {"uid": 1003, "place": b"t"}),
        ("write", {"uid": 1003, "place": b"a/b/c", "flags": NEW, "offset": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "what came back under a handle from before the suspicion, and is isolated once more": [
        ("open", {"uid": 1003, "place": b"b", "flags": os.O_WRONLY}),
        ("suspect", {"index": 0}),
        ("write", {"uid": 1003, "place": b"b", "flags": os.O_WRONLY, "offset": 0}),
        ("unlink", {"uid": 1001, "place": b"b"}),
        ("decide", {"index": 0, "innocent": True}),
        ("suspect", {"index": 0}),
        ("use", {"index": 0, "what": ("truncate", 2)}),
    ],
    "names that main lost, of a file that a suspect renamed and another's merge deletes": [
        ("write", {"uid": 1001, "place": b"c", "flags": NEW, "offset": 0}),
        ("link", {"uid": 1001, "place": b"c", "new": b"a/c"}),
        ("link", {"uid": 1001, "place": b"c", "new": b"a/b/a"}),
        ("suspect", {"index": 0}),
        ("suspect", {"index": 0}),
        ("rename", {"uid": 1003, "place": b"a/c", "new": b"t", "flags": 0}),
        ("unlink", {"uid": 1004, "place": b"a/b/a"}),
        ("unlink", {"uid": 1004, "place": b"a/c"}),
        ("unlink", {"uid": 1004, "place": b"c"}),
        ("decide", {"index": 1, "innocent": True}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "what takes the place of a directory, in which another suspect has something deep down": [
        ("make", {"uid": 1001, "place": b"c", "kind": "directory"}),
        ("make", {"uid": 1001, "place": b"c/a", "kind": "directory"}),
        ("make", {"uid": 1001, "place": b"c/b", "kind": "directory"}),
        ("suspect", {"index": 0}),
        ("suspect", {"index": 0}),
        ("write", {"uid": 1003, "place": b"c/a/a", "flags": NEW, "offset": 0}),
        ("write", {"uid": 1003, "place": b"c/b/a", "flags": NEW, "offset": 0}),
        ("rename", {"uid": 1004, "place": b"c/b", "new": b"t", "flags": 0}),
        ("rmdir", {"uid": 1004, "place": b"c/a"}),
        ("rename", {"uid": 1004, "place": b"t", "new": b"c", "flags": 0}),
        ("decide", {"index": 1, "innocent": True}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "what takes the place of a directory that another suspect has changed": [
        ("make", {"uid": 1001, "place": b"c", "kind": "directory"}),
        ("make", {"uid": 1001, "place": b"c/b", "kind": "directory"}),
        ("suspect", {"index": 0}),
        ("suspect", {"index": 0}),
        ("rename", {"uid": 1004, "place": b"c/b", "new": b"t", "flags": 0}),
        ("rename", {"uid": 1004, "place": b"t", "new": b"c", "flags": 0}),
        ("change", {"uid": 1003, "place": b"c", "what": ("chmod", 0o700)}),
        ("decide", {"index": 1, "innocent": True}),
    ],
    "what a merge moves into a directory that comes back": [
        ("make", {"uid": 1001, "place": b"c", "kind": "directory"}),
        ("make", {"uid": 1001, "place": b"a/c", "kind": "directory"}),
        ("suspect", {"index": 0}),
        ("suspect", {"index": 0}),
        ("rename", {"uid": 1004, "place": b"a/c", "new": b"c/c", "flags": 0}),
        ("rmdir", {"uid": 1001, "place": b"c"}),
        ("decide", {"index": 1, "innocent": True}),
    ],
    "a name in each of two directories that the merge unites": [
        ("make", {"uid": 1001, "place": b"c", "kind": "directory"}),
        ("make", {"uid": 1001, "place": b"t", "kind": "directory"}),
        ("suspect", {"index": 0}),
        ("write", {"uid": 1003, "place": b"c/a", "flags": NEW, "offset": 0}),
        ("rename", {"uid": 1001, "place": b"t", "new": b"c", "flags": 0}),
        ("write", {"uid": 1003, "place": b"t/a", "flags": NEW, "offset": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "how old a directory is in which a deletion does not stand": [
        ("make", {"uid": 1001, "place": b"a/b/a", "kind": "directory"}),
        ("suspect", {"index": 0}),
        ("rmdir", {"uid": 1003, "place": b"a/b/a"}),
        ("change", {"uid": 1001, "place": b"a/b", "what": ("utime", 1_000_000_006_123_456_789)}),
        ("write", {"uid": 1001, "place": b"a/b/a/a", "flags": NEW, "offset": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a handle from before the suspicion, on what its user has replaced since": [
        ("open", {"uid": 1003, "place": b"a/a", "flags": os.O_WRONLY}),
        ("suspect", {"index": 0}),
        ("use", {"index": 0, "what": ("truncate", 2)}),
        ("rename", {"uid": 1003, "place": b"b", "new": b"a/a", "flags": 0}),
        ("use", {"index": 0, "what": ("truncate", 1)}),
    ],
    "what a suspect deleted and another's merge let change places with what the suspect put there": [
        ("make", {"uid": 1001, "place": b"a/c", "kind": "nowhere"}),
        ("suspect", {"index": 0}),
        ("suspect", {"index": 0}),
        ("rename", {"uid": 1003, "place": b"b", "new": b"a/c", "flags": 0}),
        ("rename", {"uid": 1004, "place": b"b", "new": b"a/c", "flags": EXCHANGE}),
        ("decide", {"index": 1, "innocent": True}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a name in a directory that the suspect has deleted, of what the suspect changed": [
        ("make", {"uid": 1001, "place": b"c", "kind": "directory"}),
        ("suspect", {"index": 0}),
        ("rmdir", {"uid": 1003, "place": b"c"}),
        ("change", {"uid": 1003, "place": b"b", "what": ("chmod", 0o600)}),
        ("make", {"uid": 1001, "place": b"c/b", "kind": "directory"}),
        ("link", {"uid": 1001, "place": b"b", "new": b"c/b/a"}),
        ("link", {"uid": 1001, "place": b"b", "new": b"c/c"}),
        ("unlink", {"uid": 1001, "place": b"c/b/a"}),
        ("rmdir", {"uid": 1001, "place": b"c/b"}),
        ("rename", {"uid": 1001, "place": b"c/c", "new": b"a/c", "flags": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a plan of a deleted file with several names, some of which other things get": [
        ("make", {"uid": 1001, "place": b"c", "kind": "directory"}),
        *[("link", {"uid": 1001, "place": b"b", "new": b"c/" + name}) for name in (b"c", b"a", b"b")],
        ("suspect", {"index": 0}),
        *[("unlink", {"uid": 1003, "place": path}) for path in (b"b", b"c/c", b"c/b", b"c/a")],
        ("rmdir", {"uid": 1003, "place": b"c"}),
        ("write", {"uid": 1003, "place": b"c", "flags": NEW, "offset": 0}),
        ("make", {"uid": 1003, "place": b"b", "kind": "directory"}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a report of what both sides renamed, if main's new name is also one of the suspect's": [
        ("suspect", {"index": 0}),
        ("link", {"uid": 1003, "place": b"a/b/c", "new": b"a/b/b"}),
        ("rename", {"uid": 1003, "place": b"a/b/c", "new": b"a/a", "flags": 0}),
        ("rename", {"uid": 1001, "place": b"a/b/c", "new": b"a/b/b", "flags": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "where main had what both sides renamed, in place of which the suspect has another thing": [
        ("suspect", {"index": 0}),
        ("rename", {"uid": 1003, "place": b"b", "new": b"a/c", "flags": 0}),
        ("make", {"uid": 1003, "place": b"c", "kind": "directory"}),
        ("change", {"uid": 1003, "place": b"a/c", "what": ("chmod", 0o600)}),
        ("rename", {"uid": 1001, "place": b"b", "new": b"c", "flags": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a plan of what comes back under one name that is free and one that is not": [
        ("make", {"uid": 1001, "place": b"c", "kind": "nowhere"}),
        ("suspect", {"index": 0}),
        ("write", {"uid": 1003, "place": b"b", "flags": os.O_WRONLY, "offset": 0}),
        ("link", {"uid": 1003, "place": b"b", "new": b"t"}),
        ("rename", {"uid": 1001, "place": b"c", "new": b"b", "flags": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "all names of what comes back, if main has renamed it before": [
        ("link", {"uid": 1001, "place": b"b", "new": b"a/c"}),
        ("suspect", {"index": 0}),
        ("change", {"uid": 1003, "place": b"b", "what": ("chmod", 0o600)}),
        ("rename", {"uid": 1001, "place": b"b", "new": b"c", "flags": 0}),
        ("unlink", {"uid": 1001, "place": b"a/c"}),
        ("unlink", {"uid": 1001, "place": b"c"}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "how old a directory is whose deletion does not stand": [
        ("suspect", {"index": 0}),
        ("unlink", {"uid": 1003, "place": b"a/b/c"}),
        ("rmdir", {"uid": 1003, "place": b"a/b"}),
        ("change", {"uid": 1001, "place": b"a/b", "what": ("utime", 1_000_000_006_123_456_789)}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a plan of several names of what the suspect made, in directories that both sides made": [
        ("suspect", {"index": 0}),
        ("write", {"uid": 1003, "place": b"t", "flags": NEW, "offset": 0}),
        ("make", {"uid": 1003, "place": b"c", "kind": "directory"}),
        ("make", {"uid": 1003, "place": b"c/b", "kind": "directory"}),
        ("link", {"uid": 1003, "place": b"t", "new": b"c/b/b"}),
        ("make", {"uid": 1001, "place": b"c", "kind": "directory"}),
        ("make", {"uid": 1001, "place": b"c/b", "kind": "directory"}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a version of a file whose first name is in a directory that the suspect has not": [
        ("suspect", {"index": 0}),
        ("make", {"uid": 1003, "place": b"c", "kind": "directory"}),
        ("make", {"uid": 1001, "place": b"c", "kind": "directory"}),
        ("write", {"uid": 1001, "place": b"c/c", "flags": NEW, "offset": 0}),
        ("link", {"uid": 1001, "place": b"c/c", "new": b"t"}),
        ("write", {"uid": 1003, "place": b"t", "flags": os.O_WRONLY, "offset": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a plan of what comes back in a directory that is put beside": [
        ("suspect", {"index": 0}),
        ("change", {"uid": 1003, "place": b"a/b", "what": ("set_xattr", "user.y", b"1")}),
        ("unlink", {"uid": 1001, "place": b"a/b/c"}),
        ("rmdir", {"uid": 1001, "place": b"a/b"}),
        ("unlink", {"uid": 1001, "place": b"a/a"}),
        ("rmdir", {"uid": 1001, "place": b"a"}),
        ("write", {"uid": 1001, "place": b"a", "flags": NEW, "offset": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a plan of what was made in a directory that changes places with a file": [
        ("suspect", {"index": 0}),
        ("make", {"uid": 1003, "place": b"a/b/b", "kind": "directory"}),
        ("rename", {"uid": 1003, "place": b"b", "new": b"a/b", "flags": EXCHANGE}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a plan of a name in a conflicting directory that main has moved": [
        ("suspect", {"index": 0}),
        ("change", {"uid": 1003, "place": b"a", "what": ("utime", 1_000_000_007_123_456_789)}),
        ("rename", {"uid": 1003, "place": b"a/b/c", "new": b"a/b/b", "flags": 0}),
        ("unlink", {"uid": 1001, "place": b"b"}),
        ("rename", {"uid": 1001, "place": b"a", "new": b"b", "flags": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a plan of another name of a file than its first": [
        ("write", {"uid": 1001, "place": b"c", "flags": NEW, "offset": 0}),
        ("link", {"uid": 1001, "place": b"c", "new": b"a/b/a"}),
        ("suspect", {"index": 0}),
        ("rename", {"uid": 1003, "place": b"a/b/a", "new": b"a/t", "flags": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a report of what was in directories that changed places in a chain": [
        ("make", {"uid": 1001, "place": b"v", "kind": "directory"}),
        ("make", {"uid": 1001, "place": b"u", "kind": "directory"}),
        ("make", {"uid": 1001, "place": b"u/c", "kind": "directory"}),
        ("suspect", {"index": 0}),
        ("rename", {"uid": 1003, "place": b"u/c", "new": b"at", "flags": 0}),
        ("rename", {"uid": 1003, "place": b"v", "new": b"u/c", "flags": 0}),
        ("rename", {"uid": 1003, "place": b"u", "new": b"v", "flags": 0}),
        ("rename", {"uid": 1003, "place": b"at", "new": b"u", "flags": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a report of a name in a directory whose place is taken": [
        ("link", {"uid": 1001, "place": b"a/b/c", "new": b"c"}),
        ("suspect", {"index": 0}),
        ("unlink", {"uid": 1003, "place": b"a/b/c"}),
        ("rmdir", {"uid": 1003, "place": b"a/b"}),
        ("write", {"uid": 1003, "place": b"a/b", "flags": NEW, "offset": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a plan of what main has given another name, in a directory whose place is taken": [
        ("suspect", {"index": 0}),
        ("link", {"uid": 1001, "place": b"a/b/c", "new": b"c"}),
        ("unlink", {"uid": 1003, "place": b"a/b/c"}),
        ("rmdir", {"uid": 1003, "place": b"a/b"}),
        ("write", {"uid": 1003, "place": b"a/b", "flags": NEW, "offset": 0}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "where main had a file that the suspect took two names from, one of which has to be free before": [
        ("write", {"uid": 1001, "place": b"c", "flags": NEW, "offset": 0}),
        ("link", {"uid": 1001, "place": b"c", "new": b"a/c"}),
        ("suspect", {"index": 0}),
        ("unlink", {"uid": 1003, "place": b"a/c"}),
        ("make", {"uid": 1003, "place": b"a/c", "kind": "directory"}),
        ("rename", {"uid": 1003, "place": b"a", "new": b"c", "flags": EXCHANGE}),
        ("decide", {"index": 0, "innocent": True}),
    ],
    "a version that waits, and a handle from before the suspicion on what main has replaced since": [
        ("open", {"uid": 1003, "place": b"b", "flags": os.O_WRONLY}),
        ("suspect", {"index": 0}),
        ("use", {"index": 0, "what": ("write", 4)}),
        ("act", {"uid": 1001, "what": "save", "one": 2, "other": 1}),
        ("decide", {"index": 0, "innocent": True}),
        ("use", {"index": 0, "what": ("write", 0)}),
        ("settle", {"index": 0, "choice": "suspect"}),
    ],
    "a directory that main exchanges for a file in it, which a suspect changed": [
        ("make", {"uid": 1001, "place": b"c", "kind": "directory"}),
        ("write", {"uid": 1001, "place": b"c/a", "flags": NEW, "offset": 0}),
        ("make", {"uid": 1001, "place": b"a/c", "kind": "directory"}),
        ("link", {"uid": 1001, "place": b"c/a", "new": b"a/c/a"}),
        ("suspect", {"index": 0}),
        ("change", {"uid": 1003, "place": b"c/a", "what": ("chmod", 0o600)}),
        ("rename", {"uid": 1001, "place": b"c", "new": b"a/c/a", "flags": EXCHANGE}),
    ],
}


@pytest.mark.parametrize("steps", ONCE.values(), ids=ONCE)
def test_what_went_wrong_once(steps: list[Step]) -> None:
    error = failure(steps)
    if error is not None:
        raise error


#: Where the merge of a history is killed: before (even) or after (odd) a write of the store.
CUTS = range(40) if "ISOFS_HISTORIES" in os.environ else range(1, 40, 6)


#: The same where something comes back under several names; in the samples before and after it has come, and has two.
RETURN_CUTS = range(28) if "ISOFS_HISTORIES" in os.environ else (4, 6, 11, 15)


@pytest.mark.parametrize("stop", RETURN_CUTS)
@pytest.mark.parametrize("taken", [(), (b"b", b"c", b"t")])
def test_a_kill_shows_others_no_more_names_of_what_comes_back(
    stop: int, taken: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    try:
        for name, given in ONCE["what a merge brings back under several names, and another suspect has"][:-1]:
            getattr(machine, name)(**given)
        for path in taken:
            machine.write(1001, path, NEW, 0)
        _, sid = machine.world.views
        cut_off(stop, monkeypatch, lambda: apply.innocent(machine.fs, sid))
        machine.kill()
        if machine.fs.subjects[sid].state is not SubjectState.ENDED:
            apply.innocent(machine.fs, sid)
        verdicts.innocent(machine.world, sid)
        machine.consistency()
        machine.store_is_sound()
        assert differences(machine._main(), tree(ModelUser(machine.world, TRUSTED[0], GID, UMASK))) == []
    finally:
        machine.teardown()


@pytest.mark.parametrize("stop", CUTS)
def test_a_kill_leaves_leaves_no_name_of_a_merge_in_main(stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    try:
        for name, given in ONCE["one of several names that was out of the way for a moment"][:-1]:
            getattr(machine, name)(**given)
        (sid,) = machine.world.views
        assert cut_off(stop, monkeypatch, lambda: apply.innocent(machine.fs, sid))
        machine.kill()
        if machine.fs.subjects[sid].state is not SubjectState.ENDED:
            apply.innocent(machine.fs, sid)
        verdicts.innocent(machine.world, sid)
        assert differences(machine._main(), tree(ModelUser(machine.world, TRUSTED[0], GID, UMASK))) == []
    finally:
        machine.teardown()
