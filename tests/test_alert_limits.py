"""The limit of alerts: how many users they isolate within a time, and of what it is told when that is used up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from isofs.engine import recovery
from isofs.errors import Already, HandlesOpen, IsofsError, NotAllowed
from isofs.service.alerts import Alerts
from isofs.service.events import Event, Events, Kind
from isofs.service.live import Live
from isofs.store.folder import open_store

CONFIGURATION = '[alerts]\nmost = 2\nwithin = "10 min"\n[access]\nsystem_accounts = false\n'


class Stage:
    """Alerts, and what isolates in them: it raises what a test says, and else remembers whom it isolated."""

    def __init__(self, place: Path) -> None:
        (place / "tree").mkdir()
        store = open_store(str(place / "store"))
        (place / "store" / "config.toml").write_text(CONFIGURATION)
        self.fs = recovery.open_filesystem(store, str(place / "tree"))
        self.isolated: list[object] = []
        self.told: list[Event] = []
        self.raises: IsofsError | None = None
        events = Events()
        events.subscribe(self.told.append)
        self.alerts = Alerts(self.fs, self._suspect, Live(store), events)

    async def _suspect(self, args: Mapping[str, object], _: Callable[[int, int], None]) -> Mapping[str, object]:
        await trio.sleep(1)
        if self.raises is not None:
            raise self.raises
        self.isolated.append(args["uid"])
        return {}

    async def alert(self, uid: int, **more: object) -> str:
        args = {"uid": uid, "user": f"u{uid}", "reason": "odd", **more}
        return str((await self.alerts.alert(args, lambda done, total: None))["outcome"])


Play = Callable[[Callable[[Stage], Awaitable[None]]], Stage]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    stage = Stage(tmp_path)

    def run(do: Callable[[Stage], Awaitable[None]]) -> Stage:
        trio.run(do, stage, clock=MockClock(autojump_threshold=0))
        return stage

    yield run
    recovery.close_filesystem(stage.fs)


def test_it_ends_with_the_time(play: Play) -> None:
    outcomes = []

    async def do(stage: Stage) -> None:
        outcomes.extend([await stage.alert(uid) for uid in (1, 2, 3, 3, 4)])
        await trio.sleep(590)
        outcomes.append(await stage.alert(3))
        await trio.sleep(10)
        outcomes.append(await stage.alert(3))
        outcomes.append(await stage.alert(4))
        outcomes.append(await stage.alert(5))

    stage = play(do)
    assert outcomes == ["isolated"] * 2 + ["limited"] * 4 + ["isolated"] * 2 + ["limited"]
    assert stage.isolated == [1, 2, 3, 4]
    assert [event.kind for event in stage.told] == [Kind.FAILURE] * 3
    assert [event.facts["uid"] for event in stage.told] == [3, 4, 5]


def test_alerts_at_once_do_not_pass_it(play: Play) -> None:
    outcomes = []

    async def one(stage: Stage, uid: int) -> None:
        outcomes.append(await stage.alert(uid))

    async def do(stage: Stage) -> None:
        async with trio.open_nursery() as nursery:
            for uid in range(1, 6):
                nursery.start_soon(one, stage, uid)

    stage = play(do)
    assert len(stage.isolated) == 2
    assert sorted(outcomes) == ["isolated"] * 2 + ["limited"] * 3


def test_whom_it_did_not_isolate_is_not_counted(play: Play) -> None:
    outcomes = []

    async def do(stage: Stage) -> None:
        for error in (Already("is one"), NotAllowed("never")):
            stage.raises = error
            outcomes.append(await stage.alert(1))
        stage.raises = HandlesOpen("held")
        for _ in range(3):
            with pytest.raises(HandlesOpen):
                await stage.alert(1)
        stage.raises = None
        outcomes.extend([await stage.alert(uid, dry_run=True) for uid in (0, 1, 2, 3)])
        outcomes.append(await stage.alert(1))
        stage.raises = IsofsError("isolated, but something stayed open")
        with pytest.raises(IsofsError):
            await stage.alert(2)
        outcomes.append(await stage.alert(3))
        outcomes.append(await stage.alert(4, dry_run=True))

    stage = play(do)
    assert outcomes == ["already", "spared", "spared", *["would isolate"] * 3, "isolated", "limited", "limited"]
    assert [event.facts["uid"] for event in stage.told] == [3]  # a dry run tells nobody
