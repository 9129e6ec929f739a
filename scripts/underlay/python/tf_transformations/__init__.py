# SPDX-License-Identifier: Apache-2.0
"""Stand-in for tf_transformations in environments without a ROS 2 distribution.

Of the real one: the identity, quaternions, their matrices and Euler angles. Quaternions are
x, y, z, w; matrices are homogeneous, [4, 4]; angles turn about the axes that stand, in the order of
``sxyz``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import atan2, hypot
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Quaternion: TypeAlias = tuple[float, float, float, float]
Numbers: TypeAlias = Sequence[float] | Array
_EPSILON = 4.0 * np.finfo(float).eps


def identity_matrix() -> Array:
    """Return the identity."""
    return np.identity(4)


def translation_matrix(direction: Numbers) -> Array:
    """Return the matrix that moves by a vector."""
    matrix = np.identity(4)
    matrix[:3, 3] = direction[:3]
    return matrix


def translation_from_matrix(matrix: Any) -> Array:
    """Return the vector that a matrix moves by."""
    return np.array(matrix, copy=True)[:3, 3]


def quaternion_matrix(quaternion: Numbers) -> Array:
    """Return the matrix of a quaternion of any length; of one of length zero, the identity."""
    x, y, z, w = (float(number) for number in quaternion)
    squared = x * x + y * y + z * z + w * w
    matrix = np.identity(4)
    if squared < np.finfo(float).eps:
        return matrix
    s = 2.0 / squared
    matrix[:3, :3] = [
        [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
        [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
        [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
    ]
    return matrix


def quaternion_from_matrix(matrix: Any) -> Quaternion:
    """Return the unit quaternion of a rigid matrix, w not below zero."""
    r = np.asarray(matrix, float)[:3, :3]
    # The eigenvector of the largest eigenvalue is the quaternion that fits best.
    upper = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0.0, 0.0, 0.0],
            [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], 0.0, 0.0],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], 0.0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r.trace()],
        ]
    )
    values, vectors = np.linalg.eigh(upper / 3.0)
    found: Array = vectors[:, int(values.argmax())]
    return _quaternion(-found if found[3] < 0 else found)


def quaternion_from_euler(ai: float, aj: float, ak: float, axes: str = "sxyz") -> Quaternion:
    """Return the quaternion of roll, pitch and yaw."""
    _require_sxyz(axes)
    about = [
        quaternion_about_axis(angle, axis)
        for angle, axis in zip((ai, aj, ak), np.identity(3), strict=True)
    ]
    return quaternion_multiply(about[2], quaternion_multiply(about[1], about[0]))


def euler_from_quaternion(quaternion: Numbers, axes: str = "sxyz") -> tuple[float, float, float]:
    """Return roll, pitch and yaw of a quaternion."""
    return euler_from_matrix(quaternion_matrix(quaternion), axes)


def euler_from_matrix(matrix: Any, axes: str = "sxyz") -> tuple[float, float, float]:
    """Return roll, pitch and yaw of a matrix."""
    _require_sxyz(axes)
    r = np.asarray(matrix, float)[:3, :3]
    level = hypot(r[0, 0], r[1, 0])
    if level > _EPSILON:
        return atan2(r[2, 1], r[2, 2]), atan2(-r[2, 0], level), atan2(r[1, 0], r[0, 0])
    return atan2(-r[1, 2], r[1, 1]), atan2(-r[2, 0], level), 0.0


def euler_matrix(ai: float, aj: float, ak: float, axes: str = "sxyz") -> Array:
    """Return the matrix of roll, pitch and yaw."""
    return quaternion_matrix(quaternion_from_euler(ai, aj, ak, axes))


def quaternion_about_axis(angle: float, axis: Numbers) -> Quaternion:
    """Return the quaternion of a turn about an axis of any length."""
    direction = np.asarray(axis, float)
    direction = direction / np.linalg.norm(direction)
    return _quaternion([*(direction * np.sin(angle / 2.0)), np.cos(angle / 2.0)])


def quaternion_multiply(quaternion1: Numbers, quaternion0: Numbers) -> Quaternion:
    """Return the turn by ``quaternion0``, then by ``quaternion1``."""
    ax, ay, az, aw = quaternion1
    bx, by, bz, bw = quaternion0
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def quaternion_conjugate(quaternion: Numbers) -> Array:
    """Return the quaternion of the turn back, of the same length."""
    x, y, z, w = quaternion
    return np.array([-x, -y, -z, w])


def quaternion_inverse(quaternion: Numbers) -> Array:
    """Return the quaternion that undoes another one of any length."""
    return np.asarray(quaternion_conjugate(quaternion) / np.dot(quaternion, quaternion))


def quaternion_slerp(
    quat0: Numbers,
    quat1: Numbers,
    fraction: float,
    spin: int = 0,
    shortestpath: bool = True,
) -> Array:
    """Return the quaternion between two, turned evenly."""
    first: Array = np.asarray(quat0[:4], float) / np.linalg.norm(quat0[:4])
    second: Array = np.asarray(quat1[:4], float) / np.linalg.norm(quat1[:4])
    if fraction in (0.0, 1.0):
        return second if fraction else first
    cosine = float(first @ second)
    if abs(abs(cosine) - 1.0) < _EPSILON:
        return first
    if shortestpath and cosine < 0.0:
        cosine, second = -cosine, -second
    angle = float(np.arccos(cosine)) + spin * np.pi
    if abs(angle) < _EPSILON:
        return first
    weights = np.sin([(1.0 - fraction) * angle, fraction * angle]) / np.sin(angle)
    return np.asarray(weights[0] * first + weights[1] * second)


def inverse_matrix(matrix: Any) -> Array:
    """Return the inverse of a matrix."""
    return np.linalg.inv(matrix)


def concatenate_matrices(*matrices: Any) -> Array:
    """Return the product of matrices."""
    product = np.identity(4)
    for matrix in matrices:
        product = product @ matrix
    return product


def _quaternion(numbers: Numbers) -> Quaternion:
    """Return four numbers as the tuple that the real functions return."""
    x, y, z, w = (float(number) for number in numbers)
    return x, y, z, w


def _require_sxyz(axes: str) -> None:
    if axes != "sxyz":
        raise NotImplementedError(
            f"this stand-in knows Euler angles of axes sxyz alone, not {axes}; "
            "source a ROS 2 distribution for the others"
        )
