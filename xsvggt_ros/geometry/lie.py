# SPDX-License-Identifier: Apache-2.0
"""Rigid motions and their tangent vectors: exponential, logarithm, adjoint.

A tangent vector is ``(rho, theta)``: translation in the unit of the pose, rotation in radians. It
disturbs a pose on the right, ``T Exp(xi)``, so it is expressed in the child frame of the pose.
Formulas: Sola, Deray, Atchuthan, "A micro Lie theory for state estimation in robotics", arXiv
1812.01537, section IV and appendix D.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.rigid import Matrix, quaternion_from_matrix

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
