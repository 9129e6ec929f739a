# SPDX-License-Identifier: Apache-2.0
"""Static and moving rigs, with and without an odometry, by numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from motions import rigid

from xsvggt_ros.geometry.rigid import (
    OPTICAL_TO_BODY,
    Matrix,
    RobotPose,
    invert,
    map_from_world,
    placement_of,
)


def _seen(first: Matrix, now: Matrix) -> Matrix:
    """Return what the engine says of a camera that was at ``first`` and is at ``now``."""
    return invert(first) @ now


@given(rigid(), rigid(), rigid(), rigid())
def test_the_base_is_where_it_is_whatever_the_rig_does(
    base_0: Matrix, base_1: Matrix, mount_0: Matrix, mount_1: Matrix
) -> None:
    start, now = RobotPose(mount_0), RobotPose(mount_1)
    world = map_from_world(start)
    estimate = _seen(base_0 @ mount_0, base_1 @ mount_1)
    placed = placement_of(world, estimate, now)
    expected = invert(base_0) @ base_1  # the map begins at the base
    np.testing.assert_allclose(placed.map_from_carrier, expected, atol=1e-9)
    np.testing.assert_allclose(placed.map_from_camera, expected @ mount_1, atol=1e-9)
    np.testing.assert_array_equal(placed.map_from_odom, np.eye(4))
    begin = placement_of(world, np.eye(4), start)
    np.testing.assert_allclose(begin.map_from_carrier, np.eye(4), atol=1e-9)


@given(rigid(), rigid(), rigid(), rigid(), rigid())
def test_with_an_odometry_map_and_odom_part_by_its_drift(
    base_0: Matrix, base_1: Matrix, mount: Matrix, odom_0: Matrix, drift: Matrix
) -> None:
    odom_1 = odom_0 @ invert(base_0) @ base_1 @ drift
    world = map_from_world(RobotPose(mount, odom_0))
    begin = placement_of(world, np.eye(4), RobotPose(mount, odom_0))
    np.testing.assert_allclose(begin.map_from_odom, np.eye(4), atol=1e-9)
    placed = placement_of(world, _seen(base_0 @ mount, base_1 @ mount), RobotPose(mount, odom_1))
    np.testing.assert_allclose(placed.map_from_odom @ odom_1, placed.map_from_carrier, atol=1e-9)
    true = odom_0 @ invert(base_0) @ base_1
    np.testing.assert_allclose(placed.map_from_carrier, true, atol=1e-9)
    np.testing.assert_allclose(placed.map_from_odom, true @ invert(drift) @ invert(true), atol=1e-8)


@given(rigid(), rigid())
def test_a_camera_alone_looks_along_x_or_as_its_odometry_says(odom: Matrix, pose: Matrix) -> None:
    np.testing.assert_array_equal(map_from_world(RobotPose()), OPTICAL_TO_BODY)
    alone = placement_of(OPTICAL_TO_BODY, pose, RobotPose())
    np.testing.assert_allclose(alone.map_from_carrier, OPTICAL_TO_BODY @ pose)
    np.testing.assert_array_equal(alone.map_from_camera, alone.map_from_carrier)
    np.testing.assert_array_equal(map_from_world(RobotPose(None, odom)), odom)


def test_a_camera_that_looks_down_makes_a_map_whose_z_is_up() -> None:
    # A drone: x forward, z up; its camera 0.1 m below looks straight down, top of image forward.
    mount = np.array(
        [[0.0, -1.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, -0.1], [0.0, 0.0, 0.0, 1.0]]
    )
    world = map_from_world(RobotPose(mount))
    below = world @ np.array([0.0, 0.0, 2.0, 1.0])  # two metres along the optical axis
    np.testing.assert_allclose(below[:3], [0.0, 0.0, -2.1], atol=1e-12)
    forward = np.eye(4)
    forward[1, 3] = -0.5  # up in the image is forward
    placed = placement_of(world, forward, RobotPose(mount))
    np.testing.assert_allclose(placed.map_from_carrier[:3, 3], [0.5, 0.0, 0.0], atol=1e-12)
    assert placed.map_from_carrier[2, 2] == pytest.approx(1.0)
