"""What is said on the control socket: JSON lines that each carry the version of the protocol.

A client sends requests, one a line, and waits for the answer to one before it sends the next:

    {"v": 1, "call": "changes", "args": {"uid": 1000}}

The daemon answers with any number of progress lines and then exactly one result or error:

    {"v": 1, "progress": {"done": 3, "total": 10}}
    {"v": 1, "ok": true, "result": {...}}
    {"v": 1, "ok": false, "error": {"code": "no_subject", "message": "..."}}

Paths are bytes everywhere else. Here they are text, UTF-8 with the bytes that are not UTF-8 as
surrogates, whatever the locale of either side is; `path_text` and `path_bytes` convert.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

from isofs.errors import UsageError

VERSION = 1

#: The longest request line in bytes, its newline included.
REQUEST_LIMIT = 1 << 20

#: So many things of a list are written at a stretch: less than a millisecond.
_TOGETHER = 50

T = TypeVar("T", bool, int, str)


@dataclass(frozen=True, slots=True)
class Request:
    """A call by name, with its arguments."""

    call: str
    args: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Progress:
    """The call goes on: `done` of `total` steps; a `total` of 0 means that it isn't known yet."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Result:
    """The call is done."""

    result: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Failure:
    """The call failed; `code` is the stable word of an `IsofsError`, or `internal`."""

    code: str
    message: str


Reply = Progress | Result | Failure


def encode(message: Request | Reply) -> bytes:
    """The line for a message. UsageError for a request that is longer than the daemon reads."""
    match message:
        case Request(call, args):
            line = _line({"call": call, "args": args})
            if len(line) > REQUEST_LIMIT:
                raise UsageError(f"the request is longer than {REQUEST_LIMIT} bytes: ask for less")
            return line
        case Progress(done, total):
            return _line({"progress": {"done": done, "total": total}})
        case Result(result):
            return _line({"ok": True, "result": result})
        case Failure(code, text):
            return _line({"ok": False, "error": {"code": code, "message": text}})


def pieces(message: Result) -> Iterator[bytes]:
    """What `encode` makes of a result, piece by piece: a long list takes time."""
    before = b'{"v":%d,"ok":true,"result":{' % VERSION
    for key, value in message.result.items():
        yield before + _text(key) + b":"
        if isinstance(value, list):
            yield b"["
            for at in range(0, len(value), _TOGETHER):
                yield (b"," if at else b"") + _text(value[at : at + _TOGETHER])[1:-1]
            yield b"]"
        else:
            yield _text(value)
        before = b","
    yield (b"" if message.result else before) + b"}}\n"


def parse_request(line: bytes) -> Request:
    """The request in a line. UsageError says what is wrong with a line that holds none."""
    if len(line) > REQUEST_LIMIT:
        raise UsageError(f"the request is longer than {REQUEST_LIMIT} bytes")
    match _message(line):
        case {"call": str(call), "args": dict(args), **rest} if not rest:
            return Request(call, args)
    raise UsageError('a request is {"v", "call": text, "args": object} and nothing else')


def parse_reply(line: bytes) -> Reply:
    """The reply in a line. UsageError says what is wrong with a line that holds none."""
    match _message(line):
        case {"progress": {"done": int(done), "total": int(total)}}:
            return Progress(done, total)
        case {"ok": True, "result": dict(result)}:
            return Result(result)
        case {"ok": False, "error": {"code": str(code), "message": str(text)}}:
            return Failure(code, text)
    raise UsageError("a reply is progress, a result or an error")


def argument(args: Mapping[str, object], name: str, kind: type[T]) -> T:
    """The argument `name` of a request, which must be there and of exactly this kind."""
    value = args.get(name)
    # Exactly: to isinstance, true is a number.
    if type(value) is not kind or not _fits(value):
        raise UsageError(f"the argument {name!r} must be {_NAMES[kind]}")
    return value


def optional(args: Mapping[str, object], name: str, kind: type[T]) -> T | None:
    """The argument `name` of a request, or None where it is left out or null."""
    return None if args.get(name) is None else argument(args, name, kind)


def texts(args: Mapping[str, object], name: str) -> list[str]:
    """The argument `name` of a request, which must be a list of texts."""
    value = args.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UsageError(f"the argument {name!r} must be a list of texts")
    return value


def numbers(args: Mapping[str, object], name: str) -> list[int]:
    """The argument `name` of a request, which must be a list of whole numbers."""
    value = args.get(name)
    if not isinstance(value, list) or not all(type(item) is int and _fits(item) for item in value):
        raise UsageError(f"the argument {name!r} must be a list of whole numbers")
    return value


def words(args: Mapping[str, object], name: str) -> str:
    """The argument `name` of a request, a text for people, empty where it is left out; any store can keep it.

    Bytes of a command line that are not UTF-8 are written as escapes.
    """
    return plain(optional(args, name, str) or "")


def plain(text: str) -> str:
    """The text with everything as an escape that has no place in UTF-8."""
    return "".join(_escaped(character) if _lone(character) else character for character in text)


def path_text(path: bytes) -> str:
    """A path as it is written on the wire; `path_bytes` gives the same bytes back."""
    return path.decode("utf-8", "surrogateescape")


def path_bytes(text: str) -> bytes:
    """The path that a text on the wire stands for. UsageError where no path can be meant."""
    try:
        path = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UsageError(f"not a path: {text!a}") from None
    if b"\0" in path:
        raise UsageError(f"not a path: {text!a}")
    return path


def moment(seconds: float) -> str:
    """A time since the epoch as results write it: ISO 8601 in UTC, to the second."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    return text.removesuffix("+00:00") + "Z"


_NAMES: dict[type, str] = {bool: "true or false", int: "a whole number", str: "a text"}


def _fits(value: object) -> bool:
    """Whether a number is one that a machine counts with, and a database keeps."""
    return not isinstance(value, int) or -(1 << 63) <= value < 1 << 63


def _lone(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else f"\\u{ord(character):04x}"


def _line(fields: Mapping[str, object]) -> bytes:
    return _text({"v": VERSION, **fields}) + b"\n"


def _text(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def _message(line: bytes) -> dict[str, Any]:
    """The fields of a line but for its version, which must be ours."""
    try:
        message = json.loads(line.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise UsageError("a line must be one JSON object in UTF-8") from None
    if not isinstance(message, dict):
        raise UsageError("a line must be one JSON object in UTF-8")
    version = message.pop("v", None)
    if type(version) is not int or version != VERSION:
        raise UsageError(f"only version {VERSION} of the control protocol is spoken here")
    return message


def _refuse(constant: str) -> NoReturn:
    """JSON has no NaN and no Infinity, but Python reads them."""
    raise ValueError(constant)
