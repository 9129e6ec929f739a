# SPDX-License-Identifier: Apache-2.0
"""Metres from measured depth, from an odometry, or by decree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motions import motion
from results import result_of

from xsvggt_ros.geometry.rigid import Matrix, invert
from xsvggt_ros.stream.frame import FrameResult, ImageMapping
from xsvggt_ros.stream.scale import (
    SHORTEST_CHORD,
    SMOOTHED,
    ChordScale,
    MetricScale,
    scale_from_depth,
)
from xsvggt_ros.synthetic.motion import MotionSettings
from xsvggt_ros.synthetic.sequence import Sequence, SequenceSettings


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


def _measure(
    chords: ChordScale, model: list[Matrix], metric: list[Matrix], *, known: bool = True
) -> tuple[float, float] | None:
    for one, other in zip(model, metric, strict=True):
        chords.add(one, other, lever_arm_known=known)
    return chords.estimate()


def test_a_straight_way_gives_the_ratio_once_it_is_long_enough() -> None:
    chords = ChordScale()
    ended = [chords.add(_pose(0.02 * i), _pose(0.1 * i), lever_arm_known=False) for i in range(8)]
    assert ended == [False] * 5 + [True] * 3
    assert pytest.approx(SHORTEST_CHORD) == 0.1 * 5
    scale, spread = chords.estimate() or (0.0, 0.0)
    assert (scale, spread) == pytest.approx((5.0, 0.0), abs=1e-9)


def test_a_turn_counts_where_the_camera_is_known_on_the_robot() -> None:
    turning = [_pose(0.1 * i, 0.3 * i) for i in range(8)]
    model = [_pose(0.02 * i, 0.3 * i) for i in range(8)]
    assert _measure(ChordScale(), model, turning, known=False) is None
    assert _measure(ChordScale(), model, turning) == pytest.approx((5.0, 0.0))


def test_a_standstill_and_a_camera_that_sees_no_motion_measure_nothing() -> None:
    still = [_pose(0.0)] * 9
    moving = [_pose(0.2 * i) for i in range(9)]
    assert _measure(ChordScale(), still, still) is None
    assert _measure(ChordScale(), still, moving) is None
    chords = ChordScale()
    assert _measure(chords, moving, moving) is not None
    chords.begin()
    assert chords.estimate() is None


def test_a_jump_of_the_estimate_does_not_count() -> None:
    metric = [_pose(0.1 * i) for i in range(120)]
    model = [_pose(0.05 * i + (0.4 if i >= 60 else 0.0)) for i in range(120)]
    scale, spread = _measure(ChordScale(), model, metric) or (0.0, 0.0)
    assert scale == pytest.approx(2.0, rel=1e-6)
    assert spread == pytest.approx(0.0, abs=1e-6)


def test_the_newest_way_counts_where_the_unit_wanders() -> None:
    metric = [_pose(0.1 * i) for i in range(800)]
    places = np.cumsum([0.05 if i < 400 else 0.04 for i in range(800)])
    scale, _ = _measure(ChordScale(), [_pose(x) for x in places], metric) or (0.0, 0.0)
    assert scale == pytest.approx(2.5, rel=1e-3)


@pytest.mark.parametrize("kind", ["walk", "drive", "loop"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_wheel_odometry_gives_the_scale_of_every_kind_of_way(kind: str, seed: int) -> None:
    """The network is perfect; wheels slip by 2 % in each step and turn wrongly by 0.1 degrees."""
    true, mount = 2.7, np.array([0.3, 0.05, 0.4])
    poses = Sequence(SequenceSettings(seed=seed, frames=200, motion=MotionSettings(kind))).poses
    rng = np.random.default_rng(seed)
    arm = np.eye(4)
    arm[:3, 3] = mount
    base = [pose @ invert(arm) for pose in poses]
    odom, chords, errors = base[0], ChordScale(), []
    for before, now, pose in zip([base[0], *base], base, poses, strict=False):
        step = invert(before) @ now
        step[:3, 3] *= 1.0 + 0.02 * rng.standard_normal()
        wrong = motion((0.0, 0.0, 0.0), (*(0.0009 * rng.standard_normal(3)), 1.0))
        odom = odom @ step @ wrong
        model = pose.copy()
        model[:3, 3] /= true
        if chords.add(model, odom @ arm, lever_arm_known=True):
            errors.append((chords.estimate() or (0.0, 0.0))[0] / true - 1.0)
    assert abs(errors[-1]) < 0.02
    assert np.abs(errors[len(errors) // 4 :]).max() < 0.02
