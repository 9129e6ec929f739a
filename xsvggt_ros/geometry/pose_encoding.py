# SPDX-License-Identifier: Apache-2.0
"""VGGT's nine numbers of a camera: translation, quaternion, two fields of view."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix, matrix_from_quaternion, quaternion_from_matrix


def world_to_camera(encoding: NDArray[np.floating]) -> Matrix:
    """Return the extrinsics [4, 4] of an encoding [9], whose quaternion may have any length."""
    extrinsics = np.eye(4)
    extrinsics[:3, :3] = matrix_from_quaternion(encoding[3:7])
    extrinsics[:3, 3] = encoding[:3]
    return extrinsics


def inverted(encoding: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the encoding [9] of the inverse motion; the quaternion keeps its length.

    Turns camera-to-world, as LingBot-Map says poses, into world-to-camera and back. An encoding
    without a rotation, or that is not finite, is returned as it is.
    """
    if not np.isfinite(encoding).all() or not encoding[3:7].any():
        return encoding
    x, y, z, w = encoding[3:7]
    inverse = np.array([-x, -y, -z, w])
    translation = -matrix_from_quaternion(inverse) @ encoding[:3]
    return np.concatenate([translation, inverse, encoding[7:]]).astype(encoding.dtype)


def intrinsics_from_encoding(encoding: NDArray[np.floating], width: int, height: int) -> Intrinsics:
    """Return the pinhole camera of an encoding [9] whose fields of view lie within (0, pi)."""
    fov_vertical, fov_horizontal = float(encoding[7]), float(encoding[8])
    return Intrinsics(
        fx=width / 2 / math.tan(fov_horizontal / 2),
        fy=height / 2 / math.tan(fov_vertical / 2),
        cx=width / 2,
        cy=height / 2,
        width=width,
        height=height,
    )


def encode(extrinsics: Matrix, intrinsics: Intrinsics) -> NDArray[np.float64]:
    """Return the encoding [9] of world-to-camera ``extrinsics`` [4, 4]; inverse of the above."""
    return np.array(
        [
            *extrinsics[:3, 3],
            *quaternion_from_matrix(extrinsics[:3, :3]),
            2 * math.atan(intrinsics.height / 2 / intrinsics.fy),
            2 * math.atan(intrinsics.width / 2 / intrinsics.fx),
        ]
    )
