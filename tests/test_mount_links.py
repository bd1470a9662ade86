"""As many names as the host allows one file, and one more: trusted, suspect, and when a suspect's work is merged."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mount import ALICE, BOB, Mounted, Person, mounted

pytestmark = pytest.mark.mount


@pytest.fixture
def many(place: Path) -> Iterator[tuple[Mounted, int]]:
    """A mount where `f` has but two names less than it can have, and how many it can have."""
    tree = place / "tree"
    (tree / "names").mkdir(parents=True)
    for directory in (tree, tree / "names"):
        directory.chmod(0o777)
    limit = os.pathconf(tree, "PC_LINK_MAX")
    if not 127 < limit < 100_000:
        pytest.skip("the file system has no such limit")
    (tree / "f").write_text("main")
    (tree / "f").chmod(0o666)
    for number in range(limit - 3):
        os.link(tree / "f", tree / "names" / str(number))
    with mounted(tree) as mount:
        yield mount, limit


def link(one: Person, name: str) -> int:
    """Give the file one more name; 0 or an errno."""
    try:
        one.link("f", name)
    except OSError as error:
        return error.errno or 0
    return 0


def test_the_last_name_and_one_more(many: tuple[Mounted, int]) -> None:
    """A suspect is refused when a trusted user would be; names that both gave meanwhile and that are too many together
    are left out by the merge, which says so, ends, and keeps everything else."""
    mount, limit = many
    bob, alice = Person(BOB, mount.path), Person(ALICE, mount.path)
    try:
        mount.ask("suspect", uid=ALICE, user="alice")
        assert [link(alice, f"a{number}") for number in range(3)] == [0, 0, errno.EMLINK]
        assert alice.status("f")[3] == limit
        assert bob.status("f")[3] == limit - 2
        assert [link(bob, f"b{number}") for number in range(3)] == [0, 0, errno.EMLINK]
        alice.write("other", "hers")
        done = mount.ask("innocent", uid=ALICE)
        assert [(i["path"], i["action"], i["review"]) for i in done["items"] if i["path"] != "other"] == [
            ("a0", "kept", True),
            ("a1", "kept", True),
        ]
        assert not done["conflicts"]
        assert bob.names() == ["b0", "b1", "f", "names", "other"]
        assert mount.ask("status")["subjects"] == []
        assert bob.read("f") == alice.read("b1") == "main"
    finally:
        bob.close()
        alice.close()


def test_trusted_users_meet_the_hosts_limit(many: tuple[Mounted, int]) -> None:
    """And what is refused leaves nothing behind; a name less makes room for one."""
    mount, limit = many
    bob = Person(BOB, mount.path)
    try:
        assert [link(bob, f"b{number}") for number in range(3)] == [0, 0, errno.EMLINK]
        assert bob.names() == ["b0", "b1", "f", "names"]
        assert bob.status("f")[3] == limit
        bob.remove("b0")
        assert [link(bob, "b3"), link(bob, "b4")] == [0, errno.EMLINK]
    finally:
        bob.close()
