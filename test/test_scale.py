# SPDX-License-Identifier: Apache-2.0
"""Metres from measured depth, from an odometry, or by decree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from results import result_of

from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.stream.frame import FrameResult
from xsvggt_ros.stream.image_mapping import ImageMapping
from xsvggt_ros.stream.scale import SMOOTHED, MetricScale
from xsvggt_ros.stream.scale_estimates import SHORTEST_WAY, WayScale, scale_from_depth


def _at(x: float, index: int = 0) -> FrameResult:
    pose = np.eye(4)
    pose[0, 3] = x
    return replace(result_of(index=index), camera_to_world=pose)


def _run(scale: MetricScale, estimates: list[float | None], step: float = 1.0) -> list[float]:
    """Return where a camera is that makes even steps, frame by frame."""
    places = []
    for index, estimate in enumerate(estimates):
        scale.note(estimate, first=index == 0)
        scaled, _ = scale.applied(_at(step * index, index))
        places.append(float(scaled.camera_to_world[0, 3]))
    return places


def test_a_fixed_scale_scales_way_and_depth_and_nothing_else() -> None:
    scale = MetricScale(2.5)
    assert _run(scale, [None] * 4) == [0.0, 2.5, 5.0, 7.5]
    before = _at(1.0, 4)
    after, restarted = scale.applied(before)
    np.testing.assert_allclose(after.depth, 2.5 * before.depth)
    np.testing.assert_array_equal(after.camera_to_world[:3, :3], np.eye(3))
    assert after.confidence is before.confidence
    assert not restarted


def test_a_fixed_value_that_changes_scales_the_way_so_far_once() -> None:
    scale = MetricScale(1.0)
    assert _run(scale, [None] * 3) == [0.0, 1.0, 2.0]
    scale.fix(1.0)
    assert not scale.applied(_at(2.5, 3))[1]
    scale.fix(10.0)
    scaled, restarted = scale.applied(_at(3.0, 4))
    assert (scaled.camera_to_world[0, 3], restarted) == (30.0, True)
    scale.fix(10.0)
    scaled, restarted = scale.applied(_at(4.0, 5))
    assert (scaled.camera_to_world[0, 3], restarted) == (40.0, False)


def test_a_scale_found_in_the_middle_scales_the_way_so_far_once() -> None:
    scale = MetricScale()
    assert _run(scale, [None, None, None]) == [0.0, 1.0, 2.0]
    assert scale.value is None
    scale.note(2.0)
    scaled, restarted = scale.applied(_at(3.0, 3))
    assert (scaled.camera_to_world[0, 3], restarted) == (6.0, True)
    scale.note(None)
    scaled, restarted = scale.applied(_at(4.0, 4))
    assert (scaled.camera_to_world[0, 3], restarted) == (8.0, False)


def test_from_the_first_frame_on_nothing_begins_again() -> None:
    scale = MetricScale()
    scale.note(2.0, first=True)
    assert not scale.applied(_at(0.0))[1]


def test_a_new_session_forgets_the_scale_of_the_one_before() -> None:
    scale = MetricScale()
    _run(scale, [3.0, 3.0])
    assert scale.value == 3.0
    assert _run(scale, [None, None]) == [0.0, 1.0]
    assert scale.value is None


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=80))
def test_the_way_never_jumps_however_estimates_wander(estimates: list[float]) -> None:
    places = _run(MetricScale(), [*estimates], step=0.5)
    steps = np.diff([0.0, *places])
    assert np.all(steps >= 0.0)
    assert np.all(steps <= 0.5 * max(estimates) + 1e-9)


def test_outliers_and_what_is_no_number_do_not_count() -> None:
    scale = MetricScale()
    _run(scale, [2.0, 2.0, 900.0, 2.0, float("nan"), -1.0, 0.0, float("inf")])
    assert scale.value == 2.0
    _run(scale, [5.0] * SMOOTHED)
    assert scale.value == 5.0


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (480, 480)])
def test_depth_of_any_size_gives_the_ratio(size: tuple[int, int]) -> None:
    result = result_of()
    slope = np.linspace(1.0, 2.0, size[1], dtype=np.float32) * np.ones(size, np.float32)
    slope[: size[0] // 2] = np.nan  # half of it is unknown
    slope[-size[0] // 8 :] = 65.0  # beyond what a depth camera knows
    assert scale_from_depth(result, 1.7 * slope) == pytest.approx(1.7, rel=0.03)


def test_rows_that_were_cut_off_are_left_out() -> None:
    # A portrait image: twice as high as wide, of which the middle half is used.
    result = replace(result_of(), mapping=ImageMapping(32, 64, 32, 32, 64, 16))
    measured = np.full((64, 32), 9.0, np.float32)
    measured[16:48] = 2.0 * result.depth
    assert scale_from_depth(result, measured) == pytest.approx(2.0, rel=1e-5)


def test_too_little_depth_is_no_estimate() -> None:
    measured = np.zeros((32, 32), np.float32)
    assert scale_from_depth(result_of(), measured) is None
    assert scale_from_depth(result_of(), np.full((32, 32), np.nan, np.float32)) is None


def _pose(x: float, turn: float = 0.0) -> Matrix:
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    pose[0, 3] = x
    return pose


def test_a_straight_way_gives_the_ratio_once_it_is_long_enough() -> None:
    way = WayScale()
    found = [way.estimate(_pose(0.01 * i), _pose(0.05 * i), first=i == 0) for i in range(9)]
    assert found[:4] == [None] * 4
    assert [found[4], found[8]] == [pytest.approx(5.0)] * 2
    assert pytest.approx(SHORTEST_WAY) == 0.05 * 4


def test_a_turn_a_standstill_and_a_gap_are_no_estimates() -> None:
    way = WayScale()
    assert way.estimate(_pose(0.0), _pose(0.0), first=True) is None
    assert way.estimate(_pose(1.0, 0.3), _pose(1.0, 0.3), first=False) is None  # begins again
    assert way.estimate(_pose(1.0, 0.3), _pose(1.0, 0.3), first=False) is None  # stands
    assert way.estimate(_pose(9.0, 0.3), None, first=False) is None
    assert way.estimate(_pose(2.0, 0.3), _pose(5.0, 0.3), first=False) == pytest.approx(4.0)
    assert way.estimate(_pose(7.0), _pose(9.0), first=True) is None


def test_a_camera_that_sees_no_motion_gives_no_infinite_scale() -> None:
    way = WayScale()
    way.estimate(_pose(0.0), _pose(0.0), first=True)
    assert way.estimate(_pose(0.0), _pose(1.0), first=False) is None
