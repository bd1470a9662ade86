"""`isoctl report` on a real mount: what verdicts did, also later."""

from __future__ import annotations

from pathlib import Path

import pytest

from isofs.errors import Exit
from support.command import refused
from support.mount import ALICE, BOB, CAROL, Mounted, Person, mounted

pytestmark = pytest.mark.mount


def test_what_verdicts_did_is_shown_again(tree: Path) -> None:
    with mounted(tree) as mount:
        alice, bob, carol = (Person(uid, mount.path) for uid in (ALICE, BOB, CAROL))
        assert mount.isoctl("report").out == "no verdict was given\n"
        bob.write("both", "1\n")
        bob.write("gone", "his\n")
        for user in (ALICE, CAROL):
            mount.facts("suspect", str(user))
        alice.write("hers", "hers\n")
        alice.write("both", "hers\n")
        alice.remove("gone")
        bob.write("both", "his\n")
        carol.write("evil", "evil\n")
        done = mount.isoctl("innocent", str(ALICE), "--json")
        assert done.code == Exit.CONFLICTS
        merged = done.json
        mount.facts("malicious", str(CAROL), "--yes", "--reason", "ransomware")
        told = mount.facts("report", str(ALICE))
        assert (told["items"], told["counts"]) == (merged["items"], merged["counts"])
        mount.facts("resolve", str(ALICE), "both", "--take", "both")
        _remounted(mount)
        listed = mount.facts("report")["verdicts"]
        assert [(one["verdict"], one["uid"], one["reason"]) for one in listed] == [
            ("resolve", ALICE, ""),
            ("malicious", CAROL, "ransomware"),
            ("innocent", ALICE, ""),
        ]
        assert all(one["by"] and one["at"] <= one["ended"] for one in listed)
        assert Path(listed[1]["readable"]).stat().st_size > 0
        assert mount.facts("report", str(ALICE))["counts"] == {"renamed": 1}
        assert mount.facts("report", "--number", str(told["number"])) == told
        shown = mount.isoctl("report", "--number", str(told["number"])).out.splitlines()
        assert len(shown) == 1 + len(told["items"])
        assert any(line.startswith("conflict  both") for line in shown)
        refused(mount.isoctl("report", str(BOB)), Exit.NO_SUBJECT, "no report")
        refused(mount.isoctl("report", "--number", "1"), Exit.NO_SUBJECT, "no report")
        for person in (alice, bob, carol):
            person.close()


def _remounted(mount: Mounted) -> None:
    mount.umount()
    mount.mount()
