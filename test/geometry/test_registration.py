# SPDX-License-Identifier: Apache-2.0
"""Poses from what a frame sees, on exact views with made-up errors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pose_benchmark import pose_benchmark as bench
from pose_benchmark import pose_views as pv

from xsvggt_ros.geometry.registration import (
    LEAST_POINTS,
    PatchPoints,
    points_by_patch,
    register_depths,
    register_points,
)
from xsvggt_ros.geometry.rigid import Matrix, exp_se3, invert, log_se3

EXACT = pv.Errors(0.0, 0.0, along=0.0)
CAMERA = pv.camera(4)


def view(
    pose: Matrix, errors: pv.Errors = EXACT, seed: int = 0
) -> tuple[PatchPoints, NDArray[np.float64], NDArray[np.float32]]:
    """Return chosen pixels, their points in the world, and depth."""
    random = np.random.default_rng(seed)
    depth = pv.room_depth(pose, CAMERA)
    confidence = random.random(depth.shape).astype(np.float32)
    seen = points_by_patch(depth, confidence, CAMERA, 4)
    return seen, pv.point_map(random, pose, depth, CAMERA, errors)[tuple(seen.pixels.T)], depth


def off(degrees: float, way: float) -> Matrix:
    turn = np.radians(degrees) * np.array([0.6, 0.0, 0.8])
    return exp_se3(np.concatenate([way * np.array([0.0, 0.6, 0.8]), turn]))


def test_the_most_confident_pixel_of_each_patch_is_chosen() -> None:
    depth = np.full((5, 7), 2.0, np.float32)
    depth[0, 0] = np.nan
    depth[:2, 4:6] = (np.nan, 0.0), (-1.0, np.inf)
    confidence = np.arange(35, dtype=np.float32).reshape(5, 7)
    confidence[0, 0] = 99.0
    depth[0, 5] = np.nan
    depth[1, 5] = np.nan
    seen = points_by_patch(depth, confidence, pv.camera(), 2)
    assert seen.grid == (2, 3)
    assert seen.cells.tolist() == [0, 1, 3, 4, 5]
    assert seen.pixels.tolist() == [[1, 1], [1, 3], [3, 1], [3, 3], [3, 5]]
    np.testing.assert_allclose(seen.points()[:, 2], 2.0)
    np.testing.assert_allclose(
        seen.points()[0], [2 * (1 - pv.camera().cx) / pv.camera().fx,
                           2 * (1 - pv.camera().cy) / pv.camera().fy, 2.0],
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_exact_points_give_the_exact_pose(seed: int) -> None:
    truth = pv.random_pose(np.random.default_rng(seed))
    seen, points, _ = view(truth)
    start = truth @ off(2.0, 0.1)
    found = register_points(points, seen, start)
    assert found is not None
    np.testing.assert_allclose(found.pose, truth, atol=1e-6)
    assert found.inliers == 1.0
    assert found.cost_fell
    assert found.objection(start) == ""


def test_derivatives_are_those_of_the_residuals() -> None:
    truth = pv.random_pose(np.random.default_rng(3))
    seen, points, _ = view(truth, pv.Errors(1.0, 0.002))
    found = register_points(points, seen, truth)
    assert found is not None
    for axis in range(6):
        ends = []
        for sign in (1.0, -1.0):
            camera_from_world = invert(found.pose @ exp_se3(sign * 1e-6 * np.eye(6)[axis]))
            x, y, z = camera_from_world[:3, :3] @ points.T + camera_from_world[:3, 3:]
            ends.append(np.column_stack([x / z, y / z]))
        np.testing.assert_allclose(found.jacobian[..., axis], (ends[0] - ends[1]) / 2e-6, atol=1e-6)


@pytest.mark.parametrize("cell", range(len(bench.CELLS)))
def test_errors_are_those_of_the_study(cell: int) -> None:
    spread = bench.registered_anywhere(bench.CELLS[cell], 6)
    way, turn = bench.EXPECTED[cell]
    assert spread.way == pytest.approx(way, rel=0.2)
    assert spread.turn == pytest.approx(turn, rel=0.2)


def test_wrong_points_do_not_count() -> None:
    truth = pv.random_pose(np.random.default_rng(5))
    seen, points, _ = view(truth)
    points[::4] += 1.5  # a quarter moves with something else
    start = truth @ off(1.0, 0.05)
    found = register_points(points, seen, start)
    assert found is not None
    error = log_se3(invert(truth) @ found.pose)
    assert np.linalg.norm(error[:3]) < 2e-3
    assert np.degrees(np.linalg.norm(error[3:])) < 0.05
    assert 0.5 < found.inliers < 0.85
    assert found.objection(start) == ""


def test_a_start_that_is_far_off_is_replaced_and_objected_to() -> None:
    truth = pv.random_pose(np.random.default_rng(6))
    seen, points, _ = view(truth)
    start = truth @ off(25.0, 0.5)
    found = register_points(points, seen, start)
    assert found is not None
    np.testing.assert_allclose(found.pose, truth, atol=1e-4)
    assert found.objection(start) == "the change is too large"


def test_points_that_fit_nothing_are_objected_to() -> None:
    truth = pv.random_pose(np.random.default_rng(7))
    seen, points, _ = view(truth)
    random = np.random.default_rng(8)
    shuffled = points[random.permutation(len(points))]
    found = register_points(shuffled, seen, truth)
    assert found is None or "inliers" in found.objection(truth)


def test_too_few_points_are_no_registration() -> None:
    truth = pv.random_pose(np.random.default_rng(9))
    seen, points, _ = view(truth)
    points[LEAST_POINTS - 1 :] = np.nan
    assert register_points(points, seen, truth) is None
    behind = truth @ exp_se3(np.array([0, 0, 0, 0, np.pi, 0.0]))
    other = register_points(view(truth)[1], seen, behind)  # all is behind: RANSAC turns it round
    assert other is not None
    np.testing.assert_allclose(other.pose, truth, atol=1e-4)


@pytest.mark.parametrize("unit", [0.1, 10.0, 1000.0])
def test_the_unit_of_length_is_of_no_consequence(unit: float) -> None:
    random = np.random.default_rng(11)
    truth = pv.random_pose(random)
    errors = pv.Errors(1.0, 0.002)
    seen, points, _ = view(truth, errors)
    start = truth @ off(0.5, 0.02)
    later = truth @ off(2.0, 0.08)
    step = invert(truth) @ later @ off(0.0, 0.03)
    after = pv.room_depth(later, CAMERA)
    metres = register_points(points, seen, start), register_depths(seen, after, CAMERA, step)
    bigger = PatchPoints(seen.grid, seen.cells, seen.pixels, seen.rays, unit * seen.depth)
    units = (
        register_points(unit * points, seen, bench.in_unit(start, unit)),
        register_depths(
            bigger, np.float32(unit) * after, CAMERA, bench.in_unit(step, unit)
        ),
    )  # fmt: skip
    for one, other in zip(metres, units, strict=True):
        assert one is not None
        assert other is not None
        np.testing.assert_allclose(other.pose[:3, :3], one.pose[:3, :3], atol=1e-7)
        np.testing.assert_allclose(other.pose[:3, 3] / unit, one.pose[:3, 3], atol=1e-5)
        assert other.inliers == one.inliers
        assert other.objection(one.pose) in ("", "the change is too large")


def test_two_depth_maps_correct_a_wrong_way() -> None:
    # A camera that sees three walls at once: every direction is determined.
    truth = np.eye(4)
    truth[:3, :3] = exp_se3(np.array([0, 0, 0, 0.45, 0.7, 0.0]))[:3, :3]
    truth[:3, 3] = [1.0, 0.6, 2.0]
    seen, _, _ = view(truth)
    later = truth @ exp_se3(np.array([0.05, 0.0, 0.05, 0.0, 0.02, 0.0]))
    step = invert(truth) @ later
    after = pv.room_depth(later, CAMERA)
    start = step @ exp_se3(np.array([0.04, -0.03, 0.05, 0.0, 0.0, 0.0]))
    found = register_depths(seen, after, CAMERA, start)
    assert found is not None
    assert found.free == (0, 1, 2)
    turned = step @ off(1.0, 0.02)
    whole = register_depths(seen, after, CAMERA, turned, rotate=True)
    assert whole is not None
    assert whole.objection(turned) == ""
    before, now = (log_se3(invert(step) @ pose) for pose in (turned, whole.pose))
    assert np.linalg.norm(now[3:]) < 0.1 * np.linalg.norm(before[3:])
    assert np.linalg.norm(found.pose[:3, 3] - step[:3, 3]) < 0.002
    np.testing.assert_allclose(found.pose[:3, :3], step[:3, :3], atol=1e-12)
    assert found.objection(start) == ""


def test_one_wall_moves_a_pose_only_towards_it() -> None:
    seen, _, depth = view(np.eye(4))  # far wall 4.2 m ahead
    narrow = np.full_like(depth, 4.2)
    start = exp_se3(np.array([0.03, 0.02, 0.05, 0.0, 0.0, 0.0]))
    wall = points_by_patch(narrow, np.ones_like(narrow), CAMERA, 4)
    found = register_depths(wall, narrow, CAMERA, start)
    assert found is not None
    np.testing.assert_allclose(found.pose[:3, 3], [0.03, 0.02, 0.0], atol=1e-5)
    assert seen.grid == wall.grid


def test_maps_without_overlap_are_no_registration() -> None:
    seen, _, depth = view(np.eye(4))
    assert register_depths(seen, np.full_like(depth, np.nan), CAMERA, np.eye(4)) is None
    away = exp_se3(np.array([0, 0, 0, 0, 2.0, 0.0]))
    assert register_depths(seen, depth, CAMERA, away) is None
