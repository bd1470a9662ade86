"""The chapters of the demo.

Isolation is checked against a twin: a plain copy of the tree, without isofs, that gets everything that
trusted users do and nothing of what suspects do. After a suspicion the two must be the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import snapshots
import work
from snapshots import Snapshot
from stage import Answer, Person, Shell, Stage, Trouble, fill
from telling import Teller

#: What `isoctl innocent` ends with where something is left to decide.
CONFLICTS = 6

TEXTWRAP, PLAN, SHLEX = "library/textwrap.py", "projects/plan.txt", "library/shlex.py"

#: What both sides' work on the mail comes to.
LETTERS, MESSAGES = ("lunch", "budget", "invoice", "party"), ("1:2,RS", "3:2,", "4", "mail/team/cur:", "mail/team/new:")


@dataclass
class Demo:
    """One run of the story."""

    teller: Teller
    stage: Stage
    alice: Person
    bob: Person
    mallory: Person

    #: What alice and bob see at the end of the isolation.
    hers: Snapshot = field(init=False)
    his: Snapshot = field(init=False)
    #: What everyone sees once alice is merged.
    merged: Snapshot = field(init=False)

    def play(self) -> None:
        self.mount()
        self.work_together()
        shell = self.alice.shell(self.stage.shared)
        try:
            self.isolate(shell)
            self.go_on()
            self.look_at_it()
            self.find_innocent(shell)
        finally:
            shell.close()
        self.decide_by_hand()
        self.merge_by_type()
        self.find_malicious()
        self.end()

    def mount(self) -> None:
        self.teller.chapter("A shared tree, and isofs over it")
        shared = self.stage.shared
        shared.mkdir()
        fill(shared, self.alice, self.bob)
        before = snapshots.take(shared)
        self.teller.tell(
            f"{before.files} files, a copy of the Python library and of some packages. "
            f"{self.alice.name} (uid {self.alice.uid}) and {self.bob.name} (uid {self.bob.uid}) share them."
        )
        self._isoctl("mount", str(shared), globally=True)
        self.stage.daemon = self.stage.facts("status")["pid"]
        # But for the time of the root, in which there is a store now.
        seen, expected = (one.untimed_directories() for one in (self._seen_by(self.bob), before))
        self.teller.claim(f"through the mount bob sees exactly that  {seen}", seen.versus(expected))

    def work_together(self) -> None:
        self.teller.chapter("alice and bob work, as ever")
        self.teller.did("alice", "mkdir, tar | tar, git init, git add, git commit, ln")
        self.alice.sh(work.ALICE_STARTS, self.stage.shared)
        self.teller.did("bob", "sqlite3 (500 rows in a transaction), grep | xargs sed -i")
        self.bob.sh(work.BOB_STARTS, self.stage.shared)
        self.teller.claim("git finds alice's repository sound and clean", self._repository(self.bob))
        self.teller.claim("sqlite3 finds bob's database sound, with all rows", self._stock(self.alice, "500|5000"))

    def isolate(self, shell: Shell) -> None:
        self.teller.chapter("alice is suspected")
        shell.do("exec 9>> notes.log; echo 'written before' >&9")
        self.teller.tell("Her password was seen in a leak. Just now she has notes.log open, and appends to it.")
        subprocess.run(["cp", "-a", self.stage.shared, self.stage.twin], check=True)
        answer = self._isoctl("suspect", self.alice.name, "--reason", "password seen in a leak")
        shell.do("echo 'written after' >&9")
        hers, his = (who.sh("cat notes.log", self.stage.shared) for who in (self.alice, self.bob))
        self.teller.claim(
            f"isolated {answer.seconds:.1f} s after the order, and her shell goes on with the file that it has open: "
            "she reads both lines, bob the one from before",
            (*unlike(hers, "written before\nwritten after\n"), *unlike(his, "written before\n")),
        )

    def go_on(self) -> None:
        self.teller.chapter("Both go on working, at the same time")
        shared, twin = self.stage.shared, self.stage.twin
        start = time.time_ns()
        before = self._seen_by(self.bob, twin).untimed_directories()
        self.teller.did("both", f"change {TEXTWRAP}, and make {PLAN}")
        self.alice.sh(work.ALICE_MEETS, shared)
        self.bob.sh(work.BOB_MEETS, shared)
        self.teller.did("alice", "git checkout, commit, merge; sqlite3 transactions; rm -r, mv, ln, chmod, mkdir, tar")
        self.teller.did("bob", "sqlite3, find, grep, tar; sed and mv, as editors save; sed -i, rm, mv of a directory")
        with beside(lambda: self.alice.sh(work.ALICE_WORKS, shared)):
            self.bob.sh(work.BOB_WORKS, shared)
        self.teller.tell("A twin of the tree, a plain copy without isofs, gets what bob did, and nothing of alice's.")
        self.bob.sh(work.BOB_MEETS, twin)
        self.bob.sh(work.BOB_WORKS, twin)

        hers, his, plain = self._seen_by(self.alice), self._seen_by(self.bob), self._seen_by(self.bob, twin)
        seen, expected = his.timed_until(start), plain.timed_until(start)
        self.teller.claim(
            f"bob sees nothing of hers: his tree {seen} and the twin {expected} are the same",
            (*seen.versus(expected), *self._beneath().versus(his)),
        )
        self.hers, self.his = hers, his
        hers, his, plain = (one.untimed_directories() for one in (hers, his, plain))
        changed = [path for path in plain.differing(before) if path not in (TEXTWRAP, PLAN)]
        self.teller.claim(
            f"alice sees all of bob's {len(changed)} changes, even in the directory that she renamed, and her own work",
            (*unseen(changed, his, hers), *too_few(hers.differing(his), 100)),
        )
        self.teller.claim(
            "one database, two states: both are sound, and only alice's has the rows of her transactions",
            (*self._stock(self.alice, "501|4707"), *self._stock(self.bob, "500|5000")),
        )
        self.teller.claim(
            "git finds the repository sound and clean, on her new commit for alice, on the old one for bob",
            (
                *self._repository(self.alice),
                *self._repository(self.bob),
                *unlike(self.alice.sh(work.COMMITS, shared), "3\n"),
                *unlike(self.bob.sh(work.COMMITS, shared), "1\n"),
            ),
        )

    def look_at_it(self) -> None:
        self.teller.chapter("The administrator looks at it")
        self._isoctl("status")
        self._isoctl("changes", self.alice.name)
        self._isoctl("diff", self.alice.name, TEXTWRAP)
        changes = self.stage.facts("changes", self.alice.name)["changes"]
        # Counts of links and times of directories follow from the other names.
        hers, his = (one.untimed_directories().uncounted_links() for one in (self.hers, self.his))
        differing = hers.differing(his)
        listed = {path for change in changes for path in (change["path"], change["from"]) if path}
        self.teller.claim(
            f"all {len(differing)} names at which her tree differs from bob's are in the list, or below one that is",
            (path for path in differing if not any(path == one or path.startswith(one + "/") for one in listed)),
        )

    def find_innocent(self, shell: Shell) -> None:
        self.teller.chapter("The leak was an old one: alice is innocent")
        shared = self.stage.shared
        hers, his = self.hers, self.his
        self._isoctl("innocent", self.alice.name, code=CONFLICTS)
        shell.do("echo 'written when cleared' >&9")
        self.merged = self._seen_by(self.bob)
        self.teller.claim(
            "her shell had notes.log open all the time, and what it writes is everyone's again",
            unlike(self.bob.sh("cat notes.log", shared), "written before\nwritten after\nwritten when cleared\n"),
        )
        aside = f"{PLAN}.isofs-{self.alice.name}"
        both = {TEXTWRAP: his.entries[TEXTWRAP], PLAN: his.entries[PLAN], aside: hers.entries[PLAN]}
        both["notes.log"] = self.merged.entries["notes.log"]
        expected, now = hers.with_entries(both).untimed_directories(), self.merged.untimed_directories()
        self.teller.claim(
            f"everyone's tree is now hers, but for the two that both changed  {now}", now.versus(expected)
        )
        self.teller.claim(
            f"{PLAN} is bob's, and alice's is beside it",
            unlike(self.bob.sh(f"cat {PLAN} {aside}", shared), "What bob plans\nWhat alice plans\n"),
        )
        self._isoctl("conflicts")
        found = self.stage.facts("conflicts")["conflicts"]
        self.teller.claim(
            f"{TEXTWRAP} is a conflict, and exit code {CONFLICTS} said so: bob's is untouched, alice's is kept",
            (
                *unlike([one["path"] for one in found], [TEXTWRAP]),
                *unlike([sha256(self._inside(one["version"])) for one in found], [hers.entries[TEXTWRAP].content]),
            ),
        )
        self.teller.claim(
            "her repository and her database, now everyone's, are sound",
            (*self._repository(self.bob), *self._stock(self.bob, "501|4707")),
        )

    def decide_by_hand(self) -> None:
        self.teller.chapter("The conflict is settled by hand, and taken back")
        name, hers, his = self.alice.name, self.hers.entries[TEXTWRAP].content, self.his.entries[TEXTWRAP].content
        self._isoctl("resolve", name, TEXTWRAP, "--take", "suspect")
        self.teller.claim(
            f"everyone's {TEXTWRAP} is alice's, and nothing waits any more",
            (
                *unlike(sha256(self.stage.shared / TEXTWRAP), hers),
                *unlike(self.stage.facts("conflicts")["conflicts"], []),
            ),
        )
        self._isoctl("attic", "restore", TEXTWRAP, "--replace")
        self.teller.claim(
            "bob's lay in the attic, and is everyone's again", unlike(sha256(self.stage.shared / TEXTWRAP), his)
        )

    def merge_by_type(self) -> None:
        self.teller.chapter("Both change the same mail and the same module")
        shared, name = self.stage.shared, self.alice.name
        self.bob.sh(work.BOB_HAS_MAIL, shared)
        base = (shared / SHLEX).read_bytes()
        self._isoctl("suspect", name, "--reason", "the leak once more")
        self.teller.did("alice", f"gets a letter, marks a message as read, gets another; changes {SHLEX}")
        self.alice.sh(work.ALICE_READS, shared)
        hers = self.alice.do(lambda: (shared / SHLEX).read_bytes())
        self.teller.did("bob", f"gets a letter, deletes another; answers the same message; changes {SHLEX}")
        self.bob.sh(work.BOB_READS, shared)
        his = (shared / SHLEX).read_bytes()
        self._isoctl("plan", name)
        planned = self.stage.facts("plan", name)["counts"]
        self._isoctl("innocent", name)
        self.teller.claim(
            "every letter is there once, those that bob deleted are gone, the flags are those of both",
            unlike(self.bob.sh(work.MAIL, shared).split(), [*LETTERS, *MESSAGES]),
        )
        self.teller.claim(
            f"{SHLEX} is what `git merge-file` makes of the three",
            unlike((shared / SHLEX).read_bytes(), merged_by_git(self.stage.place, his, base, hers)),
        )
        self.teller.claim(
            f"the plan said so: {planned['merged']} merged, no conflict", unlike(planned.get("conflict"), None)
        )
        self.merged = self._seen_by(self.bob)

    def find_malicious(self) -> None:
        self.teller.chapter("Once more, with mallory")
        shared = self.stage.shared
        before = self.merged
        self.teller.tell(f"Before: {before.files} files  {before}")
        self._isoctl("suspect", self.mallory.name, "--reason", "logged in from two countries at once")
        self.teller.did(
            "mallory", "puts a trojan into subprocess.py and socket.py; rm -rf packages, and git's objects;"
        )
        self.teller.did("", "encrypts every module of the library; drops the table; asks for a RANSOM")
        self.mallory.sh(work.MALLORY_TROJANS, shared)
        looks = []
        with beside(lambda: self.mallory.sh(work.MALLORY_DESTROYS, shared)) as going_on:
            while going_on():
                looks.append(self.bob.sh(work.LOOK, shared))
        looks.append(self.bob.sh(work.LOOK, shared))
        ruined = self._seen_by(self.mallory)
        kept = {path: ruined.entries[path].content for path in ("RANSOM", "library/subprocess.py.locked")}
        wrong = ruined.differing(before)
        self.teller.claim(
            f"of mallory's own tree {len(wrong)} names are changed or gone  {ruined}", too_few(wrong, before.files // 2)
        )
        seen = self._seen_by(self.bob)
        self.teller.claim(
            f"bob looked {len(looks)} times meanwhile: his is what it was, to the nanosecond  {seen}",
            (*seen.versus(before), *(look for look in looks if look != looks[0])),
        )
        self._isoctl("status")
        self._isoctl("malicious", self.mallory.name, "--yes")
        seen = self._seen_by(self.mallory)
        self.teller.claim(f"mallory's work is gone: mallory too sees the tree of before  {seen}", seen.versus(before))
        (archive,) = self.stage.facts("evidence", "list")["evidence"]
        self._isoctl("evidence", "verify", archive["name"])
        into = self.stage.place / "evidence"
        self._isoctl("evidence", "extract", archive["name"], str(into))
        unpacked = [path for path in (into / "tree").rglob("*") if path.is_file() and not path.is_symlink()]
        contents = {sha256(path) for path in unpacked}
        self.teller.claim(
            f"the evidence is kept, {len(unpacked)} files of it: the encrypted trojan, the ransom note",
            (
                *too_few(unpacked, 100),
                *(f"{what} is not there" for what, content in kept.items() if content not in contents),
            ),
        )

    def end(self) -> None:
        self.teller.chapter("The end")
        answer = self._isoctl("check")
        self.teller.claim("every invariant holds", [] if answer.code == 0 else [answer.text])
        seen = self._seen_by(self.bob)
        self._isoctl("umount", str(self.stage.shared), globally=True)
        left = self._seen_by(self.bob)
        self.teller.claim(
            f"bob sees the tree of before, with isofs and without it  {left}",
            (*seen.versus(self.merged), *left.versus(seen)),
        )

    def _isoctl(self, *words: str, code: int = 0, globally: bool = False) -> Answer:
        """What the administrator does with isoctl, shown."""
        where = () if globally else ("--mount", str(self.stage.shared))
        answer = self.stage.isoctl(*where, *words)
        self.teller.ran("isoctl " + " ".join(f'"{word}"' if " " in word else word for word in words), answer.text)
        if answer.code != code:
            raise Trouble(f"isoctl {words[0]} ended with {answer.code}, not {code}")
        return answer

    def _seen_by(self, who: Person, tree: Path | None = None) -> Snapshot:
        return who.do(lambda: snapshots.take(tree or self.stage.shared))

    def _inside(self, path: str | Path) -> Path:
        """A path as the daemon has it, for which isofs is not mounted."""
        return Path(f"/proc/{self.stage.daemon}/root{path}")

    def _beneath(self) -> Snapshot:
        """The plain directory beneath the mount."""
        return snapshots.take(self._inside(self.stage.shared))

    def _repository(self, who: Person) -> Iterator[str]:
        """What git has to say against alice's repository as somebody sees it."""
        yield from who.sh(work.GIT_CHECK, self.stage.shared).splitlines()

    def _stock(self, who: Person, rows: str) -> Iterator[str]:
        """What speaks against the database as somebody sees it, which should have so many rows and parts."""
        return unlike(who.sh(work.STOCK, self.stage.shared), f"ok\n{rows}\n")


def unlike(found: object, expected: object) -> Iterator[str]:
    if found != expected:
        yield f"it is {found!r}, not {expected!r}"


def too_few(found: Iterable[object], number: int) -> list[str]:
    count = len(list(found))
    return [] if count > number else [f"there are only {count}"]


def unseen(changed: list[str], his: Snapshot, hers: Snapshot) -> Iterator[str]:
    """Which of bob's changes alice doesn't see as he does; library/email is library/mail to her."""
    for path in changed:
        to_her = path.replace("library/email", "library/mail", 1)
        if his.entries.get(path) != hers.entries.get(to_her):
            yield path


def merged_by_git(place: Path, main: bytes, base: bytes, suspect: bytes) -> bytes:
    """The same three-way merge by somebody else."""
    files = [place / name for name in ("main", "base", "suspect")]
    for file, content in zip(files, (main, base, suspect), strict=True):
        file.write_bytes(content)
    return subprocess.run(["git", "merge-file", "-p", *files], capture_output=True, check=True).stdout


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def beside(do: Callable[[], object]) -> Iterator[Callable[[], bool]]:
    """Do something at the same time, and wait for it at the end; gives whether it goes on."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            do()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread.is_alive
    finally:
        thread.join()
    if failed:
        raise failed[0]
