"""Whole stories on a real mount: people at work, suspicions, and what the verdicts make of everybody's work."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from isofs.errors import Exit
from support.archives import contents, manifest
from support.mount import ALICE, BOB, CAROL, DAVE, Mounted, Person

pytestmark = pytest.mark.mount

Begin = Callable[[int], Person]
Tree = dict[str, Any]


def whole(root: str, skip: str = "") -> Tree:
    """Everything about everything below a directory: by path, all that `stat` tells but link numbers and clocks."""
    found: Tree = {}
    groups: dict[int, list[str]] = {}
    todo = [""]
    while todo:
        at = todo.pop()
        for name in sorted(os.listdir(f"{root}/{at}")):
            path = f"{at}/{name}" if at else name
            if path == skip:
                continue
            full = f"{root}/{path}"
            st = os.lstat(full)
            kind = stat.S_IFMT(st.st_mode)
            row = [oct(st.st_mode), st.st_uid, st.st_gid, st.st_nlink]
            if kind == stat.S_IFDIR:
                todo.append(path)
            else:
                groups.setdefault(st.st_ino, []).append(path)
            if kind == stat.S_IFREG:
                with open(full, "rb") as file:
                    row += [file.read().decode("latin-1"), st.st_mtime_ns]
            if kind == stat.S_IFLNK:
                row.append(os.readlink(full))
            else:
                row.append({n: os.getxattr(full, n).hex() for n in sorted(os.listxattr(full))})
            found[path] = row
    for names in groups.values():
        for name in names:
            found[name].append(sorted(names))
    return found


def modes(root: str) -> dict[str, str]:
    """The names below a directory with types and modes."""
    found = {}
    for at, directories, files in os.walk(root):
        for name in (*directories, *files):
            full = os.path.join(at, name)
            found[os.path.relpath(full, root)] = oct(os.lstat(full).st_mode)
    return found


@dataclass
class Story:
    """A mount with people: alice and carol come under suspicion, bob and dave are trusted."""

    mount: Mounted
    alice: Person
    bob: Person
    carol: Person
    dave: Person

    def suspect(self, uid: int = ALICE, *words: str) -> Any:
        return self.mount.facts("suspect", str(uid), *words)

    def main(self) -> Tree:
        """Main's names and contents: what bob and dave see."""
        seen = self.bob.tree()
        assert self.dave.tree() == seen
        return seen

    def sees_main(self, uid: int) -> None:
        """The user sees what everybody sees: root through the mount, and the directory itself."""
        names = {path: row[0] for path, row in self.everything().items()}
        assert self.person(uid)(modes, str(self.mount.path)) == names

    def everything(self) -> Tree:
        """All of main, seen by root through the mount and in the directory itself."""
        seen = whole(str(self.mount.path))
        assert whole(str(self.mount.backing), skip=".isofs") == seen
        return seen

    def changes(self, uid: int = ALICE) -> set[tuple[str, str]]:
        facts = self.mount.facts("changes", str(uid))
        return {(c["change"], c["path"]) for c in facts["changes"]}

    def innocent(self, uid: int = ALICE, conflicts: int = 0) -> dict[str, dict[str, Any]]:
        """Merge; returns what was done by path. Afterwards the user sees main."""
        done = self.mount.isoctl("innocent", str(uid), "--json")
        assert done.code == (Exit.CONFLICTS if conflicts else Exit.DONE), done
        assert done.json["conflicts"] == conflicts, done
        self.sees_main(uid)
        return {item["path"]: item for item in done.json["items"]}

    def malicious(self, uid: int = ALICE) -> Path:
        """Discard; main is what it was to the last byte, the user sees it. Returns the evidence."""
        before = self.everything()
        facts = self.mount.facts("malicious", str(uid), "--yes")
        assert self.everything() == before
        self.sees_main(uid)
        inside = os.path.relpath(facts["evidence"], self.mount.path)
        return self.mount.backing / inside

    def person(self, uid: int) -> Person:
        return {ALICE: self.alice, BOB: self.bob, CAROL: self.carol, DAVE: self.dave}[uid]

    def nobody_left(self) -> None:
        assert self.mount.facts("status")["subjects"] == []
        assert self.mount.facts("conflicts")["conflicts"] == []


@pytest.fixture
def story(mount: Mounted, person: Begin) -> Story:
    """Everybody at work on an empty mount."""
    return Story(mount, person(ALICE), person(BOB), person(CAROL), person(DAVE))


def test_two_suspects_at_once(story: Story) -> None:
    """Each has a store of its own; neither sees the other's work, nobody sees either's, both see main's latest."""
    bob, alice, carol = story.bob, story.alice, story.carol
    bob.write("shared", "main\n")
    bob.write("other", "main\n")
    story.suspect(ALICE, "--reason", "an alert")
    story.suspect(CAROL)
    alice.write("shared", "alice's\n")
    carol.append("shared", "carol's\n")
    alice.write("only-alice", "a")
    carol.mkdir("only-carol")
    carol.remove("other")
    bob.write("live", "news\n")
    assert story.main() == {"live": "news\n", "other": "main\n", "shared": "main\n"}
    assert alice.tree() == {"live": "news\n", "other": "main\n", "shared": "alice's\n", "only-alice": "a"}
    assert carol.tree() == {"live": "news\n", "shared": "main\ncarol's\n", "only-carol": {}}
    assert story.changes(ALICE) == {("modified", "shared"), ("added", "only-alice")}
    assert story.changes(CAROL) == {("modified", "shared"), ("deleted", "other"), ("added", "only-carol")}
    subjects = {s["uid"]: s for s in story.mount.facts("status")["subjects"]}
    assert subjects[ALICE]["changed"] == {"added": 1, "modified": 1, "deleted": 0, "renamed": 0, "attributes": 0}
    assert subjects[CAROL]["changed"] == {"added": 1, "modified": 1, "deleted": 1, "renamed": 0, "attributes": 0}
    assert (subjects[ALICE]["reason"], subjects[ALICE]["state"]) == ("an alert", "suspect")
    story.malicious(CAROL)
    assert alice.tree() == {"live": "news\n", "other": "main\n", "shared": "alice's\n", "only-alice": "a"}
    story.innocent(ALICE)
    assert story.main() == {"live": "news\n", "other": "main\n", "shared": "alice's\n", "only-alice": "a"}
    story.nobody_left()


def test_deleted_on_both_sides(story: Story) -> None:
    story.bob.write("f", "main")
    story.suspect()
    story.alice.remove("f")
    story.bob.remove("f")
    items = story.innocent()
    assert story.main() == {}
    assert not any(item["review"] for item in items.values())
    story.nobody_left()


def test_what_main_deleted_and_the_suspect_modified_comes_back_for_review(story: Story) -> None:
    story.bob.write("f", "main")
    story.suspect()
    story.alice.write("f", "alice's work")
    story.bob.remove("f")
    assert story.main() == {}
    assert story.alice.read("f") == "alice's work"
    items = story.innocent()
    assert story.main() == {"f": "alice's work"}
    assert items["f"]["review"]
    assert items["f"]["action"] == "restored"
    story.nobody_left()


def test_what_main_deleted_and_the_suspect_only_read_stays_deleted(story: Story) -> None:
    story.bob.write("f", "main")
    story.bob.write("g", "main")
    story.suspect()
    assert story.alice.read("f") == "main"
    story.alice.write("g", "x")
    story.bob.remove("f")
    assert story.alice.names() == ["g"]
    story.innocent()
    assert story.main() == {"g": "x"}


def test_what_the_suspect_deleted_and_main_modified_stays_for_review(story: Story) -> None:
    story.bob.write("f", "main")
    story.suspect()
    story.alice.remove("f")
    story.bob.write("f", "more of main")
    assert not story.alice.exists("f")
    items = story.innocent()
    assert story.main() == {"f": "more of main"}
    assert items["f"]["review"]
    assert items["f"]["action"] == "kept"


def test_what_the_suspect_deleted_and_another_merge_modified_stays(story: Story) -> None:
    """The second saving condition of Protocol 3."""
    story.bob.write("f", "main")
    story.suspect(ALICE)
    story.suspect(CAROL)
    story.alice.remove("f")
    story.carol.write("f", "carol's")
    story.innocent(CAROL)
    assert story.main() == {"f": "carol's"}
    items = story.innocent(ALICE)
    assert story.main() == {"f": "carol's"}
    assert items["f"]["review"]


def test_what_only_the_suspect_deleted_is_deleted(story: Story) -> None:
    story.bob.write("f", "main")
    story.bob.mkdir("d")
    story.bob.write("d/inner", "main")
    story.suspect()
    story.alice.remove("f")
    story.alice.remove("d/inner")
    story.alice.rmdir("d")
    assert story.changes() == {("deleted", "f"), ("deleted", "d"), ("deleted", "d/inner")}
    items = story.innocent()
    assert story.main() == {}
    assert {p: i["action"] for p, i in items.items()} == {"f": "deleted", "d": "deleted", "d/inner": "deleted"}


def test_a_directory_that_the_suspect_deleted_and_main_filled_stays(story: Story) -> None:
    story.bob.mkdir("d")
    story.suspect()
    story.alice.rmdir("d")
    story.bob.write("d/new", "main")
    assert not story.alice.exists("d")
    story.innocent()
    assert story.main() == {"d": {"new": "main"}}


def test_what_only_the_suspect_modified_is_taken(story: Story) -> None:
    story.bob.write("f", "main")
    story.suspect()
    story.alice.append("f", " and alice")
    items = story.innocent()
    assert story.main() == {"f": "main and alice"}
    assert (items["f"]["action"], items["f"]["review"]) == ("took", False)
    story.nobody_left()


def test_what_both_modified_is_a_conflict(story: Story) -> None:
    """Main's stays, the suspect's is kept, the exit code and `conflicts` say so."""
    story.bob.write("f", "start\n")
    story.bob.write("g", "start\n")
    story.suspect()
    story.alice.write("f", "alice's\n")
    story.alice.write("g", "alice's\n")
    story.bob.write("f", "bob's\n")
    before = story.everything()["f"]
    items = story.innocent(conflicts=1)
    assert items["f"]["action"] == "conflict"
    assert story.everything()["f"] == before
    assert story.main() == {"f": "bob's\n", "g": "alice's\n"}
    (conflict,) = story.mount.facts("conflicts", str(ALICE))["conflicts"]
    assert (conflict["path"], conflict["uid"], conflict["kind"]) == ("f", ALICE, "file")
    assert conflict["main"]["G"] == 1
    assert list(conflict["suspect"].values()) == [0, "m"]
    kept = story.mount.backing / os.path.relpath(conflict["version"], story.mount.path)
    assert kept.read_text() == "alice's\n"
    (subject,) = story.mount.facts("status")["subjects"]
    assert (subject["state"], subject["conflicts"]) == ("conflicts", 1)
    story.alice.write("f", "alice on main\n")
    assert story.main()["f"] == "alice on main\n"
    assert kept.read_text() == "alice's\n"
    story.mount.umount()
    story.mount.mount()
    assert [c["path"] for c in story.mount.facts("conflicts")["conflicts"]] == ["f"]
    assert kept_text(story, conflict) == "alice's\n"


def test_a_plan_is_what_the_merge_does(story: Story) -> None:
    """And it changes nothing: neither for the suspect nor for anybody else."""
    for name in ("both", "gone", "moved", "named", "left"):
        story.bob.write(name, "start\n")
    story.suspect()
    for name in ("both", "left"):
        story.alice.write(name, "alice's\n")
    story.alice.remove("gone")
    story.alice.rename("moved", "to")
    story.alice.write("new", "alice's\n")
    story.bob.write("both", "bob's\n")
    story.bob.write("new", "bob's\n")
    story.alice.write(".bashrc", "alice's\n")
    before, seen = story.everything(), story.changes()
    plan = story.mount.facts("plan", str(ALICE))
    assert (story.everything(), story.changes()) == (before, seen)
    planned = {item["path"]: item for item in plan["items"]}
    assert {path: item["action"] for path, item in planned.items()} == {
        ".bashrc": "took",
        "both": "conflict",
        "gone": "deleted",
        "left": "took",
        "new": "renamed",
        "to": "renamed",
    }
    assert planned["new"]["as"] == f"new.isofs-{ALICE}"
    assert planned["both"]["main"]["G"] == 1
    assert planned["both"]["reason"].startswith("both changed it, main once since the suspect's copy: text: ")
    marked = [c for c in story.mount.facts("changes", str(ALICE))["changes"] if c["risks"]]
    assert [(c["path"], c["risks"]) for c in marked] == [(".bashrc", planned[".bashrc"]["risks"])]
    shown = story.mount.isoctl("plan", str(ALICE), "-v").out
    assert shown.startswith(f"{ALICE}: conflict 1, delete 1, rename 2, take 2\n")
    assert "main G=1" in shown
    assert f"[{', '.join(planned['.bashrc']['risks'])}]" in shown
    items = story.innocent(conflicts=1)
    assert {path: item["action"] for path, item in items.items()} == {p: i["action"] for p, i in planned.items()}


def test_who_has_conflicts_is_isolated_anew(story: Story) -> None:
    """The next verdict is about the new work; what waits is decided after it."""
    story.bob.write("f", "start\n")
    story.suspect()
    story.alice.write("f", "alice's\n")
    story.bob.write("f", "bob's\n")
    story.innocent(conflicts=1)
    story.suspect()
    assert story.mount.isoctl("suspect", str(ALICE)).code == Exit.ALREADY
    states = [subject["state"] for subject in story.mount.facts("status")["subjects"]]
    assert sorted(states) == ["conflicts", "suspect"]
    assert story.alice.read("f") == "bob's\n"
    story.alice.write("g", "new\n")
    assert story.changes() == {("added", "g")}
    story.innocent()
    assert story.main() == {"f": "bob's\n", "g": "new\n"}
    (conflict,) = story.mount.facts("conflicts", str(ALICE))["conflicts"]
    assert kept_text(story, conflict) == "alice's\n"
    story.malicious()
    assert story.main() == {"f": "bob's\n", "g": "new\n"}
    story.nobody_left()


def kept_text(story: Story, conflict: dict[str, Any]) -> str:
    return (story.mount.backing / os.path.relpath(conflict["version"], story.mount.path)).read_text()


def test_one_merge_makes_the_next_a_conflict(story: Story) -> None:
    """Synchronisation: what was merged of the first suspect is a change of main for the second."""
    story.bob.write("f", "start\n")
    story.suspect(ALICE)
    story.suspect(CAROL)
    story.alice.write("f", "alice's\n")
    story.carol.write("f", "carol's\n")
    story.innocent(ALICE)
    assert story.main() == {"f": "alice's\n"}
    assert story.carol.read("f") == "carol's\n"
    story.innocent(CAROL, conflicts=1)
    assert story.main() == {"f": "alice's\n"}
    (conflict,) = story.mount.facts("conflicts")["conflicts"]
    assert kept_text(story, conflict) == "carol's\n"


def test_a_discarded_suspect_leaves_no_conflict(story: Story) -> None:
    story.bob.write("f", "start\n")
    story.suspect(ALICE)
    story.suspect(CAROL)
    story.alice.write("f", "alice's\n")
    story.carol.write("f", "carol's\n")
    story.malicious(ALICE)
    story.innocent(CAROL)
    assert story.main() == {"f": "carol's\n"}
    story.nobody_left()


def test_attributes_on_both_sides_are_a_conflict_too(story: Story) -> None:
    story.alice.write("f", "x")
    story.alice.chmod("f", 0o644)
    story.suspect()
    story.alice.chmod("f", 0o600)
    os.chmod(story.mount.path / "f", 0o664)
    assert story.changes() == {("attributes", "f")}
    story.innocent(conflicts=1)
    assert story.main() == {"f": "x"}
    assert stat.S_IMODE(story.bob.status("f")[0]) == 0o664


def test_the_suspect_renames_a_directory_of_mains_and_main_goes_on_below(story: Story) -> None:
    """Nothing is copied: main's later changes show under the suspect's name, and everything meets at the end."""
    story.bob.mkdir("d")
    story.bob.write("d/f", "one\n")
    story.bob.write("d/g", "two\n")
    story.suspect()
    story.alice.rename("d", "e")
    story.alice.write("e/f", "alice's\n")
    story.bob.write("d/g", "two and more\n")
    story.bob.write("d/new", "bob's\n")
    story.bob.mkdir("d/sub")
    assert story.main() == {"d": {"f": "one\n", "g": "two and more\n", "new": "bob's\n", "sub": {}}}
    assert story.alice.tree() == {"e": {"f": "alice's\n", "g": "two and more\n", "new": "bob's\n", "sub": {}}}
    assert story.changes() == {("renamed", "e"), ("modified", "e/f")}
    items = story.innocent()
    assert story.main() == {"e": {"f": "alice's\n", "g": "two and more\n", "new": "bob's\n", "sub": {}}}
    assert items["e"]["action"] == "renamed"
    assert "d" in items["e"]["reason"].split()


def test_trusted_renames_of_directories_take_the_suspects_changes_along(story: Story) -> None:
    story.bob.mkdir("a")
    story.bob.mkdir("a/b")
    story.bob.mkdir("other")
    story.bob.write("a/b/f", "main")
    story.suspect()
    story.alice.write("a/b/f", "alice's")
    story.alice.write("a/b/new", "alice's")
    story.bob.rename("a/b", "other/b")
    assert story.alice.tree() == {"a": {}, "other": {"b": {"f": "alice's", "new": "alice's"}}}
    story.bob.rename("other", "another")
    assert story.alice.tree() == {"a": {}, "another": {"b": {"f": "alice's", "new": "alice's"}}}
    story.innocent()
    assert story.main() == {"a": {}, "another": {"b": {"f": "alice's", "new": "alice's"}}}


def test_saved_by_rename_on_both_sides_is_a_version_conflict(story: Story) -> None:
    """The replaced file's origin point lives on: not a name conflict, and nothing beside it."""
    story.bob.write("f", "start\n")
    story.suspect()
    story.alice.save("f", "alice's\n")
    story.bob.save("f", "bob's\n")
    assert story.changes() == {("modified", "f")}
    story.innocent(conflicts=1)
    assert story.main() == {"f": "bob's\n"}
    (conflict,) = story.mount.facts("conflicts")["conflicts"]
    assert conflict["path"] == "f"
    assert kept_text(story, conflict) == "alice's\n"


def test_saved_with_a_backup_on_both_sides(story: Story) -> None:
    """As vim does. Everybody sees their own, whoever looked before, and the lines of both come together."""
    lines = [f"{number}\n" for number in range(9)]
    story.bob.write("f", "".join(lines))
    story.suspect()
    hers, his = ["alice's\n", *lines[1:]], [*lines[:-1], "bob's\n"]
    for person, other, content in ((story.alice, story.bob, hers), (story.bob, story.alice, his)):
        seen = other.tree()
        person.rename("f", "f~")
        person.write("f", "".join(content))
        other.tree()
        person.remove("f~")
        assert person.tree() == {"f": "".join(content)}
        assert other.tree() == seen
    assert story.dave.tree() == {"f": "".join(his)}
    assert story.changes() == {("modified", "f")}
    items = story.innocent()
    assert items["f"]["action"] == "merged"
    assert story.main() == {"f": "".join([*hers[:-1], "bob's\n"])}
    story.nobody_left()


def test_saved_by_rename_on_one_side(story: Story) -> None:
    story.bob.write("f", "start\n")
    story.bob.write("g", "start\n")
    story.suspect()
    story.alice.save("f", "alice's\n")
    story.bob.save("g", "bob's\n")
    assert story.alice.tree() == {"f": "alice's\n", "g": "bob's\n"}
    story.innocent()
    assert story.main() == {"f": "alice's\n", "g": "bob's\n"}
    story.nobody_left()


def test_directories_of_one_name_are_united(story: Story) -> None:
    story.suspect()
    story.alice.mkdir("d")
    story.alice.mkdir("d/sub")
    story.alice.write("d/hers", "alice's")
    story.alice.write("d/sub/deep", "alice's")
    story.bob.mkdir("d")
    story.bob.mkdir("d/sub")
    story.bob.write("d/his", "bob's")
    story.bob.write("d/sub/his", "bob's")
    items = story.innocent()
    assert story.main() == {
        "d": {"hers": "alice's", "his": "bob's", "sub": {"deep": "alice's", "his": "bob's"}},
    }
    assert items["d"]["action"] == "united"


def test_two_objects_of_one_name_stand_side_by_side(story: Story) -> None:
    """The suspect's is renamed, with a number where that is taken; main's is not touched."""
    story.bob.write("g.isofs-61001", "taken")
    story.bob.mkdir("d")
    story.suspect()
    for name in ("f", "g", "d/h"):
        story.alice.write(name, "alice's")
        story.bob.write(name, "bob's")
    story.alice.mkdir("k")
    story.alice.write("k/inner", "alice's")
    story.bob.write("k", "bob's")
    items = story.innocent()
    assert story.main() == {
        "f": "bob's",
        "f.isofs-61001": "alice's",
        "g": "bob's",
        "g.isofs-61001": "taken",
        "g.isofs-61001-2": "alice's",
        "d": {"h": "bob's", "h.isofs-61001": "alice's"},
        "k": "bob's",
        "k.isofs-61001": {"inner": "alice's"},
    }
    assert items["f"]["as"] == "f.isofs-61001"
    assert items["g"]["as"] == "g.isofs-61001-2"
    assert items["d/h"]["as"] == "d/h.isofs-61001"
    assert all(items[name]["review"] for name in ("f", "g", "d/h", "k"))


def test_renamed_to_the_same_name_by_both(story: Story) -> None:
    story.bob.write("a", "a")
    story.bob.write("b", "b")
    story.suspect()
    story.alice.rename("a", "c")
    story.bob.rename("b", "c")
    assert story.alice.tree() == {"c": "a"}
    story.innocent()
    assert story.main() == {"c": "b", "c.isofs-61001": "a"}


def test_names_that_change_places(story: Story) -> None:
    """A circle of renames by the suspect needs a way round: it is found."""
    for name in "abc":
        story.bob.write(name, f"was {name}")
    story.suspect()
    story.alice.rename("a", "t")
    story.alice.rename("b", "a")
    story.alice.rename("c", "b")
    story.alice.rename("t", "c")
    assert story.alice.tree() == {"a": "was b", "b": "was c", "c": "was a"}
    story.innocent()
    assert story.main() == {"a": "was b", "b": "was c", "c": "was a"}


def dress(root: str) -> None:
    """Give a tree everything that a file can have."""
    os.mkdir(f"{root}/set", 0o2775)
    os.chmod(f"{root}/set", 0o3771)
    with open(f"{root}/set/file", "w") as file:
        file.write("content")
    os.chmod(f"{root}/set/file", 0o640)
    os.setxattr(f"{root}/set/file", "user.note", b"\0binary\xff")
    acl = b"\2\0\0\0" + b"\1\0\6\0\xff\xff\xff\xff" + b"\2\0\4\0" + (ALICE + 7).to_bytes(4, "little")
    acl += b"\4\0\4\0\xff\xff\xff\xff" + b"\x10\0\4\0\xff\xff\xff\xff" + b"\x20\0\0\0\xff\xff\xff\xff"
    os.setxattr(f"{root}/set/file", "system.posix_acl_access", acl)
    os.setxattr(f"{root}/set", "system.posix_acl_default", acl)
    os.link(f"{root}/set/file", f"{root}/hard")
    os.symlink("set/file", f"{root}/soft")
    os.symlink("/nowhere/\udcff", f"{root}/dangling")
    os.mkfifo(f"{root}/fifo", 0o620)
    os.mknod(f"{root}/socket", 0o140600)
    with open(f"{root}/sparse", "wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(b"end")
    for number, name in enumerate(("set/file", "sparse", "fifo", "set")):
        os.utime(f"{root}/{name}", ns=(10**18 + number, 10**18 + 17 * number + 123456789))


def test_everything_that_a_file_can_have_is_carried_over(story: Story) -> None:
    """Modes, owners, attributes, ACLs, times, links of both kinds, fifos, sockets and holes, as she had them."""
    story.suspect()
    story.alice(dress, story.alice.path(""))
    hers = story.alice(whole, story.alice.path(""))
    assert story.everything() == {}
    story.innocent()
    assert story.everything() == hers
    at = os.stat(story.mount.path / "sparse")
    assert at.st_blocks * 512 < at.st_size
    assert os.stat(story.mount.path / "set").st_mtime_ns == 10**18 + 17 * 3 + 123456789


def change_all(root: str) -> None:
    """Change a dressed tree in every way, as its owner."""
    os.chmod(f"{root}/set/file", 0o604)
    os.removexattr(f"{root}/set/file", "user.note")
    os.setxattr(f"{root}/set/file", "user.other", b"1")
    with open(f"{root}/hard", "a") as file:
        file.write(" and more")
    os.utime(f"{root}/hard", ns=(1, 987654321987654321))
    os.rename(f"{root}/soft", f"{root}/softer")
    os.unlink(f"{root}/dangling")
    os.symlink("elsewhere", f"{root}/dangling")
    os.chmod(f"{root}/fifo", 0o600)
    os.unlink(f"{root}/socket")
    os.truncate(f"{root}/sparse", 7)
    os.removexattr(f"{root}/set", "system.posix_acl_default")
    os.link(f"{root}/sparse", f"{root}/set/sparse")


@pytest.mark.parametrize("verdict", ["innocent", "malicious"])
def test_everything_that_can_be_changed(story: Story, verdict: str, place: Path) -> None:
    """The suspect's view is what a directory of the host would be; so is main after innocent, unchanged otherwise."""
    twin = place / "twin"
    twin.mkdir()
    twin.chmod(0o777)
    for root in (story.mount.path, twin):
        story.alice(dress, str(root))
    before = story.everything()
    story.suspect()
    for root in (story.mount.path, twin):
        story.alice(change_all, str(root))
    expected = without_clock(story.alice(whole, str(twin)))
    assert without_clock(story.alice(whole, str(story.mount.path))) == expected
    assert story.everything() == before
    if verdict == "innocent":
        story.innocent()
        assert without_clock(story.everything()) == expected
    else:
        story.malicious()
        assert story.everything() == before
    story.nobody_left()


def without_clock(tree: Tree) -> Tree:
    """A tree without the modification times that nobody set: those of now."""
    return {path: [None if isinstance(x, int) and x > 17 * 10**17 else x for x in row] for path, row in tree.items()}


def test_a_save_by_rename_over_one_of_two_links_leaves_the_other(story: Story) -> None:
    """The file that lives on under its other name is not what was saved."""
    story.bob.write("a", "old\n")
    story.bob.link("a", "b")
    story.suspect()
    story.alice.write("t", "new\n")
    story.alice.rename("t", "a")
    story.innocent()
    assert story.main() == {"a": "new\n", "b": "old\n"}
    story.nobody_left()


def test_hard_links_stay_one_object(story: Story) -> None:
    """A change through one name is seen through the other; names are added and taken one by one."""
    story.bob.write("a", "main")
    story.bob.link("a", "b")
    story.suspect()
    story.alice.append("a", "+alice")
    assert story.alice.read("b") == "main+alice"
    story.alice.link("b", "c")
    story.alice.remove("a")
    assert story.alice.status("c")[3] == 2
    assert story.main() == {"a": "main", "b": "main"}
    story.innocent()
    assert story.main() == {"b": "main+alice", "c": "main+alice"}
    story.bob.append("b", "+bob")
    assert story.bob.read("c") == "main+alice+bob"


def test_a_malicious_suspect_leaves_evidence_and_nothing_else(story: Story) -> None:
    """Main is byte for byte what it was, whatever she did; the evidence holds her versions and the names."""
    for name in ("keep", "change", "delete", "move"):
        story.bob.write(name, f"{name} main\n")
    story.bob.mkdir("dir")
    story.bob.write("dir/f", "main\n")
    os.utime(story.mount.path / "keep", ns=(1, 2))
    before = story.everything()
    story.suspect(ALICE, "--reason", "found with the silver")
    story.alice.write("change", "ruined\n")
    story.alice.remove("delete")
    story.alice.rename("move", "moved")
    story.alice.rename("dir", "gone")
    story.alice.write("gone/f", "ruined too\n")
    story.alice.write("ransom", "pay up\n")
    assert story.everything() == before
    evidence = story.malicious()
    assert story.everything() == before
    assert contents(evidence) == {"change": b"ruined\n", "gone/f": b"ruined too\n", "ransom": b"pay up\n"}
    told = manifest(evidence)
    assert (told["about"]["uid"], told["about"]["reason"]) == (ALICE, "found with the silver")
    assert {v["path"] for v in told["versions"] if v["state"] == "d"} == {"delete"}
    assert {b["name"] for b in told["bindings"]} >= {"delete", "moved", "gone", "ransom"}
    story.nobody_left()


def test_changes_and_diff_leave_nothing_out(story: Story) -> None:
    """Every object and name, deletions too; text as unified diffs, the rest by size and hash."""
    story.bob.write("text", "one\ntwo\nthree\n")
    story.bob.write("binary", "a\0b")
    story.bob.write("deleted", "gone\n")
    story.bob.write("renamed", "same\n")
    story.alice.write("mode", "x")
    story.bob.mkdir("emptied")
    for number in range(5):
        story.bob.write(f"emptied/{number}", "x")
    story.suspect()
    story.alice.write("text", "one\n2\nthree")
    story.alice.write("binary", "a\0c")
    story.alice.remove("deleted")
    story.alice.rename("renamed", "new name")
    story.alice.chmod("mode", 0o600)
    for number in range(5):
        story.alice.remove(f"emptied/{number}")
    story.alice.rmdir("emptied")
    story.alice.write("added", "fresh\n")
    story.alice.symlink("text", "link")
    expected = {
        ("modified", "text"),
        ("modified", "binary"),
        ("deleted", "deleted"),
        ("renamed", "new name"),
        ("attributes", "mode"),
        ("deleted", "emptied"),
        *(("deleted", f"emptied/{number}") for number in range(5)),
        ("added", "added"),
        ("added", "link"),
    }
    assert story.changes() == expected
    facts = story.mount.facts("diff", str(ALICE))
    entries = {entry["path"]: entry for entry in facts["entries"]}
    assert {(e["change"], e["path"]) for e in facts["entries"]} == expected
    assert "-two\n-three\n+2\n+three\n" in entries["text"]["text"]
    assert "\\ No newline at end of file" in entries["text"]["text"]
    assert entries["binary"]["text"] is None
    assert entries["binary"]["old"] != entries["binary"]["new"]
    assert "-gone\n" in entries["deleted"]["text"]
    assert "+fresh\n" in entries["added"]["text"]
    only = story.mount.facts("diff", str(ALICE), "emptied")
    assert {entry["path"] for entry in only["entries"]} == {"emptied", *(f"emptied/{n}" for n in range(5))}
    counted = story.mount.facts("status")["subjects"][0]["changed"]
    assert counted == {"added": 2, "modified": 2, "deleted": 7, "renamed": 1, "attributes": 1}
    story.malicious()


def test_diff_shows_what_the_suspect_started_from(story: Story) -> None:
    """Not what main has by now: the base copy is kept when main's side changes."""
    story.bob.write("f", "start\n")
    story.suspect()
    story.alice.append("f", "alice\n")
    story.bob.write("f", "rewritten\n")
    (entry,) = story.mount.facts("diff", str(ALICE))["entries"]
    assert "+alice\n" in entry["text"]
    assert "rewritten" not in entry["text"]
    story.innocent(conflicts=1)


def test_a_second_suspicion_starts_afresh(story: Story) -> None:
    story.bob.write("f", "main")
    for verdict in ("innocent", "malicious", "innocent"):
        story.suspect()
        story.alice.append("f", "+")
        (story.innocent if verdict == "innocent" else story.malicious)()
    assert story.main() == {"f": "main++"}
    story.nobody_left()


def test_the_suspicion_lasts_over_a_remount_and_a_killed_daemon(story: Story) -> None:
    story.bob.write("f", "main")
    story.suspect()
    story.alice.write("f", "alice's")
    story.alice.mkdir("d")
    story.mount.kill()
    story.mount.mount()
    story.alice.write("d/g", "after the kill")
    story.mount.umount()
    story.mount.mount()
    assert story.alice.tree() == {"f": "alice's", "d": {"g": "after the kill"}}
    assert story.main() == {"f": "main"}
    story.innocent()
    assert story.main() == {"f": "alice's", "d": {"g": "after the kill"}}


def test_trusted_users_may_remove_a_directory_that_a_suspect_works_in(story: Story) -> None:
    """Main's deletion stands for main; what she made comes back with the way to it."""
    story.bob.mkdir("d")
    story.bob.write("d/f", "main")
    story.suspect()
    story.alice.write("d/hers", "alice's")
    story.bob.remove("d/f")
    story.bob.rmdir("d")
    assert story.main() == {}
    assert story.alice.tree() == {"d": {"hers": "alice's"}}
    story.innocent()
    assert story.main() == {"d": {"hers": "alice's"}}


def test_deleted_and_made_again_is_another_file(story: Story) -> None:
    """Told apart from a modification: main's change of the old one is kept, hers stands beside it."""
    story.bob.write("f", "main")
    story.suspect()
    story.alice.remove("f")
    story.alice.write("f", "another")
    assert story.changes() == {("deleted", "f"), ("added", "f")}
    story.bob.write("f", "main goes on")
    items = story.innocent()
    assert story.main() == {"f": "main goes on", "f.isofs-61001": "another"}
    assert items["f"]["review"]


def test_deleted_and_made_again_alone(story: Story) -> None:
    story.bob.write("f", "main")
    story.suspect()
    story.alice.remove("f")
    story.alice.mkdir("f")
    story.alice.write("f/inner", "x")
    story.innocent()
    assert story.main() == {"f": {"inner": "x"}}


def test_names_in_any_bytes(story: Story) -> None:
    """Newlines, escapes and bytes that are no text come through changes, diff, verdict and report."""
    names = ["new\nline", "tab\t\x1b[31m", "\udcff\udcfe", "-rf", " ", "\\x", "ü" * 127]
    story.suspect()
    for name in names:
        story.alice.write(name, "x")
    assert len(story.changes()) == len(names)
    assert story.mount.isoctl("changes", str(ALICE)).code == 0
    assert "\x1b" not in story.mount.isoctl("changes", str(ALICE)).out
    assert len(story.mount.facts("diff", str(ALICE))["entries"]) == len(names)
    story.innocent()
    assert story.bob.names() == sorted(names)
