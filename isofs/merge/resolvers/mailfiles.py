"""Mailboxes that are one file (mbox, MMDF, Babyl): cut into messages and put together without losing a byte.

The standard library's `mailbox` reads these too, but it splits at every `From ` and writes messages anew; here the
bytes of what nobody touched stay.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b

#: Flags by the field that holds them. A field without flags and a missing one are the same.
Flags = Mapping[bytes, frozenset[bytes]]

#: Fields that hold one letter per flag, words, or the bits of a hexadecimal number of so many digits.
_LETTERS = (b"status", b"x-status")
_WORDS = (b"x-keywords",)
_BITS = {b"x-mozilla-status": 4, b"x-mozilla-status2": 8}
_SPELLED = {
    b"status": b"Status",
    b"x-status": b"X-Status",
    b"x-keywords": b"X-Keywords",
    b"x-mozilla-status": b"X-Mozilla-Status",
    b"x-mozilla-status2": b"X-Mozilla-Status2",
}

#: Fields that mail programs change in a message that nobody changed.
_KEPT_BY_PROGRAMS = {*_SPELLED, b"x-uid", b"x-imap", b"x-imapbase", b"content-length", b"lines", b"x-mozilla-keys"}

#: Fields that tell the way that a message came, and not what it says.
_TRACE = {b"received", b"return-path", b"delivered-to", b"x-original-to", b"envelope-to", b"delivery-date"}

_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:(.*(?:\n[ \t].*)*)\n?", re.MULTILINE)
_BLANK_LINE = re.compile(rb"^\r?\n", re.MULTILINE)
# As mail programs write it, with a date: people write `From ` at the beginning of lines, too.
_ENVELOPE = (
    rb"From [^\n]{0,300}?\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? +(?:\d\d? +)?[A-Z][a-z][a-z] +(?:\d\d? +)?"
    rb"(?:\d\d:\d\d(?::\d\d)?[^\n]{0,20}? \d{4}|\d{4} +\d\d:\d\d)[^\n]{0,100}\r?\n"
)
_SEPARATOR = re.compile(_ENVELOPE)
_AFTER_LENGTH = re.compile(rb"(?:\r?\n)*(?:\Z|" + _ENVELOPE + rb")")
_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,15})[ \t]*\r?$", re.MULTILINE | re.IGNORECASE)
_MMDF = b"\1\1\1\1\n"
_BABYL_MARK = re.compile(rb"^\x1f(?:\x0c\r?\n|\r?\n?\Z)", re.MULTILINE)
_BABYL_ATTRIBUTES = (b"unseen", b"deleted", b"filed", b"answered", b"forwarded", b"edited", b"resent")
_EOOH = re.compile(rb"^\*\*\* EOOH \*\*\*\r?\n", re.MULTILINE)


@dataclass(frozen=True)
class Message:
    """A message as it lies in its file, with what separates it from the next. Its header begins at `head`.

    `closed` is whether another message can follow as it is.
    """

    raw: bytes
    head: int
    babyl: bool = False
    closed: bool = True

    @cached_property
    def header(self) -> bytes:
        """The header's lines, without the empty one."""
        text = _EOOH.sub(b"", self.raw[self.head :], count=1) if self.babyl else self.raw[self.head :]
        blank = _BLANK_LINE.search(text)
        return text if blank is None else text[: blank.start()]

    @cached_property
    def id(self) -> bytes | None:
        """The Message-ID, if there is just one."""
        found = [value.strip() for name, value in _fields(self.header) if name == b"message-id"]
        return found[0] if len(found) == 1 and found[0] else None

    @cached_property
    def flags(self) -> Flags:
        """What mail programs noted about the message: read, answered, labels."""
        if self.babyl:
            labels = self.raw[: self.head].split(b"\n")[1][1:].split(b",")
            found = {b"labels": frozenset(label.strip() for label in labels) - {b""}}
        else:
            found = {name: _read_flags(name, value) for name, value in _fields(self.header) if name in _SPELLED}
        return {name: flags for name, flags in found.items() if flags}

    @cached_property
    def exact(self) -> bytes:
        """Equal for messages that differ in nothing but what mail programs noted."""
        return self._digest(_KEPT_BY_PROGRAMS, self.raw[: 0 if self.babyl else self.head])

    @cached_property
    def substance(self) -> bytes:
        """Equal for messages that say the same, whichever way they came."""
        return self._digest(_KEPT_BY_PROGRAMS | _TRACE, b"")

    def _digest(self, without: set[bytes], before: bytes) -> bytes:
        text = self.raw[self.head :].rstrip(b"\r\n\x1f\1")
        if self.babyl:
            return blake2b(text, digest_size=20).digest()
        header = _FIELD.sub(lambda match: b"" if match[1].lower() in without else match[0], self.header)
        body = text[len(self.header) :].strip(b"\r\n")
        return blake2b(b"\0".join((before.strip(), header.strip(), body)), digest_size=20).digest()

    def with_flags(self, flags: Flags) -> Message:
        """The same bytes but for the fields of those flags that are others."""
        if self.babyl:
            raw = self._with_labels(flags.get(b"labels", frozenset()))
            return replace(self, raw=raw, head=self.head + len(raw) - len(self.raw))
        raw = self.raw
        for name in _SPELLED:
            wanted = flags.get(name, frozenset())
            if wanted != self.flags.get(name, frozenset()):
                raw = self._with_field(raw, name, wanted)
        return replace(self, raw=raw)

    def _with_field(self, raw: bytes, name: bytes, flags: frozenset[bytes]) -> bytes:
        head = raw[self.head :]
        blank = _BLANK_LINE.search(head)
        end = self.head + (blank.start() if blank else len(head))
        eol = b"\r\n" if b"\r\n" in raw[: end + 2] else b"\n"
        for match in _FIELD.finditer(raw, self.head, end):
            if match[1].lower() == name:
                value = _spell(name, flags, match[2].strip())
                line_end = eol if match[0].endswith(b"\n") else b""
                return raw[: match.start()] + match[1] + b": " + value + line_end + raw[match.end() :]
        line = _SPELLED[name] + b": " + _spell(name, flags, b"") + eol
        if end and not raw[:end].endswith(b"\n"):
            line = eol + line.removesuffix(eol)
        return raw[:end] + line + raw[end:]

    def _with_labels(self, labels: frozenset[bytes]) -> bytes:
        mark, line, _ = self.raw[: self.head].split(b"\n", 2)
        eol = b"\r\n" if line.endswith(b"\r") else b"\n"
        old = [label.strip() for label in line[1:].split(b",")]
        order = [label for label in dict.fromkeys(old) if label in labels] + sorted(labels.difference(old))
        attributes = b"".join(b", " + label for label in order if label in _BABYL_ATTRIBUTES)
        others = b"".join(b" " + label + b"," for label in order if label not in _BABYL_ATTRIBUTES)
        return mark + b"\n" + line[:1] + attributes + b",," + others + eol + self.raw[self.head :]


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A whole file: what comes before the first message, the messages, and what comes after the last."""

    prefix: bytes
    messages: Sequence[Message]
    suffix: bytes = b""


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of mailbox. `read` gives None for a file of another kind; an empty file is of every kind."""

    name: str
    read: Callable[[bytes], Mailbox | None]
    close: Callable[[bytes], bytes]


def looks_like_one(content: bytes) -> bool:
    """Whether a file is, by its beginning, a mailbox. An empty one is."""
    return not content or content.startswith((b"BABYL OPTIONS:", _MMDF)) or _SEPARATOR.match(content) is not None


def parts(box: Mailbox, form: Format) -> list[bytes]:
    """The messages as they follow each other. New is only the separator after one that was the last of its file."""
    last = len(box.messages) - 1
    return [
        message.raw if message.closed or at == last else form.close(message.raw)
        for at, message in enumerate(box.messages)
    ]


def _fields(header: bytes) -> Iterable[tuple[bytes, bytes]]:
    return ((match[1].lower(), match[2]) for match in _FIELD.finditer(header))


def _read_flags(name: bytes, value: bytes) -> frozenset[bytes]:
    if name in _WORDS:
        return frozenset(value.split())
    if name in _BITS:
        try:
            number = int(value.strip(), 16)
        except ValueError:
            return frozenset()
        return frozenset(b"%d" % bit for bit in range(4 * _BITS[name]) if number >> bit & 1)
    return frozenset(b"%c" % letter for letter in value.strip())


def _spell(name: bytes, flags: frozenset[bytes], old: bytes) -> bytes:
    if name in _BITS:
        return b"%0*x" % (_BITS[name], sum(1 << int(bit) for bit in flags))
    parts = old.split() if name in _WORDS else [b"%c" % letter for letter in old]
    order = [part for part in dict.fromkeys(parts) if part in flags] + sorted(flags.difference(parts), reverse=True)
    return (b" " if name in _WORDS else b"").join(order)


def _read_mbox(content: bytes) -> Mailbox | None:
    if not content:
        return Mailbox(b"", ())
    starts, at = [], 0
    if _SEPARATOR.match(content) is None:
        return None
    while at < len(content):
        starts.append(at)
        at = _next_mbox(content, at)
    ends = [*starts[1:], len(content)]
    messages = []
    for start, end in zip(starts, ends, strict=True):
        raw = content[start:end]
        closed = end < len(content) or raw.endswith((b"\n\n", b"\n\r\n"))
        messages.append(Message(raw, raw.index(b"\n") + 1, closed=closed))
    return Mailbox(b"", messages)


def _next_mbox(content: bytes, start: int) -> int:
    """Where the message after the one at `start` begins: where its length says, if a message begins there."""
    head = content.index(b"\n", start) + 1
    blank = _BLANK_LINE.search(content, head)
    length = None if blank is None else _LENGTH.search(content, head, blank.start())
    if blank is not None and length is not None:
        at = blank.end() + int(length[1])
        parted = content[at - 1 : at] == b"\n" or content[at : at + 1] in (b"\r", b"\n", b"")
        if at <= len(content) and parted and _AFTER_LENGTH.match(content, at):
            while content[at : at + 1] in (b"\r", b"\n"):
                at += 1
            return at
    at = content.find(b"\nFrom ", head)
    while at >= 0:
        if (content[at - 1 : at] == b"\n" or content[at - 2 : at] == b"\n\r") and _SEPARATOR.match(content, at + 1):
            return at + 1
        at = content.find(b"\nFrom ", at + 1)
    return len(content)


def _close_mbox(raw: bytes) -> bytes:
    eol = b"\r\n" if b"\r\n" in raw else b"\n"
    return raw + (eol if raw.endswith(b"\n") else eol + eol)


def _read_mmdf(content: bytes) -> Mailbox | None:
    messages, at = [], 0
    while at < len(content):
        end = content.find(b"\n" + _MMDF, at + len(_MMDF) - 1)
        if not content.startswith(_MMDF, at) or end < 0:
            return None
        end += 1 + len(_MMDF)
        raw, head = content[at:end], len(_MMDF)
        if raw.startswith(b"From ", head):
            head = raw.index(b"\n", head) + 1
        messages.append(Message(raw, head))
        at = end
    return Mailbox(b"", messages)


def _read_babyl(content: bytes) -> Mailbox | None:
    if not content:
        return Mailbox(b"", ())
    marks = [match.start() + 1 for match in _BABYL_MARK.finditer(content)]
    if not content.startswith(b"BABYL OPTIONS:") or not marks or content[marks[-1] :].startswith(b"\x0c"):
        return None
    messages = []
    for start, end in itertools.pairwise(marks):
        raw = content[start:end]
        labels_end = raw.find(b"\n", raw.index(b"\n") + 1) + 1
        if not labels_end:
            return None
        messages.append(Message(raw, labels_end, babyl=True))
    return Mailbox(content[: marks[0]], messages, content[marks[-1] :])


#: The kinds of mailbox files, in the order in which they are tried.
FORMATS = (
    Format("Babyl", _read_babyl, lambda raw: raw),
    Format("MMDF", _read_mmdf, lambda raw: raw),
    Format("mbox", _read_mbox, _close_mbox),
)
