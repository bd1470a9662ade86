"""What the tests of the resolvers share: mailboxes and databases as real programs write them."""

from __future__ import annotations

import mailbox
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from email.message import EmailMessage
from pathlib import Path

from isofs.merge import external
from isofs.merge.resolvers.base import Inputs, Merged, Options, Proposal, Resolver, propose, registered, resolver

#: Every resolver; the external one without a command, which leaves everything unresolved.
RESOLVERS: Sequence[Resolver] = tuple(registered().values())
assert external.merge_externally in {one.function for one in RESOLVERS}


def merge(
    name: str, base: bytes | None, main: bytes, suspect: bytes, options: Options | None = None, path: bytes = b"f"
) -> Proposal:
    return propose(resolver(name), Inputs(path, base, main, suspect, suspect_name="alice"), options)


def merged(name: str, base: bytes | None, main: bytes, suspect: bytes, options: Options | None = None) -> bytes:
    """The content, where the merge must be clean."""
    proposal = merge(name, base, main, suspect, options)
    assert isinstance(proposal, Merged), proposal
    return proposal.content


def letter(number: object, body: str = "", *, id: str | None = "", **fields: str) -> EmailMessage:
    """A message with the Message-ID of its number, or without one if `id` is None."""
    message = EmailMessage()
    message["From"] = "bob@example.org"
    message["Subject"] = f"letter {number}"
    message["Date"] = "Wed, 01 May 2024 10:00:00 +0000"
    if id is not None:
        message["Message-ID"] = id or f"<{number}@example.org>"
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    message.set_content(body or f"This is letter {number}.\n")
    return message


#: The kinds of mailboxes whose letters have flags, and all kinds.
FLAGGED: dict[str, type[mailbox.mbox | mailbox.MMDF]] = {"mbox": mailbox.mbox, "MMDF": mailbox.MMDF}
KINDS: dict[str, type[mailbox.mbox | mailbox.MMDF | mailbox.Babyl]] = {**FLAGGED, "Babyl": mailbox.Babyl}


def written(kind: str, letters: Iterable[EmailMessage], start: bytes = b"") -> bytes:
    """A mailbox file as the standard library appends letters to `start`."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "box")
        path.write_bytes(start)
        box = KINDS[kind](path)
        for one in letters:
            box.add(one if kind == "Babyl" else _enveloped(kind, one))
        box.close()
        return path.read_bytes()


def _enveloped(kind: str, one: EmailMessage) -> mailbox.Message:
    """With a fixed date of delivery, which is otherwise now."""
    message = {"mbox": mailbox.mboxMessage, "MMDF": mailbox.MMDFMessage}[kind](one)
    message.set_from("bob@example.org", time.gmtime(1714557600))
    return message


def subjects(kind: str, content: bytes) -> list[str]:
    """The subjects of the letters in a mailbox, as the standard library reads them."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "box")
        path.write_bytes(content)
        box = KINDS[kind](path, create=False)
        return [str(one["subject"]).removeprefix("letter ") for one in box]


def database(sql: str, start: bytes = b"") -> bytes:
    """A database file as sqlite3 leaves it after the statements."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "db")
        path.write_bytes(start)
        subprocess.run(["sqlite3", "-bail", path], input=sql.encode(), check=True, capture_output=True)
        return path.read_bytes()


def query(content: bytes, sql: str) -> list[str]:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "db")
        path.write_bytes(content)
        ran = subprocess.run(["sqlite3", "-bail", path, sql], check=True, capture_output=True, text=True)
        return ran.stdout.splitlines()
