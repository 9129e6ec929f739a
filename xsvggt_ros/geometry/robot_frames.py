# SPDX-License-Identifier: Apache-2.0
"""From the pose of a camera in its session's world to the frames of a robot (REP-105).

`a_from_b` is the pose of b in a: it moves points of b into a. The *carrier* is the frame whose pose
is published: the robot's base, or the camera where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xsvggt_ros.geometry.rigid import OPTICAL_TO_BODY, Matrix, invert


@dataclass(frozen=True, slots=True)
class RobotPose:
    """What other nodes know of the robot at the time of one frame.

    Attributes:
        carrier_from_camera: [4, 4]; None where the camera is its own carrier.
        odom_from_carrier: [4, 4] by somebody else's odometry; None where there is none.

    """

    carrier_from_camera: Matrix | None = None
    odom_from_carrier: Matrix | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything is at the time of one frame, [4, 4] each.

    Attributes:
        map_from_camera: of the optical frame.
        map_from_carrier: of the robot's base, or of the camera.
        map_from_odom: the identity where odometry is this very estimate, until its world jumps.
        odom_from_carrier: by the odometry, which never jumps.

    """

    map_from_camera: Matrix
    map_from_carrier: Matrix
    map_from_odom: Matrix
    odom_from_carrier: Matrix


def map_from_world(first: RobotPose) -> Matrix:
    """Return ``map_from_world`` [4, 4]: a session's world is its first camera, the map is z-up.

    With an odometry, map and odom coincide at that moment. Without one, the map's origin is the
    robot's base there, whose z is up. A camera alone is taken to look along x, image upright.
    """
    if first.odom_from_carrier is not None:
        return first.odom_from_carrier @ _camera(first)
    if first.carrier_from_camera is not None:
        return first.carrier_from_camera
    return OPTICAL_TO_BODY


def place(
    map_from_world: Matrix,
    world_from_camera: Matrix,
    robot: RobotPose,
    odom_from_camera: Matrix | None = None,
) -> Placement:
    """Return where everything is.

    Args:
        map_from_world: [4, 4].
        world_from_camera: the camera's pose in the session's world, [4, 4].
        robot: what other nodes know.
        odom_from_camera: the same by steps alone, [4, 4]: it began like the world, and does not
            jump where the world does; None = the world does not jump.

    """
    camera = map_from_world @ world_from_camera
    carrier = camera @ invert(_camera(robot))
    odom_from_carrier = robot.odom_from_carrier
    if odom_from_carrier is None:
        if odom_from_camera is None or np.array_equal(odom_from_camera, world_from_camera):
            return Placement(camera, carrier, np.eye(4), carrier)
        odom_from_carrier = map_from_world @ odom_from_camera @ invert(_camera(robot))
    return Placement(camera, carrier, carrier @ invert(odom_from_carrier), odom_from_carrier)


def place_by_odometry(map_from_odom: Matrix, robot: RobotPose) -> Placement:
    """Return where everything is by the odometry alone, which must be known.

    ``map_from_odom`` is [4, 4].
    """
    assert robot.odom_from_carrier is not None
    carrier = map_from_odom @ robot.odom_from_carrier
    return Placement(carrier @ _camera(robot), carrier, map_from_odom, robot.odom_from_carrier)


def camera_pose(carrier: Matrix, robot: RobotPose) -> Matrix:
    """Return the camera's pose [4, 4], in the frame in which ``carrier`` [4, 4] is given."""
    return carrier @ _camera(robot)


def _camera(robot: RobotPose) -> Matrix:
    return np.eye(4) if robot.carrier_from_camera is None else robot.carrier_from_camera
