# SPDX-License-Identifier: Apache-2.0
"""The images of several cameras, in order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsvggt_ros.stream.frame import Frame, ImageArray
from xsvggt_ros.stream.stamps import SHORTEST_JUMP, Order, RigOrder, StampOrder

CAMERAS = ("left", "right", "rear")


def _decode() -> ImageArray:
    return np.zeros((1, 1, 3), np.uint8)


def _frame(stamp: int, camera: str) -> Frame:
    return Frame(stamp, f"{camera}_optical", _decode, camera=camera)


class _Rig:
    """An order on a clock of its own."""

    def __init__(self, wait: float = 0.1) -> None:
        self.now = 0.0
        self.order = RigOrder(CAMERAS, wait, clock=lambda: self.now)
        self.out: list[tuple[int, str]] = []

    def put(self, stamp: int, camera: str) -> None:
        self._take(self.order.add(_frame(stamp, camera)))

    def look(self, after: float) -> None:
        self.now += after
        self._take(self.order.due())

    def _take(self, frames: list[Frame]) -> None:
        self.out += [(frame.stamp, frame.camera) for frame in frames]


@given(
    st.lists(st.sampled_from(CAMERAS), min_size=1, max_size=60),
    st.lists(st.integers(0, 5), min_size=60, max_size=60),
)
def test_any_order_of_arrival_becomes_the_order_of_stamps(
    arrivals: list[str], steps: list[int]
) -> None:
    rig, stamps, sent = _Rig(), dict.fromkeys(CAMERAS, 10), []
    for camera, step in zip(arrivals, steps, strict=False):
        stamps[camera] += 1 + step
        sent.append((stamps[camera], camera))
        rig.put(*sent[-1])
    rig.look(after=1.0)
    assert len(rig.order) == 0
    assert rig.out == sorted(sent, key=lambda each: (each[0], CAMERAS.index(each[1])))


def test_an_image_goes_on_once_all_cameras_are_as_far() -> None:
    rig = _Rig()
    rig.put(100, "right")
    rig.put(100, "rear")
    assert rig.out == []
    rig.put(100, "left")
    assert rig.out == [(100, "left"), (100, "right"), (100, "rear")]
    rig.put(130, "rear")
    rig.put(110, "left")
    rig.put(120, "right")
    assert rig.out[3:] == [(110, "left")]


def test_a_silent_camera_holds_the_others_for_a_while_only() -> None:
    rig = _Rig(wait=0.1)
    rig.put(100, "left")
    rig.look(after=0.05)
    rig.put(90, "right")
    rig.look(after=0.04)
    assert rig.out == []
    rig.look(after=0.02)
    assert rig.out == [(90, "right"), (100, "left")]


def test_a_clock_that_jumps_back_lets_go_what_came_before() -> None:
    rig = _Rig()
    rig.put(5 * SHORTEST_JUMP, "left")
    rig.put(5 * SHORTEST_JUMP + 1, "right")
    rig.put(10, "left")
    assert rig.out == [(5 * SHORTEST_JUMP, "left"), (5 * SHORTEST_JUMP + 1, "right")]
    rig.look(after=1.0)
    assert rig.out[2:] == [(10, "left")]


@pytest.mark.parametrize("stragglers", [0, 1, 2])
def test_a_loop_is_one_jump_however_late_the_end_of_one_camera_comes(stragglers: int) -> None:
    rig, stamps, last = _Rig(), StampOrder(), 22 * SHORTEST_JUMP
    for camera in CAMERAS:
        rig.put(last, camera)
    rig.put(SHORTEST_JUMP, "left")
    for late in range(1, 1 + stragglers):
        rig.put(last + late, "right")
    for camera in ("right", "rear"):
        rig.put(SHORTEST_JUMP, camera)
    assert rig.out[3 : 3 + stragglers] == [(last + 1 + i, "right") for i in range(stragglers)]
    assert rig.out[3 + stragglers :] == [(SHORTEST_JUMP, camera) for camera in CAMERAS]
    orders = []
    for stamp, camera in rig.out:
        orders.append(stamps.classify(stamp, camera))
        stamps.accept(stamp, camera)
    assert orders.count(Order.JUMPED_BACK) == 1
    assert orders.count(Order.FORWARD) == len(orders) - 1


def test_a_camera_that_never_jumps_waits_like_the_others_again() -> None:
    rig = _Rig(wait=0.1)
    for camera in CAMERAS:
        rig.put(22 * SHORTEST_JUMP, camera)
    rig.put(10, "left")
    rig.look(after=0.2)
    assert rig.out[3:] == [(10, "left")]
    rig.put(22 * SHORTEST_JUMP + 1, "right")
    assert len(rig.order) == 1


def test_two_cameras_may_see_the_same_moment_and_one_may_not() -> None:
    stamps = StampOrder()
    stamps.accept(100, "left")
    assert stamps.classify(100, "right") is Order.FORWARD
    assert stamps.classify(100, "left") is Order.REPEATED
    stamps.accept(100, "right")
    stamps.accept(120, "left")
    assert stamps.classify(110, "right") is Order.LATE
    assert stamps.classify(100, "right") is Order.REPEATED


def test_only_a_camera_that_goes_back_itself_tells_of_a_jump() -> None:
    stamps = StampOrder()
    late = 10 * SHORTEST_JUMP
    stamps.accept(late, "left")
    assert stamps.classify(late - 2 * SHORTEST_JUMP, "right") is Order.LATE
    assert stamps.classify(late - 2 * SHORTEST_JUMP, "left") is Order.JUMPED_BACK
    stamps.accept(7, "left")
    assert stamps.classify(7, "right") is Order.FORWARD
