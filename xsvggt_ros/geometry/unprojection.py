# SPDX-License-Identifier: Apache-2.0
"""Depth maps to points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import Intrinsics

Depth = NDArray[np.float32]


def unproject(depth: Depth, intrinsics: Intrinsics) -> NDArray[np.float32]:
    """Return the points of a depth map, float32 [h, w, 3], in the optical frame.

    Pixel centres lie at integer coordinates (VGGT's convention). NaN depth gives NaN points.
    """
    height, width = depth.shape
    points = np.empty((height, width, 3), np.float32)
    rays_x, rays_y = _rays(depth, intrinsics)
    np.multiply(depth, rays_x, out=points[..., 0])
    np.multiply(depth, rays_y, out=points[..., 1])
    points[..., 2] = depth
    return points


def coordinates(depth: Depth, intrinsics: Intrinsics) -> tuple[Depth, Depth, Depth]:
    """Return the same points as three images, x, y and z, float32 [h, w] each."""
    rays_x, rays_y = _rays(depth, intrinsics)
    return depth * rays_x, depth * rays_y, depth


def _rays(depth: Depth, intrinsics: Intrinsics) -> tuple[Depth, Depth]:
    """Return x of each column [w] and y of each row [h, 1], at depth 1."""
    height, width = depth.shape
    rays_x = (np.arange(width, dtype=np.float32) - np.float32(intrinsics.cx)) / np.float32(
        intrinsics.fx
    )
    rays_y = (np.arange(height, dtype=np.float32) - np.float32(intrinsics.cy)) / np.float32(
        intrinsics.fy
    )
    return rays_x, rays_y[:, None]
