# SPDX-License-Identifier: Apache-2.0
"""Rigid motions as float64 4x4 matrices, their tangent vectors, and the frames of a robot.

`a_from_b` is the pose of b in a: it moves points of b into a. The *carrier* is the frame whose pose
is published: the robot's base, or the camera where there is none (REP-105).

A tangent vector is ``(rho, theta)``: translation in the unit of the pose, rotation in radians. It
disturbs a pose on the right, ``T Exp(xi)``, so it is expressed in the child frame of the pose.
Formulas: Sola, Deray, Atchuthan, "A micro Lie theory for state estimation in robotics", arXiv
1812.01537, section IV and appendix D.

Last, the rigid motion or similarity that brings one set of points closest to another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import hypot, isfinite

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
PoseTuple = tuple[float, float, float, float, float, float, float]
"""Translation x, y, z and quaternion x, y, z, w."""

MOST_OFF_UNIT = 0.1
"""By how much the length of a broadcast quaternion may be off 1: far more than rounding."""

OPTICAL_TO_BODY: Matrix = np.array(
    [
        [0.0, 0.0, 1.0, 0.0],
        [-1.0, 0.0, 0.0, 0.0],
        [0.0, -1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
"""Turns optical axes (x right, y down, z forward) into body axes (x forward, y left, z up)."""

ROTATION_TOLERANCE = 0.05
"""By how much an entry of R^T R may differ from the identity; files round to a few digits."""

_TINY_ANGLE = 1e-6
"""Radians below which the sine of an angle is no divisor."""


def world_to_map(camera_to_world: Matrix) -> Matrix:
    """Express a pose [4, 4] in the z-up map, not in the first camera's optical frame.

    The map's origin is the first camera, taken to look along the map's x axis with its image
    upright. The moving frame stays optical.
    """
    return OPTICAL_TO_BODY @ camera_to_world


def transform_points(transform: Matrix, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move points [..., 3] by a rigid ``transform``; NaN stays NaN."""
    rotation = transform[:3, :3].astype(np.float32)
    moved: NDArray[np.float32] = points @ rotation.T + transform[:3, 3].astype(np.float32)
    return moved


def invert(transform: Matrix) -> Matrix:
    """Return the inverse of a rigid transform [4, 4]."""
    rotation = transform[:3, :3].T
    inverse = np.eye(4)
    inverse[:3, :3] = rotation
    inverse[:3, 3] = -rotation @ transform[:3, 3]
    return inverse


def rotation_angle(transform: Matrix) -> float:
    """Return by how much a rigid transform [4, 4] or a rotation [3, 3] turns, 0 to pi radians."""
    return float(rotation_angles(transform[:3, :3]))


def rotation_angles(rotations: Matrix) -> Matrix:
    """Return the angles of rotations [..., 3, 3], 0 to pi radians, [...].

    Sine and cosine of half the angle both take part, so that angles near 0 and near pi are as
    exact as all others; the arc cosine of the trace loses half of the digits there.
    """
    off = rotations - np.eye(3)
    sine = np.sqrt((off * off).sum(axis=(-2, -1)) / 8.0)
    cosine = np.sqrt(np.maximum(1 + np.trace(rotations, axis1=-2, axis2=-1), 0)) / 2
    return np.asarray(2 * np.arctan2(sine, cosine), np.float64)


def apparent_motion(before: Matrix, after: Matrix, distance: float) -> float:
    """Return by how much the image moves from one camera-to-world pose to another.

    Args:
        before: camera-to-world, [4, 4].
        after: the same, later.
        distance: to what is seen, in the poses' unit; without it only the turn counts.

    Returns:
        The turn in radians, plus the way in distances, which for small ones is an angle too.

    """
    moved = invert(before) @ after
    way = float(np.linalg.norm(moved[:3, 3])) / distance if distance > 0 else 0.0
    return rotation_angle(moved) + way


def is_rotation(rotation: Matrix) -> bool:
    """Tell whether a matrix [3, 3] is finite and turns, without scaling, shearing or mirroring."""
    if not np.isfinite(rotation).all():
        return False
    off = np.abs(rotation.T @ rotation - np.eye(3)).max()
    return bool(off <= ROTATION_TOLERANCE and np.linalg.det(rotation) > 0)


def is_pose(pose: Matrix) -> bool:
    """Tell whether a matrix [4, 4] is a finite rigid motion."""
    return bool(np.isfinite(pose).all()) and is_rotation(pose[:3, :3])


def is_position(pose: Matrix) -> bool:
    """Tell whether of a pose [4, 4] the position is known and the rotation, all NaN, is not."""
    return bool(np.isfinite(pose[:3, 3]).all() and np.isnan(pose[:3, :3]).all())


def pose_fault(pose: PoseTuple) -> str | None:
    """Return why seven numbers are no pose, with the remedy; None where they are one."""
    numbers = ", ".join(f"{number:.6g}" for number in pose)
    if not all(map(isfinite, pose)):
        return f"({numbers}), which is not finite, and refused: broadcast finite numbers"
    length = hypot(*pose[3:])
    if abs(length - 1.0) > MOST_OFF_UNIT:
        return (
            f"({numbers}), whose quaternion has the length {length:.3g}, and refused: broadcast a "
            "unit quaternion"
        )
    return None


def pose_from(position: NDArray[np.float64], quaternion: NDArray[np.float64]) -> Matrix:
    """Return the pose [4, 4] of a position [3] and a quaternion x, y, z, w.

    A quaternion of length zero, which files without orientation have, gives a rotation of NaN.
    """
    pose = np.eye(4)
    length = float(np.linalg.norm(quaternion))
    known = np.isfinite(length) and length > _TINY_ANGLE
    pose[:3, :3] = matrix_from_quaternion(quaternion) if known else np.nan
    pose[:3, 3] = position
    return pose


def matrix_from_quaternion(quaternion: NDArray[np.floating]) -> Matrix:
    """Return the rotation [3, 3] of a quaternion (x, y, z, w) of any length but zero."""
    x, y, z, w = (float(component) for component in quaternion)
    s = 2.0 / (x * x + y * y + z * z + w * w)
    return np.array(
        [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
    )


def interpolate(before: Matrix, after: Matrix, share: float) -> Matrix:
    """Return the rigid motion between two, on a straight line at an even turn.

    Args:
        before: [4, 4], at share 0.
        after: [4, 4], at share 1.
        share: 0 to 1.

    """
    q0, q1 = quaternion_from_matrix(before[:3, :3]), quaternion_from_matrix(after[:3, :3])
    if float(q0 @ q1) < 0.0:  # both stand for the same rotation; take the short way
        q1 = -q1
    # The arc cosine of the product would lose half of the digits of small angles.
    angle = 2 * float(np.arctan2(np.linalg.norm(q1 - q0), np.linalg.norm(q1 + q0)))
    if angle < _TINY_ANGLE:
        quaternion = (1.0 - share) * q0 + share * q1
    else:
        weights = np.sin(np.array([1.0 - share, share]) * angle) / np.sin(angle)
        quaternion = weights[0] * q0 + weights[1] * q1
    between = np.eye(4)
    between[:3, :3] = matrix_from_quaternion(quaternion)
    between[:3, 3] = (1.0 - share) * before[:3, 3] + share * after[:3, 3]
    return between


def quaternion_from_matrix(rotation: Matrix) -> Matrix:
    """Return the unit quaternion (x, y, z, w), w >= 0, of a rotation [3, 3].

    The best-conditioned of four equivalent formulas is used, so nothing is divided by little.
    """
    r = rotation
    trace = np.array(
        [
            1 + r[0, 0] - r[1, 1] - r[2, 2],
            1 - r[0, 0] + r[1, 1] - r[2, 2],
            1 - r[0, 0] - r[1, 1] + r[2, 2],
            1 + r[0, 0] + r[1, 1] + r[2, 2],
        ]
    )
    yz, xz, xy = r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]
    sxy, sxz, syz = r[0, 1] + r[1, 0], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1]
    candidates = np.array(
        [
            [trace[0], sxy, sxz, yz],
            [sxy, trace[1], syz, xz],
            [sxz, syz, trace[2], xy],
            [yz, xz, xy, trace[3]],
        ]
    )
    best = candidates[int(trace.argmax())]
    unit: Matrix = best / np.linalg.norm(best)
    return -unit if unit[3] < 0 else unit


Tangent = NDArray[np.float64]

_SMALL_ANGLE = 1e-4
"""Radians below which series are exact to double precision."""


def skew(vector: NDArray[np.floating]) -> Matrix:
    """Return the matrix [3, 3] with ``skew(v) @ w == cross(v, w)``."""
    x, y, z = (float(component) for component in vector)
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def exp_so3(theta: NDArray[np.floating]) -> Matrix:
    """Return the rotation [3, 3] by a rotation vector [3] in radians."""
    first, second, _ = _coefficients(float(np.linalg.norm(theta)))
    turn = skew(theta)
    return np.eye(3) + first * turn + second * turn @ turn


def log_so3(rotation: Matrix) -> Tangent:
    """Return the rotation vector [3], of a length from 0 to pi, of a rotation [3, 3]."""
    quaternion = quaternion_from_matrix(rotation)
    sine = float(np.linalg.norm(quaternion[:3]))
    angle = 2.0 * float(np.arctan2(sine, quaternion[3]))
    factor = angle / sine if sine > _SMALL_ANGLE else 2.0 + sine * sine / 3.0
    return np.asarray(factor * quaternion[:3], np.float64)


def exp_se3(xi: NDArray[np.floating]) -> Matrix:
    """Return the rigid motion [4, 4] of a tangent vector [6]."""
    _, second, third = _coefficients(float(np.linalg.norm(xi[3:])))
    turn = skew(xi[3:])
    motion = np.eye(4)
    motion[:3, :3] = exp_so3(xi[3:])
    motion[:3, 3] = (np.eye(3) + second * turn + third * turn @ turn) @ xi[:3]
    return motion


def log_se3(motion: Matrix) -> Tangent:
    """Return the tangent vector [6] of a rigid motion [4, 4]; inverse of :func:`exp_se3`."""
    theta = log_so3(motion[:3, :3])
    _, second, third = _coefficients(float(np.linalg.norm(theta)))
    turn = skew(theta)
    left = np.eye(3) + second * turn + third * turn @ turn
    return np.concatenate([np.linalg.solve(left, motion[:3, 3]), theta])


def adjoint(motion: Matrix) -> NDArray[np.float64]:
    """Return the matrix [6, 6] with ``T Exp(xi) T^-1 == Exp(adjoint(T) @ xi)``."""
    rotation = motion[:3, :3]
    whole = np.zeros((6, 6))
    whole[:3, :3] = whole[3:, 3:] = rotation
    whole[:3, 3:] = skew(motion[:3, 3]) @ rotation
    return whole


def _coefficients(angle: float) -> tuple[float, float, float]:
    """Return sin(a)/a, (1 - cos(a))/a^2 and (a - sin(a))/a^3."""
    if angle < _SMALL_ANGLE:
        square = angle * angle
        return 1.0 - square / 6.0, 0.5 - square / 24.0, 1.0 / 6.0 - square / 120.0
    sine, cosine = float(np.sin(angle)), float(np.cos(angle))
    return sine / angle, (1.0 - cosine) / angle**2, (angle - sine) / angle**3


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
        map_from_odom: the identity where odometry is this very estimate.
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


def placement_of(
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


def placement_by_odometry(map_from_odom: Matrix, robot: RobotPose) -> Placement:
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


LEAST_SPREAD = 1e-12
"""Squared lengths; points closer together than this have no size that could be compared."""


@dataclass(frozen=True)
class Similarity:
    """``x -> scale * rotation @ x + translation``.

    Attributes:
        scale: never negative; 1 of a rigid motion.
        rotation: float64 [3, 3].
        translation: float64 [3], in the unit of the target.

    """

    scale: float = 1.0
    rotation: Matrix = field(default_factory=lambda: np.eye(3))
    translation: Matrix = field(default_factory=lambda: np.zeros(3))

    def __matmul__(self, other: Similarity) -> Similarity:
        """Return the similarity that applies ``other`` first."""
        return Similarity(
            self.scale * other.scale, self.rotation @ other.rotation, self.points(other.translation)
        )

    def points(self, points: NDArray[np.floating]) -> Matrix:
        """Move points [..., 3]."""
        return np.asarray(self.scale * points @ self.rotation.T + self.translation, np.float64)

    def poses(self, poses: Matrix) -> Matrix:
        """Move camera-to-world poses [..., 4, 4]; they stay rigid, only their places scale."""
        moved = np.array(poses, np.float64)
        moved[..., :3, :3] = self.rotation @ poses[..., :3, :3]
        moved[..., :3, 3] = self.points(poses[..., :3, 3])
        return moved

    def matrix(self) -> Matrix:
        """Return the motion as a matrix [4, 4]."""
        whole = np.eye(4)
        whole[:3, :3] = self.scale * self.rotation
        whole[:3, 3] = self.translation
        return whole


def align(points: NDArray[np.floating], target: NDArray[np.floating], *, scale: bool) -> Similarity:
    """Return the least-squares motion of points [n, 3] onto ``target`` [n, 3].

    Closed form of Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", PAMI 13(4), 1991. Where the points determine no rotation (all on a line, or all in
    one place) one of the best ones is returned; where they have no size, the scale is 1.

    Args:
        points: what is to be moved.
        target: where each of them belongs.
        scale: whether sizes may change (Sim(3)) or not (SE(3)).

    Raises:
        ValueError: other shapes, no points, or numbers that are not finite.

    """
    if points.shape != target.shape or points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise ValueError(f"points {points.shape} and target {target.shape} must both be (n, 3)")
    middle, aim = points.mean(axis=0, dtype=np.float64), target.mean(axis=0, dtype=np.float64)
    a, b = points - middle, target - aim
    covariance = b.T @ a
    if not np.isfinite(covariance).all():
        raise ValueError("points and target must be finite")
    left, sizes, right = np.linalg.svd(covariance)
    signs = np.array([1.0, 1.0, -1.0 if np.linalg.det(left @ right) < 0 else 1.0])
    rotation = left * signs @ right
    spread = float((a * a).sum())
    factor = float((sizes * signs).sum()) / spread if scale and spread > LEAST_SPREAD else 1.0
    return Similarity(factor, rotation, aim - factor * rotation @ middle)


def mean_rotation(rotations: Matrix) -> Matrix:
    """Return the rotation [3, 3] of least squares to rotations [n, 3, 3].

    The chordal mean of Hartley, Trumpf, Dai, Li, "Rotation averaging", IJCV 103, 2013.
    """
    left, _, right = np.linalg.svd(rotations.sum(axis=0))
    sign = 1.0 if np.linalg.det(left @ right) > 0 else -1.0
    return np.asarray(left * np.array([1.0, 1.0, sign]) @ right, np.float64)
