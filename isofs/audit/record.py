"""One record of the trail: a plain tuple while a call waits for it, a line of JSON when it is written down.

The names of the fields are those of the Elastic Common Schema where it has one, else they begin with `isofs.`; what
they mean is told in docs/audit.md. Every line is ASCII, whatever names there are: text that is not UTF-8 stands as
U+FFFD, and its exact bytes in base64 beside it.
"""

from __future__ import annotations

import base64
import errno
import functools
import json
import marshal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from isofs.audit import tasks
from isofs.audit.tasks import Task

#: The version of the schema whose names are used.
ECS = "8.11"

#: Main's view.
_MAIN = 0


class Record(NamedTuple):
    """One thing that happened. `path` is relative to the mount, None for what has no name; `number` is an errno.

    `more` holds what only some actions have: `from` and `target` (bytes), `read` and `written` (bytes through one open
    file), `main` (a suspect opened for reading what others made), `size` of what was opened; and `facts` (JSON) for
    what is no call of the file system.
    """

    sequence: int
    at: int
    action: str
    sid: int
    uid: int
    task: Task | None
    path: bytes | None
    ino: int
    op: int
    number: int
    size: int | None
    more: Mapping[str, object] | None


#: A record before it has a number: the other fields of `Record`, with the action as bytes and a packed task.
Unnumbered = tuple[int, bytes, int, int, bytes, bytes | None, int, int, int, int | None, Mapping[str, object] | None]

#: Bytes of a path that are kept, from its end on: nobody needs a longer one, but somebody may make it.
_LONGEST_PATH = 16384


def told(
    at: int, action: str, sid: int = 0, uid: int = 0, task: bytes = b"", number: int = 0, **more: object
) -> Unnumbered:
    """A record of what is no call of the file system."""
    return at, action.encode(), sid, uid, task, None, 0, 0, number, None, more


def packed(sequence: int, record: Unnumbered) -> bytes:
    """A record as it goes through the ring. All in one step of the interpreter's: every changing call waits for it."""
    piece = marshal.dumps((sequence, record), 2)  # type: ignore[arg-type]
    return piece if len(piece) < _LONGEST_PATH else _shortened(sequence, record)


def _shortened(sequence: int, record: Unnumbered) -> bytes:
    at, action, sid, uid, task, path, *rest, more = record
    path = None if path is None else path[-_LONGEST_PATH:]
    if more is not None:
        more = {key: value[-_LONGEST_PATH:] if isinstance(value, bytes) else value for key, value in more.items()}
    return marshal.dumps((sequence, (at, action, sid, uid, task, path, *rest, more)), 2)


def unpacked(piece: bytes) -> Record:
    """The record in a piece of the ring. ValueError, EOFError or TypeError if there is none."""
    sequence, (at, action, sid, uid, task, *rest) = marshal.loads(piece)
    return Record(sequence, at, action.decode(), sid, uid, tasks.unpacked(task), *rest)


_FILE, _CONTROL = '["file"]', '["configuration"]'
#: What is told of a file when something was read or written through it.
_THROUGH = ("close", "bytes")

_TYPES = {
    "create": "creation",
    "mkdir": "creation",
    "mknod": "creation",
    "symlink": "creation",
    "link": "creation",
    "unlink": "deletion",
    "rmdir": "deletion",
    "open": "access",
    "list": "access",
}

#: What the trail says about itself.
START, STOP, GAP = "audit-start", "audit-stop", "audit-gap"

_text = json.encoder.encode_basestring_ascii


def line(record: Record, mount: str, user: Callable[[int], str]) -> str:
    """The record as a JSON object that lacks its end: the hash of the line before it and the brace come last."""
    sequence, at, action, sid, uid, task, path, ino, op, number, size, more = record
    told = more is not None and more.get("facts") is not None
    reads = more is not None and not more.get("written") and action in _THROUGH
    name = "" if task is None and told else user(uid)
    text = (
        f'{{"@timestamp":"{moment(at)}","event.sequence":{sequence},'
        f"{_what(action, told, reads, number != 0, mount)}{_who(uid, name, sid, task, told)}"
    )
    if path is not None:
        text += _path("file.path", "isofs.path_bytes", mount, path)
    if ino:
        text += f',"file.inode":"{ino}"'
    if op:
        text += f',"isofs.op":{op}'
    if number:
        text += f',"isofs.errno":"{errno.errorcode.get(number, number)}"'
    if size is not None:
        text += f',"isofs.bytes":{size}'
    return text + _more(more, mount) if more else text


@functools.lru_cache(maxsize=256)
def _what(action: str, told: bool, reads: bool, failed: bool, mount: str) -> str:
    """What happened, as many lines have it."""
    if told:
        kind = "info" if action.startswith("audit-") else "change"
    else:
        kind = "access" if reads else _TYPES.get(action, "change")
    return (
        f'"ecs.version":"{ECS}","event.kind":"event",'
        f'"event.module":"isofs","event.action":{_text(action)},'
        f'"event.category":{_CONTROL if told else _FILE},"event.type":["{kind}"],'
        f'"event.outcome":"{"failure" if failed else "success"}","isofs.mount":{_readable(mount)}'
    )


@functools.lru_cache(maxsize=1024)
def _who(uid: int, user: str, sid: int, task: Task | None, told: bool) -> str:
    """Who did it, in whose view, as many lines have it. Each field has a comma before it, also in what follows."""
    parts = []
    if task is not None or not told:
        parts.append(f',"user.id":"{uid}","user.name":{_readable(user)}')
    if not told:
        parts.append(f',"isofs.view":"{f"S{sid}" if sid else "main"}"')
    if sid != _MAIN:
        parts.append(f',"isofs.subject":{sid}')
    if task is not None:
        pid, thread, login, program = task
        name = _readable(_decoded(program))
        parts.append(f',"process.pid":{pid},"process.thread.id":{thread},"process.name":{name}')
        if login is not None:
            parts.append(f',"isofs.login_uid":{login}')
    return "".join(parts)


def _more(more: Mapping[str, object], mount: str) -> str:
    text = ""
    for key, value in more.items():
        if type(value) is int:
            text += f',"isofs.{key}":{value}'
        elif key == "from" and isinstance(value, bytes):
            text += _path("isofs.from", "isofs.from_bytes", mount, value)
        elif key == "target" and isinstance(value, bytes):
            text += f',"file.target_path":{_readable(_decoded(value))}'
        elif key == "facts":
            text += f',"isofs.facts":{json.dumps(_plain(value), separators=(",", ":"))}' if value else ""
        else:
            text += f',"isofs.{key}":{json.dumps(value)}'
    return text


def _plain(value: object) -> object:
    """JSON in which every text is one that every reader of JSON takes."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _path(key: str, exact: str, mount: str, path: bytes) -> str:
    """A path as text, absolute; and what it is below the mount, byte by byte, if that is not what the text says."""
    text = _decoded(path)
    readable = f',"{key}":{_readable(f"{mount}/{text}" if text else mount)}'
    if path.isascii() or not any("\udc80" <= c <= "\udcff" for c in text):
        return readable
    return f'{readable},"{exact}":"{base64.b64encode(path).decode()}"'


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _readable(text: str) -> str:
    if not text.isascii():
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _text(text)


def moment(at: int) -> str:
    """Nanoseconds since the epoch in ISO 8601, UTC, to the microsecond."""
    return f"{_second(at // 1_000_000_000)}.{at // 1000 % 1_000_000:06d}Z"


@functools.lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
