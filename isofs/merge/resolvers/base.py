"""What a resolver is: a plain function from three contents to a proposal, registered under a name.

A resolver is pure, and it answers for every input: what it cannot merge is `Unresolved`, with the reason in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from isofs.errors import IsofsError

#: The values that an option of a resolver can have.
Value = str | int | bool
Options = Mapping[str, Value]

#: What most resolvers take of one side: they work in memory, on three contents at once.
LIMIT = 64 << 20

#: The limit of those that look at no content.
UNREAD = 1 << 62


@dataclass(frozen=True, slots=True)
class Inputs:
    """The three contents of one file that both sides have, and what they are called in reasons and markers.

    `base` is what both sides started from, None if it was not kept. `companions` are the files beside it, on
    either side, of which `Resolver.companions` says that the content would be incomplete without them.
    """

    path: bytes
    base: bytes | None
    main: bytes
    suspect: bytes
    main_name: str = "main"
    suspect_name: str = "suspect"
    companions: tuple[bytes, ...] = ()

    @property
    def sides(self) -> tuple[bytes, ...]:
        """Every content there is: main's, the suspect's and the base, if it was kept."""
        return (self.main, self.suspect) if self.base is None else (self.main, self.suspect, self.base)


@dataclass(frozen=True, slots=True)
class Merged:
    """The content that both sides' work comes to. `review` marks what an operator had better look at."""

    content: bytes
    reasons: tuple[str, ...]
    review: bool = False


@dataclass(frozen=True, slots=True)
class Both:
    """Main's content stays, and the suspect's is put beside it under a name of its own."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unresolved:
    """The two sides were not merged, and why. Main is left alone.

    `marked` is a content with conflict markers, for a file that an operator asks for; it is never for main.
    """

    reasons: tuple[str, ...]
    marked: bytes | None = None


Proposal = Merged | Both | Unresolved


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a resolver: its value unless the configuration says otherwise, and what it may be.

    A required one has no value that makes sense until it is given.
    """

    default: Value
    description: str
    choices: tuple[Value, ...] = ()
    required: bool = False

    def refusal(self, value: object) -> str | None:
        """Why `value` is none for this option, or None if it is one."""
        kind = type(self.default)
        if type(value) is not kind:  # a bool is an int to isinstance
            return f"must be {_KINDS[kind]}, not {value!r}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(map(repr, self.choices))}, not {value!r}"
        if kind is int and isinstance(value, int) and value < 1:
            return f"must be at least 1, not {value}"
        return None


_KINDS: dict[type, str] = {str: "a string", int: "a whole number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Resolver:
    """A way to merge two contents.

    `function` does it, `fits` tells cheaply whether one content is of the kind that it reads. `limit` is the size
    from which a side is refused unread. `companions` are what is added to the file's name for files without
    which its content is incomplete, `lock_files` what is added for files that programs make while they write it.
    """

    name: str
    description: str
    function: Callable[[Inputs, Options], Proposal]
    needs_base: bool
    fits: Callable[[bytes, Options], bool]
    options: Mapping[str, Option] = field(default_factory=dict)
    limit: int = LIMIT
    companions: tuple[bytes, ...] = ()
    lock_files: tuple[bytes, ...] = ()

    def refuses_unread(self, size: int, *, base: bool) -> str | None:
        """Why sides of this size, with or without a base, are refused before they are read; None if they are not."""
        if self.needs_base and not base:
            return f"{self.name}: what both sides started from was not kept, and it is needed to tell additions apart"
        if size > self.limit:
            return f"{self.name}: {size} bytes are more than it takes ({self.limit})"
        return None

    def settings(self, options: Options) -> dict[str, Value]:
        """`options` with the defaults filled in."""
        return {name: options.get(name, option.default) for name, option in self.options.items()}


class UnknownResolver(IsofsError):
    """There is no resolver of this name."""


_REGISTRY: dict[str, Resolver] = {}


def register(
    name: str,
    description: str,
    *,
    needs_base: bool,
    fits: Callable[[bytes, Options], bool] = lambda content, options: True,
    options: Mapping[str, Option] | None = None,
    limit: int = LIMIT,
    companions: tuple[bytes, ...] = (),
    lock_files: tuple[bytes, ...] = (),
) -> Callable[[Callable[[Inputs, Options], Proposal]], Callable[[Inputs, Options], Proposal]]:
    """Make a function the resolver `name`. A name is given once."""

    def add(function: Callable[[Inputs, Options], Proposal]) -> Callable[[Inputs, Options], Proposal]:
        assert name not in _REGISTRY, name
        given = options or {}
        _REGISTRY[name] = Resolver(name, description, function, needs_base, fits, given, limit, companions, lock_files)
        return function

    return add


def registered() -> Mapping[str, Resolver]:
    """Every resolver by its name, in the order of names."""
    return dict(sorted(_REGISTRY.items()))


def resolver(name: str) -> Resolver:
    """The resolver of that name."""
    try:
        return _REGISTRY[name]
    except KeyError:
        raise UnknownResolver(f"there is no resolver {name!r}; there are: {', '.join(sorted(_REGISTRY))}") from None


def propose(using: Resolver, inputs: Inputs, options: Options | None = None) -> Proposal:
    """What `using` makes of the inputs.

    Whatever the resolver: equal sides are merged as they are, and where one side is as the base was, the other is
    the result. A resolver is asked only when both sides changed it.
    """
    if inputs.main == inputs.suspect:
        return Merged(inputs.main, ("both sides ended equal",))
    if inputs.base == inputs.main:
        return Merged(inputs.suspect, (f"only {inputs.suspect_name} changed it",))
    if inputs.base == inputs.suspect:
        return Merged(inputs.main, (f"only {inputs.main_name} changed it",))
    refusal = using.refuses_unread(max(map(len, inputs.sides)), base=inputs.base is not None)
    if refusal is not None:
        return Unresolved((refusal,))
    if inputs.companions:
        names = ", ".join(name.decode(errors="backslashreplace") for name in inputs.companions)
        return Unresolved((f"{using.name}: the file is incomplete without {names}",))
    return using.function(inputs, using.settings(options or {}))


def is_text(content: bytes, options: Options | None = None) -> bool:
    """Whether nothing in `content` tells that it is not made of lines."""
    return b"\0" not in content or content.startswith((b"\xff\xfe", b"\xfe\xff"))


def shown(line: bytes, width: int = 60) -> str:
    """A line as a reason quotes it."""
    text = line.rstrip(b"\r\n").decode(errors="backslashreplace")
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return text if len(text) <= width else text[: width - 3] + "..."
