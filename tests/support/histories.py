"""Random histories of many users: what `test_engine_machine` does step by step, with chances chosen to collide.

Hypothesis explores rules evenly and likes to repeat itself; a history drawn here has suspects at work most of the time,
verdicts in between, and few names. A failing one is cut to the steps that it needs.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from support.acts import ACTS
from support.vfs import EXCHANGE, NOREPLACE, WRITING

#: The name of a rule and what it is given.
Step = tuple[str, dict[str, Any]]

#: How often each call is made.
CHANCES = {
    "write": 5.0,
    "make": 4,
    "link": 2,
    "unlink": 3,
    "rmdir": 2,
    "rename": 5,
    "change": 5,
    "act": 6,
    "open": 2,
    "use": 4,
    "close": 1,
    "forget": 1,
    "suspect": 3,
    "decide": 1.5,
    "settle": 1.5,
    "restore": 1.5,
    "kill": 0.5,
}

#: What some histories have more of.
FLAVOURS: list[dict[str, float]] = [
    {},
    {"rename": 3, "decide": 3, "suspect": 3, "unlink": 3},
    {"open": 4, "use": 6, "unlink": 3},
    {"link": 4, "unlink": 3, "decide": 2},
    {"act": 5, "decide": 2},
]


def history(seed: int, users: list[int], paths: list[bytes], length: int) -> list[Step]:
    """The history of this number."""
    draw = random.Random(seed)
    flavour = draw.choice(FLAVOURS)
    weights = [chance * flavour.get(name, 1) for name, chance in CHANCES.items()]
    actors = draw.sample(users, draw.randint(3, len(users)))
    names = draw.choices(list(CHANCES), weights, k=length)
    return [(name, _given(draw, name, actors, paths)) for name in names]


#: What is done before somebody is suspected, and between that and the verdict.
_WORK = {name: CHANCES[name] for name in ("write", "make", "link", "unlink", "rename", "change", "open", "use")}
_WORK["act"] = 20.0

#: Acts that seldom come together by chance: before a suspicion, and in it.
_TOGETHER = [("", ""), ("link_down", "uproot")]


def episodes(seed: int, users: list[int], paths: list[bytes], length: int) -> list[Step]:
    """Histories in which the merge has much to do, and little was done against it meanwhile: work, then verdicts.

    The first two users are never suspected.
    """
    draw = random.Random(seed)
    steps: list[Step] = []

    def add(name: str, actors: list[int], count: int) -> None:
        for _ in range(count):
            drawn = name or draw.choices(list(_WORK), list(_WORK.values()))[0]
            steps.append((drawn, _given(draw, drawn, actors, paths)))

    def act(what: str, actors: list[int]) -> None:
        steps.append(("act", {**_given(draw, "act", actors, paths), "what": what}))

    while len(steps) < length:
        actors = draw.sample(users, 3)
        before, after = draw.choice(_TOGETHER)
        add("", actors, draw.randint(1, 5))
        if before:
            act(before, users[:2])
        add("suspect", actors, draw.randint(1, 2))
        if after:
            act(after, users[2:])
        add("", actors, draw.randint(2, 8))
        add("decide", actors, draw.randint(1, 3))
        add(draw.choice(["kill", "restore", "forget", "settle"]), actors, draw.randint(0, 1))
    return steps[:length]


def _given(draw: random.Random, name: str, users: list[int], paths: list[bytes]) -> dict[str, Any]:
    def place() -> object:
        chance = draw.random()
        if chance < 0.6:
            return draw.randrange(16)
        return draw.choice(paths) if chance < 0.8 else (draw.randrange(16), draw.choice(b"a b c".split()))

    given: dict[str, Callable[[], object]] = {"uid": lambda: draw.choice(users), "place": place}
    index: dict[str, Callable[[], object]] = {"index": lambda: draw.randrange(16)}
    more: dict[str, dict[str, Callable[[], object]]] = {
        "write": {**given, "flags": lambda: draw.choice(WRITING), "offset": lambda: draw.randrange(5)},
        "make": {**given, "kind": lambda: draw.choice(["directory", "directory", "fifo", "a", "nowhere"])},
        "link": {**given, "new": place},
        "unlink": given,
        "rmdir": given,
        "rename": {**given, "new": place, "flags": lambda: draw.choice([0, 0, 0, NOREPLACE, EXCHANGE])},
        "change": {**given, "what": lambda: _attribute(draw, users)},
        "act": {
            "uid": given["uid"],
            "what": lambda: draw.choice(sorted(ACTS)),
            "one": lambda: draw.randrange(16),
            "other": lambda: draw.randrange(16),
        },
        "open": {**given, "flags": lambda: draw.choice([os.O_RDONLY] * 3 + WRITING)},
        "use": {**index, "what": lambda: draw.choice([("write", draw.randrange(5)), ("truncate", 2), ("read",)])},
        "close": index,
        "suspect": index,
        "decide": {**index, "innocent": lambda: draw.random() < 0.7},
        "settle": {**index, "choice": lambda: draw.choice(["main", "suspect", "both"])},
        "restore": {**index, "replace": lambda: draw.random() < 0.5},
    }
    return {key: value() for key, value in more.get(name, {}).items()}


def _attribute(draw: random.Random, users: list[int]) -> tuple[object, ...]:
    xattr = draw.choice(["user.x", "user.y"])
    choices: list[tuple[object, ...]] = [
        ("chmod", draw.choice([0o600, 0o640, 0o755])),
        ("chown", draw.choice(users), 100),
        ("utime", 1_000_000_000_123_456_789 + draw.randrange(9) * 10**9),
        ("truncate", draw.randrange(7)),
        ("set_xattr", xattr, b"%d" % draw.randrange(100)),
        ("remove_xattr", xattr),
    ]
    return draw.choice(choices)


def cut(steps: list[Step], fails: Callable[[list[Step]], bool]) -> list[Step]:
    """The steps of a failing history without which it does not fail."""
    length = max(1, len(steps) // 2)
    while True:
        before, at = len(steps), 0
        while at < len(steps):
            shorter = steps[:at] + steps[at + length :]
            if shorter and fails(shorter):
                steps = shorter
            else:
                at += length
        if length == 1 and len(steps) == before:
            return steps
        length = max(1, length // 2)
