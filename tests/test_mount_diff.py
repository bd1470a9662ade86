"""What `isoctl diff` compares a suspect's work with, on a real mount."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from isofs.errors import Exit
from support.mount import ALICE, BOB, Mounted, Person

pytestmark = pytest.mark.mount


@pytest.fixture
def alice(person: Callable[[int], Person]) -> Person:
    return person(ALICE)


@pytest.fixture
def bob(person: Callable[[int], Person]) -> Person:
    return person(BOB)


def diff(mount: Mounted, *words: str) -> list[dict[str, Any]]:
    return list(mount.facts("diff", str(ALICE), *words)["entries"])


def test_both_questions_are_answered(mount: Mounted, alice: Person, bob: Person) -> None:
    """What did she change, and what would change in main; before the verdict and while it waits."""
    bob.write("f", "one\ntwo\n")
    mount.facts("suspect", str(ALICE))
    alice.write("f", "one\nalice's\n")
    bob.write("f", "bob's\ntwo\n")
    for _ in range(2):
        (base,), (main,), (usual,) = (
            diff(mount, *words) for words in (["--against", "base"], ["--against", "main"], [])
        )
        assert base["text"].splitlines()[2:] == ["@@ -1,2 +1,2 @@", " one", "-two", "+alice's"]
        assert main["text"].splitlines()[2:] == ["@@ -1,2 +1,2 @@", "-bob's", "-two", "+one", "+alice's"]
        assert usual == base
        assert mount.isoctl("innocent", str(ALICE)).code == Exit.CONFLICTS


def test_what_she_started_from_may_not_have_been_kept(mount: Mounted, alice: Person, bob: Person) -> None:
    bob.write("f", "start\n")
    mount.facts("suspect", str(ALICE))
    alice.write("f", "alice's\n")
    mount.umount()
    (mount.path / "f").write_text("restored\n")
    mount.mount()
    (base,), (main,) = (diff(mount, "--against", against) for against in ("base", "main"))
    assert (base["known"], base["text"], base["old"]) == (False, None, None)
    assert (main["known"], main["text"].splitlines()[3:]) == (True, ["-restored", "+alice's"])
    assert f"# f: what {ALICE} started from was not kept" in mount.isoctl("diff", str(ALICE), "--against", "base").out
