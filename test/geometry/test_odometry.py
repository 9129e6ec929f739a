# SPDX-License-Identifier: Apache-2.0
"""From the motion of a camera to what a robot is told, and what refinement makes of poses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motions import motion, rigid
from pose_benchmark import pose_views as pv
from results import result_with

from xsvggt_ros.geometry.pose_covariance import UNKNOWN_VARIANCE
from xsvggt_ros.geometry.rigid import Matrix, RobotPose, exp_se3, invert, log_se3, placement_of
from xsvggt_ros.stream.frame import CameraMotion, FrameResult, GaugeChange
from xsvggt_ros.stream.odometry import (
    LONGEST_GAP,
    CarrierMotion,
    NetworkError,
    VisualOdometry,
    carrier_motion,
)
from xsvggt_ros.stream.scale import MetricScale

CAMERA = pv.camera(4)
SECOND = 10**9
MOUNT = motion((0.3, 0.0, 1.2), (-0.5, 0.5, -0.5, 0.5))
"""A camera that looks ahead, 0.3 before and 1.2 above the base."""


def moved(step: Matrix, seconds: float = 0.5, **changes: Any) -> CameraMotion:
    covariance = np.diag([0.01, 0.02, 0.03, 0.001, 0.002, 0.003])
    motion = CameraMotion(step, covariance, 3 * covariance, step, 2 * covariance, seconds)
    return replace(motion, **changes)


def told(motion: CameraMotion | None, *, metric: bool = True, lost: bool = False) -> CarrierMotion:
    return carrier_motion(motion, np.eye(4), MOUNT, metric=metric, lost=lost)


def test_a_twist_is_in_the_axes_of_the_base() -> None:
    # The base goes half a metre ahead and turns a tenth of a radian to the left, in half a second.
    base = exp_se3(np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.1]))
    found = told(moved(invert(MOUNT) @ base @ MOUNT))
    np.testing.assert_allclose(found.twist, [1.0, 0.0, 0.0, 0.0, 0.0, 0.2], atol=1e-9)
    # About the base's axes (x ahead = optical z), with the lever to the camera.
    angular = np.diag(found.twist_covariance)[3:]
    np.testing.assert_allclose(angular, [8 * 0.003, 8 * 0.001, 8 * 0.002])
    assert found.twist_covariance[0, 0] > 8 * 0.03


@given(rigid(), rigid(), rigid(), st.integers(0, 2**31))
def test_covariances_are_those_of_the_base_in_odom(
    pose: Matrix, mount: Matrix, step: Matrix, seed: int
) -> None:
    """The error of the base's pose follows from that of the camera's, to first order."""
    xi = 1e-6 * np.random.default_rng(seed).standard_normal(6)
    camera = pose @ mount
    found = carrier_motion(
        CameraMotion(camera, np.eye(6), np.outer(xi, xi), step, np.outer(xi, xi), 1.0),
        pose, mount, metric=True, lost=False, in_map=True,
    )  # fmt: skip
    wrong = camera @ exp_se3(xi) @ invert(mount)
    way, turn = wrong[:3, 3] - pose[:3, 3], log_se3(wrong @ invert(pose))[3:]
    expected = np.concatenate([way, turn])
    np.testing.assert_allclose(found.covariance, np.outer(expected, expected), atol=1e-15)


@pytest.mark.parametrize("seconds", [0.0, -1.0, LONGEST_GAP + 0.1])
def test_a_gap_has_no_velocity(seconds: float) -> None:
    found = told(moved(np.eye(4), seconds))
    np.testing.assert_array_equal(found.twist_covariance, UNKNOWN_VARIANCE * np.eye(6))
    assert not found.twist.any()
    assert np.diag(found.covariance).max() < 1.0


def test_what_is_lost_or_never_known_is_unknown() -> None:
    for found in (told(None), told(moved(np.eye(4)), lost=True)):
        np.testing.assert_array_equal(found.covariance, UNKNOWN_VARIANCE * np.eye(6))
        np.testing.assert_array_equal(found.twist_covariance, UNKNOWN_VARIANCE * np.eye(6))
    unscaled = told(moved(exp_se3(np.array([0.1, 0, 0, 0, 0.1, 0]))), metric=False)
    assert not unscaled.twist[:3].any()
    assert unscaled.twist[3:].any()
    np.testing.assert_array_equal(unscaled.covariance[:3], UNKNOWN_VARIANCE * np.eye(3, 6))
    assert np.diag(unscaled.covariance)[3:].max() < 1.0


@given(rigid(), rigid(), rigid())
def test_map_to_odom_takes_what_the_world_jumps(world: Matrix, odom: Matrix, mount: Matrix) -> None:
    robot = RobotPose(carrier_from_camera=mount)
    same = placement_of(mount, world, robot, world)
    np.testing.assert_array_equal(same.map_from_odom, np.eye(4))
    np.testing.assert_array_equal(same.odom_from_carrier, same.map_from_carrier)
    jumped = placement_of(mount, world, robot, odom)
    np.testing.assert_allclose(
        jumped.map_from_odom @ jumped.odom_from_carrier, jumped.map_from_carrier, atol=1e-9
    )
    np.testing.assert_allclose(jumped.odom_from_carrier, mount @ odom @ invert(mount), atol=1e-9)


def test_a_scale_scales_the_motion_as_well() -> None:
    scale = MetricScale(2.0)
    world, odom = np.eye(4), np.eye(4)
    for index in range(4):
        world[0, 3], odom[0, 3] = index + (0.5 if index > 1 else 0.0), index
        result = result_with(
            np.ones((32, 32), np.float32), index=index, camera_to_world=world.copy(),
            motion=moved(exp_se3(np.array([1.0, 0, 0, 0, 0, 0])), odom_from_camera=odom.copy()),
        )  # fmt: skip
        scaled, _ = scale.applied(result)
        assert scaled.metric
        assert scaled.motion is not None
        assert scaled.camera_to_world[0, 3] == 2.0 * world[0, 3]
        assert scaled.motion.odom_from_camera[0, 3] == 2.0 * index
        assert scaled.motion.step[0, 3] == 2.0
        np.testing.assert_allclose(
            np.diag(scaled.motion.step_covariance), [0.08, 0.16, 0.24, 0.002, 0.004, 0.006]
        )
    assert not MetricScale().applied(result)[0].metric


@given(st.lists(st.one_of(st.none(), st.floats(0.1, 10.0)), min_size=2, max_size=20))
def test_odom_goes_on_smoothly_when_a_scale_becomes_known(estimates: list[float | None]) -> None:
    """The world is scaled as a whole; each step of odom has the unit that was known then."""
    scale, before, world_before = MetricScale(smoothed=1), 0.0, 0.0
    for index, estimate in enumerate(estimates):
        pose = np.eye(4)
        pose[0, 3] = index
        result = result_with(
            np.ones((32, 32), np.float32), index=index, camera_to_world=pose,
            motion=moved(exp_se3(np.array([1.0, 0, 0, 0, 0, 0])), odom_from_camera=pose),
        )  # fmt: skip
        scale.note(estimate, first=index == 0)
        scaled, restarted = scale.applied(result)
        assert scaled.motion is not None
        x = float(scaled.motion.odom_from_camera[0, 3])
        unit = scale.value or 1.0
        if index:
            assert x - before == pytest.approx(unit)
            step = float(scaled.camera_to_world[0, 3]) - world_before
            assert step == pytest.approx(unit * index - world_before if restarted else unit)
        before, world_before = x, float(scaled.camera_to_world[0, 3])


def test_a_scale_that_comes_late_widens_the_pose_in_odom() -> None:
    """Up to then, ways in odom were counted in another unit; later, by a scale with a spread."""
    scale, pose, found = MetricScale(), np.eye(4), {}
    for index in range(8):
        pose[0, 3] = index
        result = result_with(
            np.ones((32, 32), np.float32), index=index, camera_to_world=pose.copy(),
            motion=moved(exp_se3(np.array([1.0, 0, 0, 0, 0, 0])), odom_from_camera=pose.copy()),
        )  # fmt: skip
        scale.note(None if index < 5 else 2.0 + 0.1 * (index - 5), first=index == 0)
        found[index] = scale.applied(result)[0]
    motions = [each.motion for each in found.values()]
    assert not found[4].metric
    first, last = motions[5], motions[7]
    assert first is not None
    assert last is not None
    # Four units were counted as four metres, and were eight: that is known from frame 5 on.
    expected = 2.0**2 * 0.01 + 4.0**2
    assert first.covariance[0, 0] == pytest.approx(expected)
    assert first.covariance[1, 1] == pytest.approx(2.0**2 * 0.02)
    assert first.world_covariance[0, 0] == pytest.approx(2.0**2 * 0.03)  # map is scaled as a whole
    # Estimates of 2.0, 2.1 and 2.2 now say by how much all of the way may be off.
    assert scale.deviation == pytest.approx(1.4826 * 0.1 / 2.1)
    doubt = scale.deviation * 2.1 * 7
    assert last.world_covariance[0, 0] == pytest.approx(2.1**2 * 0.03 + doubt**2)
    step = 2.1**2 * 0.02 + (scale.deviation * 2.1) ** 2
    assert last.step_covariance[0, 0] == pytest.approx(step)


def test_a_join_makes_the_scale_less_certain_until_it_is_measured_again() -> None:
    change = GaugeChange("due", "", 1.3, 0.01, 1, scale_spread=0.04)
    measured, fixed = MetricScale(smoothed=10), MetricScale(2.0)
    seen = []
    for index in range(40):
        result = result_with(
            np.ones((32, 32), np.float32), index=index,
            gauge_change=change if index == 20 else None,
        )  # fmt: skip
        for scale in (measured, fixed):
            scale.note(2.0, first=index == 0)
            scale.applied(result)
        seen.append((measured.deviation, fixed.deviation))
    assert seen[19] == (0.0, 0.0)
    assert seen[20] == pytest.approx((0.04, 0.04))
    assert 0.02 < seen[25][0] < 0.04
    assert seen[35] == pytest.approx((0.0, 0.04))  # nobody measures a fixed one again
    refused = replace(change, objection="points lie apart", scale_spread=0.5)
    fixed.applied(result_with(np.ones((32, 32), np.float32), index=41, gauge_change=refused))
    assert fixed.deviation == pytest.approx(0.04)


def frames(
    count: int, errors: pv.Errors, depth_error: float = 0.005
) -> tuple[list[Matrix], list[FrameResult]]:
    """Return true poses, and results of a walk with points of a point head."""
    random = np.random.default_rng(0)
    truth = pv.walk(random, count)
    results = []
    for index, pose in enumerate(truth):
        depth = pv.room_depth(pose, CAMERA)
        points = pv.point_map(random, pose, depth, CAMERA, errors)
        noise = 1 + depth_error * pv.noise(random, 2.0, 4)
        results.append(
            result_with(
                (depth * noise).astype(np.float32), index=index, stamp=index * SECOND,
                camera_to_world=pv.head_pose(random, pose, errors), intrinsics=CAMERA,
                intrinsics_source="calibrated", points=points.astype(np.float32),
            )
        )  # fmt: skip
    return truth, results


def rms(truth: list[Matrix], results: list[FrameResult]) -> tuple[float, float]:
    pairs = zip(truth, results, strict=True)
    squares = np.square([log_se3(invert(one) @ other.camera_to_world) for one, other in pairs])
    return (
        float(np.sqrt(squares[:, :3].sum(1).mean())),
        float(np.sqrt(squares[:, 3:].sum(1).mean())),
    )


@pytest.mark.parametrize(
    ("errors", "better"),
    [(pv.Errors(1.0, 0.002), True), (pv.Errors(4.0, 0.01), False)],
)
def test_refinement_helps_where_it_can_and_does_no_harm_elsewhere(
    errors: pv.Errors, better: bool
) -> None:
    truth, results = frames(60, errors)
    odometry = VisualOdometry(4, "on")
    followed = [odometry.follow(result) for result in results]
    before, after = (rms(truth[20:], each[20:]) for each in (results, followed))
    for one, other in zip(before, after, strict=True):
        assert other <= 1.05 * one
        assert (other <= 0.6 * one) == better
    assert ("fused" in {each.pose_source for each in followed}) == better
    assert followed[-1].motion is not None
    assert followed[-1].motion.inliers > 0.5


def test_poses_in_the_map_are_as_wrong_as_is_said() -> None:
    """They are the network's, which drifts, while those in `odom` are measured on images."""
    squares = []
    for seed in range(4):
        random = np.random.default_rng(seed)
        truth, odometry, world = pv.walk(random, 80), VisualOdometry(4), np.eye(4)
        for index, pose in enumerate(truth):
            if index:
                drift = exp_se3(random.normal(0, 1, 6) * ([0.01] * 3 + [0.003] * 3))
                world = world @ invert(truth[index - 1]) @ pose @ drift
            wrong = 1 + 0.02 * pv.noise(random, 4.0, 4)
            result = result_with(
                (pv.room_depth(pose, CAMERA) * wrong).astype(np.float32), index=index,
                stamp=index * SECOND, camera_to_world=world, intrinsics=CAMERA,
                color=pv.room_image(pose, CAMERA),
            )  # fmt: skip
            motion = odometry.follow(result).motion
            assert motion is not None
            if index:
                error = log_se3(invert(invert(truth[0]) @ pose) @ world)
                squares.append(error @ np.linalg.solve(motion.world_covariance, error) / 6)
                assert np.linalg.eigvalsh(motion.world_covariance - motion.covariance)[0] > -1e-12
    assert 0.5 <= np.mean(squares) <= 1.5


def test_a_join_that_moves_cameras_of_a_rig_apart_makes_them_less_certain() -> None:
    """`odom` goes on with the newest camera; the others move as far as both gauges differ."""
    _, results = frames(12, pv.Errors(1.0, 0.002))
    odometry = VisualOdometry(4)
    before = {}
    for result in results[:-1]:
        for name in ("left", "right"):
            stamp = result.stamp + (name == "right")
            before[name] = odometry.follow(replace(result, camera=name, stamp=stamp)).motion
    newest = results[-2].camera_to_world
    shift = exp_se3(np.array([0.2, 0.0, 0.0, 0.0, 0.0, 0.0]))
    odometry.change_gauge({"left": newest @ shift, "right": newest})
    step = invert(newest) @ results[-1].camera_to_world
    moves = {"left": newest @ shift @ step, "right": newest @ step}
    for name, jump in (("left", 0.2), ("right", 0.0)):
        result = replace(results[-1], camera=name, camera_to_world=moves[name])
        motion, earlier = odometry.follow(result).motion, before[name]
        assert motion is not None
        assert earlier is not None
        jumped = invert(earlier.odom_from_camera @ motion.step) @ motion.odom_from_camera
        assert np.linalg.norm(jumped[:3, 3]) == pytest.approx(jump, abs=1e-6)
        grown = np.trace((motion.covariance - earlier.covariance)[:3, :3])
        assert (grown > jump**2) if jump else (grown < 0.2**2)


def test_only_on_moves_poses_in_the_world() -> None:
    _, results = frames(15, pv.Errors(1.0, 0.002))
    for refinement, source in (("off", "predicted"), ("auto", "predicted"), ("on", "fused")):
        odometry = VisualOdometry(4, refinement)
        followed = [odometry.follow(each) for each in results]
        assert followed[-1].pose_source == source


@given(st.integers(0, 2**31))
def test_nothing_that_comes_out_of_a_network_breaks_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    odometry = VisualOdometry(14, "on")
    for index in range(3):
        size = 42, 56
        depth = np.exp(random.normal(0, random.choice([0.0, 0.1, 10.0]), size)).astype(np.float32)
        depth[random.random(size) < random.choice([0.0, 0.5, 0.99, 1.0])] = np.nan
        points = np.exp(random.normal(0, 5, (*size, 3))).astype(np.float32)
        points[random.random(size) < 0.3] = np.nan
        result = result_with(
            depth * np.float32(random.choice([-1.0, 0.0, 1.0, 1e-20, 1e20])), index=index,
            confidence=1 + random.integers(0, 2, size).astype(np.float32),
            stamp=int(random.integers(-5, 5)) * SECOND, points=points,
            camera_to_world=exp_se3(random.normal(0, random.choice([0.0, 0.1, 3.0]), 6)),
            pose_source=random.choice(["predicted", "held"]),
        )  # fmt: skip
        followed = odometry.follow(result)
        assert followed.motion is not None
        found = told(followed.motion)
        for matrix in (
            followed.camera_to_world, followed.motion.odom_from_camera, found.covariance,
            found.twist, found.twist_covariance,
        ):  # fmt: skip
            assert np.isfinite(matrix).all()
        assert np.all(np.linalg.eigvalsh(found.covariance) >= -1e-6 * np.trace(found.covariance))


def test_a_camera_that_joins_a_rig_late_is_no_more_certain_than_the_others() -> None:
    truth, results = frames(12, pv.Errors(1.0, 0.002))
    odometry = VisualOdometry(4)
    for result in results[:-1]:
        before = odometry.follow(replace(result, camera="front")).motion
    late = odometry.follow(replace(results[-1], camera="rear")).motion
    assert before is not None
    assert late is not None
    assert late.seconds == 0.0
    for one, other in (
        (late.covariance, before.covariance), (late.world_covariance, before.world_covariance)
    ):  # fmt: skip
        assert np.linalg.eigvalsh(one)[0] > 0.0
        assert np.trace(one[3:, 3:]) > np.trace(other[3:, 3:])
    error = log_se3(invert(truth[11]) @ late.odom_from_camera)
    assert error @ np.linalg.solve(late.covariance, error) / 6 < 3.0


def test_inaccuracy_is_not_learned_at_rest() -> None:
    """Wheels that stand say zero, and so do images; what a motion would be off they do not tell."""
    odometry = VisualOdometry(4)
    for _ in range(100):
        odometry.note_true_step(moved(exp_se3(np.full(6, 1e-5))), np.eye(4))
    assert odometry.factors.factors == (1.0, 1.0)
    step = exp_se3(np.array([0.1, 0.0, 0.0, 0.0, 0.0, 0.0]))
    for _ in range(100):
        odometry.note_true_step(moved(step), step)
    assert max(odometry.factors.factors) < 0.1


@pytest.mark.filterwarnings("error")
def test_depth_without_end_is_no_surface() -> None:
    _, results = frames(6, pv.Errors(1.0, 0.002))
    odometry = VisualOdometry(4)
    for result in results:
        depth = result.depth.copy()
        depth[result.index :: 5, ::3] = np.inf
        motion = odometry.follow(replace(result, depth=depth)).motion
        assert motion is not None
        assert np.isfinite(motion.covariance).all()


def test_the_error_of_depth_is_that_of_the_depth() -> None:
    _, results = frames(30, pv.Errors(0.0, 0.0, turn=0.01, way=0.0005), depth_error=0.02)
    odometry = VisualOdometry(4)
    found = [odometry.follow(each).motion for each in results][1:]
    assert np.median([each.depth_error for each in found if each]) == pytest.approx(0.02, rel=0.4)


def test_the_network_s_error_is_what_the_other_does_not_explain() -> None:
    random, error = np.random.default_rng(0), NetworkError()
    other = np.diag([0.03**2] * 3 + [0.02**2] * 3)
    for _ in range(50):
        network = random.standard_normal(6) * ([0.04] * 3 + [0.05] * 3)
        error.note(network + random.standard_normal(6) * ([0.03] * 3 + [0.02] * 3), other)
    way, turn = error.variances()
    assert np.sqrt(way) == pytest.approx(0.04, rel=0.35)
    assert np.sqrt(turn) == pytest.approx(0.05, rel=0.35)
    assert 0.2 < error.other_share < 0.6
