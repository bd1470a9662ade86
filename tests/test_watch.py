"""How the device is watched: again and again only where that pays."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass, field

from isofs.fuse.watch import ALERT, LONGEST_PAUSE, PATIENCE, Device, Watch

#: Seconds that each look takes.
LOOK = 0.000001


@dataclass
class Requests:
    """Requests that come at given times, and how long each look at the device was ready to wait."""

    comes_at: list[float]
    now: float = 0.0
    patience: list[float] = field(default_factory=list)

    def ready(self) -> bool:
        return self.comes(0)

    def comes(self, seconds: float) -> bool:
        self.patience.append(seconds)
        self.now += LOOK
        if self.comes_at and self.comes_at[0] <= self.now + seconds:
            self.now = max(self.now, self.comes_at.pop(0))
            return True
        self.now += seconds
        return False

    def clock(self) -> float:
        return self.now

    def watched(self, processors: int = 2) -> Watch:
        return Watch(self, processors, self.clock)


def test_requests_that_follow_at_once_are_seen_without_sleeping() -> None:
    device = Requests([0.00001 * n for n in range(1, 100)])
    watch = device.watched()

    assert [watch.comes() for _ in range(99)] == [True] * 99

    assert device.patience[0] == PATIENCE
    assert set(device.patience[1:]) == {0}
    assert device.now < 0.00001 * 110


def test_who_asks_seldom_costs_no_more_than_a_sleep_each() -> None:
    device = Requests([0.00015 * n for n in range(1, 100)])
    watch = device.watched()

    assert [watch.comes() for _ in range(99)] == [True] * 99

    assert device.patience == [PATIENCE] * 99


def test_nobody_looks_for_long_when_no_more_is_asked() -> None:
    device = Requests([0.00001, 0.00002])
    watch = device.watched()

    assert [watch.comes() for _ in range(12)] == [True, True] + [False] * 10

    looks = [n for n, seconds in enumerate(device.patience) if not seconds]
    assert 0 < len(looks) <= (0.00002 + ALERT) / LOOK + 3
    assert device.patience[looks[-1] + 1 :] == [PATIENCE] * 10


def test_with_one_processor_whoever_asks_needs_it() -> None:
    device = Requests([0.00001 * n for n in range(1, 100)])
    watch = device.watched(processors=1)

    assert [watch.comes() for _ in range(99)] == [True] * 99

    assert set(device.patience) == {PATIENCE}


def test_a_device_with_a_high_number_is_looked_at_as_well() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    read, write = os.pipe()
    high = os.dup2(read, 1050)
    device = Device(high)

    assert not device.ready()
    assert not device.comes(PATIENCE)
    os.write(write, b"1")
    assert device.ready()
    assert device.comes(PATIENCE)

    for descriptor in (read, write, high):
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_cannot_ask_because_others_want_the_processors_is_left_alone() -> None:
    """Whoever asks gets a processor only when the daemon sleeps, and then asks at once."""
    device = Requests([])
    watch = device.watched()

    for _ in range(2000):
        device.comes_at = [device.now + ALERT + 0.00001]
        watch.comes()
        if device.comes_at:
            device.comes_at = [device.now]
            assert watch.comes()

    looked = device.patience.count(0) * LOOK
    assert looked < 15 * ALERT


def test_it_is_looked_at_again_when_the_processors_are_free() -> None:
    device = Requests([])
    watch = device.watched()
    for _ in range(50):
        device.comes_at = [device.now + ALERT + 0.00001]
        watch.comes()

    device.patience.clear()
    for _ in range(3000):
        device.comes_at = [device.now + 0.00001]
        assert watch.comes()

    assert 0 < device.patience.count(PATIENCE) <= LONGEST_PAUSE + 1
