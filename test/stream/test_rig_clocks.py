# SPDX-License-Identifier: Apache-2.0
"""Cameras of a rig that live in different clocks are found, silent and slow ones are not."""

from __future__ import annotations

import pytest

from xsvggt_ros.stream.stamps import RigClocks

SECOND = 1_000_000_000
PERIOD = SECOND // 10


def _noted(shifts: dict[str, int], count: int = 6) -> RigClocks:
    clocks = RigClocks(tuple(shifts))
    for i in range(count):
        for camera, shift in shifts.items():
            clocks.note(camera, 100 * SECOND + i * PERIOD + shift)
    return clocks


@pytest.mark.parametrize("shift", [-50, -2, 2, 3600])
def test_of_two_cameras_the_second_is_told(shift: int) -> None:
    offsets = _noted({"left": 0, "right": shift * SECOND}).unmatched_clocks()
    assert offsets == {"right": pytest.approx(shift, abs=0.2)}


def test_of_three_cameras_the_odd_one_is_told_be_it_the_first() -> None:
    offsets = _noted({"left": 7 * SECOND, "right": 0, "rear": 0}).unmatched_clocks()
    assert offsets == {"left": pytest.approx(7, abs=0.2)}
    offsets = _noted({"left": 0, "right": 0, "rear": -7 * SECOND}).unmatched_clocks()
    assert offsets == {"rear": pytest.approx(-7, abs=0.2)}


def test_cameras_of_one_clock_are_no_strangers() -> None:
    assert _noted({"left": 0, "right": PERIOD // 2}).unmatched_clocks() == {}
    assert _noted({"": 0}).unmatched_clocks() == {}
    assert RigClocks(("left", "right")).unmatched_clocks() == {}


def test_a_silent_or_slow_camera_is_no_stranger() -> None:
    clocks = _noted({"left": 0, "right": 0})
    for i in range(100):
        clocks.note("left", 101 * SECOND + i * PERIOD)
    clocks.note("right", 112 * SECOND)
    assert clocks.unmatched_clocks() == {}


def test_a_bag_that_loops_makes_no_stranger() -> None:
    clocks = RigClocks(("left", "right"))
    for _ in range(3):
        for i in range(9):
            clocks.note("left", i * PERIOD)
            clocks.note("right", i * PERIOD + 5)
        assert clocks.unmatched_clocks() == {}
