# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.ros.replay_topics import ReplayClock, ReplayOptions

FOREVER = 1e6
NO_PACE = (float("inf"), float("nan"), 1e-300, 1e9)


def test_waits_add_up() -> None:
    clock = ReplayClock()
    assert clock.wait(0)
    start = time.monotonic()
    assert all(clock.wait(0.01) for _ in range(5))
    assert time.monotonic() - start >= 0.05 - 1e-3


def test_ticks_count_down() -> None:
    left: list[float] = []
    assert ReplayClock().wait(0.0, left.append)
    assert not left
    clock = ReplayClock()
    clock.wait(0)
    assert clock.wait(0.1, left.append)
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0.0
    assert len(left) > 1


def test_stop_ends_every_wait() -> None:
    clock = ReplayClock()
    waiting = Event()
    with ThreadPoolExecutor(1) as thread:
        clock.wait(0)
        result = thread.submit(clock.wait, FOREVER, lambda _: waiting.set())
        assert waiting.wait(10)
        clock.stop()
        assert result.result(10) is False
    assert clock.stopped
    assert clock.wait(FOREVER) is False


def test_a_pause_holds_even_a_wait_that_is_due() -> None:
    clock = ReplayClock(paused=True)
    held = Event()
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(clock.wait, 0, lambda _: held.set())
        assert held.wait(10)
        assert not result.done()
        clock.pause(False)
        assert result.result(10) is True


def test_time_spent_paused_does_not_count() -> None:
    clock = ReplayClock()
    left: list[float] = []
    ticks = Event()

    def tick(seconds: float) -> None:
        left.append(seconds)
        if len(left) == 1:
            clock.pause(True)
        if len(left) == 6:
            ticks.set()

    clock.wait(0)
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(clock.wait, FOREVER, tick)
        assert ticks.wait(10)
        clock.stop()
        result.result(10)
    assert left[0] > left[1] > 0
    assert len(set(left[1:])) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 0.0}, "speed is 0.0"),
        ({"speed": -1.0}, "speed is -1.0"),
        ({"fixed_rate": 0.0}, "fixed rate is 0.0 Hz"),
        ({"fixed_rate": 5.0, "speed": 2.0}, "both set the pace"),
        ({"restamp": True, "clock": True}, "leave one out"),
        ({"transport": "theora"}, "'theora': give one of raw, compressed, both"),
        ({"wait_for": -1}, "-1 subscribers"),
        ({"follow": "/xsvggt", "best_effort": True}, "following /xsvggt loses nothing"),
        ({"follow": "/xsvggt", "wait_for": 0}, "following /xsvggt loses nothing"),
        ({"depth": 0}, "depth is 0 images"),
        ({"depth": 99999999999}, "depth is 99999999999 images"),
        *(({"speed": pace}, f"speed is {pace}: give a factor from") for pace in NO_PACE),
        *(({"fixed_rate": pace}, f"fixed rate is {pace} Hz: give one from") for pace in NO_PACE),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ReplayOptions(**options)
